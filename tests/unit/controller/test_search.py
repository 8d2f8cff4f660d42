"""The search's contract: batches, results, cache, rewards, best and Pareto."""

import logging
import math
import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from threadpoolctl import threadpool_info, threadpool_limits

from kfnas.config import parse
from kfnas.controller import Candidate, Knowledge, KnownSample, PolicyConfig, Result, RewardConfig, Search, SearchConfig
from kfnas.controller.batch import scored
from kfnas.errors import BudgetError, ConfigError, NotFound, ResultError, SearchExhausted, SpaceError, UserError
from kfnas.space import Space

AGENTS = ["random", "evolution", "local_search", "mnas", "mnas+uac", "mnas+aeb", "fnas"]
SPACE = Space.from_decisions({f"block{block}/{name}": ["a", "b", "c"] for block in range(3) for name in ("op", "kernel")})
SMALL = PolicyConfig(hidden_units=16)
CRITIC = {"model": "networks", "hidden_units": 8, "min_samples": 6, "fit_steps": 4, "fit_batch": 8}
BAYESIAN = {"model": "bayesian", "min_samples": 6}


def _search(agent: str = "mnas", space: Space = SPACE, seed: int = 0, **fields: object) -> Search:
    return Search(
        space,
        parse(SearchConfig, {"agent": agent, "batch_size": 8, "policy": SMALL.model_dump(), "critic": BAYESIAN if agent == "fnas" else CRITIC, **fields}),
        seed=seed,
    )


def _answer(candidate: Candidate) -> Result:
    return Result(candidate.id, accuracy=sum(candidate.tokens) / 12, cost=1.0 + candidate.tokens[0])


def _rounds(search: Search, count: int) -> Search:
    for _ in range(count):
        search.update([_answer(candidate) for candidate in search.suggest()])
    return search


@pytest.mark.parametrize("agent", AGENTS)
def test_an_open_batch_is_suggested_again_with_the_same_ids(agent: str) -> None:
    search = _search(agent)
    batch = search.suggest()
    assert search.suggest() == batch == list(search.open_batch)
    search.update([_answer(batch[2]), _answer(batch[0])])
    assert search.suggest() == [batch[1], *batch[3:]]
    assert search.round == 0


@pytest.mark.parametrize("agent", AGENTS)
def test_every_order_and_split_of_the_results_gives_the_same_state(agent: str) -> None:
    whole, split = _search(agent), _search(agent)
    shuffler = random.Random(0)
    for _ in range(4):
        results = [_answer(candidate) for candidate in whole.suggest()]
        results[-1] = Result(results[-1].id, status="failed", reason="diverged")
        whole.update(results)
        assert [candidate.id for candidate in split.suggest()] == [result.id for result in results]
        shuffled = shuffler.sample(results, len(results))
        half = len(shuffled) // 2
        split.update(shuffled[:half])
        split.suggest()
        for result in shuffled[half:]:
            split.update([result])
    assert whole.digest() == split.digest()
    assert whole.round == split.round == 4


@pytest.mark.parametrize("agent", AGENTS)
def test_same_seed_gives_the_same_history_and_another_seed_another(agent: str) -> None:
    first, again, other = (_rounds(_search(agent, seed=seed), 4) for seed in (3, 3, 4))
    assert first.digest() == again.digest()
    assert first.history.equals(again.history)
    assert list(first.history.tokens) != list(other.history.tokens)


def test_child_seeds_follow_from_the_search_seed_and_the_id() -> None:
    first, other = _search("random", seed=1).suggest(), _search("random", seed=2).suggest()
    assert len({candidate.seed for candidate in (*first, *other)}) == 16
    assert [candidate.seed for candidate in first] == [candidate.seed for candidate in _search("mnas", seed=1).suggest()]
    assert all(0 <= candidate.seed < 2**48 for candidate in first)


def test_the_same_result_twice_is_ignored() -> None:
    search = _search()
    batch = search.suggest()
    search.update([_answer(batch[0])])
    search.update([_answer(batch[0]), *map(_answer, batch[1:]), _answer(batch[3])])
    digest = search.digest()
    search.update([_answer(batch[0])])
    search.update([Result(batch[0].id, accuracy=sum(batch[0].tokens) / 12, cost=1.0 + batch[0].tokens[0], device_seconds=9.0, reason="again")])
    assert search.digest() == digest


@pytest.mark.parametrize("closed", [False, True])
@pytest.mark.parametrize("second", [Result("", accuracy=0.123), Result("", status="failed"), Result("", accuracy=0.5, cost=2.0)])
def test_a_contradicting_result_is_refused(closed: bool, second: Result) -> None:
    search = _search()
    batch = search.suggest()
    search.update([Result(candidate.id, accuracy=0.5) for candidate in (batch if closed else batch[:2])])
    digest = search.digest()
    with pytest.raises(ResultError, match=f"{batch[0].id}.*another result already"):
        search.update([Result(batch[0].id, second.status, second.accuracy, second.cost)])
    assert search.digest() == digest


def test_nothing_of_an_update_with_a_wrong_result_is_taken() -> None:
    search = _search()
    batch = search.suggest()
    with pytest.raises(ResultError, match="never handed out"):
        search.update([_answer(batch[0]), Result("99999-0000", accuracy=0.5)])
    assert len(search.suggest()) == len(batch)
    with pytest.raises(ResultError, match="another result"):
        search.update([Result(batch[0].id, accuracy=0.5), Result(batch[0].id, accuracy=0.6)])
    assert len(search.suggest()) == len(batch)


@pytest.mark.parametrize("identity", ["", "00000-0099", "00001-0000", "nonsense"])
def test_an_unknown_id_is_refused(identity: str) -> None:
    search = _search()
    search.suggest()
    with pytest.raises(ResultError, match="never handed out"):
        search.update([Result(identity, accuracy=0.5)])
    with pytest.raises(ResultError, match="never handed out"):
        search.abandon(identity)


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (Result("", accuracy=math.nan), "not a finite number"),
        (Result("", accuracy=math.inf), "not a finite number"),
        (Result("", accuracy=1e160), "beyond"),
        (Result(""), "not a finite number"),
        (Result("", accuracy="0.5"), "give a number"),  # type: ignore[arg-type]
        (Result("", accuracy=True), "give a number"),
        (Result("", accuracy=0.5, cost=0.0), "cost is 0.0"),
        (Result("", accuracy=0.5, cost=-1.0), "cost is -1.0"),
        (Result("", accuracy=0.5, cost=math.nan), "cost is nan"),
        (Result("", status="done", accuracy=0.5), "status is 'done'"),  # type: ignore[arg-type]
        (Result("", status="failed", accuracy=0.5), "only an ok result"),
        (Result("", status="infeasible", cost=9.0), "this search has none"),
        (Result("", accuracy=0.5, metrics={"loss": math.nan}), "loss"),
        (Result("", accuracy=0.5, device_seconds=-1.0), "device_seconds"),
    ],
)
def test_a_result_that_cannot_be_used_is_refused_by_name(result: Result, message: str) -> None:
    search = _search()
    candidate = search.suggest()[0]
    fields = {**result.to_json(), "id": candidate.id}
    with pytest.raises(ResultError, match=rf"{candidate.id}.*{message}"):
        search.update([Result(**fields)])
    assert candidate in search.suggest()


def test_with_a_target_a_percentage_and_a_missing_cost_are_refused() -> None:
    search = _search(reward={"target": 10.0})
    candidate = search.suggest()[0]
    with pytest.raises(ResultError, match="divide a percentage by 100"):
        search.update([Result(candidate.id, accuracy=91.0, cost=5.0)])
    with pytest.raises(ResultError, match="cost is missing"):
        search.update([Result(candidate.id, accuracy=0.91)])
    with pytest.raises(ResultError, match="cost is missing"):
        search.update([Result(candidate.id, status="infeasible")])


def test_without_a_target_any_finite_accuracy_is_taken() -> None:
    search = _search()
    search.update([Result(candidate.id, accuracy=np.float32(-3.5)) for candidate in search.suggest()])
    assert search.best().reward == -3.5
    assert type(search.best().accuracy) is float


@pytest.mark.parametrize("agent", AGENTS)
def test_abandoned_candidates_close_the_batch_and_are_no_answer(agent: str) -> None:
    search = _search(agent)
    batch = search.suggest()
    search.update([_answer(candidate) for candidate in batch[1:]])
    search.abandon(batch[0].id)
    search.abandon(batch[0].id)
    assert search.round == 1
    row = search.history.iloc[0]
    assert (row.status, row.source) == ("abandoned", "policy")
    assert math.isnan(row.reward)
    assert search.num_activated == len(batch) - 1
    with pytest.raises(ResultError, match="another result already"):
        search.update([_answer(batch[0])])
    with pytest.raises(ResultError, match="cannot be abandoned"):
        search.abandon(batch[1].id)


@pytest.mark.parametrize("agent", AGENTS)
def test_a_batch_of_which_nothing_is_learnt_does_not_stop_the_search(agent: str) -> None:
    search = _search(agent)
    for status in ("unmeasured", "failed"):
        search.update([Result(candidate.id, status=status, reason="no") for candidate in search.suggest()])  # type: ignore[arg-type]
    for candidate in search.suggest():
        search.abandon(candidate.id)
    assert search.round == 3
    assert search.suggest()
    assert search.num_activated == 8


@pytest.mark.parametrize("agent", AGENTS)
def test_a_small_space_is_searched_whole_and_then_exhausted(agent: str) -> None:
    space = Space.from_decisions({"a": [0, 1], "b": [0, 1, 2]})
    search = _search(agent, space)
    with pytest.raises(SearchExhausted):
        for _ in range(300):
            batch = search.suggest()
            assert batch
            search.update([_answer(candidate) for candidate in batch])
    assert search.num_activated == 6
    history = search.history
    assert set(history.source) <= {"policy", "cached"}
    evaluated = history[history.source == "policy"]
    assert len(set(evaluated.architecture)) == len(evaluated) == 6


def test_a_known_architecture_is_answered_from_the_history() -> None:
    space = Space.from_decisions({"a": [0, 1], "b": [0, 1, 2]})
    search = _search("mnas", space)
    batch = search.suggest()
    assert len({candidate.tokens for candidate in batch}) == len(batch) <= 6
    search.update([_answer(candidate) for candidate in batch])
    cached = search.history[search.history.source == "cached"]
    assert len(cached) == 8 - len(batch) > 0
    evaluated = search.history.set_index("id")
    for row in cached.itertuples():
        assert row.accuracy == evaluated.accuracy[row.origin]
        assert row.tokens == evaluated.tokens[row.origin]
        assert row.reward == row.accuracy
    assert search.num_activated == len(batch)
    with pytest.raises(ResultError, match="never handed out"):
        search.update([Result(cached.id.iloc[0], accuracy=0.5)])


def test_architectures_of_one_canonical_form_are_evaluated_once() -> None:
    # The second decision matters only where the first is 1.
    space = Space.from_decisions({"a": [0, 1], "b": [0, 1]}, canonical=lambda tokens: tokens if tokens[0] else (0, 0))
    search = _search("mnas", space, max_known_batches=3)
    with pytest.raises(SearchExhausted):
        for _ in range(50):
            search.update([_answer(candidate) for candidate in search.suggest()])
    assert search.num_activated == 3
    evaluated = search.history[search.history.source == "policy"]
    assert set(evaluated.canonical) == {"custom:0-0", "custom:1-0", "custom:1-1"}


@pytest.mark.parametrize("agent", AGENTS)
def test_only_valid_architectures_are_suggested(agent: str) -> None:
    space = Space.from_decisions({f"d{index}": [0, 1, 2] for index in range(6)}, is_valid=lambda choices: sum(choices.values()) % 3 == 0)  # type: ignore[arg-type]
    search = _rounds(_search(agent, space), 3)
    assert all(sum(tokens) % 3 == 0 for tokens in search.history.tokens)


def test_every_row_of_the_policy_has_the_log_prob_of_its_draw() -> None:
    search = _rounds(_search(), 3)
    assert search.history.log_prob.notna().all()
    assert search.history.log_prob.max() < 0
    assert _rounds(_search("evolution"), 2).history.log_prob.isna().all()


def test_num_activated_counts_real_trainings_only() -> None:
    search = _search(reward={"target": 10.0})
    batch = search.suggest()
    results = [Result(candidate.id, accuracy=0.5, cost=5.0) for candidate in batch]
    results[0] = Result(batch[0].id, status="failed", reason="diverged")
    results[1] = Result(batch[1].id, status="infeasible", cost=30.0)
    results[2] = Result(batch[2].id, status="unmeasured", reason="unstable")
    search.update(results[:4])
    assert search.num_activated == 2
    search.update(results[4:])
    assert search.num_activated == len(batch) - 2


def test_rewards_of_a_batch_in_the_history_equal_the_worked_values() -> None:
    search = _search("random", reward={"target": 10.0})
    batch = search.suggest()
    results = [Result(candidate.id, accuracy=0.8, cost=5.0) for candidate in batch]
    results[0] = Result(batch[0].id, accuracy=0.9, cost=20.0)
    results[1] = Result(batch[1].id, accuracy=0.6, cost=10.0)
    results[2] = Result(batch[2].id, status="infeasible", cost=40.0)
    results[3] = Result(batch[3].id, status="infeasible", cost=80.0)
    results[4] = Result(batch[4].id, status="failed", reason="diverged")
    results[5] = Result(batch[5].id, status="unmeasured", reason="unstable")
    search.update(results)
    assert search.history.reward[:5].tolist() == pytest.approx([0.45, 0.6, 0.15, 0.075, 0.075])
    assert math.isnan(search.history.reward[5])


def test_the_history_has_the_contracts_columns_even_when_empty() -> None:
    search = _search()
    columns = {"round", "id", "architecture", "tokens", "accuracy", "cost", "reward", "status", "source"}
    assert columns <= set(search.history.columns)
    assert len(search.history) == 0
    batch = search.suggest()
    search.update([_answer(batch[1])])
    assert search.history.id.tolist() == [batch[1].id]
    assert search.history.reward.tolist() == [sum(batch[1].tokens) / 12]
    _rounds(search, 1)
    assert search.history.accuracy.dtype.kind == "f"
    assert search.history.architecture[0] == str(batch[0].architecture)


def test_best_is_the_highest_reward_within_the_hard_budget() -> None:
    search = _search(reward={"target": 10.0})
    with pytest.raises(NotFound, match="trained"):
        search.best()
    batch = search.suggest()
    search.update([Result(batch[0].id, accuracy=0.99, cost=10.5), Result(batch[1].id, status="infeasible", cost=50.0)])
    with pytest.raises(BudgetError, match=r"cheapest costs 10\.5"):
        search.best()
    search.update([Result(batch[2].id, accuracy=0.5, cost=9.0), Result(batch[3].id, accuracy=0.6, cost=10.0)])
    assert search.best().id == batch[3].id
    assert search.best().architecture == batch[3].architecture


def test_pareto_holds_what_no_other_row_beats() -> None:
    search = _search("random")
    points = [(0.9, 9.0), (0.8, 5.0), (0.8, 6.0), (0.7, 5.0), (0.6, 1.0), (0.9, 9.0), (0.5, 2.0)]
    batch = search.suggest()
    results = [Result(item.id, accuracy=acc, cost=cost, metrics={"params": cost * 2}) for item, (acc, cost) in zip(batch, points, strict=False)]
    search.update([*results, Result(batch[7].id, status="failed")])
    front = search.pareto(("accuracy", "cost"))
    assert [(row.accuracy, row.cost) for row in front] == [(0.9, 9.0), (0.9, 9.0), (0.8, 5.0), (0.6, 1.0)]
    assert search.pareto(("accuracy", "-params")) == front
    assert [row.accuracy for row in search.pareto(("accuracy",))] == [0.9, 0.9]
    assert search.pareto(("unheard_of",)) == []
    with pytest.raises(UserError, match="objectives"):
        search.pareto(())


def test_soft_reward_with_a_target_says_once_that_it_ranks_nothing(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        search = _search(reward={"kind": "soft", "target": 10.0})
        _rounds(search, 3)
    assert sum("changes no ranking" in record.getMessage() for record in caplog.records) == 1
    caplog.clear()
    _search(reward={"kind": "hard", "target": 10.0})
    assert not caplog.records


@pytest.mark.parametrize("seed", [-1, 1.5, "0", True, 2**63])
def test_a_seed_that_is_no_index_is_refused(seed: object) -> None:
    with pytest.raises(ConfigError, match="seed"):
        Search(SPACE, seed=seed)  # type: ignore[arg-type]


def test_a_prior_is_refused_by_agents_without_a_critic() -> None:
    knowledge = _rounds(_search("random"), 1).knowledge()
    with pytest.raises(ConfigError, match="critic"):
        Search(SPACE, SearchConfig(agent="mnas"), seed=0, prior=knowledge)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"agent": "magic"}, "agent"),
        ({"batch_size": 0}, "batch_size"),
        ({"batch_size": 1}, "batch_size 2 or more"),
        ({"ppo": {"entropy_end": 0.0}}, "horizon"),
        ({"evolution": {"population": 5, "sample": 6}}, "sample"),
        ({"learning_rate": 1}, "learning_rate: unknown field"),
    ],
)
def test_a_wrong_configuration_is_refused(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse(SearchConfig, fields)


def test_a_space_without_valid_architectures_is_refused() -> None:
    space = Space.from_decisions({"a": [0, 1]}, is_valid=lambda _choices: False)
    with pytest.raises(SpaceError):
        _search("random", space).suggest()


def test_knowledge_holds_the_trained_samples() -> None:
    search = _search("random", reward={"target": 10.0})
    batch = search.suggest()
    search.update([Result(batch[0].id, accuracy=0.5, cost=5.0, fidelity=1), Result(batch[1].id, status="failed")])
    for candidate in batch[2:]:
        search.abandon(candidate.id)
    knowledge = search.knowledge()
    assert isinstance(knowledge, Knowledge)
    assert knowledge.samples == (KnownSample(batch[0].tokens, 0.5, 5.0, 1.0, task="", initialisation="random"),)
    assert search.knowledge(task="faces").samples[0].task == "faces"
    assert knowledge.space == SPACE.to_json()


def test_candidates_and_results_survive_json() -> None:
    search = _search()
    candidate = search.suggest()[0]
    assert Candidate.from_json(candidate.to_json()) == candidate
    result = Result(candidate.id, accuracy=0.5, cost=2.0, metrics={"loss": 1.0}, fidelity="1 epoch", device_seconds=3.0, artifacts={"weights": "abc"})
    assert Result.from_json(result.to_json()) == result


def test_default_reward_is_hard_and_without_a_target() -> None:
    assert SearchConfig().reward == RewardConfig(kind="hard", target=None)
    assert SearchConfig().agent == "mnas"


def test_known_architectures_that_began_otherwise_than_the_batchs_children_teach_the_agent_nothing() -> None:
    search = Search(SPACE, SearchConfig(batch_size=4), seed=0)
    first = search.suggest()
    search.update([Result(item.id, accuracy=0.5) for item in first])
    old, new = search.rows[0], replace(search.rows[1], initialisation="pool:0123456789ab")
    cached = replace(old, id="again", source="cached", origin=old.id)
    assert [item.id for item in scored([cached, new])] == [new.id]
    assert [item.id for item in scored([cached, search.rows[1]])] == ["again", search.rows[1].id]
    assert [item.id for item in scored([cached])] == ["again"], "a batch that trained nothing compares with nothing"


def test_a_batch_whose_learning_was_interrupted_is_closed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    search = _search("evolution")
    batch, agent = search.suggest(), search._live_agent()
    with monkeypatch.context() as broken:
        broken.setattr(agent, "learn", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt()))
        with pytest.raises(KeyboardInterrupt):
            search.update([_answer(candidate) for candidate in batch])
    search.suggest()
    assert [row.id for row in search.rows] == [candidate.id for candidate in batch]


def test_an_agent_computes_with_one_thread_whatever_the_machine_has(monkeypatch: pytest.MonkeyPatch) -> None:
    search, seen = _search("fnas"), []
    agent = search._live_agent()
    learn, propose = agent.learn, agent.propose

    def watched(do: Callable[..., Any]) -> Callable[..., Any]:
        def watch(*given: Any) -> Any:
            seen.append({pool["num_threads"] for pool in threadpool_info()} | {torch.get_num_threads()})
            return do(*given)

        return watch

    monkeypatch.setattr(agent, "learn", watched(learn))
    monkeypatch.setattr(agent, "propose", watched(propose))
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with threadpool_limits(2):
            _rounds(search, 1)
            assert torch.get_num_threads() == 2, "given back"
    finally:
        torch.set_num_threads(before)
    assert seen == [{1}, {1}]
