"""Searches with the paper's critic and the buffer: what a round is made of, what enters what, and what survives."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from kfnas.config import parse
from kfnas.controller import Candidate, Result, Row, Search, SearchConfig
from kfnas.controller.agents import Draw, Scored
from kfnas.controller.fnas import FNASAgent
from kfnas.controller.ppo import PPOAgent, clipped_surrogate, normalised_advantages
from kfnas.errors import ResultError, SearchExhausted
from kfnas.space import Space

AGENTS = ["mnas+uac", "mnas+aeb", "fnas"]
SPACE = Space.from_decisions({f"decision{index}": [0, 1, 2] for index in range(9)})
CRITIC = {"model": "networks", "threshold_draws": 128, "hidden_units": 16, "min_samples": 16, "fit_steps": 4, "audit_share": 0.0}


def _search(agent: str = "fnas", seed: int = 0, **fields: object) -> Search:
    critic = {**CRITIC, **fields.pop("critic", {})}  # type: ignore[dict-item]
    values = {"agent": agent, "batch_size": 16, "policy": {"hidden_units": 16}, "critic": critic, "horizon": 400, **fields}
    return Search(SPACE, parse(SearchConfig, values), seed=seed)


def _answer(candidate: Candidate, initialisation: str = "random") -> Result:
    noise = 0.02 * np.random.default_rng(candidate.seed).standard_normal()
    return Result(candidate.id, accuracy=sum(candidate.tokens) / 18 + noise, initialisation=initialisation)


def _rounds(search: Search, count: int) -> Search:
    for _ in range(count):
        search.update([_answer(candidate) for candidate in search.suggest()])
    return search


def _agent(agent: str = "fnas", seed: int = 0) -> FNASAgent:
    return FNASAgent(SPACE, parse(SearchConfig, {"agent": agent, "policy": {"hidden_units": 16}, "critic": CRITIC, "horizon": 100}), seed)


def _of_round(search: Search, number: int) -> list[Row]:
    return [row for row in search.rows if row.round == number]


def test_a_warm_round_of_all_modules_trains_about_a_quarter() -> None:
    search = _rounds(_search(), 20)
    rows = [row for row in search.rows if row.round >= 8]
    shares = {source: sum(row.source == source for row in rows) / len(rows) for source in ("exploited", "trusted", "policy")}
    assert shares["exploited"] == 0.5
    assert 0.15 <= shares["trusted"] <= 0.25
    assert 0.25 <= shares["policy"] <= 0.35
    assert all(len(_of_round(search, number)) == 16 for number in range(20))


@pytest.mark.parametrize("fields", [{}, {"critic": {"model": "bayesian"}}, {"preset": "paper", "critic": {"threshold": {"fixed": 0.5}}}])
@pytest.mark.parametrize("agent", AGENTS)
def test_both_halves_of_a_batch_keep_to_their_limits_in_every_round(agent: str, fields: dict[str, object]) -> None:
    search = _rounds(_search(agent, **fields), 12)
    assert agent == "mnas+aeb" or any(row.source == "trusted" for row in search.rows)
    trained = 0
    for number in range(12):
        rows = _of_round(search, number)
        exploited = [row for row in rows if row.source == "exploited"]
        new = len(rows) - len(exploited)
        assert len(exploited) == (0 if agent == "mnas+uac" else min(8, 10, trained))
        assert sum(row.source == "trusted" for row in rows) <= new // 2
        trained += sum(row.is_activated for row in rows)


def test_a_cold_start_trusts_nothing() -> None:
    search = _rounds(_search("mnas+uac", critic={"min_samples": 40}), 4)
    for number in range(4):
        before = sum(row.is_activated for row in search.rows if row.round < number)
        assert any(row.source == "trusted" for row in _of_round(search, number)) == (before >= 40)


def test_a_threshold_above_all_trusts_half_and_one_below_all_nothing() -> None:
    for fixed, expected in ((1e9, 8), (0.0, 0)):
        search = _rounds(_search("mnas+uac", critic={"threshold": {"fixed": fixed}, "max_resamples": 2}), 5)
        trusted = [sum(row.source == "trusted" for row in _of_round(search, number)) for number in range(1, 5)]
        assert trusted == [expected] * 4, fixed


def test_resampling_ends_with_the_most_uncertain_where_all_are_certain(monkeypatch: pytest.MonkeyPatch) -> None:
    search = _rounds(_search("mnas+uac", critic={"threshold": {"fixed": 1e9}, "max_resamples": 20}), 2)
    drawn: list[int] = []
    sample = PPOAgent.sample

    def counted(agent: PPOAgent, count: int) -> list[tuple[int, ...]]:
        tokens = sample(agent, count)
        drawn.append(len(tokens))
        return tokens

    monkeypatch.setattr(PPOAgent, "sample", counted)
    batch = search.suggest()
    # 21 batches of 16, drawn 128 at a time.
    assert sum(drawn) == 384
    search.update([_answer(candidate) for candidate in batch])
    trained = [row.uncertainty or 0.0 for row in _of_round(search, 2) if row.source == "policy"]
    trusted = [row.uncertainty or 0.0 for row in _of_round(search, 2) if row.source == "trusted"]
    assert len(trained) == len(trusted) == 8
    assert min(trained) > max(0.0, float(np.mean(trusted)))


def test_trusted_rows_have_the_critics_word_for_a_reward_and_nothing_else() -> None:
    search = _rounds(_search("mnas+uac"), 8)
    trusted = [row for row in search.rows if row.source == "trusted"]
    assert trusted
    for row in trusted:
        assert (row.accuracy, row.cost, row.status, row.is_activated) == (None, None, "ok", False)
        assert row.reward == row.value
    assert search.num_activated == sum(row.source == "policy" for row in search.rows)
    with pytest.raises(ResultError, match="never handed out"):
        search.update([Result(trusted[0].id, accuracy=0.5)])


def test_trusted_samples_enter_neither_critic_nor_buffer_nor_best_nor_knowledge() -> None:
    search = _rounds(_search(critic={"threshold": {"fixed": 1e9}}), 10)
    trained = {row.id: row for row in search.rows if row.is_activated}
    assert any(row.source == "trusted" for row in search.rows)
    state = search._live_agent().state()
    assert len(state.arrays["critic.own.rewards"]) == len(trained)
    assert state.arrays["critic.own.rewards"].tolist() == pytest.approx([row.reward for row in trained.values()])
    assert {entry["id"] for entry in state.values["experience"]["entries"]} <= set(trained)
    assert search.best().id in trained
    assert {row.id for row in search.pareto(("accuracy",))} <= set(trained)
    assert len(search.knowledge().samples) == len(trained)


def test_failed_and_infeasible_children_enter_neither_critic_nor_buffer() -> None:
    search = _search(reward={"target": 10.0})
    batch = search.suggest()
    results = [Result(candidate.id, accuracy=0.5 + 0.01 * index, cost=5.0) for index, candidate in enumerate(batch)]
    results[0] = Result(batch[0].id, status="failed", reason="diverged")
    results[1] = Result(batch[1].id, status="infeasible", cost=90.0)
    search.update(results)
    state = search._live_agent().state()
    assert len(state.arrays["critic.own.rewards"]) == 14
    assert {entry["id"] for entry in state.values["experience"]["entries"]} <= {candidate.id for candidate in batch[2:]}


def test_exploited_rows_repeat_a_trained_draw_with_its_log_prob() -> None:
    search = _rounds(_search("mnas+aeb"), 6)
    by_id = {row.id: row for row in search.rows}
    exploited = [row for row in search.rows if row.source == "exploited"]
    assert exploited
    for row in exploited:
        origin = by_id[row.origin or ""]
        assert origin.is_activated
        assert (row.tokens, row.log_prob, row.reward, row.accuracy) == (origin.tokens, origin.log_prob, origin.reward, origin.accuracy)
    with pytest.raises(ResultError, match="never handed out"):
        search.update([Result(exploited[0].id, accuracy=0.5)])


def test_values_are_scored_before_anything_is_fitted_on_the_batch() -> None:
    search = _rounds(_search("mnas+uac"), 4)
    batch = search.suggest()
    agent = search._live_agent()
    assert isinstance(agent, FNASAgent)
    assert agent._critic is not None
    scores = agent._critic.score([candidate.tokens for candidate in batch])
    assert scores is not None
    search.update([_answer(candidate) for candidate in batch])
    rows = {row.id: row for row in _of_round(search, 4)}
    assert [rows[candidate.id].value for candidate in batch] == pytest.approx(scores.value.tolist(), rel=1e-4)
    assert [rows[candidate.id].uncertainty for candidate in batch] == pytest.approx(scores.uncertainty.clip(0).tolist(), rel=1e-3)
    after = agent._critic.score([candidate.tokens for candidate in batch])
    assert after is not None
    assert np.abs(after.value - scores.value).max() > 1e-4


def test_the_metrics_of_the_critic_equal_those_of_its_rows() -> None:
    search = _rounds(_search("mnas+uac", critic={"audit_share": 0.5}), 9)
    rows = _of_round(search, 8)
    trained = [(abs((row.value or 0) - (row.reward or 0)), row.uncertainty or 0.0, row.source) for row in rows if row.is_activated]
    metrics = search.metrics
    assert metrics["critic/value_error"] == pytest.approx(np.mean([error for error, _, _ in trained]))
    assert metrics["critic/coverage"] == pytest.approx(np.mean([error <= limit for error, limit, _ in trained]))
    assert metrics["critic/audit_error"] == pytest.approx(np.mean([error for error, _, source in trained if source == "audit"]))
    assert metrics["critic/trusted_share"] == sum(row.source == "trusted" for row in rows) / 16
    assert metrics["critic/calibrated"] == 1.0
    assert 0 < metrics["policy/distinct_share"] <= 1


def test_a_share_of_the_trusted_is_trained_to_audit_the_critic() -> None:
    search = _rounds(_search("mnas+uac", critic={"audit_share": 0.2}), 30)
    audits, trusted = (sum(row.source == source for row in search.rows) for source in ("audit", "trusted"))
    total = audits + trusted
    assert total > 100
    # Four standard errors of a share of 0.2: odds of a false alarm 6e-5.
    assert abs(audits / total - 0.2) < 4 * math.sqrt(0.2 * 0.8 / total)
    audit = next(row for row in search.rows if row.source == "audit")
    assert audit.is_activated
    assert (audit.kind, audit.accuracy) == ("audit", audit.reward)


def test_the_default_audits_one_in_twenty() -> None:
    assert SearchConfig(agent="fnas").critic.audit_share == 0.05


def test_a_trusted_draw_has_an_advantage() -> None:
    # V is its reward; less V it would be 0 for each of them. The baseline is the batch's mean.
    rewards = torch.tensor([0.5, 0.7, 0.9], dtype=torch.float64)
    agent = _agent("mnas+uac")
    draws = [Draw(tokens, log_prob, "trusted", None, reward) for (tokens, log_prob), reward in zip(_policy_draws(agent, 3), rewards.tolist(), strict=True)]
    before = agent._ppo.log_probs([draw.tokens for draw in draws])
    agent.learn([Scored(draw, draw.value or 0.0) for draw in draws], 0.0)
    after = agent._ppo.log_probs([draw.tokens for draw in draws])
    assert normalised_advantages(rewards).tolist() == pytest.approx([-math.sqrt(1.5), 0.0, math.sqrt(1.5)])
    assert after[2] - before[2] > 0 > after[0] - before[0]


def _policy_draws(agent: FNASAgent, count: int) -> list[tuple[tuple[int, ...], float]]:
    draws = agent.propose(count, lambda _tokens: False)
    return [(draw.tokens, draw.log_prob or 0.0) for draw in draws]


@pytest.mark.parametrize(("ratio", "span", "clipped"), [("architecture", 1, 0.5), ("per_decision", 9, 0.25)])
def test_the_ratio_of_an_exploited_draw_is_to_the_policy_that_drew_it(ratio: str, span: int, clipped: float) -> None:
    config = {"agent": "mnas+aeb", "policy": {"hidden_units": 16}, "experience": {"ratio": ratio}}
    agent = FNASAgent(SPACE, parse(SearchConfig, config), 0)
    assert agent._ppo.replay_span == span
    tokens = agent._ppo.sample(4)
    now = agent._ppo.log_probs(tokens)
    # Since they were drawn, these have become 1.1 times, 1.5 times and 9,000 times as likely; the last has not moved.
    stale = [now[0] - math.log(1.1), now[1] - math.log(1.5), now[2] - math.log(9000), now[3]]
    advantages = torch.tensor([1.0, 1.0, 1.0, -1.0])
    ratios = [1.1 ** (1 / span), 1.5 ** (1 / span), 9000 ** (1 / span), 1.0]
    expected = [span * min(ratios[0], 1.2), span * min(ratios[1], 1.2), span * 1.2, -span]
    assert clipped_surrogate(torch.tensor(now), torch.tensor(stale), advantages, 0.2, float(span)).tolist() == pytest.approx(expected, rel=1e-4)
    # Those past the clip in the way that their reward points give no gradient, and are counted.
    draws = [Draw(item, old, "exploited", str(index)) for index, (item, old) in enumerate(zip(tokens, stale, strict=True))]
    batch = [Scored(draw, reward, id=draw.origin or "") for draw, reward in zip(draws, [2.0, 2.0, 2.0, 0.0], strict=True)]
    assert agent._ppo.update(batch, [1.0] * 4, 0.0)["experience/clipped_share"] == clipped


def test_at_a_ratio_of_one_the_gradient_does_not_depend_on_the_span() -> None:
    for span in (1.0, 9.0):
        log_prob = torch.tensor([-3.0, -4.0], requires_grad=True)
        clipped_surrogate(log_prob, log_prob.detach(), torch.tensor([2.0, -1.0]), 0.2, span).sum().backward()
        assert log_prob.grad is not None
        assert log_prob.grad.tolist() == pytest.approx([2.0, -1.0])


def test_new_draws_are_the_yardstick_of_the_batchs_advantages() -> None:
    rewards = torch.tensor([1.0, 3.0, 6.0], dtype=torch.float64)
    assert normalised_advantages(rewards, torch.tensor([True, True, False])).tolist() == pytest.approx([-1.0, 1.0, 4.0])
    alike = torch.tensor([2.0, 2.0, 8.0], dtype=torch.float64)
    assert normalised_advantages(alike, torch.tensor([True, True, False])).tolist() == pytest.approx(normalised_advantages(alike).tolist())


def test_exploited_draws_of_the_best_do_not_change_what_new_draws_are_worth() -> None:
    # Adam's first step does not depend on the gradient's size: with no weight on the exploited draw, and no entropy, the update must be that
    # of the new draws alone. Were its reward part of the baseline, both of them would look bad.
    config = parse(SearchConfig, {"agent": "mnas+aeb", "policy": {"hidden_units": 16}, "ppo": {"epochs": 1, "entropy": 0.0}})
    alone, beside = FNASAgent(SPACE, config, 0), FNASAgent(SPACE, config, 0)
    tokens = alone._ppo.sample(3)
    log_probs = alone._ppo.log_probs(tokens)
    new = [Scored(Draw(tokens[index], log_probs[index]), reward) for index, reward in enumerate((0.4, 0.6))]
    best = Scored(Draw(tokens[2], log_probs[2], "exploited", "best"), 5.0)
    alone._ppo.update(new, [1.0, 1.0], 0.0)
    beside._ppo.update([*new, best], [1.0, 1.0, 0.0], 0.0)
    assert beside._ppo.log_probs(tokens) == pytest.approx(alone._ppo.log_probs(tokens), abs=1e-4)
    assert abs(alone._ppo.log_probs(tokens)[1] - log_probs[1]) > 1e-3


def test_weights_of_exploited_draws_scale_their_surrogate_alone() -> None:
    first, second = _agent("mnas+aeb"), _agent("mnas+aeb")
    for agent in (first, second):
        draws = agent.propose(8, lambda _tokens: False)
        agent.learn([Scored(draw, sum(draw.tokens) / 18, id=str(index)) for index, draw in enumerate(draws)], 0.0)
    draws = first.propose(8, lambda _tokens: False)
    assert draws == second.propose(8, lambda _tokens: False)
    batch = [Scored(draw, sum(draw.tokens) / 18, id=f"second {index}") for index, draw in enumerate(draws)]
    assert first._buffer is not None
    origins = [item.draw.origin or "" for item in batch if item.draw.source == "exploited"]
    weights = [1.0] * (8 - len(origins)) + first._buffer.weights(origins, 0.7)
    assert len(set(weights)) > 2
    first.learn(batch, 0.7)
    second._ppo.update(batch, weights, 0.7)
    left, right = first._ppo.state().arrays, second._ppo.state().arrays
    assert all((left[name] == right[name]).all() for name in left)


def test_another_initialisation_empties_the_buffer_and_is_told_to_v() -> None:
    search = _rounds(_search(), 3)
    ids = {row.id for row in search.rows}
    batch = search.suggest()
    assert any(slot.source == "exploited" for slot in search._batch.slots)  # type: ignore[union-attr]
    search.update([_answer(candidate, "pool:0123456789ab") for candidate in batch])
    state = search._live_agent().state()
    entries = state.values["experience"]["entries"]
    assert entries
    assert not {entry["id"] for entry in entries} & ids
    assert state.arrays["critic.own.warm"].tolist() == [0] * (len(state.arrays["critic.own.warm"]) - len(batch)) + [1] * len(batch)
    assert state.values["initialisation"] == "pool:0123456789ab"
    assert search.metrics["experience/exploited_share"] == 0.0  # of the older rewards, nothing was learnt again
    assert {row.initialisation for row in _of_round(search, 3) if row.is_activated} == {"pool:0123456789ab"}


@pytest.mark.parametrize("model", ["networks", "bayesian"])
@pytest.mark.parametrize("agent", ["mnas+uac", "fnas"])
def test_in_the_round_that_changes_the_initialisation_the_critics_word_for_the_other_counts_for_nothing(
    agent: str, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    search = _rounds(_search(agent, critic={"model": model, "imagined": 0, "keep_open": False, "threshold": {"fixed": 1e9}}), 6)
    live = search._live_agent()
    assert isinstance(live, FNASAgent)
    ratios = list(live._critic._ratios) if model == "bayesian" else []  # type: ignore[union-attr]
    learnt: list[set[str]] = []
    update = PPOAgent.update
    monkeypatch.setattr(
        PPOAgent, "update", lambda self, batch, *rest, **more: (learnt.append({item.draw.source for item in batch}), update(self, batch, *rest, **more))[1]
    )
    batch = search.suggest()
    assert any(slot.source == "trusted" for slot in search._batch.slots)  # type: ignore[union-attr]
    # Children that start from trained blocks end much higher than the critic's word for random ones.
    search.update([Result(candidate.id, accuracy=5.0 + sum(candidate.tokens) / 18, initialisation="pool:0123456789ab") for candidate in batch])
    assert learnt[-1] and learnt[-1] <= {"policy", "audit"}
    assert "critic/value_error" not in search.metrics
    assert "critic/coverage" not in search.metrics
    assert search.metrics["critic/trusted_share"] > 0
    if model == "bayesian":
        assert live._critic._ratios == ratios  # type: ignore[union-attr]
    batch = search.suggest()
    search.update([Result(candidate.id, accuracy=5.0 + sum(candidate.tokens) / 18, initialisation="pool:0123456789ab") for candidate in batch])
    assert "trusted" in learnt[-1]
    assert "critic/value_error" in search.metrics


@pytest.mark.parametrize("agent", ["mnas", "fnas"])
def test_known_architectures_of_the_other_initialisation_teach_nothing_in_a_batch_that_trains_none(agent: str, monkeypatch: pytest.MonkeyPatch) -> None:
    space = Space.from_decisions({"a": [0, 1, 2], "b": [0, 1, 2]})
    config = {"agent": agent, "batch_size": 3, "policy": {"hidden_units": 8, "redraws": 0}, "critic": {"imagined": 0, "keep_open": False}}
    search = Search(space, parse(SearchConfig, config), seed=0)
    learnt: list[set[str]] = []
    update = PPOAgent.update

    def spied(self: PPOAgent, batch: list[Scored], *rest: object, **more: object) -> dict[str, float]:
        learnt.append({item.initialisation for item in batch if item.draw.source == "policy"})
        return update(self, batch, *rest, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(PPOAgent, "update", spied)
    for _ in range(20):
        try:
            batch = search.suggest()
        except SearchExhausted:
            break
        initialisation = "random" if search.num_activated < 5 else "pool:0123456789ab"
        search.update([Result(candidate.id, accuracy=0.5 + 0.01 * sum(candidate.tokens), initialisation=initialisation) for candidate in batch])
    assert any("random" in kinds for kinds in learnt) and any("pool:0123456789ab" in kinds for kinds in learnt)
    assert all(len(kinds) <= 1 for kinds in learnt)
    last = max(index for index, kinds in enumerate(learnt) if "random" in kinds)
    assert last < min(index for index, kinds in enumerate(learnt) if "pool:0123456789ab" in kinds)


def test_one_draw_is_learnt_from_together_with_imagined_ones() -> None:
    agent = FNASAgent(SPACE, parse(SearchConfig, {"agent": "mnas+uac", "policy": {"hidden_units": 16}, "critic": {"imagined": 16}}), 0)
    draws = agent.propose(8, lambda _tokens: False)
    agent.learn([Scored(draw, sum(draw.tokens) / 18) for draw in draws], 0.0)
    before = agent._ppo.log_probs([draws[0].tokens])
    metrics = agent.learn([Scored(draws[0], 0.5, cached=True)], 0.0)
    assert "policy/approx_kl" in metrics
    assert agent._ppo.log_probs([draws[0].tokens]) != before


def test_the_initialisation_is_decisive_and_in_the_digest() -> None:
    first, second = _search(), _search()
    batch = first.suggest()
    second.suggest()
    first.update([_answer(batch[0])])
    second.update([_answer(batch[0], "pool:0123456789ab")])
    assert first.digest() != second.digest()
    with pytest.raises(ResultError, match="another result already"):
        first.update([_answer(batch[0], "pool:0123456789ab")])
    with pytest.raises(ResultError, match="initialisation"):
        first.update([_answer(batch[1], "")])
    assert "initialisation" not in _answer(batch[0]).to_json()
    assert Result.from_json(_answer(batch[0], "pool:0123456789ab").to_json()).initialisation == "pool:0123456789ab"


def test_a_state_from_before_there_was_a_choice_of_correction_goes_on_by_the_priority(tmp_path: Path) -> None:
    search = _rounds(_search("mnas+aeb", experience={"correction": "priority"}), 3)
    search.save(tmp_path)
    path = tmp_path / "state.json"
    value = json.loads(path.read_text())
    del value["config"]["experience"]["correction"]
    path.write_text(json.dumps(value))
    again = Search.load(tmp_path)
    assert again.config.experience.correction == "priority"
    assert _rounds(again, 2).digest() == _rounds(search, 2).digest()


@pytest.mark.parametrize("agent", AGENTS)
def test_a_search_saved_and_loaded_at_every_point_goes_on_as_if_it_never_stopped(agent: str, tmp_path: Path) -> None:
    whole, broken = _search(agent, critic={"audit_share": 0.3}), _search(agent, critic={"audit_share": 0.3})
    for number in range(5):
        batch = whole.suggest()
        results = [_answer(candidate, "random" if number < 3 else "pool:0123456789ab") for candidate in batch]
        whole.update(results)
        for result in results[::-1]:
            broken.suggest()
            if result is results[0] or result is results[-1]:
                broken.save(tmp_path)
                broken = Search.load(tmp_path)
            broken.update([result])
    assert broken.digest() == whole.digest()
    assert broken.history.equals(whole.history)
    whole.save(tmp_path / "whole")
    broken.save(tmp_path / "broken")
    files = sorted(path.name for path in (tmp_path / "whole").iterdir())
    assert all((tmp_path / "whole" / name).read_bytes() == (tmp_path / "broken" / name).read_bytes() for name in files)


def test_a_round_lost_to_a_crash_is_drawn_again_alike(tmp_path: Path) -> None:
    search = _rounds(_search(), 4)
    search.save(tmp_path)
    batch = search.suggest()
    search.update([_answer(candidate) for candidate in batch])
    again = Search.load(tmp_path)
    assert again.suggest() == batch
    again.update([_answer(candidate) for candidate in batch[::-1]])
    assert again.digest() == search.digest()


def test_in_a_small_space_everything_is_reached_all_the_same() -> None:
    space = Space.from_decisions({"a": [0, 1], "b": [0, 1, 2]})
    config = parse(SearchConfig, {"agent": "fnas", "batch_size": 8, "policy": {"hidden_units": 8}, "critic": {**CRITIC, "min_samples": 2}})
    search = Search(space, config, seed=0)
    for _ in range(40):
        if search.num_activated == 6:
            break
        search.update([_answer(candidate) for candidate in search.suggest()])
    assert search.num_activated == 6


def test_all_policy_agents_share_their_hyperparameters() -> None:
    configs = [SearchConfig(agent=agent) for agent in ("mnas", "mnas+uac", "mnas+aeb", "fnas")]  # type: ignore[arg-type]
    assert all((config.policy, config.ppo, config.batch_size) == (configs[0].policy, configs[0].ppo, configs[0].batch_size) for config in configs)


@pytest.mark.slow
def test_fnas_beats_random_search_with_few_trained_samples() -> None:
    # Six seeds: an agent no better than random search wins all with odds 1/64.
    rng = np.random.default_rng(0)
    effects = rng.standard_normal((9, 3))

    def best(agent: str, seed: int) -> float:
        fields = {"agent": agent, "policy": {"hidden_units": 32}, "critic": {"model": "networks", "hidden_units": 32}}
        search = Search(SPACE, parse(SearchConfig, fields), seed=seed)
        while search.num_activated < 100:
            search.update([Result(item.id, accuracy=float(effects[range(9), item.tokens].sum())) for item in search.suggest()])
        return max(row.accuracy for row in search.rows[:] if row.is_activated and row.accuracy is not None)

    assert all(best("fnas", seed) > best("random", seed) for seed in range(6))
