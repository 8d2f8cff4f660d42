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
from kfnas.space.mixop import MixopLayers, MixopSpace, betanas, betanas_28, pcnas_l, pcnas_l_28, pcnas_s, pcnas_s_28
from kfnas.space.mixop_costs import OperatorCosts, mult_add_costs, param_costs
from kfnas.space.mixop_variants import with_activation, with_squeeze_excite
from kfnas.space.mnas import mnas_small, mnas_space, mnas_tiny, mnas_v2, mnas_v3
from kfnas.space.named import load_space
from kfnas.space.parts import Part, Tail, distinct_parts, part_of, parts_of, tail_of
from kfnas.space.skeletons import MOBILENET_V2, MOBILENET_V3, SMALL, TINY, BlockChoice, BlockSkeleton, Skeleton
from kfnas.space.space import Architecture, Block, Choice, Decision, Space

__all__ = [
    "MOBILENET_V2",
    "MOBILENET_V3",
    "SMALL",
    "TINY",
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
    "MixopLayers",
    "MixopSpace",
    "NetworkArguments",
    "NetworkSpec",
    "OperationSpec",
    "OperatorCosts",
    "Part",
    "Skeleton",
    "Skip",
    "Space",
    "SqueezeExciteSpec",
    "Tail",
    "betanas",
    "betanas_28",
    "distinct_parts",
    "layer_mult_adds",
    "load_space",
    "mnas_small",
    "mnas_space",
    "mnas_tiny",
    "mnas_v2",
    "mnas_v3",
    "mult_add_costs",
    "mult_adds",
    "num_params",
    "param_costs",
    "part_of",
    "parts_of",
    "pcnas_l",
    "pcnas_l_28",
    "pcnas_s",
    "pcnas_s_28",
    "spec_digest",
    "spec_json",
    "tail_of",
    "with_activation",
    "with_squeeze_excite",
]
