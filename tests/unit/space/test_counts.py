from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from kfnas.nn import build_network
from kfnas.space import (
    ConvSpec,
    LayerSpec,
    LinearSpec,
    NetworkArguments,
    NetworkSpec,
    Space,
    SqueezeExciteSpec,
    layer_mult_adds,
    mnas_small,
    mnas_v2,
    mnas_v3,
    mult_adds,
    num_params,
)

NUM_ARCHITECTURES = 40
WIDTHS = (0.38, 1.0, 1.3)


def test_a_worked_example() -> None:
    operations = (ConvSpec("depthwise", 4, 4, (3, 3), 2, 4, "relu"), SqueezeExciteSpec("se", 4, 2), ConvSpec("project", 4, 6))
    layer = LayerSpec("one", operations, 4, 6, 2, 7, 4)
    spec = NetworkSpec(4, 7, (layer,), (LinearSpec(6, 10),))
    assert layer_mult_adds(layer) == 4 * 9 * 16 + 2 * 4 * 2 + 4 * 6 * 16
    assert mult_adds(spec) == layer_mult_adds(layer) + 60
    assert num_params(spec) == (36 + 8) + (8 + 2 + 8 + 4) + (24 + 12) + 70


@pytest.mark.parametrize("make", [mnas_v2, mnas_v3, mnas_small])
def test_mult_adds_and_parameters_equal_torchs(make: Callable[[], Space]) -> None:
    space = make()
    rng = np.random.default_rng(0)
    architectures = [space.random(rng) for _ in range(NUM_ARCHITECTURES)]
    seen = np.sum([space.embed(architecture) for architecture in architectures], axis=0)
    assert seen.min() >= 1, "some option of some decision was not drawn: choose another seed"
    for index, architecture in enumerate(architectures):
        arguments = NetworkArguments(width=WIDTHS[index % 3], resolution=(32, 45, 64)[index // 3 % 3], in_channels=1 + index % 3, num_outputs=10)
        spec = space.network(architecture, arguments)
        network = build_network(spec, device="meta").eval()
        images = torch.empty(1, spec.in_channels, spec.resolution, spec.resolution, device="meta")
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            network(images)
        assert 2 * mult_adds(spec) == counter.get_total_flops()
        assert num_params(spec) == sum(parameter.numel() for parameter in network.parameters())
