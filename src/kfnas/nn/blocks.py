"""Torch modules of the operations and layers that a specification names.

Shapes: N images, C channels, H x W pixels; C_in and C_out are a layer's.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kfnas.errors import SpaceError
from kfnas.space import Activation, ConvSpec, Gate, LayerSpec, OperationSpec, SqueezeExciteSpec

BATCH_NORM_EPSILON = 1e-5


def _unchanged(features: Tensor) -> Tensor:
    return features


ACTIVATIONS: dict[Activation, Callable[[Tensor], Tensor]] = {
    "none": _unchanged,
    "relu": F.relu,
    "relu6": F.relu6,
    "h_swish": F.hardswish,
    "swish": F.silu,
}
GATES: dict[Gate, Callable[[Tensor], Tensor]] = {"sigmoid": torch.sigmoid, "h_sigmoid": F.hardsigmoid}


class Conv2d(nn.Conv2d):
    """Leaves its weights uninitialised: torch's own initialisation would draw from the global generator."""

    def reset_parameters(self) -> None:
        """Do nothing; `build_network` draws the weights."""


class Linear(nn.Linear):
    """Leaves its weights uninitialised, as `Conv2d` does."""

    def reset_parameters(self) -> None:
        """Do nothing; `build_network` draws the weights."""


def register(parent: nn.Module, name: str, module: nn.Module) -> None:
    """Make `module` the child `name` of `parent`.

    Raises:
        SpaceError: torch refuses the name, or it is taken.
    """
    if name in parent._modules:
        raise SpaceError(f"name {name!r} is given twice in a network specification; give each layer, and each operation of a layer, a name of its own")
    try:
        parent.add_module(name, module)
    except KeyError as error:
        raise SpaceError(f"name {name!r} in a network specification cannot be used ({error.args[0]}); choose another") from None


class ConvNormAct(nn.Module):
    """Convolution without bias, batch normalisation, activation: [N, C, H, W] -> [N, C', ceil(H / stride), ceil(W / stride)]."""

    def __init__(self, spec: ConvSpec) -> None:
        super().__init__()
        height, width = spec.kernel
        self.conv = Conv2d(
            spec.in_channels, spec.out_channels, spec.kernel, stride=spec.stride, padding=(height // 2, width // 2), groups=spec.groups, bias=False
        )
        self.bn = nn.BatchNorm2d(spec.out_channels, eps=BATCH_NORM_EPSILON)
        self.activation = spec.activation

    def forward(self, features: Tensor) -> Tensor:
        return ACTIVATIONS[self.activation](self.bn(self.conv(features)))


class SqueezeExcite(nn.Module):
    """Channels scaled by a gate on their global averages: [N, C, H, W] -> the same shape."""

    def __init__(self, spec: SqueezeExciteSpec) -> None:
        super().__init__()
        self.reduce = Conv2d(spec.channels, spec.squeezed, 1)
        self.expand = Conv2d(spec.squeezed, spec.channels, 1)
        self.activation = spec.activation
        self.gate = spec.gate

    def forward(self, features: Tensor) -> Tensor:
        pooled = F.adaptive_avg_pool2d(features, 1)
        squeezed = ACTIVATIONS[self.activation](self.reduce(pooled))
        return features * GATES[self.gate](self.expand(squeezed))


class Layer(nn.Module):
    """Operations in sequence, plus the skip: [N, C_in, H, W] -> [N, C_out, ceil(H / stride), ceil(W / stride)]."""

    def __init__(self, spec: LayerSpec) -> None:
        super().__init__()
        self._names = tuple(operation.name for operation in spec.operations)
        for operation in spec.operations:
            register(self, operation.name, _module(operation))
        self.skip = spec.skip
        self.stride = spec.stride
        self.extra_channels = spec.out_channels - spec.in_channels

    def forward(self, features: Tensor) -> Tensor:
        output = features
        for name in self._names:
            output = self.get_submodule(name)(output)
        if self.skip == "identity":
            return output + features
        if self.skip == "pool":
            return output + self._pooled(features)
        return output

    def _pooled(self, features: Tensor) -> Tensor:
        pooled = F.avg_pool2d(features, 3, stride=self.stride, padding=1, count_include_pad=False)
        return F.pad(pooled, (0, 0, 0, 0, 0, self.extra_channels)) if self.extra_channels else pooled


def _module(spec: OperationSpec) -> nn.Module:
    return ConvNormAct(spec) if isinstance(spec, ConvSpec) else SqueezeExcite(spec)
