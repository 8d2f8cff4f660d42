from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest

from kfnas.errors import SpaceError, UserError
from kfnas.space import (
    ConvSpec,
    LayerSpec,
    MixopSpace,
    NetworkArguments,
    NetworkSpec,
    OperatorCosts,
    SqueezeExciteSpec,
    mult_add_costs,
    mult_adds,
    num_params,
    param_costs,
    with_activation,
    with_squeeze_excite,
)
from kfnas.space.mixop import betanas, betanas_28, pcnas_l, pcnas_l_28, pcnas_s, pcnas_s_28
from kfnas.space.mixop_operators import BETA_NAS, PC_NAS_LARGE, PC_NAS_SMALL, Bottleneck, Identity
from kfnas.space.mixop_skeletons import PROXYLESS, MixopSkeleton, Stage, small_skeleton

SPACES = [pcnas_s, pcnas_l, betanas, pcnas_s_28, pcnas_l_28, betanas_28]
SMALL_ARGUMENTS = NetworkArguments(resolution=28, in_channels=1, num_outputs=10)

every_space = pytest.mark.parametrize("make", SPACES)


def choices(space: MixopSpace, *names: str) -> tuple[int, ...]:
    return tuple(decision.choices.index(name) for decision, name in zip(space.decisions, names, strict=True))


def structure(layer: LayerSpec) -> list[tuple[tuple[int, int], int, int, int, int, str]]:
    """Kernel, in, out, stride, groups and activation of each convolution of a layer."""
    return [
        (operation.kernel, operation.in_channels, operation.out_channels, operation.stride, operation.groups, operation.activation)
        for operation in layer.operations
        if isinstance(operation, ConvSpec)
    ]


def toy_space() -> MixopSpace:
    operators = (Identity(), Bottleneck("MBConv", 3, 3), Bottleneck("RConv", 2, 5))
    return MixopSpace("toy", MixopSkeleton("toy", 8, 8, (Stage(8, 3, 1), Stage(16, 2, 2)), 16), operators, reference="MBConv_3_3")


def test_the_operators_are_those_of_the_papers_tables() -> None:
    small = {f"MBConv_{expansion}_{kernel}" for expansion in (1, 3, 6) for kernel in (3, 5, 7)} | {"Identity"}
    more = {"NConv_1_3", "NConv_2_3", "DConv_1_3", "DConv_2_3", "RConv_1_5", "RConv_2_5", "RConv_4_5", "RConv_1_7", "RConv_2_7", "RConv_4_7"}
    beta = {f"MBConv_{expansion}_{kernel}" for expansion in (3, 6) for kernel in (3, 5, 7)} | {"Identity"}
    assert {operator.name for operator in PC_NAS_SMALL} == small
    assert {operator.name for operator in PC_NAS_LARGE} == small | more
    assert {operator.name for operator in BETA_NAS} == beta
    assert (len(PC_NAS_SMALL), len(PC_NAS_LARGE), len(BETA_NAS)) == (10, 20, 7)


@every_space
def test_a_space_has_21_blocks_of_one_decision_and_one_layer(make: Callable[[], MixopSpace]) -> None:
    space = make()
    assert len(space.blocks) == len(space.decisions) == 21
    spec = space.network(space.random(np.random.default_rng(0)), SMALL_ARGUMENTS)
    assert [layer.block for layer in spec.layers if layer.block is not None] == list(range(21))
    assert [layer.name for layer in spec.layers if layer.block is not None] == [f"blocks.{index}.0" for index in range(21)]


def test_no_two_spaces_have_the_same_digest() -> None:
    assert len({make().digest for make in SPACES}) == len(SPACES)


def test_identity_is_a_choice_only_where_the_shape_is_kept() -> None:
    for make in SPACES:
        space = make()
        for slot, decision in zip(space.skeleton.slots, space.decisions, strict=True):
            assert ("Identity" in decision.choices) == (slot.stride == 1 and slot.in_width == slot.out_width)
    assert Counter(pcnas_s().num_choices) == {10: 15, 9: 6}


def test_the_imagenet_skeleton_has_the_papers_widths_and_sizes() -> None:
    space = pcnas_s()
    spec = space.network(space.architecture([0] * 21), NetworkArguments())
    expected = [(32, 112), (16, 112)]
    for width, layers, size in [(24, 4, 56), (40, 4, 28), (80, 4, 14), (96, 4, 14), (192, 4, 7), (320, 1, 7)]:
        expected += [(width, size)] * layers
    assert [(layer.out_channels, layer.out_size) for layer in spec.layers] == [*expected, (1280, 7)]
    assert structure(spec.layers[1]) == [((3, 3), 32, 32, 1, 32, "relu6"), ((1, 1), 32, 16, 1, 1, "none")]


def test_the_small_skeleton_takes_any_number_of_layers_from_its_six_stages_on() -> None:
    for count in range(6, 25):
        skeleton = small_skeleton(count)
        assert len(skeleton.slots) == count
        assert sum(slot.stride == 2 for slot in skeleton.slots) == 2
    assert [stage.layers for stage in small_skeleton(9).stages] == [2, 2, 2, 1, 1, 1]
    with pytest.raises(SpaceError, match="give 6 or more"):
        small_skeleton(5)


@pytest.mark.parametrize(
    ("operator", "expected"),
    [
        (Bottleneck("MBConv", 6, 5), [((1, 1), 8, 48, 1, 1), ((5, 5), 48, 48, 2, 48), ((1, 1), 48, 16, 1, 1)]),
        (Bottleneck("NConv", 2, 3), [((1, 1), 8, 16, 1, 1), ((3, 3), 16, 16, 2, 1), ((1, 1), 16, 16, 1, 1)]),
        (Bottleneck("DConv", 2, 3), [((1, 1), 8, 16, 1, 1), ((3, 3), 16, 16, 2, 1), ((3, 3), 16, 16, 1, 1), ((1, 1), 16, 16, 1, 1)]),
        (Bottleneck("RConv", 4, 7), [((1, 1), 8, 32, 1, 1), ((1, 7), 32, 32, 1, 1), ((7, 1), 32, 32, 2, 1), ((1, 1), 32, 16, 1, 1)]),
    ],
)
def test_each_kind_of_operator_has_the_papers_structure(operator: Bottleneck, expected: list[tuple[object, ...]]) -> None:
    operations = operator.operations(8, 16, 2, "relu6")
    shapes = [(item.kernel, item.in_channels, item.out_channels, item.stride, item.groups) for item in operations if isinstance(item, ConvSpec)]
    assert shapes == expected
    assert [item.activation for item in operations] == ["relu6"] * (len(operations) - 1) + ["none"]


def test_operators_add_their_input_where_the_shape_allows_and_identity_does_nothing() -> None:
    space = toy_space()
    layers = space.layers(SMALL_ARGUMENTS)
    assert [layer.skip for layer in layers.mixops[0]] == ["none", "identity", "identity"]
    assert [layer.skip for layer in layers.mixops[3]] == ["none", "none"]
    assert layers.mixops[0][0].operations == ()


def test_identities_are_last_in_the_canonical_form_of_a_run_of_equal_shape() -> None:
    space = toy_space()
    given = choices(space, "Identity", "RConv_2_5", "MBConv_3_3", "MBConv_3_3", "Identity")
    expected = choices(space, "RConv_2_5", "MBConv_3_3", "Identity", "MBConv_3_3", "Identity")
    assert space.canonical(space.architecture(given)).tokens == expected
    assert space.canonical(space.architecture(expected)).tokens == expected


def test_architectures_are_canonically_equal_exactly_when_their_layers_are() -> None:
    space = toy_space()
    layers = space.layers(SMALL_ARGUMENTS)
    by_form: dict[tuple[int, ...], set[object]] = {}
    forms_by_network: dict[object, set[tuple[int, ...]]] = {}
    for tokens in np.ndindex(*space.num_choices):
        network = tuple(layer.operations for layer in layers.path(tokens).layers if layer.operations)
        form = space.canonical(space.architecture(tokens)).tokens
        by_form.setdefault(form, set()).add(network)
        forms_by_network.setdefault(network, set()).add(form)
    assert all(len(networks) == 1 for networks in by_form.values())
    assert all(len(forms) == 1 for forms in forms_by_network.values())
    assert len(by_form) < space.size


@every_space
def test_the_sum_of_operator_mult_adds_is_exactly_the_networks(make: Callable[[], MixopSpace]) -> None:
    space = make()
    for width in (0.5, 1.4):
        arguments = NetworkArguments(width=width, resolution=32, num_outputs=7)
        costs = mult_add_costs(space.layers(arguments))
        rng = np.random.default_rng(1)
        for _ in range(5):
            architecture = space.random(rng)
            assert costs(architecture.tokens) == mult_adds(space.network(architecture, arguments))


def test_a_changed_space_builds_and_costs_what_the_change_makes_of_its_networks() -> None:
    def change(spec: NetworkSpec) -> NetworkSpec:
        return with_squeeze_excite(with_activation(spec, "swish"), 0.25, place="operator", activation="swish")

    space, rng = pcnas_l_28(), np.random.default_rng(3)
    changed = space.changed(change)
    assert (changed.digest, changed.reference) == (space.digest, space.reference)
    layers = changed.layers(SMALL_ARGUMENTS)
    for architecture in [space.random(rng) for _ in range(20)]:
        expected = change(space.network(architecture, SMALL_ARGUMENTS))
        assert changed.network(architecture, SMALL_ARGUMENTS) == expected
        assert layers.path(architecture.tokens) == change(space.layers(SMALL_ARGUMENTS).path(architecture.tokens))
        assert mult_add_costs(layers)(architecture.tokens) == mult_adds(expected)
        assert param_costs(layers)(architecture.tokens) == num_params(expected)
    twice = space.changed(lambda spec: with_squeeze_excite(spec, 0.5, place="operator")).changed(lambda spec: with_activation(spec, "h_swish"))
    operations = twice.network(space.reference, SMALL_ARGUMENTS).layers[5].operations
    assert {operation.activation for operation in operations} == {"h_swish", "none"}
    assert operations[-1].name == "se"


def test_the_mean_and_range_of_costs_are_those_over_all_paths() -> None:
    costs = OperatorCosts(2.0, ((1.0, 3.0), (0.0, 5.0, 4.0)))
    every = [costs(path) for path in np.ndindex(2, 3)]
    assert costs.mean == pytest.approx(np.mean(every))
    assert costs.range == (min(every), max(every))


@pytest.mark.parametrize("entries", [(), ((),), ((1.0,), (float("nan"),)), ((-1.0,),)])
def test_costs_with_missing_or_negative_entries_are_refused(entries: tuple[tuple[float, ...], ...]) -> None:
    with pytest.raises(UserError, match="measure the missing"):
        OperatorCosts(0.0, entries)


def test_squeeze_excite_comes_at_the_end_of_each_operator_and_nowhere_else() -> None:
    space = toy_space()
    plain = space.network(space.architecture(choices(space, "MBConv_3_3", "RConv_2_5", "Identity", "MBConv_3_3", "RConv_2_5")), SMALL_ARGUMENTS)
    spec = with_squeeze_excite(plain, 0.25, place="operator")
    for before, after in zip(plain.layers, spec.layers, strict=True):
        if before.block is None or not before.operations:
            assert after == before
        else:
            assert after.operations[:-1] == before.operations
            assert after.operations[-1] == SqueezeExciteSpec("se", before.out_channels, before.out_channels // 4)
    assert num_params(spec) > num_params(plain)


def test_squeeze_excite_of_betanas_follows_the_last_spatial_convolution() -> None:
    space = toy_space()
    plain = space.network(space.architecture(choices(space, "MBConv_3_3", "RConv_2_5", "Identity", "MBConv_3_3", "RConv_2_5")), SMALL_ARGUMENTS)
    spec = with_squeeze_excite(plain, 0.0625, place="spatial", activation="swish")
    assert [[operation.name for operation in layer.operations] for layer in spec.layers[2:4]] == [
        ["expand", "depthwise", "se", "project"],
        ["expand", "horizontal", "vertical", "se", "project"],
    ]
    assert spec.layers[2].operations[2] == SqueezeExciteSpec("se", 24, 2, "swish")


def test_another_activation_replaces_all_but_none() -> None:
    space = toy_space()
    assert space.reference is not None
    spec = with_activation(with_squeeze_excite(space.network(space.reference, SMALL_ARGUMENTS), 0.25, place="operator"), "swish")
    activations = Counter(operation.activation for layer in spec.layers for operation in layer.operations)
    assert set(activations) == {"swish", "none"}
    assert all(layer.operations[-1].activation == "swish" for layer in spec.layers if layer.block is not None)


def test_variants_that_make_no_sense_are_refused() -> None:
    space = toy_space()
    assert space.reference is not None
    spec = space.network(space.reference, SMALL_ARGUMENTS)
    with pytest.raises(SpaceError, match="ratio 0 is out of range"):
        with_squeeze_excite(spec, 0, place="operator")
    with pytest.raises(SpaceError, match="already has an operation 'se'"):
        with_squeeze_excite(with_squeeze_excite(spec, 0.5, place="operator"), 0.5, place="operator")


def test_the_width_multiplier_scales_channels_and_the_imagenet_head_never_narrows() -> None:
    space = betanas()
    assert space.reference is not None
    wide = space.network(space.reference, NetworkArguments(width=1.4))
    assert [layer.out_channels for layer in wide.layers[-3:]] == [272, 448, 1792]
    assert space.network(space.reference, NetworkArguments(width=0.5)).layers[-1].out_channels == 1280
    small = betanas_28()
    assert small.reference is not None
    assert small.network(small.reference, SMALL_ARGUMENTS.model_copy(update={"width": 0.5})).layers[-1].out_channels == 160


@pytest.mark.parametrize(
    ("operators", "reference", "message"),
    [
        ((Identity(), Identity()), "Identity", "name of their own"),
        ((Bottleneck("MBConv", 3, 3),), "MBConv_6_3", "no choice of every layer"),
        ((Bottleneck("MBConv", 3, 3), Identity()), "Identity", "no choice of every layer"),
        ((Identity(),), "Identity", "has no choices"),
    ],
)
def test_operators_that_make_no_space_are_refused(operators: tuple[Bottleneck | Identity, ...], reference: str, message: str) -> None:
    with pytest.raises(SpaceError, match=message):
        MixopSpace("odd", PROXYLESS, operators, reference=reference)


@pytest.mark.parametrize(("expansion", "kernel"), [(0, 3), (1, 4), (1, -1)])
def test_operators_of_unusable_shape_are_refused(expansion: int, kernel: int) -> None:
    with pytest.raises(SpaceError, match="odd kernel"):
        Bottleneck("MBConv", expansion, kernel)
