"""Images in memory as mini-batches: parts of training steps, and fixed mini-batches to evaluate and calibrate on.

Shapes: N images, C channels, R pixels a side.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol, TypeAlias

import torch
from torch import Tensor

from kfnas.errors import DataError
from kfnas.oneshot.seeds import derived_seed

MakeBatch: TypeAlias = Callable[[Tensor, Tensor, torch.Generator | None], tuple[Tensor, Tensor]]
"""Stored images and targets as the network sees them; the generator draws the augmentation, None is without (a task's `make_batch`)."""


class Batch(NamedTuple):
    """Images as the network sees them, float32 [N, C, R, R], and their targets [N, ...]."""

    images: Tensor
    targets: Tensor


class Batches(Protocol):
    """Training images, cut into steps of equal parts."""

    steps_per_epoch: int

    def part(self, step: int, part: int) -> Batch:
        """Part `part` of step `step`, both counted from 0 over the whole training. Depends on nothing else."""


def stored(images: Tensor, targets: Tensor, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
    """Images and targets as they are."""
    return images, targets


class TensorBatches:
    """Images in memory. Each epoch goes through a new permutation and drops what fills no step.

    Args:
        images: as stored, [all, C, R, R].
        targets: as stored, [all, ...].
        batch_size: images a step, over all its parts.
        num_parts: of a step, one a path; a part has batch_size // num_parts images.
        seed: of permutations and augmentation.
        make_batch: what a network sees.
        augment: whether `make_batch` gets a generator.

    Raises:
        DataError: fewer images than a step takes, or fewer than two a part.
    """

    def __init__(
        self, images: Tensor, targets: Tensor, *, batch_size: int, num_parts: int, seed: int, make_batch: MakeBatch = stored, augment: bool = False
    ) -> None:
        self.part_size = batch_size // num_parts
        if self.part_size < 2 or len(images) < self.part_size * num_parts:
            raise DataError(f"{len(images)} images do not fill a step of {num_parts} parts of {self.part_size}; give parts of two or more, and enough images")
        self.steps_per_epoch = len(images) // (self.part_size * num_parts)
        self._images, self._targets = images, targets
        self._num_parts, self._seed, self._make_batch, self._augment = num_parts, seed, make_batch, augment
        self._order: tuple[int, Tensor] = (-1, torch.empty(0))

    def part(self, step: int, part: int) -> Batch:
        """See `Batches`."""
        epoch, position = divmod(step, self.steps_per_epoch)
        if self._order[0] != epoch:
            order = torch.randperm(len(self._images), generator=torch.Generator().manual_seed(derived_seed(self._seed, "order", epoch)))
            self._order = (epoch, order.to(self._images.device))
        start = (position * self._num_parts + part) * self.part_size
        which = self._order[1][start : start + self.part_size]
        generator = torch.Generator().manual_seed(derived_seed(self._seed, "augment", step, part)) if self._augment else None
        return Batch(*self._make_batch(self._images[which], self._targets[which], generator))


def fixed_batches(images: Tensor, targets: Tensor, size: int, *, make_batch: MakeBatch = stored) -> list[Batch]:
    """All images in their order as mini-batches of `size`, without augmentation; a rest that fills none is left out.

    Raises:
        DataError: fewer than `size` images.
    """
    if len(images) < size:
        raise DataError(f"{len(images)} images do not fill one mini-batch of {size}; give more images, or smaller batches")
    starts = range(0, len(images) - size + 1, size)
    return [Batch(*make_batch(images[start : start + size], targets[start : start + size], None)) for start in starts]
