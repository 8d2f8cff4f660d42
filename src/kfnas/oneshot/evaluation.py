"""Accuracy of a path with shared weights on one validation mini-batch.

The batch normalisation of a path must be right for that path. `batch` normalises by the validation mini-batch itself: one forward pass. `recalibrated`
first gathers the path's statistics on calibration images, which costs a pass for each of their batches and does not let validation images see each other.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from kfnas.errors import ConfigError, DataError
from kfnas.nn.recalibration import recalibrate
from kfnas.nn.supernet import Supernet
from kfnas.oneshot.batches import Batch
from kfnas.oneshot.paths import Path
from kfnas.oneshot.training import Autocast

Accuracy: TypeAlias = Callable[[Tensor, Tensor], float]
"""Fraction in [0, 1] of float32 outputs [N, O] and targets [N, ...]."""
NormalisedBy = Literal["batch", "recalibrated"]


def top1(outputs: Tensor, targets: Tensor) -> float:
    """Share of images whose highest output [N, O] is their class [N]."""
    return float((outputs.argmax(dim=1) == targets).double().mean())


class SupernetEvaluator:
    """An `Evaluator` of `kfnas.oneshot.paths` on a supernet.

    Args:
        supernet: with its weights; is not changed.
        validation: mini-batches.
        accuracy: of a mini-batch.
        normalised_by: see the module.
        calibration: batches of images for `recalibrated`.
        autocast: context of the forward pass.

    Raises:
        DataError: no validation mini-batch.
        ConfigError: `recalibrated` without calibration images, or calibration images without it.
    """

    def __init__(
        self,
        supernet: Supernet,
        validation: Sequence[Batch],
        *,
        accuracy: Accuracy = top1,
        normalised_by: NormalisedBy = "batch",
        calibration: Sequence[Tensor] = (),
        autocast: Autocast = contextlib.nullcontext,
    ) -> None:
        if not validation:
            raise DataError("there is no validation mini-batch; give one or more")
        if (normalised_by == "recalibrated") != bool(calibration):
            raise ConfigError(f"normalised_by {normalised_by!r} does not go with {len(calibration)} calibration batches; give batches to recalibrate on only")
        self._supernet, self._validation, self._accuracy = supernet, validation, accuracy
        self._calibration, self._autocast = calibration, autocast

    @torch.no_grad()
    def accuracy(self, path: Path, batch: int) -> float:
        """See `Evaluator`."""
        return self._accuracies(path, [self._validation[batch % len(self._validation)]])[0]

    @torch.no_grad()
    def mean_accuracy(self, path: Path) -> float:
        """Mean accuracy over all validation mini-batches; the path's statistics are gathered once."""
        found = self._accuracies(path, self._validation)
        return sum(found) / len(found)

    def _accuracies(self, path: Path, batches: Sequence[Batch]) -> list[float]:
        architecture = self._supernet.space.architecture(path)
        with self._autocast():
            statistics = recalibrate(self._supernet, architecture, self._calibration) if self._calibration else None
            return [self._accuracy(self._supernet(batch.images, architecture, statistics=statistics).float(), batch.targets) for batch in batches]
