"""A child: a short training on mini-train and a score on mini-val. A child never raises for its own fault: it ends with a status."""

from __future__ import annotations

import dataclasses
import logging
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import torch

from kfnas.errors import SpaceError
from kfnas.space import NetworkSpec
from kfnas.train.data import PreparedData
from kfnas.train.loop import DivergenceWatch, Training, copied, cpu_threads, evaluate
from kfnas.train.recipes import ProxyConfig
from kfnas.train.task import Task, oriented

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ChildOutcome:
    """How a child ended.

    Attributes:
        status: `ok` or `failed`.
        accuracy: the task's metric on mini-val, as something to maximise (negated where lower is better); None if failed.
        metrics: everything the task's `evaluate` gave, and `train_loss`, the mean of the last 20 steps at most.
        reason: why it failed, else None.
        device_seconds: wall-clock seconds that the device was held.
        weights: the trained network's state dict on the CPU; None if failed.
    """

    status: Literal["ok", "failed"]
    accuracy: float | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    reason: str | None = None
    device_seconds: float = 0.0
    weights: Mapping[str, torch.Tensor] | None = None


def train_child(
    spec: NetworkSpec, data: PreparedData, task: Task, config: ProxyConfig, seed: int, initial_weights: Mapping[str, torch.Tensor] | None = None
) -> ChildOutcome:
    """Train a network on mini-train and score it on mini-val. Equal arguments give an equal outcome, `device_seconds` apart, on the same machine.

    Args:
        spec: the network.
        data: with the splits mini_train and mini_val.
        task: loss and metric.
        config: the recipe.
        seed: of initial weights, order and augmentation.
        initial_weights: some or all of the state dict to start from; None: random.

    Returns:
        The outcome; divergence, want of memory or a network that cannot be built or run is `failed` with its reason.

    Raises:
        DataError: a split is missing.
        SpaceError: `initial_weights` do not fit the network.
        ConfigError: the recipe asks for a device that is not there.
    """
    started = time.perf_counter()
    try:
        with cpu_threads(config.threads):
            training = Training(spec, data.split("mini_train"), data.meta, task, config, seed)
            outcome = _train(training, initial_weights, data, task)
    except _UnfitWeightsError as error:
        raise SpaceError(str(error)) from None
    except (MemoryError, torch.OutOfMemoryError) as error:
        outcome = ChildOutcome("failed", reason=f"out of memory: {_first_line(error)}")
    except (RuntimeError, ValueError, ArithmeticError, SpaceError) as error:
        outcome = ChildOutcome("failed", reason=_reason(error))
        _log.warning("a child failed: %s", outcome.reason, exc_info=not isinstance(error, FloatingPointError))
    return dataclasses.replace(outcome, device_seconds=time.perf_counter() - started)


class _UnfitWeightsError(Exception):
    """Initial weights do not fit: the caller's fault, not the child's."""


def _train(training: Training, initial_weights: Mapping[str, torch.Tensor] | None, data: PreparedData, task: Task) -> ChildOutcome:
    if initial_weights is not None:
        _initialise(training, initial_weights)
    watch = DivergenceWatch()
    for step in range(training.num_steps):
        if reason := watch.check(training.step(step), now=step == training.num_steps - 1):
            return ChildOutcome("failed", reason=reason)
    metrics = evaluate(training.network, data.split("mini_val"), data.meta, task, training.device)
    accuracy = oriented(task, metrics)
    if not math.isfinite(accuracy):
        return ChildOutcome("failed", reason=f"diverged: {task.metric} is {metrics[task.metric]}; lower learning_rate")
    assert watch.mean_loss is not None
    return ChildOutcome("ok", accuracy, {**metrics, "train_loss": watch.mean_loss}, weights=copied(training.network.state_dict()))


def _initialise(training: Training, weights: Mapping[str, torch.Tensor]) -> None:
    try:
        result = training.network.load_state_dict(dict(weights), strict=False)
    except RuntimeError as error:
        raise _UnfitWeightsError(f"initial weights do not fit the network: {' '.join(str(error).split())[:300]}; fit their shapes first") from None
    if result.unexpected_keys:
        raise _UnfitWeightsError(f"initial weights name {result.unexpected_keys[0]!r}, which the network lacks; leave it out")


def _reason(error: Exception) -> str:
    if isinstance(error, FloatingPointError):
        return str(error)
    text = _first_line(error)
    if "memory" in text and ("alloc" in text or "out of memory" in text):
        return f"out of memory: {text}"
    return f"{type(error).__name__}: {text}"


def _first_line(error: BaseException) -> str:
    return str(error).strip().split("\n", 1)[0][:300] or type(error).__name__
