"""A supernet of a few thousand weights, and images that it can tell apart."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from kfnas.nn import Supernet, build_supernet
from kfnas.space import MixopSpace, NetworkArguments
from kfnas.space.mixop_operators import Bottleneck, Identity
from kfnas.space.mixop_skeletons import MixopSkeleton, Stage

NUM_CLASSES = 3


@pytest.fixture
def make_supernet() -> Callable[..., Supernet]:
    """Factory of supernets of 4 mixed operators with 2 or 3 operators each, for images of 10 pixels."""

    def make(seed: int = 0, *, dropout: float = 0.0) -> Supernet:
        operators = (Identity(), Bottleneck("MBConv", 3, 3), Bottleneck("NConv", 1, 3))
        skeleton = MixopSkeleton("toy", 8, 8, (Stage(8, 2, 1), Stage(16, 2, 2)), 16, dropout=dropout)
        space = MixopSpace("toy", skeleton, operators, reference="MBConv_3_3")
        return build_supernet(space, NetworkArguments(resolution=10, in_channels=1, num_outputs=NUM_CLASSES), torch.Generator().manual_seed(seed))

    return make


@pytest.fixture
def make_images() -> Callable[..., tuple[Tensor, Tensor]]:
    """Factory of images [N, 1, 10, 10], noisy stripes of one direction a class, and their classes [N]."""

    def make(count: int, seed: int = 0) -> tuple[Tensor, Tensor]:
        generator = torch.Generator().manual_seed(seed)
        targets = torch.randint(0, NUM_CLASSES, (count,), generator=generator)
        stripes = torch.arange(10) % 3 == 0
        patterns = torch.stack([stripes[:, None].expand(10, 10), stripes[None, :].expand(10, 10), torch.zeros(10, 10)]).float()
        images = patterns[targets][:, None] + 0.3 * torch.randn(count, 1, 10, 10, generator=generator)
        return images, targets

    return make
