"""What the steps of a search promise whoever kills, repeats or doubles them."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import kfnas.train
from kfnas.errors import ConfigMismatch, NotFound, SearchBusy, StaleFence
from kfnas.steps.choose_finalists import choose_finalists
from kfnas.steps.context import open_run
from kfnas.steps.evaluate import evaluate
from kfnas.steps.export import export
from kfnas.steps.finish_round import finish_round
from kfnas.steps.init_search import init_search
from kfnas.steps.latency_records import export_latencies
from kfnas.steps.measure_latency import measure_latency
from kfnas.steps.prepare_data import prepare_data
from kfnas.steps.register import register
from kfnas.steps.retrain import retrain
from kfnas.steps.sample import sample
from kfnas.steps.train_children import train_children
from kfnas.steps.update import update
from kfnas.storage import Owner, SearchStore
from kfnas.testing.sequence import Outcome, StepSequence, outcome_of, small_search


def ledger(sequence: StepSequence) -> SearchStore:
    return open_run(sequence.text).searches


def ids_in(shard: str) -> set[str]:
    return set(json.loads(shard)["ids"])


def recorded_ids(sequence: StepSequence) -> set[str]:
    return {ledger(sequence).child(key)["id"] for key in ledger(sequence).children()}


@pytest.fixture
def trainings(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Ids of the children that are trained, in order."""
    trained: list[str] = []
    train_shard = kfnas.train.train_shard

    def counted(jobs, *arguments, on_finished, **options):
        def finished(job, outcome):
            trained.append(job.id)
            on_finished(job, outcome)

        train_shard(jobs, *arguments, on_finished=finished, **options)

    monkeypatch.setattr(kfnas.train, "train_shard", counted)
    return trained


@pytest.fixture
def opened(tmp_path: Path) -> tuple[StepSequence, list[str]]:
    """A search with an open round of four children in two shards."""
    sequence = StepSequence(small_search(tmp_path / "store", search={"batch_size": 4}), tmp_path / "first")
    sequence.begin()
    return sequence, sequence.open_round()


def taken_over(sequence: StepSequence, folder: Path) -> StepSequence:
    """A run that takes the search from one whose process has ended."""
    with subprocess.Popen(["sleep", "60"]) as process:
        gone = Owner.of_process(sequence.owner.run_id, process.pid)
        process.kill()
    searches = ledger(sequence)
    searches.claim(gone, sequence.config.digest, lambda folder: None, now=time.time())
    later = StepSequence(sequence.config, folder, "later")
    later.begin()
    return later


# Children


def test_a_shard_trains_its_own_children_only(opened: tuple[StepSequence, list[str]], trainings: list[str]) -> None:
    sequence, shards = opened
    assert [len(ids_in(shard)) for shard in shards] == [2, 2]
    assert not ids_in(shards[0]) & ids_in(shards[1])
    results = json.loads(sequence.train(shards[1]).read_text())
    assert set(results) == set(trainings) == recorded_ids(sequence) == ids_in(shards[1])
    with pytest.raises(NotFound, match="its shard did not end: resume the search"):
        sequence.close_round()


def test_a_child_whose_record_is_deleted_is_trained_again_and_no_other_one(opened: tuple[StepSequence, list[str]], trainings: list[str]) -> None:
    sequence, shards = opened
    for shard in shards:
        sequence.train(shard)
    before = outcome_of(sequence.config)
    lost = min(before.children)
    ledger(sequence).delete_child(lost)
    trainings.clear()
    for shard in shards:
        sequence.train(shard)
    assert trainings == [before.children[lost]["id"]]
    assert outcome_of(sequence.config) == before


def test_a_later_run_trains_what_an_earlier_one_left(opened: tuple[StepSequence, list[str]], trainings: list[str], tmp_path: Path) -> None:
    sequence, shards = opened
    sequence.train(shards[0])
    later = taken_over(sequence, tmp_path / "second")
    trainings.clear()
    assert later.open_round() == shards
    for shard in shards:
        later.train(shard)
    assert set(trainings) == ids_in(shards[1])


# Runs


def test_no_step_of_a_run_that_was_taken_over_can_write(opened: tuple[StepSequence, list[str]], tmp_path: Path) -> None:
    sequence, shards = opened
    old = tmp_path / "old"
    shutil.copytree(sequence.folder, old)
    later = taken_over(sequence, tmp_path / "second")
    for shard in later.open_round():
        later.train(shard)
    key = min(ledger(later).children())
    record = ledger(later).child(key)
    ledger(later).delete_child(key)
    before = ledger(later).head()

    for step in (lambda: sequence.train(shards[0]), lambda: sequence.train(shards[1]), sequence.open_round, sequence.finish):
        with pytest.raises(StaleFence, match="taken over"):
            step()
    ledger(later).put_child(key, {name: value for name, value in record.items() if name != "weights"})
    with pytest.raises(StaleFence, match="taken over"):
        sequence.close_round()
    assert ledger(later).head() == before


def test_a_shard_that_is_taken_over_while_it_trains_records_no_further_child(
    opened: tuple[StepSequence, list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sequence, shards = opened
    train_shard = kfnas.train.train_shard

    def overtaken(jobs, *arguments, on_finished, **options):
        def finished(job, outcome):
            on_finished(job, outcome)
            taken_over(sequence, tmp_path / "second")

        train_shard(jobs, *arguments, on_finished=finished, **options)

    monkeypatch.setattr(kfnas.train, "train_shard", overtaken)
    with pytest.raises(StaleFence, match="this step stops"):
        sequence.train(shards[0])
    assert len(recorded_ids(sequence)) == 1


def test_a_second_live_run_is_refused(opened: tuple[StepSequence, list[str]], tmp_path: Path) -> None:
    sequence, _ = opened
    before = ledger(sequence).head()
    with pytest.raises(SearchBusy, match="is held by run 'sequence'"):
        StepSequence(sequence.config, tmp_path / "second", "another").begin()
    assert ledger(sequence).head() == before


def test_another_configuration_is_refused_and_both_are_shown(opened: tuple[StepSequence, list[str]], tmp_path: Path) -> None:
    sequence, _ = opened
    other = small_search(sequence.config.store, search={"batch_size": 4}, proxy={"steps": 3, "batch_size": 8})
    with pytest.raises(ConfigMismatch, match=r"proxy\.steps: 2 then, 3 now") as refusal:
        StepSequence(other, tmp_path / "second").begin()
    assert sequence.config.digest in str(refusal.value)
    assert other.digest in str(refusal.value)


def test_work_may_be_cut_up_otherwise_when_a_search_goes_on(opened: tuple[StepSequence, list[str]], tmp_path: Path) -> None:
    sequence, shards = opened
    sequence.train(shards[0])
    other = small_search(sequence.config.store, search={"batch_size": 4}, execution={"shards": 3})
    again = StepSequence(other, tmp_path / "second")
    again.begin()
    assert len(again.open_round()) == 3


# The same input, the same output


def test_a_step_that_runs_again_writes_the_same(tmp_path: Path) -> None:
    config = small_search(tmp_path / "store", rounds=1)
    text = config.text
    owner = Owner.of_process("run").model_dump_json()

    def twice(step: Callable[..., object], *inputs: object, outputs: int = 1) -> tuple[list[Path], object]:
        """Its outputs, checked to be the same bytes when it runs again."""
        first, second = ([tmp_path / f"{step.__name__}-{attempt}-{number}" for number in range(outputs)] for attempt in (1, 2))
        returned = step(text, *inputs, *first)
        assert step(text, *inputs, *second) == returned
        assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]
        return first, returned

    (data,), _ = twice(prepare_data)
    (state,), _ = twice(init_search, data, owner)
    (batch, opened), _ = twice(sample, state, outputs=2)
    (plan,), shards = twice(measure_latency, data, opened, batch)
    for shard in shards:
        twice(train_children, data, plan, shard)
    (closed,), _ = twice(update, opened, plan)
    twice(finish_round, closed)
    assert sample(text, state, tmp_path / "late", tmp_path / "later") is None
    assert (tmp_path / "late").read_bytes() == batch.read_bytes()
    _, finalists = twice(choose_finalists, data, closed)
    (model,), _ = twice(retrain, data, finalists[0])
    twice(evaluate, data, model)
    twice(export, data, model)
    summaries = []
    for attempt in (1, 2):
        register(text, closed, tmp_path / f"summary-{attempt}", tmp_path / "page")
        summaries.append((tmp_path / f"summary-{attempt}").read_bytes())
    assert summaries[0] == summaries[1]


def rounds_only(sequence: StepSequence) -> Outcome:
    sequence.begin()
    for _ in range(sequence.config.rounds):
        for shard in sequence.open_round():
            sequence.train(shard)
        sequence.close_round()
    return outcome_of(sequence.config)


def test_the_same_seed_gives_the_same_search_and_another_seed_another(tmp_path: Path) -> None:
    first = rounds_only(StepSequence(small_search(tmp_path / "1", seed=7), tmp_path / "first"))
    second = rounds_only(StepSequence(small_search(tmp_path / "2", seed=7, execution={"shards": 1}), tmp_path / "second"))
    other = rounds_only(StepSequence(small_search(tmp_path / "3", seed=8), tmp_path / "third"))
    assert first == second
    assert first.search != other.search
    assert not set(first.children) & set(other.children)


def test_replayed_latencies_repeat_the_search_that_measured_them(tmp_path: Path) -> None:
    store, records = tmp_path / "measured", tmp_path / "latencies.jsonl"
    measured = [small_search(store, name=f"seed-{seed}", seed=seed, cost="latency_ms") for seed in (7, 8)]
    outcomes = [rounds_only(StepSequence(config, tmp_path / config.name)) for config in measured]
    assert export_latencies(measured[0].text, records) == 8
    for number, config in enumerate(measured):
        replayed = config.model_copy(update={"store": str(tmp_path / "replayed"), "device": config.device.model_copy(update={"replay": str(records)})})
        assert rounds_only(StepSequence(replayed, tmp_path / f"replayed-{number}")) == outcomes[number]
    assert outcomes[0].search != outcomes[1].search


def test_a_folder_given_as_an_address_is_the_same_local_store(tmp_path):
    assert small_search(f"file://{tmp_path}/store").store == small_search(tmp_path / "store").store
    assert small_search("file://host/store").store == "file://host/store"
