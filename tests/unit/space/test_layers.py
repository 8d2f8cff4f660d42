from __future__ import annotations

import json
from dataclasses import replace

import pytest

from kfnas.config import parse
from kfnas.errors import ConfigError
from kfnas.space import ConvSpec, LayerSpec, LinearSpec, NetworkArguments, NetworkSpec, SqueezeExciteSpec, mnas_small, spec_digest, spec_json


def spec() -> NetworkSpec:
    layer = LayerSpec("stem", (ConvSpec("conv", 3, 8, (3, 3), 2), SqueezeExciteSpec("se", 8, 2)), 3, 8, 2, 9, 5)
    return NetworkSpec(3, 9, (layer,), (LinearSpec(8, 10),))


def test_equal_specifications_have_equal_digests() -> None:
    assert spec() is not spec()
    assert spec_digest(spec()) == spec_digest(spec())
    assert hash(spec()) == hash(spec())


def test_the_digest_does_not_change_between_versions() -> None:
    assert spec_digest(spec()) == "710fa531a83a24ecc0f85763c997d6c83b66d68cc31e176d8622771659366cf7"


@pytest.mark.parametrize("change", [{"resolution": 10}, {"dropout": 0.1}, {"layers": ()}, {"classifier": (LinearSpec(8, 11),)}])
def test_the_digest_changes_with_every_part(change: dict[str, object]) -> None:
    assert spec_digest(replace(spec(), **change)) != spec_digest(spec())  # type: ignore[arg-type]


def test_canonical_json_says_which_operation_is_which() -> None:
    layer = json.loads(spec_json(spec()))["layers"][0]
    assert [operation["kind"] for operation in layer["operations"]] == ["ConvSpec", "SqueezeExciteSpec"]


def test_num_outputs_is_the_width_of_the_last_linear_layer() -> None:
    space = mnas_small()
    assert space.reference is not None
    assert space.network(space.reference, NetworkArguments(num_outputs=7)).num_outputs == 7


@pytest.mark.parametrize("field", ["width", "resolution", "in_channels", "num_outputs"])
def test_network_arguments_of_zero_are_refused(field: str) -> None:
    with pytest.raises(ConfigError, match=field):
        parse(NetworkArguments, {field: 0})
