"""Choices of the MNAS space to layer specifications.

The plan says what every layer is in nominal widths (the skeleton's times the block's factor): which skips fit is settled there, so that it
does not depend on the builder's arguments. Channels come last, by the width multiplier and one divisor for stem and blocks (8 for the head).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import pairwise
from types import MappingProxyType
from typing import NamedTuple

from kfnas.errors import SpaceError
from kfnas.space.layers import (
    Activation,
    ConvSpec,
    LayerSpec,
    LinearSpec,
    NetworkArguments,
    NetworkSpec,
    OperationSpec,
    Skip,
    SqueezeExciteSpec,
)
from kfnas.space.skeletons import BlockChoice, BlockSkeleton, Skeleton

WIDTHS = (0.75, 1.0, 1.25)
DIVISORS = (8, 4, 2, 1)
EXPANSIONS = {"mb3": 3, "mb6": 6}


class LayerPlan(NamedTuple):
    """One layer of a block, in nominal widths, with the skip that it really gets."""

    block: int
    op: str
    kernel: int
    se: float
    skip: Skip
    in_width: float
    out_width: float
    stride: int
    activation: Activation


def fitting_skip(skip: str, in_width: float, out_width: float, stride: int) -> Skip:
    """The skip that a layer gets when its block chose `skip`.

    Identity needs stride 1 and equal widths, pool no fewer output channels than input channels.
    """
    if skip == "identity" and stride == 1 and in_width == out_width:
        return "identity"
    if skip == "pool" and in_width <= out_width:
        return "pool"
    return "none"


def plan_layers(skeleton: Skeleton, choices: Sequence[BlockChoice]) -> list[LayerPlan]:
    """The layers of all blocks in order, without stem and head."""
    plan = []
    in_width = float(skeleton.stem_width)
    for index, (block, choice) in enumerate(zip(skeleton.blocks, choices, strict=True)):
        out_width = block.width * choice.width
        for number in range(choice.layers):
            stride = block.stride if number == 0 else 1
            skip = fitting_skip(choice.skip, in_width, out_width, stride)
            plan.append(LayerPlan(index, choice.op, choice.kernel, choice.se, skip, in_width, out_width, stride, block.activation))
            in_width = out_width
    return plan


def make_divisible(value: float, divisor: int) -> int:
    """`value` rounded to a multiple of `divisor`, at least `divisor` and never more than a tenth below `value` (MobileNet's rule)."""
    rounded = max(divisor, int(value + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * value else rounded


@lru_cache(maxsize=64)
def channel_table(skeleton: Skeleton, width: float) -> Mapping[float, int]:
    """Channels of each nominal width of stem and blocks at width multiplier `width`, increasing with it.

    One divisor serves the whole network: the largest of 8, 4, 2, 1 that keeps apart what the canonical form takes to be different, which are
    the three widths of a block and unequal widths of neighbours that could share a layer. Where even 1 lets two neighbours fall together,
    the wider one gets a channel more.

    Raises:
        SpaceError: even 1 lets two widths of one block fall together.
    """
    nominal = sorted({float(skeleton.stem_width)}.union(*(_widths(block) for block in skeleton.blocks)))
    for divisor in DIVISORS:
        table = {value: make_divisible(value * width, divisor) for value in nominal}
        if all(_apart(table, group) for group in _kept_apart(skeleton)):
            return MappingProxyType(table)
    for block in skeleton.blocks:
        if not _apart(table, _widths(block)):
            raise SpaceError(f"width multiplier {width}: the three widths of a block of {block.width} channels fall together; give 0.3 or more")
    for below, value in pairwise(nominal):
        table[value] = max(table[value], table[below] + 1)
    return MappingProxyType(table)


def _widths(block: BlockSkeleton) -> set[float]:
    return {block.width * factor for factor in WIDTHS}


def _kept_apart(skeleton: Skeleton) -> list[set[float]]:
    """Sets of nominal widths that must get different channels: those of each block, and of neighbours with neither stride nor activation between."""
    neighbors = [_widths(left) | _widths(right) for left, right in pairwise(skeleton.blocks) if right.stride == 1 and left.activation == right.activation]
    return [_widths(block) for block in skeleton.blocks] + neighbors


def _apart(table: Mapping[float, int], group: set[float]) -> bool:
    return len({table[value] for value in group}) == len(group)


def build_mnas(skeleton: Skeleton, choices: Sequence[BlockChoice], arguments: NetworkArguments) -> NetworkSpec:
    """Layer specifications of a network of the MNAS space.

    Raises:
        SpaceError: the width multiplier is too small for the skeleton.
    """
    table = channel_table(skeleton, arguments.width)
    stem_channels = table[skeleton.stem_width]
    size = -(-arguments.resolution // 2)
    stem = ConvSpec("conv", arguments.in_channels, stem_channels, (3, 3), 2, activation=skeleton.stem_activation)
    layers = [LayerSpec("stem", (stem,), arguments.in_channels, stem_channels, 2, arguments.resolution, size)]
    numbers = [0] * len(skeleton.blocks)
    for plan in plan_layers(skeleton, choices):
        layers.append(_layer(plan, f"blocks.{plan.block}.{numbers[plan.block]}", table, size, skeleton))
        numbers[plan.block] += 1
        size = layers[-1].out_size
    head, classifier = _head(skeleton, layers[-1].out_channels, size, arguments)
    return NetworkSpec(arguments.in_channels, arguments.resolution, (*layers, head), classifier, skeleton.dropout)


def _head(skeleton: Skeleton, in_channels: int, size: int, arguments: NetworkArguments) -> tuple[LayerSpec, tuple[LinearSpec, ...]]:
    """Multiples of 8 here: nothing is decided about the head."""
    last_factor = arguments.width if skeleton.narrow_head else max(arguments.width, 1.0)
    if skeleton.hidden_width is None:
        features = make_divisible(skeleton.head_width * last_factor, DIVISORS[0])
        classifier: tuple[LinearSpec, ...] = (LinearSpec(features, arguments.num_outputs),)
    else:
        features = make_divisible(skeleton.head_width * arguments.width, DIVISORS[0])
        hidden = make_divisible(skeleton.hidden_width * last_factor, DIVISORS[0])
        classifier = (LinearSpec(features, hidden, skeleton.head_activation), LinearSpec(hidden, arguments.num_outputs))
    head = ConvSpec("conv", in_channels, features, activation=skeleton.head_activation)
    return LayerSpec("head", (head,), in_channels, features, 1, size, size), classifier


def _layer(plan: LayerPlan, name: str, table: Mapping[float, int], size: int, skeleton: Skeleton) -> LayerSpec:
    in_channels, out_channels = table[plan.in_width], table[plan.out_width]
    operations = _operations(plan, in_channels, out_channels, skeleton)
    return LayerSpec(name, operations, in_channels, out_channels, plan.stride, size, -(-size // plan.stride), plan.skip, plan.block)


def _operations(plan: LayerPlan, in_channels: int, out_channels: int, skeleton: Skeleton) -> tuple[OperationSpec, ...]:
    """Squeeze-excite follows the spatial convolution; its squeezed width is a share of the layer's input, as in MnasNet."""
    kernel = (plan.kernel, plan.kernel)
    operations: list[OperationSpec] = []
    hidden = in_channels * EXPANSIONS.get(plan.op, 1)
    if plan.op == "conv":
        hidden = out_channels
        operations.append(ConvSpec("conv", in_channels, out_channels, kernel, plan.stride, activation=plan.activation))
    else:
        if plan.op in EXPANSIONS:
            operations.append(ConvSpec("expand", in_channels, hidden, activation=plan.activation))
        operations.append(ConvSpec("depthwise", hidden, hidden, kernel, plan.stride, hidden, plan.activation))
    if plan.se > 0:
        operations.append(SqueezeExciteSpec("se", hidden, max(1, round(plan.se * in_channels)), gate=skeleton.gate))
    if plan.op != "conv":
        operations.append(ConvSpec("project", hidden, out_channels))
    return tuple(operations)
