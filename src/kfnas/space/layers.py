"""Layer specifications: what a network is, without torch.

A space yields a `NetworkSpec`. `kfnas.nn` builds a torch module from it, `kfnas.measure` an ONNX graph, and `kfnas.space.counts` counts
mult-adds and parameters on it, so that the three agree by construction. Sizes are in pixels of square feature maps; a convolution pads by
kernel // 2, so its output is ceil(size / stride).
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import Field

from kfnas.config import Config

Activation = Literal["none", "relu", "relu6", "h_swish", "swish"]
Gate = Literal["sigmoid", "h_sigmoid"]
Skip = Literal["none", "identity", "pool"]


class NetworkArguments(Config):
    """What a builder needs beside the architecture; no part of the space."""

    width: float = Field(1.0, gt=0, le=16, description="width multiplier of every channel count")
    resolution: int = Field(224, ge=8, le=4096, description="pixels of a side of the square input")
    in_channels: int = Field(3, ge=1, le=64, description="channels of the input images")
    num_outputs: int = Field(1000, ge=1, description="outputs of the last linear layer: classes, for classification")


@dataclass(frozen=True)
class ConvSpec:
    """Convolution without bias, batch normalisation, activation."""

    name: str
    in_channels: int
    out_channels: int
    kernel: tuple[int, int] = (1, 1)
    stride: int = 1
    groups: int = 1
    activation: Activation = "none"


@dataclass(frozen=True)
class SqueezeExciteSpec:
    """Global average, 1x1 convolution with bias to `squeezed`, activation, 1x1 convolution with bias back, gate, multiply."""

    name: str
    channels: int
    squeezed: int
    activation: Activation = "relu"
    gate: Gate = "sigmoid"


OperationSpec = ConvSpec | SqueezeExciteSpec


@dataclass(frozen=True)
class LayerSpec:
    """A sequence of operations and what is added to its output.

    `skip`: `identity` adds the layer's input; `pool` adds its 3x3 average pool (stride `stride`, padding 1, padding not counted), with
    channels zero-padded at the end to `out_channels`. `block` is the index of the space's block that the layer belongs to, or None (stem,
    head).
    """

    name: str
    operations: tuple[OperationSpec, ...]
    in_channels: int
    out_channels: int
    stride: int
    in_size: int
    out_size: int
    skip: Skip = "none"
    block: int | None = None


@dataclass(frozen=True)
class LinearSpec:
    """Linear layer with bias, then an activation."""

    in_features: int
    out_features: int
    activation: Activation = "none"


@dataclass(frozen=True)
class NetworkSpec:
    """Layers, global average pool, linear layers. `dropout` (a share) acts before the last linear layer, in training only."""

    in_channels: int
    resolution: int
    layers: tuple[LayerSpec, ...]
    classifier: tuple[LinearSpec, ...]
    dropout: float = field(default=0.0)

    @property
    def num_outputs(self) -> int:
        """Width of the network's output."""
        return self.classifier[-1].out_features


def spec_json(spec: NetworkSpec) -> str:
    """Canonical JSON of a specification, names included: equal specifications give equal text."""
    return json.dumps(spec, default=_fields, sort_keys=True, separators=(",", ":"), allow_nan=False)


def spec_digest(spec: NetworkSpec) -> str:
    """Sha256 (hex) of `spec_json`."""
    return hashlib.sha256(spec_json(spec).encode()).hexdigest()


def _fields(part: Any) -> dict[str, Any]:
    return {"kind": type(part).__name__, **vars(part)}
