"""The PPO update against hand values, and the agent around it."""

import math

import pytest
import torch

from kfnas.controller.agents import Draw, Scored
from kfnas.controller.config import PolicyConfig, PPOConfig, SearchConfig
from kfnas.controller.ppo import PPOAgent, clipped_surrogate, normalised_advantages
from kfnas.errors import SpaceError
from kfnas.space import Space

SPACE = Space.from_decisions({f"decision{index}": [0, 1, 2] for index in range(5)})
SMALL = PolicyConfig(hidden_units=16)


def _agent(space: Space = SPACE, seed: int = 0, policy: PolicyConfig = SMALL, **ppo: float) -> PPOAgent:
    return PPOAgent(space, SearchConfig(policy=policy, ppo=PPOConfig(**ppo)), seed)  # type: ignore[arg-type]


def _nothing_known(_tokens: tuple[int, ...]) -> bool:
    return False


def test_advantages_have_zero_mean_and_unit_deviation() -> None:
    advantages = normalised_advantages(torch.tensor([1.0, 2.0, 3.0, 6.0], dtype=torch.float64))
    root = math.sqrt(3.5)  # mean 3; squares of the differences 4, 1, 0, 9; their mean 3.5
    assert advantages.tolist() == pytest.approx([-2 / root, -1 / root, 0.0, 3 / root])


@pytest.mark.parametrize("rewards", [[0.9, 0.9, 0.9], [0.0, 0.0], [-4.0, -4.0], [65.1] * 16])
def test_advantages_of_a_batch_without_variance_are_zero(rewards: list[float]) -> None:
    assert normalised_advantages(torch.tensor(rewards, dtype=torch.float64)).tolist() == [0.0] * len(rewards)


@pytest.mark.parametrize(
    ("ratio", "advantage", "expected"),
    [(1.0, 2.0, 2.0), (1.1, 2.0, 2.2), (1.5, 2.0, 2.4), (0.5, 2.0, 1.0), (1.5, -2.0, -3.0), (0.5, -2.0, -1.6), (0.9, -2.0, -1.8)],
)
def test_clipped_surrogate_equals_the_hand_value(ratio: float, advantage: float, expected: float) -> None:
    log_prob, old = torch.tensor([math.log(ratio) - 3.0]), torch.tensor([-3.0])
    assert clipped_surrogate(log_prob, old, torch.tensor([advantage]), 0.2).item() == pytest.approx(expected, rel=1e-5)


def test_clipped_samples_give_no_gradient() -> None:
    log_prob = torch.tensor([math.log(1.5), math.log(0.5), math.log(1.1)], requires_grad=True)
    clipped_surrogate(log_prob, torch.zeros(3), torch.tensor([1.0, -1.0, 1.0]), 0.2).sum().backward()
    assert log_prob.grad is not None
    assert log_prob.grad.tolist() == pytest.approx([0.0, 0.0, 1.1])


def test_stored_log_prob_equals_reevaluation_at_unchanged_weights() -> None:
    agent = _agent()
    draws = agent.propose(32, _nothing_known)
    again = agent.policy(torch.tensor([draw.tokens for draw in draws])).log_prob
    assert [draw.log_prob for draw in draws] == pytest.approx(again.tolist(), abs=1e-5)


def test_an_update_makes_rewarded_draws_likelier() -> None:
    agent = _agent(entropy=0.0)
    draws = agent.propose(16, _nothing_known)
    batch = [Scored(draw, float(draw.tokens[0] == 2)) for draw in draws]
    agent.learn(batch, 0.0)
    after = agent.policy(torch.tensor([draw.tokens for draw in draws])).log_prob.tolist()
    moved = [new - (item.draw.log_prob or 0.0) for new, item in zip(after, batch, strict=True)]
    rewarded = [change for change, item in zip(moved, batch, strict=True) if item.reward == 1.0]
    others = [change for change, item in zip(moved, batch, strict=True) if item.reward == 0.0]
    assert min(rewarded) > 0
    assert sum(others) < 0


def test_without_entropy_a_batch_of_equal_rewards_changes_nothing() -> None:
    agent = _agent(entropy=0.0)
    before = agent.state().arrays
    agent.learn([Scored(draw, 0.5) for draw in agent.propose(8, _nothing_known)], 0.0)
    after = agent.state().arrays
    assert all((before[name] == after[name]).all() for name in before if name.startswith("policy."))


def test_entropy_weight_runs_to_its_end_over_the_horizon() -> None:
    config = SearchConfig(horizon=100, policy=SMALL, ppo=PPOConfig(entropy=0.04, entropy_end=0.0))
    agent = PPOAgent(SPACE, config, 0)
    weights = [agent.learn([Scored(draw, 0.5) for draw in agent.propose(4, _nothing_known)], progress)["policy/entropy_weight"] for progress in (0, 0.5, 1)]
    assert weights == pytest.approx([0.04, 0.02, 0.0])


def test_entropy_weight_rises_while_draws_are_known_and_falls_back() -> None:
    agent = _agent(policy=PolicyConfig(hidden_units=16, redraws=0), entropy=0.01)
    weights = []
    for known in (True, True, False, False, False):
        draws = agent.propose(8, lambda _tokens, known=known: known)  # type: ignore[misc]
        weights.append(agent.learn([Scored(draw, 0.5) for draw in draws], 0.0)["policy/entropy_weight"])
    assert weights == pytest.approx([0.013, 0.0169, 0.013, 0.01, 0.01])


def test_known_draws_are_redrawn_before_they_fill_the_batch() -> None:
    known = {(first, second, 0, 0, 0) for first in range(3) for second in range(3)}
    draws = _agent().propose(64, lambda tokens: tokens in known)
    assert not {draw.tokens for draw in draws} & known
    tiny = Space.from_decisions({"a": [0, 1], "b": [0, 1]})
    draws = _agent(tiny).propose(16, lambda tokens: tokens == (0, 0))
    assert len(draws) == 16
    assert {draw.tokens for draw in draws[:3]} == {(0, 1), (1, 0), (1, 1)}


def test_invalid_draws_are_rejected() -> None:
    space = Space.from_decisions({f"decision{index}": [0, 1, 2] for index in range(5)}, is_valid=lambda choices: sum(choices.values()) % 7 == 3)  # type: ignore[arg-type]
    draws = _agent(space).propose(16, _nothing_known)
    assert len(draws) == 16
    assert all(sum(draw.tokens) % 7 == 3 for draw in draws)


def test_a_space_without_valid_draws_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kfnas.controller.ppo.MAX_ATTEMPTS", 3)
    space = Space.from_decisions({"a": [0, 1]}, is_valid=lambda _choices: False)
    with pytest.raises(SpaceError, match="is valid"):
        _agent(space).propose(4, _nothing_known)


def test_restored_agent_goes_on_identically() -> None:
    first, second = _agent(seed=1), _agent(seed=2)
    first.learn([Scored(draw, sum(draw.tokens)) for draw in first.propose(8, _nothing_known)], 0.0)
    second.restore(first.state())
    for agent in (first, second):
        agent.learn([Scored(draw, sum(draw.tokens)) for draw in agent.propose(8, _nothing_known)], 0.0)
    left, right = first.state(), second.state()
    assert left.values == right.values
    assert all((left.arrays[name] == right.arrays[name]).all() for name in left.arrays)


def test_a_batch_of_one_is_not_learnt_from() -> None:
    agent = _agent()
    assert agent.learn([Scored(Draw((0, 0, 0, 0, 0), -5.0), 1.0)], 0.0) == {}


def test_a_replayed_draw_far_from_nearly_equal_new_ones_has_a_bounded_advantage() -> None:
    advantages = normalised_advantages(torch.tensor([0.9, 0.90001, 0.5], dtype=torch.float64), torch.tensor([True, True, False]))
    assert advantages.tolist() == pytest.approx([-1.0, 1.0, -5.0])


@pytest.mark.parametrize("advantage", [1.0, -1.0])
def test_a_ratio_beyond_what_floats_hold_gives_finite_gradients(advantage: float) -> None:
    log_prob = torch.tensor([-1.0], requires_grad=True)
    clipped_surrogate(log_prob, torch.tensor([-92.0]), torch.tensor([advantage]), 0.2).sum().backward()
    assert log_prob.grad is not None
    assert torch.isfinite(log_prob.grad).all()
