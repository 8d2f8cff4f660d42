"""Mixed-operator spaces of PC-NAS (section 4.1, appendix A.1) and BetaNAS (section 4.1): each layer of a skeleton chooses one operator.

A decision is a block and a layer. Its name says what it stands on, as in `mixop4_24_40_2` (widths 24 to 40, stride 2), so that spaces with other shapes
have other digests. An operator that does not fit a layer (Identity where the shape changes) is no choice of that layer's decision.

Two architectures are the same network when they differ only in which layers of a run of equal shape are Identity: the canonical form has these last. As
paths of a supernet they are different ones, since weights belong to a layer and an operator.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, TypeAlias

from kfnas.errors import SpaceError
from kfnas.space.layers import ConvSpec, LayerSpec, LinearSpec, NetworkArguments, NetworkSpec
from kfnas.space.mixop_operators import BETA_NAS, PC_NAS_LARGE, PC_NAS_SMALL, Operator
from kfnas.space.mixop_skeletons import PROXYLESS, MixopSkeleton, Slot, small_skeleton
from kfnas.space.mnas_network import make_divisible
from kfnas.space.space import Choice, Decision, Space

_DIVISOR = 8

Change: TypeAlias = Callable[[NetworkSpec], NetworkSpec]
"""Turns a network into another of as many layers, each of which depends on the layer in its place alone (`kfnas.space.mixop_variants`)."""


class MixopLayers(NamedTuple):
    """All layers that networks of a mixed-operator space are made of.

    Attributes:
        in_channels: of the images.
        resolution: pixels a side of the images.
        before: layers ahead of the first mixed operator.
        mixops: for each mixed operator the layer of each choice, in the order of the decision's choices; all of one name.
        after: layers behind the last mixed operator.
        classifier: linear layers.
        dropout: share, before the last linear layer.
    """

    in_channels: int
    resolution: int
    before: tuple[LayerSpec, ...]
    mixops: tuple[tuple[LayerSpec, ...], ...]
    after: tuple[LayerSpec, ...]
    classifier: tuple[LinearSpec, ...]
    dropout: float

    def path(self, tokens: Sequence[int]) -> NetworkSpec:
        """The network of one choice for each mixed operator, layer by layer as given (not in canonical form)."""
        chosen = tuple(choices[token] for choices, token in zip(self.mixops, tokens, strict=True))
        return NetworkSpec(self.in_channels, self.resolution, (*self.before, *chosen, *self.after), self.classifier, self.dropout)

    def changed(self, change: Change) -> MixopLayers:
        """The layers of the networks that `change` makes of these."""
        # So many networks that each operator of each mixed operator is in one.
        networks = [change(self.path([min(token, len(choices) - 1) for choices in self.mixops])) for token in range(max(map(len, self.mixops)))]
        start, stop = len(self.before), len(self.before) + len(self.mixops)
        mixops = tuple(tuple(network.layers[start + index] for network in networks[: len(choices)]) for index, choices in enumerate(self.mixops))
        first = networks[0]
        return self._replace(before=first.layers[:start], mixops=mixops, after=first.layers[stop:], classifier=first.classifier, dropout=first.dropout)


class MixopSpace(Space):
    """A space whose every layer chooses among operators.

    Args:
        name: of the space.
        skeleton: where the layers stand.
        operators: in the order of the choices.
        reference: name of the operator that the hand-made architecture has everywhere.
        change: what is done to every network; None: nothing.

    Raises:
        SpaceError: a layer that no operator fits, operators of one name, a name with a dot, or an unknown reference.
    """

    def __init__(
        self, name: str, skeleton: MixopSkeleton, operators: Sequence[Operator], *, reference: str = "MBConv_6_3", change: Change | None = None
    ) -> None:
        self.skeleton = skeleton
        self._hand_made, self._change = reference, change
        self.operators = {operator.name: operator for operator in operators}
        if len(self.operators) < len(operators) or any("." in operator for operator in self.operators):
            raise SpaceError(f"operators {[operator.name for operator in operators]} need a name of their own each, without dots; rename them")
        self._slots = skeleton.slots
        self._idle = {operator.name for operator in operators if not operator.operations(_DIVISOR, _DIVISOR, 1, skeleton.activation)}
        decisions = [
            Decision(f"mixop{index}_{slot.in_width}_{slot.out_width}_{slot.stride}", tuple(operator.name for operator in operators if operator.fits(*slot)))
            for index, slot in enumerate(self._slots)
        ]
        if any(reference not in decision.choices for decision in decisions):
            raise SpaceError(f"reference {reference!r} is no choice of every layer; name an operator that fits everywhere, of {', '.join(self.operators)}")
        super().__init__(
            decisions,
            name=name,
            canonical=self._identities_last,
            network=self._network_of,
            reference=[decision.choices.index(reference) for decision in decisions],
        )

    def layers(self, arguments: NetworkArguments) -> MixopLayers:
        """Every layer of every operator; what a supernet and an operator table are made of."""
        layers = self._built([[str(choice) for choice in decision.choices] for decision in self.decisions], arguments)
        return layers if self._change is None else layers.changed(self._change)

    def changed(self, change: Change) -> MixopSpace:
        """The space of the same decisions whose networks are those that `change` makes of this one's: what is retrained, say. Its digest is the same."""
        before = self._change
        both = change if before is None else lambda spec: change(before(spec))
        return MixopSpace(self.name, self.skeleton, tuple(self.operators.values()), reference=self._hand_made, change=both)

    def _built(self, choices: Sequence[Sequence[str]], arguments: NetworkArguments) -> MixopLayers:
        """Layers of some choices of each mixed operator."""
        skeleton, width = self.skeleton, arguments.width
        stem_channels, first_channels = _channels(skeleton.stem_width, width), _channels(skeleton.first_width, width)
        size = -(-arguments.resolution // 2)
        stem = ConvSpec("conv", arguments.in_channels, stem_channels, (3, 3), 2, activation=skeleton.activation)
        depthwise = ConvSpec("depthwise", stem_channels, stem_channels, (3, 3), 1, stem_channels, skeleton.activation)
        before = (
            LayerSpec("stem", (stem,), arguments.in_channels, stem_channels, 2, arguments.resolution, size),
            LayerSpec("first", (depthwise, ConvSpec("project", stem_channels, first_channels)), stem_channels, first_channels, 1, size, size),
        )
        mixops = []
        for index, (slot, names) in enumerate(zip(self._slots, choices, strict=True)):
            mixops.append(tuple(self._layer(index, slot, name, width, size) for name in names))
            size = -(-size // slot.stride)
        in_channels = mixops[-1][0].out_channels
        features = _channels(skeleton.head_width, width if skeleton.narrow_head else max(width, 1.0))
        head = LayerSpec("head", (ConvSpec("conv", in_channels, features, activation=skeleton.activation),), in_channels, features, 1, size, size)
        classifier = (LinearSpec(features, arguments.num_outputs),)
        return MixopLayers(arguments.in_channels, arguments.resolution, before, tuple(mixops), (head,), classifier, skeleton.dropout)

    def _layer(self, index: int, slot: Slot, choice: str, width: float, size: int) -> LayerSpec:
        operator = self.operators[choice]
        in_channels, out_channels = _channels(slot.in_width, width), _channels(slot.out_width, width)
        operations = operator.operations(in_channels, out_channels, slot.stride, self.skeleton.activation)
        skip = "identity" if operator.adds_input and slot.stride == 1 and slot.in_width == slot.out_width else "none"
        return LayerSpec(f"blocks.{index}.0", operations, in_channels, out_channels, slot.stride, size, -(-size // slot.stride), skip, index)  # type: ignore[arg-type]

    def _network_of(self, choices: Mapping[str, Choice], arguments: NetworkArguments) -> NetworkSpec:
        spec = self._built([[str(choices[decision.name])] for decision in self.decisions], arguments).path([0] * len(self.decisions))
        return spec if self._change is None else self._change(spec)

    def _identities_last(self, tokens: tuple[int, ...]) -> tuple[int, ...]:
        """In each run of layers that keep one shape, the operators that do something first, in their order."""
        ordered: list[int] = []
        doing: list[int] = []
        idle: list[int] = []
        for slot, decision, token in zip(self._slots, self.decisions, tokens, strict=True):
            if slot.stride != 1 or slot.in_width != slot.out_width:
                ordered += [*doing, *idle, token]
                doing, idle = [], []
            elif decision.choices[token] in self._idle:
                idle.append(token)
            else:
                doing.append(token)
        return (*ordered, *doing, *idle)


def _channels(nominal: int, width: float) -> int:
    return make_divisible(nominal * width, _DIVISOR)


def pcnas_s() -> MixopSpace:
    """PC-NAS's small space: 21 layers of 10 operators, for images of about 96 pixels or more."""
    return MixopSpace("pcnas_s", PROXYLESS, PC_NAS_SMALL)


def pcnas_l() -> MixopSpace:
    """PC-NAS's large space: 21 layers of 20 operators, for images of about 96 pixels or more."""
    return MixopSpace("pcnas_l", PROXYLESS, PC_NAS_LARGE)


def betanas() -> MixopSpace:
    """BetaNAS's space: 21 layers of 7 operators, for images of about 96 pixels or more."""
    return MixopSpace("betanas", PROXYLESS, BETA_NAS)


def pcnas_s_28() -> MixopSpace:
    """PC-NAS's 10 operators on the small skeleton, for images of 28 to 64 pixels."""
    return MixopSpace("pcnas_s_28", small_skeleton(), PC_NAS_SMALL)


def pcnas_l_28() -> MixopSpace:
    """PC-NAS's 20 operators on the small skeleton, for images of 28 to 64 pixels."""
    return MixopSpace("pcnas_l_28", small_skeleton(), PC_NAS_LARGE)


def betanas_28() -> MixopSpace:
    """BetaNAS's 7 operators on the small skeleton, for images of 28 to 64 pixels."""
    return MixopSpace("betanas_28", small_skeleton(), BETA_NAS)
