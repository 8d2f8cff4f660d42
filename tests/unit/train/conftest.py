"""A tiny network and a tiny, learnable data set."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from kfnas.space import ConvSpec, LayerSpec, LinearSpec, NetworkSpec
from kfnas.train import PreparedData, image_data

OUTSIDE = Path(__file__).parent / "outside"


@pytest.fixture
def outside_package(monkeypatch: pytest.MonkeyPatch) -> Path:
    """Modules that a user would have in a package of their own, importable here and in worker processes."""
    monkeypatch.syspath_prepend(str(OUTSIDE))
    return OUTSIDE


def tiny_network(num_outputs: int = 4, width: int = 8, resolution: int = 16, dropout: float = 0.0) -> NetworkSpec:
    half = resolution // 2
    stem = LayerSpec("stem", (ConvSpec("op", 1, width, (3, 3), 2, activation="relu6"),), 1, width, 2, resolution, half)
    depthwise = (ConvSpec("dw", width, width, (3, 3), 2, groups=width, activation="relu6"), ConvSpec("pw", width, width))
    return NetworkSpec(1, resolution, (stem, LayerSpec("blocks.0.0", depthwise, width, width, 2, half, half // 2)), (LinearSpec(width, num_outputs),), dropout)


@pytest.fixture
def spec() -> NetworkSpec:
    return tiny_network()


@pytest.fixture
def data() -> PreparedData:
    """The direction of stripes in noise: four classes, 16 x 16 pixels, 320 training images."""
    rng = np.random.default_rng(0)
    labels = rng.integers(4, size=400)
    row, column = np.mgrid[:16, :16]
    stripes = np.stack([phase // 2 % 2 for phase in (row, column, row + column, row - column + 16)])
    images = rng.integers(0, 120, (400, 1, 16, 16)) + 100 * stripes[labels][:, None]
    pixels, targets = torch.from_numpy(images.astype(np.uint8)), torch.from_numpy(labels)
    meta = {"task": "classification", "classes": ["a", "b", "c", "d"], "augmentation": {"crop_padding": 1, "flip": False}}
    return image_data(pixels[80:], targets[80:], pixels[:80], targets[:80], seed=0, meta=meta, num_train=192, num_val=64, strata=targets[80:])
