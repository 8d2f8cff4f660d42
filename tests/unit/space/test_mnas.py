from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable
from itertools import product

import numpy as np
import pytest

from kfnas.errors import SpaceError
from kfnas.space import (
    MOBILENET_V2,
    MOBILENET_V3,
    SMALL,
    TINY,
    BlockChoice,
    ConvSpec,
    NetworkArguments,
    NetworkSpec,
    Skeleton,
    Space,
    SqueezeExciteSpec,
    mnas_small,
    mnas_space,
    mnas_tiny,
    mnas_v2,
    mnas_v3,
    mult_adds,
    num_params,
)
from kfnas.space.mnas_network import WIDTHS, build_mnas, channel_table, make_divisible

SPACES = [(mnas_v2, MOBILENET_V2), (mnas_v3, MOBILENET_V3), (mnas_small, SMALL), (mnas_tiny, TINY)]


def structure(spec: NetworkSpec) -> Hashable:
    """All of a network but the names and block indices of its layers."""
    layers = tuple((layer.operations, layer.in_channels, layer.out_channels, layer.stride, layer.in_size, layer.skip) for layer in spec.layers)
    return layers, spec.classifier, spec.dropout


def choices_of(space: Space, tokens: tuple[int, ...]) -> tuple[BlockChoice, ...]:
    values = list(space.choices_of(space.architecture(tokens)).values())
    return tuple(BlockChoice(*values[start : start + 6]) for start in range(0, len(values), 6))  # type: ignore[arg-type]


def with_choices(space: Space, **changes: str | int | float) -> tuple[int, ...]:
    """The reference's tokens with some choices changed, such as block2_op="conv"."""
    assert space.reference is not None
    chosen = space.choices_of(space.reference) | {name.replace("_", "/"): value for name, value in changes.items()}
    return tuple(decision.choices.index(chosen[decision.name]) for decision in space.decisions)


@pytest.mark.parametrize(("make", "skeleton"), SPACES)
def test_each_block_of_a_space_has_432_choices(make: Callable[[], Space], skeleton: Skeleton) -> None:
    space = make()
    assert [block.name for block in space.blocks] == [f"block{index}" for index in range(len(skeleton.blocks))]
    assert space.size == 432 ** len(skeleton.blocks)
    assert [decision.name.partition("/")[2] for decision in space.decisions[:6]] == ["op", "kernel", "se", "skip", "width", "layers"]
    for block, decision in zip(skeleton.blocks, space.decisions[5::6], strict=True):
        assert decision.choices == ((1, 2, 3) if block.layers == 1 else (block.layers - 1, block.layers, block.layers + 1))


def test_spaces_of_different_skeletons_have_different_digests() -> None:
    assert len({make().digest for make, _ in SPACES}) == len(SPACES)


def test_the_v2_reference_is_mobilenet_v2() -> None:
    space = mnas_v2()
    assert space.reference is not None
    spec = space.network(space.reference, NetworkArguments())
    assert num_params(spec) == 3_504_872
    assert mult_adds(spec) == 300_774_272


def test_the_v3_reference_has_the_papers_kernels_widths_and_squeeze_excites() -> None:
    space = mnas_v3()
    assert space.reference is not None
    spec = space.network(space.reference, NetworkArguments())
    layers = spec.layers[1:-1]
    assert [layer.out_channels for layer in layers] == [16, 24, 24, 40, 40, 40, 80, 80, 80, 80, 112, 112, 160, 160, 160]
    spatial = [next(item for item in layer.operations if isinstance(item, ConvSpec) and item.groups > 1) for layer in layers]
    assert [conv.kernel[0] for conv in spatial] == [3, 3, 3, 5, 5, 5, 3, 3, 3, 3, 3, 3, 5, 5, 5]
    assert [conv.activation for conv in spatial] == ["relu"] * 6 + ["h_swish"] * 9
    assert [any(isinstance(item, SqueezeExciteSpec) for item in layer.operations) for layer in layers] == [False] * 3 + [True] * 3 + [False] * 4 + [True] * 5
    assert [linear.out_features for linear in spec.classifier] == [1280, 1000]
    assert (mult_adds(spec), num_params(spec)) == (209_647_584, 4_238_206)


def test_the_small_reference_keeps_seven_blocks_and_an_eighth_of_the_resolution() -> None:
    space = mnas_small()
    assert space.reference is not None
    spec = space.network(space.reference, NetworkArguments(resolution=32, num_outputs=10))
    assert {layer.block for layer in spec.layers} == {None, *range(7)}
    assert [layer.stride for layer in spec.layers if layer.stride > 1] == [2, 2, 2]
    assert spec.layers[-1].out_size == 4
    assert spec.layers[-1].out_channels == 1280


def test_the_tiny_reference_keeps_four_blocks_and_an_eighth_of_the_resolution() -> None:
    space = mnas_tiny()
    assert space.reference is not None
    spec = space.network(space.reference, NetworkArguments(width=0.25, resolution=14, in_channels=1, num_outputs=10))
    assert {layer.block for layer in spec.layers} == {None, *range(4)}
    assert [layer.out_channels for layer in spec.layers] == [4, 4, 6, 6, 12, 12, 24, 32]
    assert [layer.out_size for layer in spec.layers] == [7, 7, 4, 4, 2, 2, 2, 2]


@pytest.mark.parametrize(("skeleton", "width", "head", "last"), [(MOBILENET_V2, 0.5, 1280, 1280), (MOBILENET_V3, 0.5, 480, 1280), (SMALL, 0.5, 640, 640)])
def test_heads_below_width_1(skeleton: Skeleton, width: float, head: int, last: int) -> None:
    spec = build_mnas(skeleton, skeleton.reference, NetworkArguments(width=width))
    assert (spec.layers[-1].out_channels, spec.classifier[-1].in_features) == (head, last)


def test_builder_arguments_reach_the_network() -> None:
    space = mnas_small()
    assert space.reference is not None
    spec = space.network(space.reference, NetworkArguments(width=1.3, resolution=28, in_channels=1, num_outputs=10))
    assert (spec.in_channels, spec.resolution, spec.num_outputs) == (1, 28, 10)
    assert [layer.in_size for layer in spec.layers if layer.stride == 2] == [28, 14, 7]
    assert spec.layers[0].out_channels == 42


@pytest.mark.parametrize("make", [make for make, _ in SPACES])
@pytest.mark.parametrize("width", [0.38, 1.0, 1.3])
def test_layers_fit_each_other(make: Callable[[], Space], width: float) -> None:
    space = make()
    rng = np.random.default_rng(5)
    for _ in range(30):
        spec = space.network(space.random(rng), NetworkArguments(width=width, resolution=37))
        for before, layer in zip(spec.layers, spec.layers[1:], strict=False):
            assert (layer.in_channels, layer.in_size) == (before.out_channels, before.out_size)
        for layer in spec.layers:
            channels, stride = layer.in_channels, 1
            for operation in layer.operations:
                assert channels == (operation.channels if isinstance(operation, SqueezeExciteSpec) else operation.in_channels)
                if isinstance(operation, ConvSpec):
                    channels, stride = operation.out_channels, stride * operation.stride
            assert (channels, stride) == (layer.out_channels, layer.stride)
            assert layer.skip != "identity" or (stride == 1 and layer.in_channels == layer.out_channels)
            assert layer.skip != "pool" or layer.in_channels <= layer.out_channels
        assert spec.classifier[0].in_features == spec.layers[-1].out_channels


def test_squeeze_excite_follows_the_spatial_convolution_and_squeezes_the_layers_input() -> None:
    space = mnas_v2()
    tokens = with_choices(space, block2_se=0.25, block3_op="conv", block3_se=0.25, block4_op="sep", block4_se=0.25)
    layers = {layer.name: layer for layer in space.network(space.architecture(tokens), NetworkArguments()).layers}
    assert [operation.name for operation in layers["blocks.2.0"].operations] == ["expand", "depthwise", "se", "project"]
    assert layers["blocks.2.0"].operations[2] == SqueezeExciteSpec("se", 24 * 6, 6)
    assert [operation.name for operation in layers["blocks.3.1"].operations] == ["conv", "se"]
    assert layers["blocks.3.1"].operations[1] == SqueezeExciteSpec("se", 64, 16)
    assert [operation.name for operation in layers["blocks.4.0"].operations] == ["depthwise", "se", "project"]


def test_make_divisible_is_mobilenets_rule() -> None:
    assert [make_divisible(value, 8) for value in (1, 11, 12, 19, 20, 41.6, 1664)] == [8, 16, 16, 24, 24, 40, 1664]
    assert make_divisible(0.4, 1) == 1


@pytest.mark.parametrize("skeleton", [skeleton for _, skeleton in SPACES])
def test_channels_increase_with_the_width_that_is_chosen(skeleton: Skeleton) -> None:
    for hundredths in range(30, 410):
        table = channel_table(skeleton, hundredths / 100)
        for block in skeleton.blocks:
            assert len({table[block.width * factor] for factor in WIDTHS}) == 3
        assert list(table.values()) == sorted(table.values())


@pytest.mark.parametrize(("skeleton", "divisor"), [(MOBILENET_V2, 4), (MOBILENET_V3, 4), (SMALL, 2)])
def test_at_width_1_one_divisor_serves_all_blocks(skeleton: Skeleton, divisor: int) -> None:
    table = channel_table(skeleton, 1.0)
    assert table == {nominal: make_divisible(nominal, divisor) for nominal in table}
    assert [table[block.width] for block in skeleton.blocks] == [block.width for block in skeleton.blocks]


def test_neighbours_that_would_fall_together_are_parted_by_a_channel() -> None:
    # 30 x 0.32 = 9.6 and 32 x 0.32 = 10.24 both round to 10.
    table = channel_table(SMALL, 0.32)
    assert (table[30.0], table[32.0]) == (10, 11)


def test_a_width_multiplier_that_lets_widths_fall_together_is_refused() -> None:
    space = mnas_small()
    assert space.reference is not None
    with pytest.raises(SpaceError, match=r"width multiplier 0.05: .* fall together; give 0.3 or more"):
        space.network(space.reference, NetworkArguments(width=0.05))


def test_an_identity_that_fits_nowhere_equals_none() -> None:
    space = mnas_v2()
    # One layer with stride 2 in block 1, more channels out than in in block 6, fewer in block 0: nothing to add.
    canonical = space.canonical(space.architecture(with_choices(space, block1_layers=1)))
    assert canonical.tokens == with_choices(space, block0_skip="none", block1_layers=1, block1_skip="none", block6_skip="none")
    # 32 channels of the stem to at most 20: no pool either.
    pool = space.canonical(space.architecture(with_choices(space, block0_skip="pool")))
    assert space.choices_of(pool)["block0/skip"] == "none"


def test_a_skip_that_fits_some_layer_stays() -> None:
    space = mnas_v2()
    kept = with_choices(space, block0_skip="none", block1_layers=1, block1_skip="pool", block6_skip="pool")
    assert space.canonical(space.architecture(kept)).tokens == kept


def test_identity_fits_by_nominal_width_across_blocks() -> None:
    space = mnas_small()
    # Block 1 ends at 24 channels, block 2 (stride 1) has 32 x 0.75 = 24.
    tokens = with_choices(space, block2_width=0.75, block2_layers=1, block2_kernel=5)
    skips = [layer.skip for layer in space.network(space.architecture(tokens), NetworkArguments(width=1.3)).layers if layer.block == 2]
    assert skips == ["identity"]


def test_a_layer_that_could_belong_to_either_of_two_blocks_is_counted_to_one() -> None:
    space = mnas_v3()
    same = {"block6_op": "mb6", "block6_kernel": 5}
    first = space.architecture(with_choices(space, block5_layers=1, block6_layers=2, **same))
    second = space.architecture(with_choices(space, block5_layers=2, block6_layers=1, **same))
    assert space.canonical(first) == space.canonical(second)
    assert space.network(first, NetworkArguments()) == space.network(second, NetworkArguments())


@pytest.mark.parametrize(("skeleton", "width"), [(MOBILENET_V2, 0.38), (MOBILENET_V3, 1.3), (SMALL, 0.32), (SMALL, 1.0), (TINY, 0.25)])
def test_architectures_have_one_canonical_form_exactly_when_they_build_the_same_network(skeleton: Skeleton, width: float) -> None:
    """All 729 skips, widths and layer counts of two neighbouring blocks of one operator, for the first pair and those without a stride between."""
    space = mnas_space("under_test", skeleton)
    rng = np.random.default_rng(11)
    arguments = NetworkArguments(width=width, resolution=64)
    num_merged = 0
    for left in (index for index in range(len(skeleton.blocks) - 1) if index == 0 or skeleton.blocks[index + 1].stride == 1):
        canonicals: dict[Hashable, set[tuple[int, ...]]] = defaultdict(set)
        networks: dict[tuple[int, ...], set[Hashable]] = defaultdict(set)
        start = list(space.random(rng).tokens)
        start[6 * left + 6 : 6 * left + 9] = start[6 * left : 6 * left + 3]
        for pair in product(range(3), repeat=6):
            start[6 * left + 3 : 6 * left + 6], start[6 * left + 9 : 6 * left + 12] = pair[:3], pair[3:]
            tokens = tuple(start)
            network = structure(build_mnas(skeleton, choices_of(space, tokens), arguments))
            canonical = space.canonical(space.architecture(tokens)).tokens
            canonicals[network].add(canonical)
            networks[canonical].add(network)
        assert {len(found) for found in canonicals.values()} == {1}
        assert {len(found) for found in networks.values()} == {1}
        num_merged += 729 - len(networks)
    assert num_merged > 100


@pytest.mark.parametrize(("make", "skeleton"), SPACES)
def test_the_canonical_form_builds_the_same_network_and_is_its_own(make: Callable[[], Space], skeleton: Skeleton) -> None:
    space = make()
    rng = np.random.default_rng(2)
    changed = 0
    for index in range(150):
        architecture = space.random(rng)
        canonical = space.canonical(architecture)
        changed += canonical != architecture
        arguments = NetworkArguments(width=(0.38, 1.0, 1.3)[index % 3], resolution=48)
        assert space.canonical(canonical) == canonical
        assert space.network(canonical, arguments) == space.network(architecture, arguments)
        plain = [structure(build_mnas(skeleton, choices_of(space, item.tokens), arguments)) for item in (architecture, canonical)]
        assert plain[0] == plain[1]
    assert changed > 25


def test_neighbors_build_other_networks() -> None:
    space = mnas_small()
    architecture = space.random(np.random.default_rng(9))
    own = space.network(architecture, NetworkArguments(resolution=28))
    specs = [space.network(neighbor, NetworkArguments(resolution=28)) for neighbor in space.neighbors(architecture)]
    assert own not in specs
    assert len({structure(spec) for spec in specs}) == len(specs) > 50
