"""A shard: some children of a batch, trained one after another or packed on worker processes.

What a child gets depends on its job alone: neither the number of workers nor the order of the jobs changes it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import multiprocessing
import pickle
import signal
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing import connection as connections
from pathlib import Path
from typing import Any

import safetensors.torch
import torch

from kfnas.errors import KfnasError
from kfnas.space import NetworkSpec
from kfnas.train import worker
from kfnas.train.data import PreparedData
from kfnas.train.proxy import ChildOutcome, train_child
from kfnas.train.recipes import ProxyConfig
from kfnas.train.task import Task

_log = logging.getLogger(__name__)

CHILD_SPLITS = ("mini_train", "mini_val")
_START_SECONDS = 300.0


@dataclass(frozen=True)
class ChildJob:
    """One child to train.

    Attributes:
        id: the caller's name for it (a candidate's id, say).
        spec: the network.
        seed: the child's own.
        initial_weights: some or all of the state dict to start from; None: random.
    """

    id: str
    spec: NetworkSpec
    seed: int
    initial_weights: Mapping[str, torch.Tensor] | None = field(default=None, compare=False, repr=False)


OnFinished = Callable[[ChildJob, ChildOutcome], None]


def train_shard(jobs: Sequence[ChildJob], folder: Path, task: Task, config: ProxyConfig, *, workers: int = 1, on_finished: OnFinished) -> None:
    """Train every job; one that fails, or whose process is killed, is a `failed` outcome with a reason, and the others go on.

    Args:
        jobs: the children.
        folder: prepared data (`PreparedData.to_files`); its test split is not read.
        task: loss and metric; picklable where workers > 1.
        config: the recipe.
        workers: processes; 1 trains in this process.
        on_finished: called in this process as each child ends. What it raises ends the shard.

    Raises:
        DataError: the folder holds no prepared data.
        KfnasError: a worker process cannot be started.
    """
    if workers <= 1 or len(jobs) <= 1:
        data = PreparedData.from_files(folder, CHILD_SPLITS)
        for job in jobs:
            on_finished(job, train_job(job, data, task, config))
        return
    _train_packed(deque(jobs), folder, task, config, min(workers, len(jobs)), on_finished)


def train_job(job: ChildJob, data: PreparedData, task: Task, config: ProxyConfig) -> ChildOutcome:
    """`train_child` of a job."""
    return train_child(job.spec, data, task, config, job.seed, job.initial_weights)


def packed_weights(outcome: ChildOutcome) -> tuple[ChildOutcome, bytes | None]:
    """An outcome without its weights, and these as safetensors: what goes through a pipe between processes."""
    weights = None if outcome.weights is None else safetensors.torch.save(dict(outcome.weights))
    return dataclasses.replace(outcome, weights=None), weights


class _Worker:
    """A process, the pipe to it, and the job that it is at."""

    def __init__(self, folder: Path, task: Task, config: ProxyConfig) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=worker.main, args=(theirs,), daemon=True)
        self.process.start()
        theirs.close()
        self.job: ChildJob | None = None
        try:
            self.connection.send((folder, task, config))
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            self.stop()
            raise KfnasError(
                f"task {task.name!r} cannot be sent to a worker process ({error}); define its class at a module's top level, or train with workers=1"
            ) from None

    def await_ready(self) -> None:
        try:
            if self.connection.poll(_START_SECONDS) and self.connection.recv() == "ready":
                return
        except (EOFError, ConnectionResetError):
            pass
        self.stop()
        raise KfnasError(
            f"a training worker ended before its first child ({self.end()}); its output above says why; train with workers=1 to see the error here"
        )

    def give(self, job: ChildJob) -> None:
        self.job = job
        weights = None if job.initial_weights is None else safetensors.torch.save(dict(job.initial_weights))
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # a process that is gone is seen when its outcome is read
            self.connection.send((dataclasses.replace(job, initial_weights=None), weights))

    def receive(self) -> ChildOutcome:
        """The outcome of its job; `failed` if the process is gone."""
        try:
            message: tuple[Any, ...] = self.connection.recv()
        except (EOFError, ConnectionResetError):
            self.process.join()
            return ChildOutcome("failed", reason=f"its training process ended ({self.end()}): lower execution.workers if memory ran out")
        if message[0] == "error":
            raise message[1]
        _, outcome, weights = message
        return outcome if weights is None else dataclasses.replace(outcome, weights=safetensors.torch.load(weights))

    def end(self) -> str:
        """How the process ended, in words."""
        self.process.join(timeout=5)
        code = self.process.exitcode
        if code is None or code >= 0:
            return f"exit code {code}"
        return f"killed by {signal.Signals(-code).name}"

    def stop(self) -> None:
        self.connection.close()
        self.process.terminate()
        self.process.join()


def _train_packed(waiting: deque[ChildJob], folder: Path, task: Task, config: ProxyConfig, num_workers: int, on_finished: OnFinished) -> None:
    workers: list[_Worker] = []
    try:
        workers.extend(_Worker(folder, task, config) for _ in range(num_workers))
        for each in workers:
            each.await_ready()
            each.give(waiting.popleft())
        while busy := {each.connection: each for each in workers if each.job is not None}:
            for ready in connections.wait(list(busy)):
                each = busy[ready]  # type: ignore[index]
                _finish(each, on_finished)
                if waiting and not each.process.is_alive():
                    workers.remove(each)
                    each.stop()
                    each = _Worker(folder, task, config)
                    workers.append(each)
                    each.await_ready()
                if waiting:
                    each.give(waiting.popleft())
    finally:
        for each in workers:
            each.stop()


def _finish(each: _Worker, on_finished: OnFinished) -> None:
    job, outcome = each.job, each.receive()
    assert job is not None
    each.job = None
    on_finished(job, outcome)
