"""Shards: one after another or packed, the outcomes are the same, and a process that is killed costs one child."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from kfnas.errors import DataError, KfnasError
from kfnas.space import NetworkSpec
from kfnas.train import ChildJob, ChildOutcome, Classification, PreparedData, ProxyConfig, Task, train_shard

RECIPE = ProxyConfig(epochs=1, batch_size=32)


@pytest.fixture
def folder(data: PreparedData, tmp_path: Path) -> Path:
    data.to_files(tmp_path / "data")
    (tmp_path / "data" / "test.safetensors").unlink()
    return tmp_path / "data"


def run(jobs: list[ChildJob], folder: Path, task: Task, workers: int) -> dict[str, ChildOutcome]:
    outcomes: dict[str, ChildOutcome] = {}
    process = os.getpid()

    def keep(job: ChildJob, outcome: ChildOutcome) -> None:
        assert os.getpid() == process
        assert job.id not in outcomes
        outcomes[job.id] = outcome

    train_shard(jobs, folder, task, RECIPE, workers=workers, on_finished=keep)
    return outcomes


def test_neither_workers_nor_order_change_a_child(spec: NetworkSpec, folder: Path) -> None:
    start = {"classifier.0.bias": torch.full((4,), 0.5)}
    jobs = [ChildJob("a", spec, 1), ChildJob("b", spec, 2), ChildJob("c", spec, 3, start)]
    alone, packed = run(jobs, folder, Classification(), 1), run(jobs[::-1], folder, Classification(), 2)
    assert list(alone) == ["a", "b", "c"]
    for name, outcome in alone.items():
        assert (outcome.status, outcome.accuracy, outcome.metrics) == (packed[name].status, packed[name].accuracy, packed[name].metrics)
        assert outcome.weights is not None
        other = packed[name].weights
        assert other is not None
        assert all(torch.equal(tensor, other[key]) for key, tensor in outcome.weights.items())
    assert len({outcome.metrics["loss"] for outcome in alone.values()}) == 3


def test_a_killed_process_costs_one_child_and_the_others_go_on(outside_package: Path, spec: NetworkSpec, folder: Path, tmp_path: Path) -> None:
    from odd_tasks import KilledOnce

    jobs = [ChildJob(str(index), spec, index) for index in range(4)]
    outcomes = run(jobs, folder, KilledOnce(tmp_path / "marker"), 2)
    assert sorted(outcomes) == ["0", "1", "2", "3"]
    failed = [outcome for outcome in outcomes.values() if outcome.status == "failed"]
    assert [outcome.reason for outcome in failed] == ["its training process ended (killed by SIGKILL): lower execution.workers if memory ran out"]
    assert sum(outcome.status == "ok" for outcome in outcomes.values()) == 3


def test_a_mistake_in_a_task_reaches_the_caller_from_a_worker(outside_package: Path, spec: NetworkSpec, folder: Path) -> None:
    from odd_tasks import Raising

    with pytest.raises(TypeError, match="a mistake"):
        run([ChildJob("a", spec, 1), ChildJob("b", spec, 2)], folder, Raising(TypeError("a mistake")), 2)


def test_a_task_that_cannot_be_sent_is_refused(spec: NetworkSpec, folder: Path) -> None:
    class Local(Classification):
        pass

    with pytest.raises(KfnasError, match="define its class at a module's top level, or train with workers=1"):
        run([ChildJob("a", spec, 1), ChildJob("b", spec, 2)], folder, Local(), 2)


def test_no_jobs_and_no_data(spec: NetworkSpec, folder: Path, tmp_path: Path) -> None:
    assert run([], folder, Classification(), 2) == {}
    with pytest.raises(DataError, match="run the step that prepares the data first"):
        run([ChildJob("a", spec, 1)], tmp_path, Classification(), 1)
