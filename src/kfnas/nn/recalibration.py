"""Batch-norm statistics of one path of a supernet, gathered from given batches into an object of their own.

Each batch goes once through the path, normalised by itself; the statistics are the averages over the batches of each batch's mean and unbiased variance.
That is what `torch.nn.BatchNorm2d(momentum=None)` gathers in a stand-alone network of the same weights.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kfnas.errors import UserError
from kfnas.nn.supernet import PathStatistics, Supernet
from kfnas.space import Architecture


class _Recorder:
    """Normalises by the batch and averages what it saw, place by place."""

    def __init__(self) -> None:
        self.means: dict[str, Tensor] = {}
        self.variances: dict[str, Tensor] = {}
        self.num_batches = 0

    def normalise(self, place: str, norm: nn.BatchNorm2d, features: Tensor) -> Tensor:
        if place not in self.means:
            self.means[place] = torch.zeros_like(norm.weight)
            self.variances[place] = torch.ones_like(norm.weight)
        # With this momentum torch's exponential average is the plain one over the batches so far.
        return F.batch_norm(
            features,
            self.means[place],
            self.variances[place],
            norm.weight,
            norm.bias,
            training=True,
            momentum=1 / self.num_batches,
            eps=norm.eps,
        )


@torch.no_grad()
def recalibrate(supernet: Supernet, architecture: Architecture, batches: Iterable[Tensor]) -> PathStatistics:
    """Statistics of the path of `architecture` over batches of images [N, in_channels, H, W]. The supernet is not changed.

    Raises:
        UserError: no batch.
        SpaceError: an architecture of another space.
    """
    recorder = _Recorder()
    path = supernet.path(architecture)
    for images in batches:
        recorder.num_batches += 1
        features = supernet.enter(images, recorder.normalise)
        for layer in (*path, *supernet.after.values()):
            features = layer(features, recorder.normalise)
    if not recorder.num_batches:
        raise UserError("there is no batch to gather batch-norm statistics from; give one or more")
    return PathStatistics(architecture, recorder.means, recorder.variances, recorder.num_batches)
