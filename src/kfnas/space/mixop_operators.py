"""Operators of a mixed-operator layer.

Sources: PC-NAS appendix A.1 (its operators are 1x1 - spatial - 1x1 convolutions whose expansion is the ratio of the middle channels to the input of the
first 1x1), BetaNAS section 4.1. An operator of expansion 1 keeps its first 1x1 convolution, as that appendix has it.

Ours, where the papers are silent: every operator but Identity adds its input where the shape allows (MobileNetV2's rule), its last 1x1 convolution has no
activation, and a stride belongs to one spatial convolution: the first of DConv, the second of RConv. A K x 1 convolution of stride 2 after a 1 x K one of
stride 1 reads what two convolutions of one stride each would, so no row or column is left unseen.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

from kfnas.errors import SpaceError
from kfnas.space.layers import Activation, ConvSpec, OperationSpec

Kind = Literal["MBConv", "NConv", "DConv", "RConv"]


class Operator(Protocol):
    """One choice of a mixed operator. A package's own operator is an object with these."""

    @property
    def name(self) -> str:
        """The choice's name in the space; without dots, since it is part of the names of the shared weights."""

    @property
    def adds_input(self) -> bool:
        """Whether its layer adds the input to the output where stride is 1 and widths are equal."""

    def fits(self, in_width: int, out_width: int, stride: int) -> bool:
        """Whether it can stand in a layer of these nominal widths; where not, the choice is absent from that layer's decision."""

    def operations(self, in_channels: int, out_channels: int, stride: int, activation: Activation) -> tuple[OperationSpec, ...]:
        """Its operations in order; none at all is the identity."""


@dataclass(frozen=True)
class Bottleneck:
    """1x1 convolution to `expansion` times the input channels, spatial convolutions at that width, 1x1 convolution.

    `MBConv` has one depthwise convolution, `NConv` one full, `DConv` two full, `RConv` a 1 x kernel and a kernel x 1.

    Raises:
        SpaceError: an expansion below 1, or a kernel that is not odd.
    """

    kind: Kind
    expansion: int
    kernel: int

    def __post_init__(self) -> None:
        if self.expansion < 1 or self.kernel < 1 or self.kernel % 2 == 0:
            raise SpaceError(f"operator {self.name}: expansion {self.expansion} and kernel {self.kernel} are unusable; give 1 or more, and an odd kernel")

    @property
    def name(self) -> str:
        """Such as MBConv_6_3: kind, expansion, kernel."""
        return f"{self.kind}_{self.expansion}_{self.kernel}"

    @property
    def adds_input(self) -> bool:
        """Always, where the shape allows."""
        return True

    def fits(self, in_width: int, out_width: int, stride: int) -> bool:
        """Everywhere."""
        return True

    def operations(self, in_channels: int, out_channels: int, stride: int, activation: Activation) -> tuple[OperationSpec, ...]:
        """See `Operator`."""
        hidden = self.expansion * in_channels
        expand = ConvSpec("expand", in_channels, hidden, activation=activation)
        return (expand, *self._spatial(hidden, stride, activation), ConvSpec("project", hidden, out_channels))

    def _spatial(self, hidden: int, stride: int, activation: Activation) -> tuple[ConvSpec, ...]:
        square = (self.kernel, self.kernel)
        if self.kind == "MBConv":
            return (ConvSpec("depthwise", hidden, hidden, square, stride, hidden, activation),)
        if self.kind == "NConv":
            return (ConvSpec("spatial", hidden, hidden, square, stride, activation=activation),)
        if self.kind == "DConv":
            first = ConvSpec("spatial0", hidden, hidden, square, stride, activation=activation)
            return (first, ConvSpec("spatial1", hidden, hidden, square, activation=activation))
        horizontal = ConvSpec("horizontal", hidden, hidden, (1, self.kernel), activation=activation)
        return (horizontal, ConvSpec("vertical", hidden, hidden, (self.kernel, 1), stride, activation=activation))


@dataclass(frozen=True)
class Identity:
    """The layer's input, unchanged: the network is one layer shorter. Fits where stride is 1 and widths are equal."""

    @property
    def name(self) -> str:
        """Identity."""
        return "Identity"

    @property
    def adds_input(self) -> bool:
        """Never: it is the input."""
        return False

    def fits(self, in_width: int, out_width: int, stride: int) -> bool:
        """Whether the shape is kept."""
        return stride == 1 and in_width == out_width

    def operations(self, in_channels: int, out_channels: int, stride: int, activation: Activation) -> tuple[OperationSpec, ...]:
        """None."""
        return ()


PC_NAS_SMALL: tuple[Operator, ...] = (*(Bottleneck("MBConv", expansion, kernel) for kernel in (3, 5, 7) for expansion in (1, 3, 6)), Identity())
"""The 10 operators of PC-NAS's small space (its table 4)."""

PC_NAS_LARGE: tuple[Operator, ...] = (
    *PC_NAS_SMALL,
    *(Bottleneck(kind, expansion, 3) for kind in ("NConv", "DConv") for expansion in (1, 2)),
    *(Bottleneck("RConv", expansion, kernel) for kernel in (5, 7) for expansion in (1, 2, 4)),
)
"""The 20 operators of PC-NAS's large space (its table 4)."""

BETA_NAS: tuple[Operator, ...] = (Identity(), *(Bottleneck("MBConv", expansion, kernel) for kernel in (3, 5, 7) for expansion in (3, 6)))
"""The 7 operators of BetaNAS (its section 4.1)."""
