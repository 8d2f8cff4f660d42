from __future__ import annotations

from collections.abc import Callable
from itertools import product

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from kfnas.nn import Supernet
from kfnas.oneshot.batches import TensorBatches
from kfnas.oneshot.beta_nas import Draw
from kfnas.oneshot.gates import SupernetGates, gate_gradients

Images = Callable[..., tuple[Tensor, Tensor]]
Make = Callable[..., Supernet]


def loss_with_gates(net: Supernet, images: Tensor, targets: Tensor, gates: list[Tensor]) -> Tensor:
    """The loss of the network whose every block is the gated sum of all its operators, computed as written."""
    features = net.enter(images)
    for block, gate in enumerate(gates):
        features = sum(gate[choice] * net.operator(block, choice)(features) for choice in range(len(gate)))  # type: ignore[assignment]
    return F.cross_entropy(net.leave(features), targets)


def test_gate_gradients_are_those_of_the_gated_sum_of_all_operators(make_supernet: Make, make_images: Images) -> None:
    net = make_supernet().double()
    images, targets = make_images(8)
    for path in [(0, 0, 0, 0), (1, 2, 1, 2), (2, 0, 0, 1)]:
        gates = [F.one_hot(torch.tensor(choice), count).double().requires_grad_() for choice, count in zip(path, net.space.num_choices, strict=True)]
        expected_loss = loss_with_gates(net, images.double(), targets, gates)
        expected = torch.autograd.grad(expected_loss, gates)
        draw = Draw(path, tuple(tuple(range(count)) for count in net.space.num_choices))
        loss, found = gate_gradients(net, images.double(), targets, lambda outputs, wanted: F.cross_entropy(outputs.double(), wanted), draw)
        torch.testing.assert_close(loss, expected_loss.detach(), rtol=1e-6, atol=1e-6)
        for block, gradient in enumerate(found):
            # The loss is taken in single precision on the way.
            torch.testing.assert_close(gradient.double(), expected[block], rtol=1e-4, atol=1e-6)


def test_gate_gradients_are_those_of_finite_differences(make_supernet: Make, make_images: Images) -> None:
    net = make_supernet(1).double()
    images, targets = make_images(6)
    path, step = (1, 1, 0, 1), 1e-6
    counts = net.space.num_choices
    _, found = gate_gradients(net, images.double(), targets, F.cross_entropy, Draw(path, tuple(tuple(range(count)) for count in counts)))
    with torch.no_grad():
        for block, choice in [(0, 0), (0, 2), (1, 0), (2, 1), (3, 0)]:
            values = []
            for sign in (1, -1):
                gates = [F.one_hot(torch.tensor(drawn), count).double() for drawn, count in zip(path, counts, strict=True)]
                gates[block][choice] += sign * step
                values.append(loss_with_gates(net, images.double(), targets, gates))
            assert float(found[block][choice]) == pytest.approx(float((values[0] - values[1]) / (2 * step)), rel=1e-3, abs=1e-5)


def test_two_compared_paths_have_the_gradients_that_they_have_among_all(make_supernet: Make, make_images: Images) -> None:
    net = make_supernet()
    images, targets = make_images(8)
    counts = net.space.num_choices
    path = (1, 2, 0, 1)
    _, every = gate_gradients(net, images, targets, F.cross_entropy, Draw(path, tuple(tuple(range(count)) for count in counts)))
    compared = ((0, 1), (2,), (0, 1), (1, 2))
    _, some = gate_gradients(net, images, targets, F.cross_entropy, Draw(path, compared))
    for block, choices in enumerate(compared):
        torch.testing.assert_close(some[block], every[block][list(choices)])


def test_weights_get_no_gradient_and_do_not_change(make_supernet: Make, make_images: Images) -> None:
    net = make_supernet()
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    images, targets = make_images(8)
    loss, found = gate_gradients(net, images, targets, F.cross_entropy, Draw((0, 0, 1, 1), ((0, 1), (0,), (0, 1), (1,))))
    assert all(parameter.grad is None for parameter in net.parameters())
    assert all(torch.equal(before[name], tensor) for name, tensor in net.state_dict().items())
    assert not loss.requires_grad
    assert not any(gradient.requires_grad for gradient in found)


def test_only_the_drawn_path_keeps_activations(make_supernet: Make, make_images: Images, monkeypatch: pytest.MonkeyPatch) -> None:
    """Operators that are only compared run without a graph, so that memory does not grow with their number."""
    net = make_supernet()
    images, targets = make_images(4)
    seen: list[tuple[str, bool]] = []
    for block, choice in product(range(4), range(3)):
        if choice < net.space.num_choices[block]:
            layer = net.operator(block, choice)
            layer.register_forward_hook(lambda module, inputs, output: seen.append((module.place, output.requires_grad)))  # type: ignore[attr-defined]
    gate_gradients(net, images, targets, F.cross_entropy, Draw((1, 1, 0, 0), ((0, 1, 2), (0, 1, 2), (0, 1), (0, 1, 2))))
    with_graph = {place for place, graph in seen if graph}
    assert with_graph == {net.operator(block, choice).place for block, choice in enumerate((1, 1, 0, 0))}
    assert len(seen) == 4 + 2 + 2 + 1 + 2, "each compared operator runs once, the drawn one not again"


def test_parts_are_averaged(make_supernet: Make, make_images: Images) -> None:
    net = make_supernet()
    images, targets = make_images(16)
    draw = Draw((1, 0, 1, 1), ((0, 1, 2), (0, 1), (0, 1), (1, 2)))
    batches = TensorBatches(images, targets, batch_size=8, num_parts=2, seed=0)
    found = SupernetGates(net, batches, F.cross_entropy, num_parts=2).gradients(draw, 1)
    parts = [gate_gradients(net, *batches.part(1, part), F.cross_entropy, draw) for part in range(2)]
    assert found.loss == pytest.approx(float(parts[0][0] + parts[1][0]) / 2)
    for block in range(4):
        np.testing.assert_allclose(found.gradients[block], ((parts[0][1][block] + parts[1][1][block]) / 2).numpy(), rtol=1e-5, atol=1e-8)
