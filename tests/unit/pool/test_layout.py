"""A network falls into parts, and their tensors are what torch builds."""

import dataclasses

import numpy as np
import pytest

from kfnas.nn import build_network
from kfnas.pool.layout import FIXED, parts_of
from kfnas.space import NetworkArguments, Space, mnas_small, mnas_v3

ARGUMENTS = NetworkArguments(width=0.5, resolution=64, num_outputs=7)


@pytest.mark.parametrize("make", [mnas_small, mnas_v3])
def test_names_and_shapes_are_those_of_the_state_dict_without_the_classifier(make) -> None:
    space, rng = make(), np.random.default_rng(0)
    for _ in range(8):
        spec = space.network(space.random(rng), ARGUMENTS)
        built = {name: tuple(tensor.shape) for name, tensor in build_network(spec, device="meta").state_dict().items() if not name.startswith("classifier.")}
        cut = {part.names[name]: shape for part in parts_of(spec) for name, shape in part.shapes.items()}
        assert cut == built


def test_blocks_come_in_order_and_fixed_layers_after_them(space: Space) -> None:
    assert space.reference is not None
    spec = space.network(space.reference, ARGUMENTS)
    parts = parts_of(spec)
    assert [part.block for part in parts] == [0, 1, 2, 3, 4, 5, 6, FIXED, FIXED]
    assert [part.name for part in parts[-2:]] == ["stem", "head"]
    assert [part.block for part in parts_of(spec, fixed_parts=False)] == list(range(7))


def test_a_layer_is_named_by_its_number_within_the_part(space: Space) -> None:
    assert space.reference is not None
    part = parts_of(space.network(space.reference, ARGUMENTS))[2]
    assert part.names["1.depthwise.conv.weight"] == "blocks.2.1.depthwise.conv.weight"


def test_image_size_and_classes_are_no_part_of_the_shape_and_channels_are(space: Space) -> None:
    assert space.reference is not None

    def shapes(**changes: object) -> list[str]:
        return [part.shape for part in parts_of(space.network(space.reference, ARGUMENTS.model_copy(update=changes)))]

    assert shapes(resolution=32, num_outputs=3) == shapes()
    assert not set(shapes(width=1.0)) & set(shapes())


def test_a_part_without_tensors_is_none(space: Space) -> None:
    assert space.reference is not None
    spec = space.network(space.reference, ARGUMENTS)
    bare = dataclasses.replace(spec, layers=tuple(dataclasses.replace(layer, operations=()) if layer.block == 3 else layer for layer in spec.layers))
    assert [part.block for part in parts_of(bare, fixed_parts=False)] == [0, 1, 2, 4, 5, 6]
