"""MnasNet's factorized hierarchical space (arXiv:1807.11626, section 4) over the skeletons of `kfnas.space.skeletons`.

Each of seven blocks (four in `mnas_tiny`) decides operator, kernel, squeeze-excite ratio, skip, width factor and number of layers: 4 x 2 x 2 x 3 x 3 x 3 = 432
choices. Strides come from the skeleton. Two architectures are the same network when a skip fits no layer of its block, or when neighbouring
blocks without a stride between them agree in all but the number of layers, so that a layer can be counted to either; the canonical form
settles both.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import pairwise, product
from typing import Any

from kfnas.space.layers import NetworkArguments, NetworkSpec
from kfnas.space.mnas_network import WIDTHS, LayerPlan, build_mnas, fitting_skip, plan_layers
from kfnas.space.skeletons import MOBILENET_V2, MOBILENET_V3, SMALL, TINY, BlockChoice, Skeleton
from kfnas.space.space import Choice, Decision, Space

OPS = ("conv", "sep", "mb3", "mb6")
KERNELS = (3, 5)
SE_RATIOS = (0.0, 0.25)
SKIPS = ("none", "identity", "pool")


def mnas_v2() -> Space:
    """The MNAS space on the MobileNetV2 skeleton, for images of about 96 pixels or more."""
    return mnas_space("mnas_v2", MOBILENET_V2)


def mnas_v3() -> Space:
    """The MNAS space on the MobileNetV3-Large skeleton (h-swish), for images of about 96 pixels or more."""
    return mnas_space("mnas_v3", MOBILENET_V3)


def mnas_small() -> Space:
    """The MNAS space on a skeleton with three strides, for images of 28 to 64 pixels."""
    return mnas_space("mnas_small", SMALL)


def mnas_tiny() -> Space:
    """The MNAS space on a skeleton of four blocks and three strides, for images of 14 to 32 pixels: a trial that costs little on a CPU."""
    return mnas_space("mnas_tiny", TINY)


def mnas_space(name: str, skeleton: Skeleton) -> Space:
    """The MNAS space over `skeleton`."""
    codec = _Codec(skeleton)

    def network(choices: Mapping[str, Choice], arguments: NetworkArguments) -> NetworkSpec:
        return build_mnas(skeleton, codec.from_names(choices), arguments)

    def canonical(tokens: tuple[int, ...]) -> tuple[int, ...]:
        return codec.encode(canonical_choices(skeleton, codec.decode(tokens)))

    return Space(codec.decisions(), name=name, canonical=canonical, network=network, reference=codec.encode(skeleton.reference))


def canonical_choices(skeleton: Skeleton, choices: tuple[BlockChoice, ...]) -> tuple[BlockChoice, ...]:
    """The first, in token order, of all choices that build the layers that `choices` build."""
    plan = plan_layers(skeleton, choices)
    if any(_share_layers(skeleton, block, choices) for block in range(len(choices) - 1)):
        codec = _Codec(skeleton)
        return min(_readings(skeleton, plan, ()), key=codec.encode)
    fits = {layer.block for layer in plan if layer.skip != "none"}
    return tuple(choice if block in fits else choice._replace(skip="none") for block, choice in enumerate(choices))


def _share_layers(skeleton: Skeleton, block: int, choices: tuple[BlockChoice, ...]) -> bool:
    """Whether a layer of `block` could as well be one of the next block, skips aside."""
    (first, second), (left, right) = skeleton.blocks[block : block + 2], choices[block : block + 2]
    same_shape = second.stride == 1 and first.activation == second.activation and first.width * left.width == second.width * right.width
    return same_shape and left[:3] == right[:3]


def _readings(skeleton: Skeleton, plan: list[LayerPlan], read: tuple[BlockChoice, ...]) -> Iterator[tuple[BlockChoice, ...]]:
    """All choices that build `plan`, given those of its first blocks; `plan` holds the layers that these leave."""
    if len(read) == len(skeleton.blocks):
        if not plan:
            yield read
        return
    for count in skeleton.blocks[len(read)].layer_choices:
        choice = _block_of(skeleton, len(read), plan[:count]) if count <= len(plan) else None
        if choice is not None:
            yield from _readings(skeleton, plan[count:], (*read, choice))


def _block_of(skeleton: Skeleton, index: int, layers: list[LayerPlan]) -> BlockChoice | None:
    """The choice, first in token order, that makes block `index` of these layers, or None."""
    block, first = skeleton.blocks[index], layers[0]
    if first.stride != block.stride or first.activation != block.activation:
        return None
    if any(layer.stride != 1 or _likeness(layer) != _likeness(first) for layer in layers[1:]):
        return None
    for skip, width in product(SKIPS, WIDTHS):
        same_skips = all(fitting_skip(skip, layer.in_width, layer.out_width, layer.stride) == layer.skip for layer in layers)
        if same_skips and block.width * width == first.out_width:
            return BlockChoice(first.op, first.kernel, first.se, skip, width, len(layers))
    return None


def _likeness(layer: LayerPlan) -> tuple[str, int, float, float, str]:
    return layer.op, layer.kernel, layer.se, layer.out_width, layer.activation


class _Codec:
    """Tokens, named choices and `BlockChoice` tuples of one skeleton."""

    def __init__(self, skeleton: Skeleton) -> None:
        self._choices: list[tuple[tuple[Choice, ...], ...]] = [(OPS, KERNELS, SE_RATIOS, SKIPS, WIDTHS, block.layer_choices) for block in skeleton.blocks]

    def decisions(self) -> list[Decision]:
        return [
            Decision(f"block{index}/{field}", choices)
            for index, block in enumerate(self._choices)
            for field, choices in zip(BlockChoice._fields, block, strict=True)
        ]

    def decode(self, tokens: tuple[int, ...]) -> tuple[BlockChoice, ...]:
        starts = range(0, len(tokens) + 1, len(BlockChoice._fields))
        return tuple(
            BlockChoice(*(choices[token] for choices, token in zip(block, tokens[start:stop], strict=True)))  # type: ignore[arg-type]
            for block, (start, stop) in zip(self._choices, pairwise(starts), strict=True)
        )

    def encode(self, choices: tuple[BlockChoice, ...]) -> tuple[int, ...]:
        return tuple(self._index(block, field, value) for block, choice in enumerate(choices) for field, value in enumerate(choice))

    def from_names(self, choices: Mapping[str, Choice]) -> tuple[BlockChoice, ...]:
        names = BlockChoice._fields
        return tuple(BlockChoice(*(choices[f"block{index}/{name}"] for name in names)) for index in range(len(self._choices)))  # type: ignore[arg-type]

    def _index(self, block: int, field: int, value: Any) -> int:
        return self._choices[block][field].index(value)
