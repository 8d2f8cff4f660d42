from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor
from torchvision.models import mobilenet_v2

from kfnas.errors import SpaceError
from kfnas.nn import Network, build_network, weights_as_numpy
from kfnas.nn.network import dropout
from kfnas.space import NetworkArguments, NetworkSpec, Space, mnas_small, mnas_v2, mnas_v3

ARGUMENTS = NetworkArguments(width=0.38, resolution=28, in_channels=1, num_outputs=10)


def small_spec(seed: int = 0) -> NetworkSpec:
    space = mnas_small()
    return space.network(space.random(np.random.default_rng(seed)), ARGUMENTS)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def images(batch: int = 3, channels: int = 1, size: int = 28) -> Tensor:
    return torch.randn(batch, channels, size, size, generator=seeded(1))


def with_random_statistics(network: Network) -> Network:
    """Batch-norm statistics, scales and shifts as after some training."""
    generator = seeded(2)
    for name, tensor in network.state_dict().items():
        if name.endswith(("running_var", "bn.weight")):
            tensor.uniform_(0.5, 1.5, generator=generator)
        elif name.endswith(("running_mean", "bn.bias")):
            tensor.normal_(0.0, 0.1, generator=generator)
    return network.eval()


def test_the_v2_reference_computes_what_torchvisions_mobilenet_v2_computes() -> None:
    space = mnas_v2()
    assert space.reference is not None
    ours = build_network(space.network(space.reference, NetworkArguments(resolution=64)), seeded(0))
    theirs = mobilenet_v2()
    weights = with_random_statistics(ours).state_dict()
    theirs.load_state_dict(dict(zip(theirs.state_dict(), weights.values(), strict=True)))
    with torch.no_grad():
        torch.testing.assert_close(ours(images(2, 3, 64)), theirs.eval()(images(2, 3, 64)))


@pytest.mark.parametrize("make", [mnas_v2, mnas_v3, mnas_small])
def test_random_architectures_train_one_step(make: Callable[[], Space]) -> None:
    space = make()
    rng = np.random.default_rng(3)
    for _ in range(3):
        spec = space.network(space.random(rng), replaced(resolution=32))
        network = build_network(spec, seeded(0))
        outputs = network(images(4, 1, 32))
        assert outputs.shape == (4, 10)
        outputs.square().mean().backward()
        for name, parameter in network.named_parameters():
            assert parameter.grad is not None, name
            assert torch.isfinite(parameter.grad).all(), name


def replaced(**changes: int) -> NetworkArguments:
    return ARGUMENTS.model_copy(update=changes)


def test_state_dict_names_come_from_the_specification() -> None:
    space = mnas_v3()
    assert space.reference is not None
    names = set(build_network(space.network(space.reference, ARGUMENTS), device="meta").state_dict())
    batch_norm = {f"stem.conv.bn.{name}" for name in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")}
    squeeze_excite = {f"blocks.2.1.se.{conv}.{name}" for conv in ("reduce", "expand") for name in ("weight", "bias")}
    classifier = {f"classifier.{index}.{name}" for index in (0, 1) for name in ("weight", "bias")}
    assert batch_norm | squeeze_excite | classifier | {"stem.conv.conv.weight", "blocks.2.1.depthwise.conv.weight", "head.conv.bn.bias"} <= names
    assert {name.split(".")[0] for name in names} == {"stem", "blocks", "head", "classifier"}


def test_the_same_generator_state_gives_identical_weights_and_another_others() -> None:
    first, second, third = (build_network(small_spec(), seeded(seed)).state_dict() for seed in (7, 7, 8))
    assert all(torch.equal(first[name], second[name]) for name in first)
    differing = [name for name in first if not torch.equal(first[name], third[name])]
    assert differing == [name for name in first if name.endswith(("conv.weight", "reduce.weight", "expand.weight")) or name == "classifier.0.weight"]


def test_no_generator_means_one_seeded_with_0() -> None:
    first, second = build_network(small_spec()).state_dict(), build_network(small_spec(), seeded(0)).state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_building_leaves_torchs_global_generator_alone() -> None:
    before = torch.get_rng_state()
    build_network(small_spec(), seeded(0))
    assert torch.equal(torch.get_rng_state(), before)


def test_initial_weights_are_kaiming_fan_out_and_batch_norm_starts_neutral() -> None:
    space = mnas_v2()
    assert space.reference is not None
    weights = build_network(space.network(space.reference, NetworkArguments()), seeded(0)).state_dict()
    # 409,600 normal draws: the standard deviation is within 1% but for odds below 1e-15.
    assert weights["head.conv.conv.weight"].std().item() == pytest.approx((2 / 1280) ** 0.5, rel=0.01)
    assert weights["classifier.0.weight"].std().item() == pytest.approx(0.01, rel=0.01)
    assert torch.count_nonzero(weights["classifier.0.bias"]) == 0
    for name, tensor in weights.items():
        if ".bn." in name:
            assert torch.all(tensor == (1 if name.endswith(("bn.weight", "running_var")) else 0)), name


def test_channels_last_gives_the_same_outputs() -> None:
    for seed in range(4):
        network = with_random_statistics(build_network(small_spec(seed), seeded(seed)))
        with torch.no_grad():
            plain = network(images())
            network.to(memory_format=torch.channels_last)
            torch.testing.assert_close(network(images().to(memory_format=torch.channels_last)), plain, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_autocast_trains_under_channels_last(dtype: torch.dtype) -> None:
    for seed in range(4):
        network = build_network(small_spec(seed), seeded(seed)).to(memory_format=torch.channels_last)
        batch = images(8).to(memory_format=torch.channels_last)
        exact = copy.deepcopy(network)(batch)
        with torch.autocast("cpu", dtype=dtype):
            outputs = network(batch)
        assert outputs.dtype == dtype
        torch.testing.assert_close(outputs.float(), exact, rtol=0.1, atol=0.1)
        outputs.float().square().mean().backward()
        assert all(parameter.grad is not None and torch.isfinite(parameter.grad).all() for parameter in network.parameters())


def test_dropout_acts_in_training_only_and_draws_from_the_given_generator() -> None:
    spec = replace(small_spec(), dropout=0.5)
    network = build_network(spec, seeded(0))
    before = torch.get_rng_state()
    outputs = [network(images(), seeded(seed)) for seed in (3, 3, 4)]
    assert torch.equal(outputs[0], outputs[1])
    assert not torch.equal(outputs[0], outputs[2])
    assert torch.equal(torch.get_rng_state(), before)
    network.eval()
    assert torch.equal(network(images(), seeded(3)), network(images(), seeded(4)))


def test_dropout_keeps_the_mean() -> None:
    features = torch.full((1, 100_000), 2.0)
    dropped = dropout(features, 0.25, seeded(5))
    assert dropped.unique().tolist() == pytest.approx([0.0, 2 / 0.75])
    # The standard deviation of the mean is 0.004: eight of them.
    assert dropped.mean().item() == pytest.approx(2.0, abs=0.03)
    assert dropout(features, 0.0, seeded(5)) is features


def test_networks_are_copied_and_pickled_whole() -> None:
    network = with_random_statistics(build_network(small_spec(), seeded(0)))
    with torch.no_grad():
        expected = network(images())
        for twin in (copy.deepcopy(network), pickle.loads(pickle.dumps(network))):
            assert torch.equal(twin(images()), expected)


def test_a_meta_network_has_shapes_and_no_weights() -> None:
    network = build_network(small_spec(), device="meta")
    assert all(tensor.is_meta for tensor in network.state_dict().values())
    assert network(images().to("meta")).shape == (3, 10)


def test_weights_as_numpy_are_contiguous_copies_that_load_back() -> None:
    network = with_random_statistics(build_network(small_spec(), seeded(0))).to(memory_format=torch.channels_last)
    arrays = weights_as_numpy(network)
    assert all(array.flags.c_contiguous for array in arrays.values())
    twin = build_network(small_spec(), seeded(9))
    twin.load_state_dict({name: torch.from_numpy(array) for name, array in arrays.items()})
    for name, tensor in network.state_dict().items():
        assert torch.equal(twin.state_dict()[name], tensor), name
    arrays["classifier.0.bias"][:] = 5
    assert torch.count_nonzero(network.state_dict()["classifier.0.bias"]) == 0


def test_bfloat16_weights_become_float32_arrays() -> None:
    network = build_network(small_spec(), seeded(0)).to(torch.bfloat16)
    assert weights_as_numpy(network)["classifier.0.weight"].dtype == np.float32


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("stem", "'stem' is given twice"),
        ("stem.conv", "lies within another layer"),
        ("spec", "'spec' .* cannot be used"),
        ("classifier", "'classifier' is given twice"),
    ],
)
def test_layer_names_that_clash_are_refused(name: str, message: str) -> None:
    spec = small_spec()
    clashing = replace(spec, layers=(spec.layers[0], replace(spec.layers[1], name=name), *spec.layers[2:]))
    with pytest.raises(SpaceError, match=message):
        build_network(clashing)
