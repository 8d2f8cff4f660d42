"""What an architecture is: decisions, tokens, expand embedding, layer specifications, mult-adds. Without torch."""

from kfnas.space.counts import layer_mult_adds, mult_adds, num_params
from kfnas.space.layers import (
    Activation,
    ConvSpec,
    Gate,
    LayerSpec,
    LinearSpec,
    NetworkArguments,
    NetworkSpec,
    OperationSpec,
    Skip,
    SqueezeExciteSpec,
    spec_digest,
    spec_json,
)
from kfnas.space.mnas import mnas_small, mnas_space, mnas_v2, mnas_v3
from kfnas.space.named import load_space
from kfnas.space.skeletons import MOBILENET_V2, MOBILENET_V3, SMALL, BlockChoice, BlockSkeleton, Skeleton
from kfnas.space.space import Architecture, Block, Choice, Decision, Space

__all__ = [
    "MOBILENET_V2",
    "MOBILENET_V3",
    "SMALL",
    "Activation",
    "Architecture",
    "Block",
    "BlockChoice",
    "BlockSkeleton",
    "Choice",
    "ConvSpec",
    "Decision",
    "Gate",
    "LayerSpec",
    "LinearSpec",
    "NetworkArguments",
    "NetworkSpec",
    "OperationSpec",
    "Skeleton",
    "Skip",
    "Space",
    "SqueezeExciteSpec",
    "layer_mult_adds",
    "load_space",
    "mnas_small",
    "mnas_space",
    "mnas_v2",
    "mnas_v3",
    "mult_adds",
    "num_params",
    "spec_digest",
    "spec_json",
]
