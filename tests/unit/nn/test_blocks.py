from __future__ import annotations

from typing import TypeVar

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kfnas.errors import SpaceError
from kfnas.nn.blocks import ACTIVATIONS, ConvNormAct, Layer, SqueezeExcite
from kfnas.space import ConvSpec, LayerSpec, Skip, SqueezeExciteSpec

ModuleT = TypeVar("ModuleT", bound=nn.Module)


def with_weights(module: ModuleT) -> ModuleT:
    """Modules leave their weights uninitialised; these are fixed ones."""
    generator = torch.Generator().manual_seed(1)
    for child in module.modules():
        if isinstance(child, nn.Conv2d):
            for parameter in child.parameters():
                nn.init.normal_(parameter, std=0.3, generator=generator)
    return module.eval()


def images(channels: int, size: int = 7) -> Tensor:
    return torch.randn(2, channels, size, size, generator=torch.Generator().manual_seed(0))


def silent_layer(skip: Skip, in_channels: int, out_channels: int, stride: int) -> Layer:
    """A layer whose operations give zeros, so that its output is the skip alone."""
    layer = Layer(
        LayerSpec("layer", (ConvSpec("conv", in_channels, out_channels, (3, 3), stride),), in_channels, out_channels, stride, 7, -(-7 // stride), skip)
    )
    nn.init.zeros_(layer.get_parameter("conv.bn.weight"))
    return with_weights(layer)


def test_identity_adds_the_layers_input() -> None:
    features = images(4)
    assert torch.equal(silent_layer("identity", 4, 4, 1)(features), features)


@pytest.mark.parametrize("stride", [1, 2])
def test_pool_adds_the_average_of_what_is_there_with_channels_zero_padded_at_the_end(stride: int) -> None:
    features = images(4)
    output = silent_layer("pool", 4, 6, stride)(features)
    size = -(-7 // stride)
    assert output.shape == (2, 6, size, size)
    assert torch.count_nonzero(output[:, 4:]) == 0
    torch.testing.assert_close(output[:, :4, 0, 0], features[:, :, :2, :2].mean(dim=(2, 3)))
    torch.testing.assert_close(output[:, :4, 1, 1], features[:, :, stride - 1 : stride + 2, stride - 1 : stride + 2].mean(dim=(2, 3)))


def test_none_adds_nothing() -> None:
    assert torch.count_nonzero(silent_layer("none", 4, 4, 1)(images(4))) == 0


def test_a_convolution_is_followed_by_batch_norm_and_activation() -> None:
    block = with_weights(ConvNormAct(ConvSpec("conv", 4, 8, (1, 5), 1, 2, "h_swish")))
    features = images(4)
    convolved = F.conv2d(features, block.conv.weight, padding=(0, 2), groups=2)
    torch.testing.assert_close(block(features), F.hardswish(convolved / (1 + 1e-5) ** 0.5))


@pytest.mark.parametrize("size", [6, 7])
@pytest.mark.parametrize("kernel", [1, 3, 5])
def test_output_size_is_size_over_stride_rounded_up(kernel: int, size: int) -> None:
    block = ConvNormAct(ConvSpec("conv", 2, 3, (kernel, kernel), 2))
    assert block(images(2, size)).shape[-2:] == (-(-size // 2),) * 2


def test_squeeze_excite_scales_channels_by_a_gate_on_their_averages() -> None:
    block = with_weights(SqueezeExcite(SqueezeExciteSpec("se", 4, 2, "relu", "h_sigmoid")))
    features = images(4)
    means = features.mean(dim=(2, 3))
    squeezed = torch.relu(F.linear(means, block.reduce.weight.flatten(1), block.reduce.bias))
    gates = F.hardsigmoid(F.linear(squeezed, block.expand.weight.flatten(1), block.expand.bias))
    torch.testing.assert_close(block(features), features * gates[:, :, None, None])


def test_activations_are_what_their_names_say() -> None:
    points = torch.tensor([-4.0, -1.0, 0.0, 2.0, 9.0])
    expected = {
        "none": points,
        "relu": points.clamp(min=0),
        "relu6": points.clamp(0, 6),
        "h_swish": points * (points + 3).clamp(0, 6) / 6,
        "swish": points * points.sigmoid(),
    }
    assert set(expected) == set(ACTIVATIONS)
    for name, activation in ACTIVATIONS.items():
        torch.testing.assert_close(activation(points), expected[name])


@pytest.mark.parametrize(
    ("names", "message"), [(("a", "a"), "'a' is given twice"), (("forward", "a"), "'forward' .* cannot be used"), (("a.b", "a"), "cannot be used")]
)
def test_operation_names_that_torch_cannot_hold_are_refused(names: tuple[str, str], message: str) -> None:
    operations = tuple(ConvSpec(name, 4, 4) for name in names)
    with pytest.raises(SpaceError, match=message):
        Layer(LayerSpec("layer", operations, 4, 4, 1, 7, 7))
