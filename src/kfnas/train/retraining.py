"""Retraining from scratch on the whole training set, and the one evaluation on the test set.

The result is the exponential moving average of the weights (Polyak and Juditsky, 1992; with the decay warmed up as in TensorFlow's ExponentialMovingAverage). A
retraining that was killed goes on from its last checkpoint and ends with the same bits, on the same machine.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import nn

from kfnas.config import digest_of
from kfnas.errors import ConfigMismatch, SpaceError
from kfnas.nn import build_network
from kfnas.space import NetworkSpec, spec_digest
from kfnas.train.checkpoint import Checkpoint, Checkpoints, load_optimizer, optimizer_tensors, pack, unpack
from kfnas.train.data import PreparedData
from kfnas.train.loop import DivergenceWatch, Training, copied, cpu_threads, evaluate, resolve_device
from kfnas.train.recipes import RetrainConfig
from kfnas.train.task import Task

_log = logging.getLogger(__name__)

OnProgress = Callable[[int, int, float | None], None]
"""Called with steps done, steps in all, and the mean loss of the last 20 steps at most (None before the first)."""


@dataclass(frozen=True)
class RetrainOutcome:
    """How a retraining ended.

    Attributes:
        status: `ok` or `failed`.
        weights: the network's state dict on the CPU: averaged, where the recipe averages; None if failed.
        metrics: `train_loss`, the mean of the last 20 steps at most.
        reason: why it failed, else None.
        steps: optimiser steps, over all attempts that count.
        epochs: passes over the training set.
        device_seconds: wall-clock seconds that the device was held, over all attempts up to their last checkpoint.
    """

    status: Literal["ok", "failed"]
    weights: Mapping[str, torch.Tensor] | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    reason: str | None = None
    steps: int = 0
    epochs: float = 0.0
    device_seconds: float = 0.0


class WeightAverage:
    """Exponential moving average of a network's parameters and buffers; counters are copied."""

    def __init__(self, network: nn.Module, decay: float) -> None:
        self._live = [tensor.detach() for tensor in network.state_dict().values()]
        self.names = list(network.state_dict())
        self.tensors = [tensor.clone() for tensor in self._live]
        self._decay = decay
        self._floating = [index for index, tensor in enumerate(self._live) if tensor.is_floating_point()]
        self._counters = [index for index, tensor in enumerate(self._live) if not tensor.is_floating_point()]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the weights after `step` (from 0): average += (1 - decay) * (weights - average), decay at most (1 + step) / (10 + step)."""
        decay = min(self._decay, (1 + step) / (10 + step))
        torch._foreach_lerp_([self.tensors[i] for i in self._floating], [self._live[i] for i in self._floating], 1 - decay)
        for index in self._counters:
            self.tensors[index].copy_(self._live[index])

    def state(self) -> dict[str, torch.Tensor]:
        """The averages by name."""
        return dict(zip(self.names, self.tensors, strict=True))

    def load(self, state: Mapping[str, torch.Tensor]) -> None:
        """Put back what `state` gave."""
        for name, tensor in zip(self.names, self.tensors, strict=True):
            tensor.copy_(state[name])


def retrain(
    spec: NetworkSpec,
    data: PreparedData,
    task: Task,
    config: RetrainConfig,
    seed: int,
    checkpoints: Checkpoints | None = None,
    on_progress: OnProgress | None = None,
) -> RetrainOutcome:
    """Train a network from scratch on every training image.

    Args:
        spec: the network.
        data: with every training split (`kfnas.train.TRAINING_SPLITS`); the test split is not used and need not be loaded.
        task: loss and metric.
        config: the recipe.
        seed: of initial weights, order, augmentation and mixup.
        checkpoints: where to go on from and to save to every `checkpoint_steps`; None: nowhere.
        on_progress: called at every checkpoint.

    Returns:
        The outcome; divergence is `failed` with its reason.

    Raises:
        ConfigMismatch: the checkpoint belongs to another network, recipe, seed or data.
        DataError: a training split is not loaded.
        ConfigError: the recipe asks for a device that is not there.
    """
    with cpu_threads(config.threads):
        return _Retraining(spec, data, task, config, seed, checkpoints).run(on_progress)


def evaluate_final(
    weights: Mapping[str, torch.Tensor], spec: NetworkSpec, data: PreparedData, task: Task, *, device: str = "auto", threads: int = 1
) -> dict[str, float]:
    """The task's metrics of a trained network on the test split: the only reader of it.

    Args:
        weights: the network's state dict.
        spec: the network.
        data: with the split `test`.
        task: which metrics.
        device: `auto`, `cpu` or `cuda`.
        threads: CPU threads.

    Raises:
        SpaceError: the weights are of another network.
        DataError: the test split is not loaded.
    """
    network = build_network(spec)
    try:
        network.load_state_dict(dict(weights))
    except RuntimeError as error:
        raise SpaceError(f"weights do not fit the network: {' '.join(str(error).split())[:300]}; give the network that they were trained in") from None
    where = resolve_device(device)
    network.to(device=where, memory_format=torch.channels_last)  # type: ignore[call-overload]
    with cpu_threads(threads):
        return evaluate(network, data.split("test"), data.meta, task, where)


class _Retraining:
    def __init__(self, spec: NetworkSpec, data: PreparedData, task: Task, config: RetrainConfig, seed: int, checkpoints: Checkpoints | None) -> None:
        self._config, self._checkpoints = config, checkpoints
        train = data.training_set()
        self._training = Training(spec, train, data.meta, task, config, seed)
        self._average = WeightAverage(self._training.network, config.ema_decay) if config.ema_decay else None
        recipe = config.model_dump(mode="json", exclude={"checkpoint_steps", "device", "threads"})
        self._identity = digest_of({"network": spec_digest(spec), "recipe": recipe, "seed": seed, "task": task.name, "data": train.digest, "meta": data.meta})
        self._seconds = 0.0
        self._watch = DivergenceWatch()

    def run(self, on_progress: OnProgress | None) -> RetrainOutcome:
        training, config = self._training, self._config
        start = self._restore()
        started = time.perf_counter() - self._seconds
        if on_progress is not None:
            on_progress(start, training.num_steps, self._watch.mean_loss)
        for step in range(start, training.num_steps):
            loss = training.step(step, mixup_alpha=config.mixup_alpha)
            if self._average is not None:
                self._average.update(step)
            done = step + 1
            pause = done % config.checkpoint_steps == 0 or done == training.num_steps
            reason = self._watch.check(loss, now=pause)
            self._seconds = time.perf_counter() - started
            if reason is not None:
                return self._outcome(done, reason)
            if pause:
                self._save(done)
                if on_progress is not None:
                    on_progress(done, training.num_steps, self._watch.mean_loss)
        return self._outcome(training.num_steps, None)

    def _outcome(self, steps: int, reason: str | None) -> RetrainOutcome:
        epochs = steps / self._training.steps_per_epoch
        if reason is not None:
            return RetrainOutcome("failed", reason=reason, steps=steps, epochs=epochs, device_seconds=self._seconds)
        source = self._training.network.state_dict() if self._average is None else self._average.state()
        metrics = {} if self._watch.mean_loss is None else {"train_loss": self._watch.mean_loss}
        return RetrainOutcome("ok", copied(source), metrics, steps=steps, epochs=epochs, device_seconds=self._seconds)

    def _save(self, step: int) -> None:
        if self._checkpoints is None:
            return
        parts: dict[str, Mapping[str, torch.Tensor]] = {
            "network": self._training.network.state_dict(),
            "optimizer": optimizer_tensors(self._training.optimizer),
        }
        if self._training.head is not None:
            parts["head"] = self._training.head.state_dict()
        if self._average is not None:
            parts["average"] = self._average.state()
        tensors = {f"{part}/{name}": tensor for part, state in parts.items() for name, tensor in copied(state).items()}
        watch = {"first_loss": self._watch.first_loss, "mean_loss": self._watch.mean_loss}
        header = {"identity": self._identity, "step": step, "seconds": self._seconds, **watch}
        self._checkpoints.save(pack(Checkpoint(header, tensors)))
        _log.debug("checkpoint saved after step %d of %d", step, self._training.num_steps)

    def _restore(self) -> int:
        """Go on from the checkpoint, if there is one.

        Returns:
            Steps done.
        """
        data = self._checkpoints.load() if self._checkpoints is not None else None
        checkpoint = unpack(data) if data is not None else None
        if checkpoint is None:
            return 0
        header = checkpoint.header
        if header["identity"] != self._identity:
            raise ConfigMismatch(
                f"the checkpoint belongs to another retraining ({header['identity'][:12]}, this is {self._identity[:12]}): "
                "network, recipe, seed or data differ; "
                "remove it, or keep checkpoints elsewhere"
            )
        self._training.network.load_state_dict(_part(checkpoint, "network"))
        load_optimizer(self._training.optimizer, _part(checkpoint, "optimizer"))
        if self._training.head is not None:
            self._training.head.load_state_dict(_part(checkpoint, "head"))
        if self._average is not None:
            self._average.load(_part(checkpoint, "average"))
        self._seconds = header["seconds"]
        self._watch = DivergenceWatch(header["first_loss"], header["mean_loss"])
        _log.info("retraining goes on after step %d of %d", header["step"], self._training.num_steps)
        return int(header["step"])


def _part(checkpoint: Checkpoint, part: str) -> dict[str, torch.Tensor]:
    prefix = f"{part}/"
    return {name.removeprefix(prefix): tensor for name, tensor in checkpoint.tensors.items() if name.startswith(prefix)}
