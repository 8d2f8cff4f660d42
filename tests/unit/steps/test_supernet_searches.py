"""Searches on one supernet, step by step: killed anywhere, cut up anyhow, and taken over, they come to the same; and what is chosen keeps to the budget."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch

from kfnas.config import digest_of, parse
from kfnas.errors import BudgetError, ConfigError, NotFound, SpaceError, StaleFence, StoreUnavailable
from kfnas.nn import build_network
from kfnas.space import MixopSpace, load_space
from kfnas.space.mixop_operators import Bottleneck, Identity
from kfnas.space.mixop_skeletons import MixopSkeleton, Stage
from kfnas.steps import context
from kfnas.steps.alternate import alternate
from kfnas.steps.choose_finalists import choose_finalists
from kfnas.steps.config import RunConfig, run_config, trial_of
from kfnas.steps.context import open_run, read_data
from kfnas.steps.decide_mixop import decide_mixop
from kfnas.steps.evolve import evolve
from kfnas.steps.operator_costs import pin_costs
from kfnas.steps.plan_potentials import plan_potentials
from kfnas.steps.report import report_files
from kfnas.steps.score_potentials import score_potentials
from kfnas.steps.status import describe, progress
from kfnas.steps.supernet_search import SupernetSearch, load_supernet, mixop_space, total_rounds
from kfnas.steps.supernet_view import path_trace, supernet_files, supernet_rows
from kfnas.steps.train_supernet import train_supernet
from kfnas.steps.view import search_view
from kfnas.storage import Owner, opening
from kfnas.testing.faults import FaultPlan, FaultyStore, count_operations
from kfnas.testing.sequence import outcome_of
from kfnas.testing.supernet_sequence import SupernetSequence, small_supernet_search

ALGORITHMS = ("pcnas", "oneshot", "betanas")
NUM_MIXOPS = 4


@pytest.fixture(autouse=True)
def tiny_space(monkeypatch: pytest.MonkeyPatch) -> MixopSpace:
    """The space `tiny`: four mixed operators with two or three operators each. A space comes from an entry point, and a test installs none."""
    operators = (Bottleneck("MBConv", 3, 3), Bottleneck("MBConv", 1, 5), Identity())
    skeleton = MixopSkeleton("tiny", 8, 8, (Stage(8, 2, 1), Stage(16, 2, 2)), 32, narrow_head=True)
    space = MixopSpace("tiny", skeleton, operators, reference="MBConv_3_3")
    monkeypatch.setattr(context, "load_space", lambda name: space if name == "tiny" else load_space(name))
    return space


def small(store: Path, algorithm: str, **fields: object) -> RunConfig:
    return small_supernet_search(store, algorithm, **{"space": {"name": "tiny", "width": 1.0}, **fields})


def rounds_only(sequence: SupernetSequence) -> SupernetSearch:
    """All rounds of a search; its state."""
    sequence.begin()
    while not progress(sequence.text).searching_done:
        sequence.round()
    return state_of(sequence)


def state_of(sequence: SupernetSequence) -> SupernetSearch:
    run = open_run(sequence.text)
    head = run.searches.head()
    assert head is not None
    return load_supernet(run, head.pointer())


# Kill and resume


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_search_that_is_killed_at_any_write_and_resumed_comes_to_the_same(algorithm: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = rounds_only(SupernetSequence(small(tmp_path / "whole", algorithm), tmp_path / "1"))
    killed = SupernetSequence(small(tmp_path / "killed", algorithm), tmp_path / "2")
    rng, adapter, faults = np.random.default_rng(5), opening.ADAPTERS[""], 0
    for attempt in range(200):
        plan = FaultPlan(nth=int(rng.integers(1, 12)), when=("before", "after")[attempt % 2], action="raise", counter=tmp_path / f"writes-{attempt}")
        monkeypatch.setitem(opening.ADAPTERS, "", lambda uri, plan=plan: FaultyStore(adapter(uri), plan))
        try:
            found = rounds_only(killed)
            break
        except StoreUnavailable:
            faults += 1
            assert count_operations(tmp_path / f"writes-{attempt}") == plan.nth
    monkeypatch.setitem(opening.ADAPTERS, "", adapter)
    assert faults >= 5
    assert found == whole
    assert found.digest() == whole.digest()
    searches = open_run(killed.text).searches
    assert not list(searches.store.list(f"searches/{killed.config.name}/checkpoints/"))


@pytest.mark.parametrize("algorithm", ["pcnas", "betanas"])
def test_a_training_goes_on_from_its_checkpoint_and_not_from_the_start(algorithm: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from kfnas.oneshot import SupernetTraining

    sequence = SupernetSequence(small(tmp_path / "store", algorithm), tmp_path / "1")
    sequence.begin()
    done: list[int] = []
    step = SupernetTraining.step

    def dying(training, sample):
        if training.num_steps_done == 2 and not done.count(-1):
            done.append(-1)
            raise KeyboardInterrupt
        done.append(training.num_steps_done)
        return step(training, sample)

    monkeypatch.setattr(SupernetTraining, "step", dying)
    with pytest.raises(KeyboardInterrupt):
        sequence.round()
    sequence.round()
    before, after = done[: done.index(-1)], done[done.index(-1) + 1 :]
    assert before == [0, 1]
    assert after[0] == 2


# The same input, the same output


def test_how_the_work_is_cut_up_changes_nothing(tmp_path: Path) -> None:
    cuts = [{"training": {"batch_size": 16, "learning_rate": 0.05, "checkpoint_steps": steps}} for steps in (1, 500)]
    first = small(tmp_path / "1", "pcnas", execution={"shards": 1}, oneshot=cuts[0])
    second = small(tmp_path / "2", "pcnas", execution={"shards": 4}, oneshot=cuts[1])
    assert first.digest == second.digest
    assert rounds_only(SupernetSequence(first, tmp_path / "a")) == rounds_only(SupernetSequence(second, tmp_path / "b"))
    other = small(tmp_path / "3", "pcnas", seed=1)
    assert rounds_only(SupernetSequence(other, tmp_path / "c")).digest() != state_of(SupernetSequence(first, tmp_path / "d")).digest()


def test_a_step_that_runs_again_writes_the_same(tmp_path: Path) -> None:
    def twice(step: Callable[..., object], *inputs: object) -> tuple[Path, object]:
        first, second = (tmp_path / f"{step.__name__}-{attempt}" for attempt in (1, 2))
        returned = step(*inputs, first)
        assert step(*inputs, second) == returned
        assert first.read_bytes() == second.read_bytes()
        return first, returned

    for algorithm in ALGORITHMS:
        sequence = SupernetSequence(small(tmp_path / algorithm, algorithm), tmp_path / f"{algorithm}-artifacts")
        sequence.begin()
        text, data = sequence.text, sequence.data
        if algorithm == "betanas":
            twice(alternate, text, data, sequence.state)
            continue
        trained, _ = twice(train_supernet, text, data, sequence.state)
        if algorithm == "oneshot":
            twice(evolve, text, data, trained)
            continue
        plan, shards = twice(plan_potentials, text, data, trained)
        for shard in shards:
            twice(score_potentials, text, data, plan, shard)
        decided, _ = twice(decide_mixop, text, trained, plan)
        # Even behind a later commit.
        train_supernet(text, data, decided, tmp_path / "later")
        decide_mixop(text, trained, plan, tmp_path / "again")
        assert (tmp_path / "again").read_bytes() == decided.read_bytes()


def test_rounds_beyond_the_last_have_nothing_to_do(tmp_path: Path) -> None:
    for algorithm in ALGORITHMS:
        sequence = SupernetSequence(small(tmp_path / algorithm, algorithm), tmp_path / f"{algorithm}-artifacts")
        over = rounds_only(sequence)
        pointer = sequence.pointer
        sequence.round()
        assert sequence.pointer == pointer
        assert state_of(sequence) == over


def test_a_shard_that_did_not_end_is_missed(tmp_path: Path) -> None:
    sequence = SupernetSequence(small(tmp_path / "store", "pcnas"), tmp_path / "1")
    sequence.begin()
    train_supernet(sequence.text, sequence.data, sequence.state, sequence.state)
    shards = plan_potentials(sequence.text, sequence.data, sequence.state, sequence.plan)
    score_potentials(sequence.text, sequence.data, sequence.plan, shards[0], tmp_path / "results")
    with pytest.raises(NotFound, match="its shard did not end: resume the search"):
        decide_mixop(sequence.text, sequence.state, sequence.plan, sequence.state)


def test_no_step_of_a_run_that_was_taken_over_can_write(tmp_path: Path) -> None:
    for algorithm in ALGORITHMS:
        sequence = SupernetSequence(small(tmp_path / algorithm, algorithm), tmp_path / f"{algorithm}-1")
        sequence.begin()
        if algorithm == "pcnas":
            train_supernet(sequence.text, sequence.data, sequence.state, sequence.state)
            shards = plan_potentials(sequence.text, sequence.data, sequence.state, sequence.plan)
        searches = open_run(sequence.text).searches
        with subprocess.Popen(["sleep", "60"]) as process:
            gone = Owner.of_process(sequence.owner.run_id, process.pid)
            process.kill()
        searches.claim(gone, sequence.config.digest, lambda folder: None, now=time.time())
        SupernetSequence(sequence.config, tmp_path / f"{algorithm}-2", "later").begin()
        before = sorted(searches.store.list(f"searches/{sequence.config.name}/"))
        with pytest.raises(StaleFence, match="taken over"):
            sequence.round()
        if algorithm == "pcnas":
            with pytest.raises(StaleFence, match="taken over"):
                score_potentials(sequence.text, sequence.data, sequence.plan, shards[0], tmp_path / "results")
            with pytest.raises(StaleFence, match="taken over"):
                decide_mixop(sequence.text, sequence.state, sequence.plan, sequence.state)
        assert sorted(searches.store.list(f"searches/{sequence.config.name}/")) == before


# The algorithms


def test_pcnas_under_a_limit_keeps_to_it_and_drops_what_cannot(tmp_path: Path, tiny_space: MixopSpace) -> None:
    oneshot = {"pcnas": {"pool_size": 2, "num_evaluations": 4, "warmup_epochs": 1, "interval_epochs": 1}}
    sequence = SupernetSequence(small(tmp_path / "store", "pcnas", search={"reward": {"target": 16_000}}, oneshot=oneshot), tmp_path / "1")
    over = rounds_only(sequence)
    run = open_run(sequence.text)
    pinned = pin_costs(run, read_data(sequence.data))
    assert pinned is not None
    costs = pinned.costs
    assert costs.range[1] > 16_000, "the limit must bind"
    assert sorted(potential.tokens for potential in over.pcnas.updates[0]) == [(token,) for token in range(tiny_space.num_choices[0])]
    assert all(costs(path.tokens) <= 16_000 for path in over.ranked(NUM_MIXOPS))
    rows = supernet_rows(run, over)
    assert {row.status for row in rows} == {"ok", "infeasible"}
    assert all(row.reason and row.accuracy is None for row in rows if row.status == "infeasible")
    assert next(row.architecture for row in rows if row.round == 0).endswith("-*")


def test_the_pool_after_each_interval_is_a_file_of_the_run(tmp_path: Path) -> None:
    sequence = SupernetSequence(small(tmp_path / "store", "pcnas"), tmp_path / "1")
    over = rounds_only(sequence)
    files = supernet_files(open_run(sequence.text), over)
    assert sorted(files) == [f"pcnas/pool-{number:02d}.json" for number in range(NUM_MIXOPS)]
    last = json.loads(files[f"pcnas/pool-{NUM_MIXOPS - 1:02d}.json"])
    assert [tuple(kept["tokens"]) for kept in last["pool"]] == list(over.pcnas.pool)
    view = search_view(open_run(sequence.text), over)
    assert [metrics.round for metrics in view.rounds] == list(range(NUM_MIXOPS))
    assert view.rounds[-1].values["pcnas/best_potential"] == over.pcnas.updates[-1][0].value
    assert view.num_activated == 0
    assert sum(row.epochs for row in view.rows) == over.num_epochs == NUM_MIXOPS
    assert [row.id for row in view.rows if row.device_seconds > 0] == [f"{number:05d}-0000" for number in range(NUM_MIXOPS)]


def test_betanas_logs_alpha_p_and_counts_of_every_step_over_rounds_and_kills(tmp_path: Path) -> None:
    import io

    sequence = SupernetSequence(small(tmp_path / "store", "betanas"), tmp_path / "1")
    over = rounds_only(sequence)
    assert total_rounds(open_run(sequence.text)) == over.round == 2
    files = supernet_files(open_run(sequence.text), over)
    arrays = [dict(np.load(io.BytesIO(files[name]))) for name in sorted(files)]
    assert np.concatenate([part["step"] for part in arrays]).tolist() == [1, 2, 3, 4, 5, 6]
    assert arrays[1]["counts"][-1].sum() == 6 * NUM_MIXOPS
    assert np.allclose(arrays[0]["probability"].sum(axis=2), 1)
    trace = path_trace(open_run(sequence.text), over)
    assert trace is not None
    assert trace.steps == [1, 2, 3, 4, 5, 6]
    block = next(index for index, decision in enumerate(open_run(sequence.text).space.decisions) if decision.name == trace.block)
    logged = np.concatenate([part["counts"] for part in arrays])[:, block, : len(trace.choices)]
    assert [list(counts) for counts in trace.counts] == logged.tolist()
    assert {"plots/importance.png", "plots/training.png"} <= set(report_files(open_run(sequence.text), over))
    path = tuple(np.nanargmax(np.where(arrays[1]["probability"][-1] > 0, arrays[1]["alpha"][-1], np.nan), axis=1).tolist())
    assert over.ranked(NUM_MIXOPS)[0].tokens == path


def test_the_budget_of_a_run_is_the_target_of_betanas(tmp_path: Path) -> None:
    config = small(tmp_path / "store", "betanas", search={"reward": {"target": 20_000}})
    over = rounds_only(SupernetSequence(config, tmp_path / "1"))
    pinned = pin_costs(open_run(config.text), read_data(tmp_path / "1" / "data"))
    assert pinned is not None
    assert abs(pinned.costs(over.betanas.results[-1]) / 20_000 - 1) <= 0.1


def test_the_evolution_spends_its_budget_and_its_best_comes_first(tmp_path: Path) -> None:
    over = rounds_only(SupernetSequence(small(tmp_path / "store", "oneshot"), tmp_path / "1"))
    assert len(over.evolution.models) == 6
    assert over.ranked(NUM_MIXOPS)[0].accuracy == max(model.accuracy for model in over.evolution.models)


# The end


def test_a_search_ends_with_its_finalists_retrained_as_configured(tmp_path: Path) -> None:
    oneshot = {"retrained_as": {"squeeze_excite": 0.25, "auto_augment": "cifar10"}}
    retrain = {"steps": 2, "batch_size": 8, "checkpoint_steps": 1, "mixup_alpha": 0.2}
    sequence = SupernetSequence(small(tmp_path / "store", "pcnas", oneshot=oneshot, retrain=retrain), tmp_path / "1")
    sequence.run()
    (final,) = outcome_of(sequence.config).finalists.values()
    assert final["status"] == "ok"
    assert final["metrics"]["top1"] >= 0
    run, data = open_run(sequence.text), read_data(sequence.data)
    weights = safetensors.torch.load(run.searches.blob(final["weights"]))
    assert any(".se." in name for name in weights)
    assert set(build_network(run.final_network(final["tokens"], data)).state_dict()) == set(weights)
    assert not any(".se." in name for name in build_network(run.network(final["tokens"], data)).state_dict())
    assert progress(sequence.text).finished


def test_over_the_limit_the_next_best_is_taken(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    config = small(tmp_path / "store", "oneshot", oneshot={"evolution": {"num_evaluations": 20, "batches_per_model": 1}})
    sequence = SupernetSequence(config, tmp_path / "1")
    over = rounds_only(sequence)
    run, data = open_run(config.text), read_data(sequence.data)
    pinned = pin_costs(run, data)
    assert pinned is not None
    costs = pinned.costs
    best, *others = over.ranked(NUM_MIXOPS)
    limit = costs(best.tokens) - 1
    expected = next(path for path in others if costs(path.tokens) <= limit)
    # As if the measured cost exceeded what the search went by: the same search, held to less than its best costs.
    tighter = config.model_copy(update={"search": config.search.model_copy(update={"reward": config.search.reward.model_copy(update={"target": limit})})})
    (chosen,) = choose_finalists(tighter.text, sequence.data, sequence.state, tmp_path / "plan")
    assert json.loads(chosen)["tokens"] == list(run.space.canonical(run.space.architecture(expected.tokens)).tokens)
    assert "the next best is taken" in caplog.text


def test_a_search_none_of_whose_models_keeps_to_the_limit_says_so(tmp_path: Path) -> None:
    config = small(tmp_path / "store", "oneshot")
    sequence = SupernetSequence(config, tmp_path / "1")
    rounds_only(sequence)
    impossible = config.model_copy(update={"search": config.search.model_copy(update={"reward": config.search.reward.model_copy(update={"target": 1.0})})})
    with pytest.raises(BudgetError, match=r"none of the search's models keeps to mult_adds 1\.0 .* \(oneshot\.margin\)"):
        choose_finalists(impossible.text, sequence.data, sequence.state, tmp_path / "plan")


# What is said meanwhile


def test_where_a_search_stands_is_told_without_children(tmp_path: Path) -> None:
    sequence = SupernetSequence(small(tmp_path / "store", "pcnas"), tmp_path / "1")
    assert progress(sequence.text).rounds_total == NUM_MIXOPS
    sequence.begin()
    sequence.round()
    now = progress(sequence.text)
    best = state_of(sequence).pcnas.updates[0][0].value
    assert (now.rounds_done, now.algorithm, now.best_accuracy) == (1, "pcnas", best)
    assert f"best       {best:.4f} with shared weights" in describe(sequence.text)
    assert "children" not in describe(sequence.text)


# What is refused


def test_a_space_without_mixed_operators_is_refused(tmp_path: Path) -> None:
    run = open_run(small(tmp_path / "store", "pcnas", space={"name": "mnas_small"}).text)
    with pytest.raises(SpaceError, match="mnas_small has none"):
        mixop_space(run)


# Configuration

PLAIN = {"name": "flowers", "task": {"name": "classification", "source": "digits"}}


def configured(**fields: object) -> RunConfig:
    return parse(RunConfig, {**PLAIN, **fields})


def test_a_configuration_without_an_algorithm_keeps_its_digest() -> None:
    known = ("algorithm", "oneshot", "pool", "prior", "table", "store", "tracking", "execution")
    assert configured().digest == digest_of(configured().model_dump(mode="json", exclude=set(known)))


@pytest.mark.parametrize("agent", ["fnas", "mnas", "random", "evolution", "local_search"])
def test_an_agent_may_be_named_as_the_algorithm(agent: str) -> None:
    short, long = configured(algorithm=agent), configured(search={"agent": agent})
    assert short == long
    assert short.digest == long.digest
    assert short.method == agent


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_what_an_algorithm_does_not_read_leaves_no_trace_in_its_digest(algorithm: str) -> None:
    plain = configured(algorithm=algorithm)
    assert run_config(plain.text) == plain
    assert plain.digest != configured().digest
    foreign = {"pcnas": {"steps_per_round": 7}, "oneshot": {"betanas": {"num_steps": 7}}, "betanas": {"pcnas": {"pool_size": 7}}}
    own = {"pcnas": {"pcnas": {"pool_size": 7}}, "oneshot": {"epochs": 7}, "betanas": {"betanas": {"num_steps": 7}}}
    assert configured(algorithm=algorithm, oneshot=foreign[algorithm]).digest == plain.digest
    assert configured(algorithm=algorithm, oneshot={"training": {"checkpoint_steps": 7}}, rounds=3).digest == plain.digest
    assert configured(algorithm=algorithm, oneshot=own[algorithm]).digest != plain.digest


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"algorithm": "fnas", "search": {"agent": "mnas"}}, "give one of the two"),
        ({"algorithm": "pcnas", "search": {"agent": "fnas"}}, "asks no agent"),
        ({"algorithm": "pcnas", "pool": {"name": "blocks"}}, "trains no children"),
        ({"algorithm": "pcnas", "oneshot": {"pcnas": {"limit": 3.0}}}, r"search\.reward\.target"),
        ({"algorithm": "betanas", "oneshot": {"betanas": {"num_steps": 1, "latency_target": 3.0}}}, r"search\.reward\.target"),
        ({"oneshot": {}}, "set `algorithm`"),
        (
            {"algorithm": "betanas", "oneshot": {"retrained_as": {"auto_augment": "svhn"}}, "retrain": {"steps": 1, "augment": False}},
            "no image would be augmented",
        ),
        ({"algorithm": "darts"}, "algorithm"),
    ],
)
def test_what_does_not_belong_together_is_refused(fields: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        configured(**fields)


def test_a_trial_of_a_search_on_one_supernet_is_one_random_network_through_every_stage() -> None:
    trial = trial_of(configured(algorithm="pcnas", oneshot={"margin": 0.1}, space={"name": "pcnas_s_28"}))
    assert (trial.method, trial.oneshot, trial.space.name) == ("random", None, "pcnas_s_28")
