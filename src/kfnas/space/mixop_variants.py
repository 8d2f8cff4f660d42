"""What is done to a found network before it is retrained: squeeze-excite, another activation.

PC-NAS retrains with squeeze-excite at the end of each operator (its section 4.1); BetaNAS with squeeze-excite of ratio 0.0625 and with swish (its table 1).
The width multiplier is an argument of the space's network (`NetworkArguments.width`).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from kfnas.errors import SpaceError
from kfnas.space.layers import Activation, ConvSpec, Gate, LayerSpec, NetworkSpec, OperationSpec, SqueezeExciteSpec

Place = Literal["operator", "spatial"]


def with_squeeze_excite(
    spec: NetworkSpec, ratio: float, *, place: Place, activation: Activation = "relu", gate: Gate = "sigmoid", name: str = "se"
) -> NetworkSpec:
    """The network with squeeze-excite in every decided layer that does something.

    Args:
        spec: the network.
        ratio: squeezed channels as a share of the channels that are scaled, in (0, 1].
        place: `operator` is after a layer's last operation and before its input is added (PC-NAS); `spatial` after its last convolution that is larger
            than 1x1 (MnasNet's place, which BetaNAS compares with).
        activation: between the two 1x1 convolutions.
        gate: of the scale.
        name: of the new operations.

    Raises:
        SpaceError: a ratio out of range, or a layer that has an operation of that name.
    """
    if not 0 < ratio <= 1:
        raise SpaceError(f"squeeze-excite ratio {ratio} is out of range; give a share above 0 and up to 1")
    return replace(spec, layers=tuple(_squeezed(layer, ratio, place, activation, gate, name) if layer.block is not None else layer for layer in spec.layers))


def _squeezed(layer: LayerSpec, ratio: float, place: Place, activation: Activation, gate: Gate, name: str) -> LayerSpec:
    if any(operation.name == name for operation in layer.operations):
        raise SpaceError(f"layer {layer.name!r} already has an operation {name!r}; give the new one another name, or start from the plain network")
    convolutions = [index for index, operation in enumerate(layer.operations) if isinstance(operation, ConvSpec)]
    if place == "spatial":
        convolutions = [index for index in convolutions if layer.operations[index].kernel != (1, 1)]  # type: ignore[union-attr]
    if not convolutions:
        return layer
    last = layer.operations[convolutions[-1]]
    assert isinstance(last, ConvSpec)
    squeezed = max(1, round(ratio * last.out_channels))
    added = SqueezeExciteSpec(name, last.out_channels, squeezed, activation, gate)
    position = len(layer.operations) if place == "operator" else convolutions[-1] + 1
    return replace(layer, operations=(*layer.operations[:position], added, *layer.operations[position:]))


def with_activation(spec: NetworkSpec, activation: Activation) -> NetworkSpec:
    """The network with every activation that is not `none` replaced: convolutions, squeeze-excite and hidden linear layers."""
    layers = tuple(replace(layer, operations=tuple(_activated(operation, activation) for operation in layer.operations)) for layer in spec.layers)
    classifier = tuple(replace(linear, activation=activation) if linear.activation != "none" else linear for linear in spec.classifier)
    return replace(spec, layers=layers, classifier=classifier)


def _activated(operation: OperationSpec, activation: Activation) -> OperationSpec:
    return operation if operation.activation == "none" else replace(operation, activation=activation)
