"""Macro skeletons of mixed-operator spaces: stem, one fixed layer, stages of mixed operators, head.

Source of `PROXYLESS`: the skeleton that PC-NAS takes over from ProxylessNAS (arXiv:1812.00332). Its fixed first layer is MobileNetV2's: a depthwise 3x3
convolution and a 1x1 one. `small_skeleton` is ours, for images of 28 to 64 pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from kfnas.errors import SpaceError
from kfnas.space.layers import Activation


class Stage(NamedTuple):
    """Consecutive mixed operators of one nominal width; `stride` is that of the first."""

    width: int
    layers: int
    stride: int


class Slot(NamedTuple):
    """Where one mixed operator stands: nominal widths and stride."""

    in_width: int
    out_width: int
    stride: int


@dataclass(frozen=True)
class MixopSkeleton:
    """What a mixed-operator space does not decide.

    Attributes:
        name: of the skeleton.
        stem_width: nominal channels of the 3x3 stem convolution, stride 2.
        first_width: nominal channels of the fixed layer after it.
        stages: of mixed operators.
        head_width: channels of the 1x1 convolution before the pool.
        activation: of every convolution that has one.
        narrow_head: whether the head follows a width multiplier below 1; without it it is never narrower than at width 1.
        dropout: share, before the classifier.
    """

    name: str
    stem_width: int
    first_width: int
    stages: tuple[Stage, ...]
    head_width: int
    activation: Activation = "relu6"
    narrow_head: bool = False
    dropout: float = 0.0

    @property
    def slots(self) -> tuple[Slot, ...]:
        """One for each mixed operator, in order."""
        slots, in_width = [], self.first_width
        for stage in self.stages:
            for number in range(stage.layers):
                slots.append(Slot(in_width, stage.width, stage.stride if number == 0 else 1))
                in_width = stage.width
        return tuple(slots)


PROXYLESS = MixopSkeleton(
    name="proxyless",
    stem_width=32,
    first_width=16,
    stages=(Stage(24, 4, 2), Stage(40, 4, 2), Stage(80, 4, 2), Stage(96, 4, 1), Stage(192, 4, 2), Stage(320, 1, 1)),
    head_width=1280,
    dropout=0.2,
)
"""21 mixed operators, for images of about 96 pixels or more."""

SMALL_LAYERS = 21
"""Mixed operators of the named spaces on the small skeleton."""


def small_skeleton(num_layers: int = SMALL_LAYERS) -> MixopSkeleton:
    """`PROXYLESS` at half its widths and with three strides in all, for images of 28 to 64 pixels.

    Args:
        num_layers: mixed operators; the last stage has one, the others share the rest, the earlier ones getting what does not divide evenly.

    Raises:
        SpaceError: fewer layers than stages.
    """
    rows = [(16, 1), (24, 2), (40, 1), (48, 1), (96, 2)]
    if num_layers <= len(rows):
        raise SpaceError(f"{num_layers} mixed operators do not fill the small skeleton's {len(rows) + 1} stages; give {len(rows) + 1} or more")
    each, more = divmod(num_layers - 1, len(rows))
    stages = [Stage(width, each + (index < more), stride) for index, (width, stride) in enumerate(rows)]
    return MixopSkeleton("small", 16, 16, (*stages, Stage(160, 1, 1)), head_width=320, narrow_head=True)
