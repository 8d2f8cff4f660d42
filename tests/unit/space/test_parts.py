"""The parts of a space: each once, all of them, and none that does nothing."""

import numpy as np
import pytest

from kfnas.errors import SpaceError
from kfnas.space import MixopSpace, NetworkArguments, NetworkSpec, Space, Tail, distinct_parts, layer_mult_adds, mult_adds, parts_of
from kfnas.space.layers import ConvSpec, LayerSpec, LinearSpec
from kfnas.space.mixop_operators import PC_NAS_SMALL
from kfnas.space.mixop_skeletons import small_skeleton

ARGUMENTS = NetworkArguments(width=0.25, resolution=28, in_channels=1, num_outputs=10)


def mixop() -> MixopSpace:
    return MixopSpace("parts_test", small_skeleton(8), PC_NAS_SMALL)


def stacked(widths: tuple[int, ...], *, far: bool = False) -> Space:
    """Two blocks of a decision each for width, and one for the kernel of the second; with `far`, the first width reaches the third block too."""

    def network(choices, arguments: NetworkArguments) -> NetworkSpec:
        first, second, kernel, third = (int(choices[name]) for name in ("a/width", "b/width", "b/kernel", "c/width"))
        size = arguments.resolution
        convolutions = [
            ConvSpec("a", 1, first),
            ConvSpec("b", first, second, (kernel, kernel)),
            ConvSpec("c", second, third, (2 * first + 1, 1) if far else (1, 1)),
        ]
        layers = [LayerSpec(f"blocks.{i}", (conv,), conv.in_channels, conv.out_channels, 1, size, size, block=i) for i, conv in enumerate(convolutions)]
        return NetworkSpec(1, size, tuple(layers), (LinearSpec(third, 2),))

    return Space.from_decisions({"a/width": widths, "b/width": widths, "b/kernel": (3, 5), "c/width": widths}, name="stacked", network=network)


def test_parts_of_a_network_add_up_to_its_mult_adds() -> None:
    rng = np.random.default_rng(0)
    for _ in range(10):
        spec = mixop().network(mixop().random(rng), ARGUMENTS)
        *layers, tail = parts_of(spec)
        assert isinstance(tail, Tail)
        assert sum(map(layer_mult_adds, layers)) + sum(linear.in_features * linear.out_features for linear in tail.classifier) == mult_adds(spec)


def test_a_mixed_operator_space_s_parts_are_those_of_its_networks() -> None:
    found = distinct_parts(mixop(), ARGUMENTS)
    assert len(set(found)) == len(found)
    rng = np.random.default_rng(0)
    drawn = {part for _ in range(300) for part in parts_of(mixop().network(mixop().random(rng), ARGUMENTS))}
    assert drawn == set(found)


def test_layers_of_one_shape_are_one_part_and_an_identity_is_none() -> None:
    space = mixop()
    identity = [decision.choices.index("Identity") if "Identity" in decision.choices else 0 for decision in space.decisions]
    spec = space.network(space.architecture(identity), ARGUMENTS)
    assert len(parts_of(spec)) == len(spec.layers) - identity.count(9) + 1
    same = [0] * len(space.decisions)
    parts = parts_of(space.network(space.architecture(same), ARGUMENTS))
    assert len(set(parts)) < len(parts)


def test_every_choice_of_a_block_meets_every_width_of_the_block_before() -> None:
    found = distinct_parts(stacked((4, 8, 12)), ARGUMENTS)
    convolutions = {part.operations for part in found if isinstance(part, LayerSpec)}
    # 3 first layers, 3 x 3 x 2 second, 3 x 3 third; of the 1x1 ones, none of the first equals one of the third.
    assert len(convolutions) == 3 + 18 + 9
    assert len([part for part in found if isinstance(part, Tail)]) == 3


def test_a_space_whose_blocks_reach_further_is_refused() -> None:
    with pytest.raises(SpaceError, match="measure each network"):
        distinct_parts(stacked((4, 8, 12), far=True), ARGUMENTS)


def test_a_space_of_huge_blocks_is_refused() -> None:
    wide = Space.from_decisions({f"a/{index}": range(9) for index in range(5)}, network=lambda *_: None)  # type: ignore[arg-type, return-value]
    with pytest.raises(SpaceError, match="too many"):
        distinct_parts(wide, ARGUMENTS)
