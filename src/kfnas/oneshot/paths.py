"""What the weight-sharing searches see of a supernet: how many choices each mixed operator has, an accuracy, a cost.

A path is a tuple of tokens, one a mixed operator; a partial model is its beginning.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, TypeAlias

import numpy as np

Path: TypeAlias = tuple[int, ...]
Cost: TypeAlias = Callable[[Path], float]
"""Cost of a whole path in the unit of the limit, such as `kfnas.space.OperatorCosts`. Pure."""
Sampler: TypeAlias = Callable[[np.random.Generator], Path]
"""Draws the path of one training step."""


class Evaluator(Protocol):
    """Accuracy with shared weights. A pure function of the weights and its arguments."""

    def accuracy(self, path: Path, batch: int) -> float:
        """Accuracy of a path on the validation mini-batch of an index of 0 or more; indices beyond the last mini-batch begin again."""


class Trainable(Protocol):
    """Shared weights that are trained epoch by epoch."""

    @property
    def num_epochs(self) -> int:
        """Whole epochs trained so far."""

    def train(self, sample: Sampler, *, until: int) -> None:
        """Train along drawn paths until `until` epochs are done in all."""


def complete(partial: Path, num_choices: Sequence[int], rng: np.random.Generator) -> Path:
    """A whole path that begins with `partial`, its other choices uniform and independent."""
    return (*partial, *rng.integers(0, num_choices[len(partial) :]).tolist())
