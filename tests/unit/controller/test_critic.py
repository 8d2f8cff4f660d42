"""V and U: their losses against closed forms, what they learn, and when they may be trusted."""

from itertools import product

import numpy as np
import pytest
import torch

from kfnas.controller.agents import AgentState, Draw, Scored, Tokens
from kfnas.controller.config import CriticConfig, ThresholdConfig
from kfnas.controller.critic import Critic, Networks, uncertainty_loss, value_loss
from kfnas.controller.evidence import PriorSamples, prior_samples
from kfnas.controller.knowledge import KnownSample, critic_weights
from kfnas.controller.reward import RewardConfig
from kfnas.space import Space

SPACE = Space.from_decisions({f"decision{index}": [0, 1, 2] for index in range(5)})
ALL = list(product(range(3), repeat=5))
SMALL = CriticConfig(hidden_units=16, min_samples=8, fit_steps=20)


def _true(tokens: Tokens) -> float:
    return 10.0 + 2.0 * tokens[0] - tokens[1] + 0.5 * tokens[4]


def _evidence(architectures: list[Tokens], rewards: list[float] | None = None) -> list[tuple[Tokens, Scored]]:
    """Trained draws."""
    given = [_true(tokens) for tokens in architectures] if rewards is None else rewards
    return [(tokens, Scored(Draw(tokens), reward)) for tokens, reward in zip(architectures, given, strict=True)]


def _sample(count: int, seed: int = 0) -> list[Tokens]:
    return [ALL[index] for index in np.random.default_rng(seed).choice(len(ALL), size=count, replace=False)]


def _prior(rewards: list[float] | None = None) -> PriorSamples:
    """Half of the space, of another task: rewards on another scale, or those given."""
    architectures = _sample(120, seed=9)
    given = [3.0 * _true(tokens) - 50.0 for tokens in architectures] if rewards is None else rewards
    return prior_samples([KnownSample(tokens, value, None, 1.0, "other") for tokens, value in zip(architectures, given, strict=True)], RewardConfig())


def test_the_losses_equal_their_hand_values() -> None:
    value, reward, uncertainty = torch.tensor([1.0, 2.0, 5.0]), torch.tensor([1.5, 2.0, 1.0]), torch.tensor([0.25, 1.0, 6.0])
    error = value_loss(value, reward)
    assert error.tolist() == [0.5, 0.0, 4.0]
    assert uncertainty_loss(uncertainty, error).tolist() == [0.25, 1.0, 2.0]


def test_no_gradient_of_the_uncertaintys_loss_reaches_v() -> None:
    value = torch.tensor([1.0, 2.0], requires_grad=True)
    uncertainty = torch.tensor([3.0, 0.0], requires_grad=True)
    uncertainty_loss(uncertainty, value_loss(value, torch.zeros(2))).sum().backward()
    assert value.grad is None
    assert uncertainty.grad is not None
    assert uncertainty.grad.tolist() == [1.0, -1.0]


def test_v_and_u_share_no_weight() -> None:
    networks = Networks(2, 6, CriticConfig(hidden_units=7), torch.Generator().manual_seed(0))
    networks(torch.rand(4, 6))[1].sum().backward()
    for parameter in networks.parameters():
        assert parameter.grad is not None
        assert not parameter.grad[0].any()
        assert parameter.grad[1].any()


def test_a_network_equals_four_linear_layers_with_prelu_between_them() -> None:
    networks = Networks(2, 6, CriticConfig(hidden_units=7), torch.Generator().manual_seed(0))
    features = torch.randn(5, 6, generator=torch.Generator().manual_seed(1))
    assert len(networks.weights) == 4
    assert len(networks.slopes) == 3
    hidden = features
    for layer in range(4):
        hidden = torch.nn.functional.linear(hidden, networks.weights[layer][1].T, networks.biases[layer][1, 0])
        if layer < 3:
            hidden = torch.nn.functional.prelu(hidden, networks.slopes[layer][1, 0])
    assert networks(features)[1].tolist() == pytest.approx(hidden[:, 0].tolist(), rel=1e-5)


def test_v_learns_rewards_in_their_own_unit() -> None:
    critic = Critic(SPACE, SMALL, seed=0)
    for start in range(0, 60, 6):
        critic.learn(_evidence(_sample(60)[start : start + 6]))
    scores = critic.score(ALL)
    assert scores is not None
    truth = np.array([_true(tokens) for tokens in ALL])
    assert np.abs(scores.value - truth).mean() < 0.3 * np.abs(truth - truth.mean()).mean()


def test_u_learns_where_v_errs() -> None:
    # Rewards are exact where the first token is 0, and a coin's throw of 3 up or down where it is 2: no V can learn those.
    rng = np.random.default_rng(0)
    architectures = [tokens for tokens in ALL if tokens[0] != 1] * 3
    rewards = [float(tokens[1]) if tokens[0] == 0 else float(rng.choice([-3.0, 3.0])) for tokens in architectures]
    critic = Critic(SPACE, CriticConfig(hidden_units=16, fit_steps=60), seed=0)
    critic.learn(_evidence(architectures, rewards=rewards))
    scores = critic.score(ALL)
    assert scores is not None
    exact = np.array([tokens[0] == 0 for tokens in ALL])
    noisy = np.array([tokens[0] == 2 for tokens in ALL])
    assert scores.uncertainty[noisy].mean() > 2 * scores.uncertainty[exact].mean()


def test_a_critic_that_has_learnt_nothing_says_nothing() -> None:
    critic = Critic(SPACE, SMALL, seed=0)
    assert critic.score(ALL) is None
    critic.learn([])
    critic.learn(_evidence(_sample(1)))
    assert critic.score(ALL) is None
    assert not critic.is_calibrated


def test_a_cold_critic_is_trusted_from_min_samples_on() -> None:
    critic = Critic(SPACE, SMALL, seed=0)
    trusted = []
    for start in range(0, 12, 2):
        critic.learn(_evidence(_sample(12)[start : start + 2]))
        trusted.append(critic.is_calibrated)
    assert trusted == [False, False, False, True, True, True]


def test_a_fixed_threshold_is_in_deviations_of_the_rewards_seen() -> None:
    critic = Critic(SPACE, SMALL.model_copy(update={"threshold": ThresholdConfig(fixed=0.5)}), seed=0)
    critic.learn(_evidence(_sample(4), rewards=[1.0, 1.0, 5.0, 5.0]))
    assert critic.threshold(np.array([7.0])) == pytest.approx(1.0)


def test_a_quantile_threshold_is_that_of_the_uncertainties_given() -> None:
    critic = Critic(SPACE, SMALL.model_copy(update={"threshold": ThresholdConfig(quantile=0.25)}), seed=0)
    assert critic.threshold(np.array([4.0, 0.0, 1.0, 2.0, 3.0])) == pytest.approx(1.0)


def test_a_prior_is_trusted_once_it_agrees_and_predicts_on_the_new_tasks_scale() -> None:
    critic = Critic(SPACE, SMALL.model_copy(update={"min_samples": 16}), seed=0, prior=_prior())
    critic.prepare()
    assert critic.score(ALL) is None  # the size of the new task's rewards is not known yet
    critic.learn(_evidence(_sample(4)))
    assert not critic.is_calibrated  # four in the same order are 1.7 standard errors
    for seed in (1, 2):
        critic.learn(_evidence(_sample(4, seed)))
    assert critic.is_calibrated
    assert critic.has_prior
    scores = critic.score(ALL)
    assert scores is not None
    truth = np.array([_true(tokens) for tokens in ALL])
    assert np.corrcoef(scores.value, truth)[0, 1] > 0.9
    assert np.abs(scores.value - truth).mean() < 0.5 * np.abs(truth - truth.mean()).mean()


def test_a_misleading_prior_is_given_up_and_the_critic_starts_afresh() -> None:
    architectures = _sample(120, seed=9)
    critic = Critic(SPACE, SMALL, seed=0, prior=_prior([-_true(tokens) for tokens in architectures]))
    critic.prepare()
    start = critic.networks
    for seed in range(2):
        assert not critic.is_calibrated
        critic.learn(_evidence(_sample(4, seed)))
    assert not critic.has_prior
    assert critic.networks is not start
    assert critic.is_calibrated  # on 8 samples of its own, as a fresh one
    scores = critic.score(ALL)
    assert scores is not None
    assert np.corrcoef(scores.value, [_true(tokens) for tokens in ALL])[0, 1] > 0.3


def test_a_prior_teaches_u_nothing_once_there_are_own_errors() -> None:
    critic = Critic(SPACE, SMALL, seed=0, prior=_prior())
    critic.learn(_evidence(_sample(4)))
    _, _, chances, own = critic._training_set()
    assert own.sum() == 4
    assert chances[own == 1].tolist() == [1.0] * 4
    assert chances[own == 0].sum().item() == pytest.approx(SMALL.prior_weight)


def test_the_weights_of_an_earlier_critic_are_taken_over_and_those_of_another_shape_are_not() -> None:
    donor = Critic(SPACE, SMALL, seed=1)
    donor.learn(_evidence(_sample(20)))
    state = donor.state()
    weights = critic_weights(AgentState({"critic": state.values}, {f"critic.{name}": value for name, value in state.arrays.items()}))
    assert weights["v.0.weights"].shape == (16, 16)
    heir = Critic(SPACE, SMALL, seed=2, prior=_prior(), weights=weights)
    assert all(torch.equal(left, right) for left, right in zip(heir.networks.parameters(), donor.networks.parameters(), strict=True))
    narrow = SMALL.model_copy(update={"hidden_units": 8})
    own, given = (Critic(SPACE, narrow, seed=2, prior=_prior(), weights=item) for item in (None, weights))
    assert all(torch.equal(left, right) for left, right in zip(own.networks.parameters(), given.networks.parameters(), strict=True))


def test_v_is_told_whether_a_child_starts_from_a_pool() -> None:
    architectures = _sample(40)
    critic = Critic(SPACE, CriticConfig(hidden_units=16, fit_steps=60), seed=0)
    cold = _evidence(architectures[:20], rewards=[0.0] * 20)
    warm = [(tokens, Scored(item.draw, 1.0, initialisation="pool:abc")) for tokens, item in _evidence(architectures[20:])]
    critic.learn(cold + warm)
    as_cold, as_warm = critic.score(ALL), critic.score(ALL, "pool:abc")
    assert as_cold is not None
    assert as_warm is not None
    assert as_warm.value.mean() - as_cold.value.mean() > 0.5


def test_a_restored_critic_goes_on_identically() -> None:
    first, second = Critic(SPACE, SMALL, seed=1, prior=_prior()), Critic(SPACE, SMALL, seed=2, prior=_prior())
    first.learn(
        _evidence(
            _sample(5),
        )
    )
    second.restore(first.state())
    for critic in (first, second):
        critic.learn(_evidence(_sample(5, 1)))
    left, right = first.state(), second.state()
    assert left.values == right.values
    assert left.arrays.keys() == right.arrays.keys()
    assert all(np.array_equal(left.arrays[name], right.arrays[name], equal_nan=True) for name in left.arrays if name != "generator")
    assert (left.arrays["generator"] == right.arrays["generator"]).all()


@pytest.mark.parametrize("threshold", [{}, {"quantile": 0.5, "fixed": 0.1}])
def test_a_threshold_has_exactly_one_mode(threshold: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="one of quantile and fixed"):
        ThresholdConfig(**threshold)
