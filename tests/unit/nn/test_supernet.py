from __future__ import annotations

import copy
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kfnas.errors import SpaceError, UserError
from kfnas.nn import Supernet, build_network, build_supernet, recalibrate
from kfnas.nn.supernet import by_batch
from kfnas.space import Architecture, MixopSpace, NetworkArguments
from kfnas.space.mixop_operators import Bottleneck, Identity
from kfnas.space.mixop_skeletons import MixopSkeleton, Stage

ARGUMENTS = NetworkArguments(resolution=12, in_channels=1, num_outputs=5)
OPERATORS = (Identity(), Bottleneck("MBConv", 3, 3), Bottleneck("NConv", 1, 3), Bottleneck("RConv", 2, 5))


def space(dropout: float = 0.0) -> MixopSpace:
    return MixopSpace("toy", MixopSkeleton("toy", 8, 8, (Stage(8, 3, 1), Stage(16, 2, 2)), 16, dropout=dropout), OPERATORS, reference="MBConv_3_3")


def supernet(seed: int = 0, dropout: float = 0.0) -> Supernet:
    return build_supernet(space(dropout), ARGUMENTS, seeded(seed))


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def images(seed: int = 1, batch: int = 6) -> Tensor:
    return torch.randn(batch, 1, 12, 12, generator=seeded(seed))


def architectures(count: int) -> list[Architecture]:
    rng = np.random.default_rng(0)
    return [space().random(rng) for _ in range(count)]


def with_random_scales(net: Supernet) -> Supernet:
    """Batch-norm scales and shifts as after some training."""
    generator = seeded(5)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5, generator=generator)
            nn.init.normal_(module.bias, 0, 0.3, generator=generator)
    return net


def test_a_path_with_its_own_statistics_equals_the_same_weights_as_a_network_of_their_own() -> None:
    net = with_random_scales(supernet())
    for architecture in architectures(12):
        statistics = recalibrate(net, architecture, [images(seed) for seed in (2, 3, 4)])
        alone = net.cut(architecture, statistics)
        with torch.no_grad():
            torch.testing.assert_close(net(images(), architecture, statistics=statistics), alone(images()), rtol=0, atol=1e-6)
        assert alone(images()).std() > 1e-3


def test_a_cut_out_network_is_the_one_that_the_space_builds() -> None:
    net = supernet()
    for architecture in architectures(12):
        alone = net.cut(architecture, recalibrate(net, architecture, [images()]))
        spec = space().network(architecture, ARGUMENTS)
        assert alone.spec == spec
        assert list(alone.state_dict()) == list(build_network(spec).state_dict())
        assert not alone.training


def test_statistics_are_those_that_a_network_of_the_same_weights_gathers_over_the_same_batches() -> None:
    net = with_random_scales(supernet())
    for architecture in architectures(4):
        batches = [images(seed) for seed in (2, 3, 4)]
        alone = net.cut(architecture, recalibrate(net, architecture, batches))
        gathered = copy.deepcopy(alone).train()
        for module in gathered.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.reset_running_stats()
                module.momentum = None
        with torch.no_grad():
            for batch in batches:
                gathered(batch)
        for name, tensor in gathered.state_dict().items():
            torch.testing.assert_close(alone.state_dict()[name], tensor, rtol=1e-5, atol=1e-6, msg=name)


def test_without_statistics_a_path_equals_a_network_in_training() -> None:
    net = with_random_scales(supernet())
    architecture = architectures(1)[0]
    alone = net.cut(architecture, recalibrate(net, architecture, [images()])).train()
    torch.testing.assert_close(net(images(), architecture), alone(images()), rtol=0, atol=1e-6)


def test_another_paths_statistics_give_another_result_and_are_refused() -> None:
    net = supernet()
    first, second = architectures(2)
    statistics = recalibrate(net, first, [images()])
    with pytest.raises(SpaceError, match="recalibrate for it"):
        net(images(), second, statistics=statistics)
    with pytest.raises(SpaceError, match="recalibrate for it"):
        net.cut(second, statistics)


def test_no_pass_leaves_a_trace_in_the_supernet() -> None:
    net = supernet()
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    first, second = architectures(2)
    alone = net(images(), first)
    recalibrate(net, second, [images(3)])
    net(images(4), second).sum().backward()
    net.eval()
    assert torch.equal(net(images(), first), alone)
    assert all(torch.equal(before[name], tensor) for name, tensor in net.state_dict().items())
    assert not list(net.buffers())


def test_only_the_path_gets_gradients() -> None:
    net = supernet()
    for architecture in architectures(4):
        net.zero_grad()
        net(images(), architecture).square().mean().backward()
        trained = [name for name, parameter in net.named_parameters() if parameter.grad is not None]
        choices = list(space().choices_of(architecture).values())
        for name in trained:
            if name.startswith("mixops."):
                _, index, operator, *_ = name.split(".")
                assert operator == choices[int(index)]
        on_path = {id(parameter) for parameter in net.path_parameters(architecture)}
        assert {id(parameter) for parameter in net.parameters() if parameter.grad is not None} == on_path


def test_architectures_share_the_weights_of_the_operators_they_have_in_common() -> None:
    net = supernet()
    first = space().architecture((1, 1, 1, 0, 0))
    second = space().architecture((1, 2, 1, 1, 0))
    shared = {id(parameter) for parameter in net.path_parameters(first)} & {id(parameter) for parameter in net.path_parameters(second)}
    expected = [net.before, net.operator(0, 1), net.operator(2, 1), net.operator(4, 0), net.after, net.classifier]
    assert shared == {id(parameter) for module in expected for parameter in module.parameters()}


def test_the_same_operator_at_two_layers_has_two_sets_of_weights() -> None:
    net = supernet()
    first, second = net.operator(1, 1).state_dict(), net.operator(2, 1).state_dict()
    assert any(not torch.equal(first[name], second[name]) for name in first)


def test_identities_at_other_layers_are_other_paths_of_one_network() -> None:
    net = supernet()
    first, second = space().architecture((1, 0, 2, 0, 0)), space().architecture((1, 2, 0, 0, 0))
    assert not torch.equal(net(images(), first), net(images(), second))
    cut = [net.cut(architecture, recalibrate(net, architecture, [images()])) for architecture in (first, second)]
    assert cut[0].spec == cut[1].spec
    with torch.no_grad():
        for architecture, alone in zip((first, second), cut, strict=True):
            torch.testing.assert_close(alone(images()), net(images(), architecture, statistics=recalibrate(net, architecture, [images()])))


def test_weights_come_from_the_given_generator_alone() -> None:
    before = torch.get_rng_state()
    first, second, other = (supernet(seed).state_dict() for seed in (7, 7, 8))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


def test_dropout_acts_only_where_a_generator_is_given() -> None:
    net = supernet(dropout=0.5)
    architecture = Architecture("toy", (1, 1, 1, 0, 0))
    plain = net(images(), architecture)
    assert torch.equal(net.train()(images(), architecture), plain)
    dropped = [net(images(), architecture, generator=seeded(seed)) for seed in (3, 3, 4)]
    assert torch.equal(dropped[0], dropped[1])
    assert not torch.equal(dropped[0], dropped[2])
    assert not torch.equal(dropped[0], plain)


def test_an_architecture_of_another_space_is_refused() -> None:
    with pytest.raises(SpaceError, match="use an architecture of this space"):
        supernet()(images(), Architecture("mnas_small", (0,) * 5))


def test_recalibration_needs_a_batch() -> None:
    with pytest.raises(UserError, match="give one or more"):
        recalibrate(supernet(), architectures(1)[0], [])


def test_channels_last_and_autocast_give_nearly_the_same_outputs() -> None:
    net = with_random_scales(supernet())
    architecture = architectures(1)[0]
    with torch.no_grad():
        plain = net(images(), architecture)
        net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        torch.testing.assert_close(net(images().to(memory_format=torch.channels_last), architecture), plain, rtol=1e-4, atol=1e-5)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            half = net(images(), architecture)
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), plain, rtol=0.1, atol=0.1 * float(plain.abs().max()))


def test_normalising_by_the_batch_is_what_batch_norm_does_in_training() -> None:
    norm = nn.BatchNorm2d(4)
    features = torch.randn(3, 4, 5, 5, generator=seeded(0))
    torch.testing.assert_close(by_batch("anywhere", norm, features), F.batch_norm(features, None, None, training=True))


def test_the_weights_of_a_supernet_are_those_of_its_operators_and_ends() -> None:
    """What grows with the number of operators is their own weights: nothing is kept a path."""
    sizes = []
    for count in (2, 3, 4):
        toy = MixopSpace("toy", MixopSkeleton("toy", 8, 8, (Stage(8, 3, 1),), 16), OPERATORS[:count], reference="MBConv_3_3")
        net = build_supernet(toy, ARGUMENTS)
        ends = sum(parameter.numel() for module in (net.before, net.after, net.classifier) for parameter in module.parameters())
        operators = sum(parameter.numel() for mixop in range(3) for choice in range(count) for parameter in net.operator(mixop, choice).parameters())
        assert sum(tensor.numel() for tensor in net.state_dict().values()) == ends + operators
        sizes.append(operators)
    assert all(later > earlier for earlier, later in pairwise(sizes))
