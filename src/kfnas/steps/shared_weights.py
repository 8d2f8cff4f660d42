"""The supernet of a run with its data: trained, evaluated, and asked for gate gradients. Imports torch; steps import it when they work."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import torch

from kfnas.nn import Supernet, build_supernet
from kfnas.oneshot import Batch, SupernetEvaluator, SupernetGates, SupernetTraining, TensorBatches, fixed_batches, load_weights
from kfnas.oneshot.seeds import derived_seed
from kfnas.steps.context import DataPointer, Run
from kfnas.steps.prepared import load_data
from kfnas.steps.supernet_search import mixop_space
from kfnas.train import CHILD_SPLITS, PreparedData, oriented
from kfnas.train.loop import autocast, resolve_device


class SharedWeights:
    """What a step does with shared weights. Everything is built when first asked for.

    Args:
        run: of an algorithm on one supernet.
        data: prepared.
    """

    def __init__(self, run: Run, data: DataPointer) -> None:
        self._run, self._pointer = run, data
        self._config = run.config.shared
        self.device = resolve_device(self._config.training.device)

    @cached_property
    def supernet(self) -> Supernet:
        """The supernet with its initial weights, on the device."""
        generator = torch.Generator().manual_seed(derived_seed(self._run.config.seed, "supernet"))
        supernet = build_supernet(mixop_space(self._run), self._run.arguments(self._pointer), generator)
        return supernet.to(device=self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]

    @cached_property
    def steps_per_epoch(self) -> int:
        """Steps of one pass over mini-train."""
        return self._training_batches.steps_per_epoch

    def training(self, state: bytes | None) -> SupernetTraining:
        """The training of the shared weights, as `SupernetTraining.save` saved it; None: not begun."""
        config = self._config.training
        training = SupernetTraining(
            self.supernet,
            self._training_batches,
            self._loss,
            config.optimiser,
            num_steps=self.num_steps,
            seed=self._run.config.seed,
            head=self._head,
            autocast=self._autocast,
        )
        if state is not None:
            training.restore(state)
        return training

    def evaluator(self, state: bytes) -> SupernetEvaluator:
        """Accuracies of paths on mini-val, with the weights that were saved."""
        load_weights(self.supernet, state)
        recalibrated = self._config.validation.normalised_by == "recalibrated"
        return SupernetEvaluator(
            self.supernet,
            self._fixed("mini_val"),
            accuracy=self._accuracy,
            normalised_by=self._config.validation.normalised_by,
            calibration=[batch.images for batch in self._fixed("mini_train", self._config.validation.calibration_batches)] if recalibrated else (),
            autocast=self._autocast,
        )

    def gates(self) -> SupernetGates:
        """Gate gradients of the supernet on mini-val."""
        return SupernetGates(
            self.supernet, self._batches("mini_val", self._config.validation.batch_size, 1, augment=False), self._loss, autocast=self._autocast
        )

    @property
    def num_steps(self) -> int:
        """Weight steps of the whole search, over which the learning rate falls."""
        algorithm, config = self._run.config.algorithm, self._config
        if algorithm == "betanas":
            return config.betanas.num_steps * config.betanas.weight_steps
        epochs = config.pcnas.num_epochs(len(self.supernet.space.num_choices)) if algorithm == "pcnas" else config.epochs
        return epochs * self.steps_per_epoch

    @cached_property
    def _data(self) -> PreparedData:
        return load_data(self._run, self._pointer, CHILD_SPLITS)

    @cached_property
    def _training_batches(self) -> TensorBatches:
        config = self._config.training
        return self._batches("mini_train", config.batch_size, config.num_parts, augment=config.augment)

    @cached_property
    def _head(self) -> torch.nn.Module | None:
        head: torch.nn.Module | None = self._run.task.build_head(self._data.meta, torch.Generator().manual_seed(derived_seed(self._run.config.seed, "head")))
        return head.to(self.device) if head is not None else None

    def _batches(self, split: str, batch_size: int, num_parts: int, *, augment: bool) -> TensorBatches:
        images, targets = self._stored(split)
        seed = derived_seed(self._run.config.seed, split)
        return TensorBatches(images, targets, batch_size=batch_size, num_parts=num_parts, seed=seed, make_batch=self._made, augment=augment)

    def _fixed(self, split: str, count: int | None = None) -> list[Batch]:
        size = self._config.validation.batch_size
        images, targets = self._stored(split)
        stop = len(images) if count is None else count * size
        return fixed_batches(images[:stop], targets[:stop], size, make_batch=self._made)

    def _stored(self, split: str) -> tuple[torch.Tensor, torch.Tensor]:
        found = self._data.split(split)
        return found.images.to(self.device), found.targets.to(self.device)

    def _made(self, images: torch.Tensor, targets: torch.Tensor, generator: torch.Generator | None) -> tuple[torch.Tensor, torch.Tensor]:
        made: tuple[torch.Tensor, torch.Tensor] = self._run.task.make_batch(images, targets, self._data.meta, generator)
        return made

    def _loss(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        loss: torch.Tensor = self._run.task.loss(outputs, targets, head=self._head, label_smoothing=self._config.training.label_smoothing)
        return loss

    def _accuracy(self, outputs: torch.Tensor, targets: torch.Tensor) -> float:
        return oriented(self._run.task, self._run.task.evaluate(outputs.cpu(), targets.cpu(), self._data.meta))

    def _autocast(self) -> Any:
        return autocast(self.device)
