"""How a network falls into the parts that a pool stores: its blocks, and the layers that belong to no block.

A part's tensors are named as in the network's state dict, with the layer's name replaced by the layer's number within the part:
`blocks.3.1.expand.conv.weight` is `1.expand.conv.weight` of block 3. The classifier belongs to no part: its rows are another task's classes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from kfnas.config import digest_of
from kfnas.space import ConvSpec, LayerSpec, NetworkSpec, OperationSpec, SqueezeExciteSpec

FIXED = -1
"""Block index of a layer that belongs to no block, such as stem and head."""

Shape = tuple[int, ...]

_SHAPE_DIGITS = 16


@dataclass(frozen=True)
class Part:
    """A block of a network, or one layer outside of the blocks.

    Attributes:
        block: index of the space's block; `FIXED` for a layer outside of the blocks.
        name: the layer's name for one outside of the blocks, else "".
        layers: its layers in order.
    """

    block: int
    name: str
    layers: tuple[LayerSpec, ...]

    @cached_property
    def shapes(self) -> Mapping[str, Shape]:
        """Shape of each tensor, by its name within the part, in the order of the state dict."""
        return {f"{index}.{name}": shape for index, layer in enumerate(self.layers) for name, shape in tensor_shapes(layer).items()}

    @cached_property
    def names(self) -> Mapping[str, str]:
        """Name in the network's state dict of each tensor, by its name within the part."""
        return {f"{index}.{name}": f"{layer.name}.{name}" for index, layer in enumerate(self.layers) for name in tensor_shapes(layer)}

    @cached_property
    def shape(self) -> str:
        """Digest (16 hex digits) of all that the layers compute with, positions in the network and image sizes apart: equal for parts whose
        weights can stand for each other as they are.
        """
        return digest_of([_structure(layer) for layer in self.layers])[:_SHAPE_DIGITS]

    @cached_property
    def operations(self) -> str:
        """Names of the operations: joined by `+` within a layer, layers joined by `/`."""
        return "/".join("+".join(operation.name for operation in layer.operations) for layer in self.layers)


def parts_of(spec: NetworkSpec, *, fixed_parts: bool = True) -> list[Part]:
    """The parts of a network that have tensors: blocks in order, then (with `fixed_parts`) layers outside of the blocks, in order."""
    blocks: dict[int, list[LayerSpec]] = {}
    fixed = []
    for layer in spec.layers:
        if layer.block is None:
            fixed.append(Part(FIXED, layer.name, (layer,)))
        else:
            blocks.setdefault(layer.block, []).append(layer)
    parts = [Part(block, "", tuple(layers)) for block, layers in sorted(blocks.items())]
    return [part for part in [*parts, *(fixed if fixed_parts else [])] if part.shapes]


def tensor_shapes(layer: LayerSpec) -> dict[str, Shape]:
    """Shapes of a layer's tensors by name, as `kfnas.nn` builds it."""
    return {f"{operation.name}.{name}": shape for operation in layer.operations for name, shape in _operation_shapes(operation).items()}


def _operation_shapes(operation: OperationSpec) -> dict[str, Shape]:
    if isinstance(operation, ConvSpec):
        channels = (operation.out_channels,)
        norm = {f"bn.{name}": channels for name in ("weight", "bias", "running_mean", "running_var")}
        return {"conv.weight": (operation.out_channels, operation.in_channels // operation.groups, *operation.kernel), **norm, "bn.num_batches_tracked": ()}
    return _squeeze_shapes(operation)


def _squeeze_shapes(operation: SqueezeExciteSpec) -> dict[str, Shape]:
    full, squeezed = operation.channels, operation.squeezed
    return {
        "reduce.weight": (squeezed, full, 1, 1),
        "reduce.bias": (squeezed,),
        "expand.weight": (full, squeezed, 1, 1),
        "expand.bias": (full,),
    }


def _structure(layer: LayerSpec) -> dict[str, Any]:
    operations = [{"kind": type(operation).__name__, **dataclasses.asdict(operation)} for operation in layer.operations]
    return {"operations": operations, "channels": [layer.in_channels, layer.out_channels], "stride": layer.stride, "skip": layer.skip}
