"""Macro skeletons that the MNAS space varies: stem, seven blocks (four in `TINY`), head.

Sources: MobileNetV2 (arXiv:1801.04381, table 2) and MobileNetV3-Large (arXiv:1905.02244, table 1). `SMALL` is MobileNetV2 with fewer layers
and strides, for images of 28 to 64 pixels; `TINY` has few enough to try something out on a CPU.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from kfnas.space.layers import Activation, Gate


class BlockChoice(NamedTuple):
    """What the MNAS space decides for one block, in the order of its decisions.

    `op` is conv, sep (depthwise-separable), mb3 or mb6 (inverted bottleneck and its expansion); `se` is the squeeze-excite ratio, 0 for
    none; `width` a factor on the skeleton's width.
    """

    op: str
    kernel: int
    se: float
    skip: str
    width: float
    layers: int


@dataclass(frozen=True)
class BlockSkeleton:
    """One block: nominal output width, layers, stride of its first layer, activation."""

    width: int
    layers: int
    stride: int
    activation: Activation

    @property
    def layer_choices(self) -> tuple[int, int, int]:
        """One layer fewer, as many, one more; a block of one layer has 1, 2 or 3, so that no two choices coincide."""
        return (1, 2, 3) if self.layers == 1 else (self.layers - 1, self.layers, self.layers + 1)


@dataclass(frozen=True)
class Skeleton:
    """What the agent does not decide, and the hand-made architecture.

    The head is a 1x1 convolution to `head_width`, global pool, a linear layer to `hidden_width` where that is set, and the classifier.
    `narrow_head` lets the widest of the two follow the width multiplier below 1; without it that one is never narrower than at width 1.
    """

    name: str
    stem_width: int
    stem_activation: Activation
    gate: Gate
    blocks: tuple[BlockSkeleton, ...]
    head_width: int
    head_activation: Activation
    hidden_width: int | None
    narrow_head: bool
    dropout: float
    reference: tuple[BlockChoice, ...]


def _blocks(rows: list[tuple[int, int, int]], activations: list[Activation]) -> tuple[BlockSkeleton, ...]:
    return tuple(BlockSkeleton(*row, activation) for row, activation in zip(rows, activations, strict=True))


def _mobilenet_v2_choices(layers: tuple[int, ...]) -> tuple[BlockChoice, ...]:
    """Expansion 1 in the first block (a depthwise-separable convolution), 6 in the others."""
    return tuple(BlockChoice("sep" if index == 0 else "mb6", 3, 0.0, "identity", 1.0, count) for index, count in enumerate(layers))


MOBILENET_V2 = Skeleton(
    name="mobilenet_v2",
    stem_width=32,
    stem_activation="relu6",
    gate="sigmoid",
    blocks=_blocks([(16, 1, 1), (24, 2, 2), (32, 3, 2), (64, 4, 2), (96, 3, 1), (160, 3, 2), (320, 1, 1)], ["relu6"] * 7),
    head_width=1280,
    head_activation="relu6",
    hidden_width=None,
    narrow_head=False,
    dropout=0.2,
    reference=_mobilenet_v2_choices((1, 2, 3, 4, 3, 3, 1)),
)

MOBILENET_V3 = Skeleton(
    name="mobilenet_v3",
    stem_width=16,
    stem_activation="h_swish",
    gate="h_sigmoid",
    blocks=_blocks(
        [(16, 1, 1), (24, 2, 2), (40, 3, 2), (80, 4, 2), (112, 2, 1), (160, 1, 2), (160, 2, 1)],
        ["relu", "relu", "relu", "h_swish", "h_swish", "h_swish", "h_swish"],
    ),
    head_width=960,
    head_activation="h_swish",
    hidden_width=1280,
    narrow_head=False,
    dropout=0.2,
    # The paper's kernels and squeeze-excite; of mb3 and mb6 the one nearest to the block's mean expansion.
    reference=(
        BlockChoice("sep", 3, 0.0, "identity", 1.0, 1),
        BlockChoice("mb3", 3, 0.0, "identity", 1.0, 2),
        BlockChoice("mb3", 5, 0.25, "identity", 1.0, 3),
        BlockChoice("mb3", 3, 0.0, "identity", 1.0, 4),
        BlockChoice("mb6", 3, 0.25, "identity", 1.0, 2),
        BlockChoice("mb6", 5, 0.25, "identity", 1.0, 1),
        BlockChoice("mb6", 5, 0.25, "identity", 1.0, 2),
    ),
)

SMALL = Skeleton(
    name="small",
    stem_width=32,
    stem_activation="relu6",
    gate="sigmoid",
    blocks=_blocks([(16, 1, 1), (24, 2, 2), (32, 2, 1), (64, 2, 2), (96, 2, 1), (160, 2, 1), (320, 1, 1)], ["relu6"] * 7),
    head_width=1280,
    head_activation="relu6",
    hidden_width=None,
    narrow_head=True,
    dropout=0.0,
    reference=_mobilenet_v2_choices((1, 2, 2, 2, 2, 2, 1)),
)

TINY = Skeleton(
    name="tiny",
    stem_width=16,
    stem_activation="relu6",
    gate="sigmoid",
    blocks=_blocks([(16, 1, 1), (24, 2, 2), (48, 2, 2), (96, 1, 1)], ["relu6"] * 4),
    head_width=128,
    head_activation="relu6",
    hidden_width=None,
    narrow_head=True,
    dropout=0.0,
    reference=_mobilenet_v2_choices((1, 2, 2, 1)),
)
