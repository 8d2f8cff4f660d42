"""Learning rate, seeds, divergence, evaluation."""

from __future__ import annotations

import math

import pytest
import torch

from kfnas.errors import ConfigError
from kfnas.nn import build_network
from kfnas.space import NetworkSpec
from kfnas.train import Classification, PreparedData, ProxyConfig
from kfnas.train.loop import DivergenceWatch, Training, build_optimizer, cpu_threads, derived_seed, evaluate, learning_rate, resolve_device


def test_the_learning_rate_rises_linearly_and_falls_as_a_cosine() -> None:
    config = ProxyConfig(steps=100, learning_rate=1.0, warmup=0.1)
    rates = [learning_rate(step, 100, config) for step in range(100)]
    assert rates[:3] == pytest.approx([1 / 11, 2 / 11, 3 / 11])
    assert rates[10] == 1.0
    assert rates[55] == pytest.approx(0.5)
    assert 0 < rates[99] < 1e-3
    assert learning_rate(0, 1, ProxyConfig(steps=1, warmup=0.9)) > 0


def test_seeds_differ_by_stream_and_index() -> None:
    seeds = {derived_seed(seed, stream, index) for seed in range(5) for stream in ("order", "augment") for index in range(5)}
    assert len(seeds) == 50
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert derived_seed(3, "order", 1) == derived_seed(3, "order", 1)


def test_an_epoch_sees_every_image_once_in_an_order_of_its_own(spec: NetworkSpec, data: PreparedData) -> None:
    training = Training(spec, data.splits["mini_train"], data.meta, Classification(), ProxyConfig(epochs=2, batch_size=48), seed=0)
    epochs = [torch.cat([training._batch(4 * epoch + position) for position in range(4)]).tolist() for epoch in range(2)]
    assert sorted(epochs[0]) == sorted(epochs[1]) == list(range(192))
    assert epochs[0] != epochs[1]


@pytest.mark.parametrize("optimizer", ["sgd", "adamw", "rmsprop"])
def test_only_weights_of_convolutions_and_linear_layers_decay(spec: NetworkSpec, optimizer: str) -> None:
    groups = build_optimizer([build_network(spec)], ProxyConfig(steps=1, optimizer=optimizer, weight_decay=0.5)).param_groups
    assert [group["weight_decay"] for group in groups] == [0.5, 0.0]
    assert all(parameter.ndim > 1 for parameter in groups[0]["params"])
    assert sum(len(group["params"]) for group in groups) == len(list(build_network(spec).parameters()))


def test_gradients_are_scaled_down_to_the_given_norm(spec: NetworkSpec, data: PreparedData) -> None:
    training = Training(spec, data.splits["mini_train"], data.meta, Classification(), ProxyConfig(steps=1, optimizer="adamw", max_grad_norm=1e-3), seed=0)
    training.step(0)
    norm = math.sqrt(sum(float(parameter.grad.square().sum()) for parameter in training.parameters if parameter.grad is not None))
    assert norm == pytest.approx(1e-3, rel=1e-3)


def test_divergence_is_a_loss_that_is_no_number_or_far_over_chance() -> None:
    watch = DivergenceWatch()
    assert watch.check(torch.tensor(2.3), now=True) is None
    assert watch.mean_loss == pytest.approx(2.3)
    assert all(watch.check(torch.tensor(loss), now=False) is None for loss in [40.0] * 19)
    assert watch.check(torch.tensor(40.0), now=False) == "diverged: the loss rose from 2.3 to 40; lower learning_rate"
    assert DivergenceWatch().check(torch.tensor(math.nan), now=True) == "diverged: the loss is no finite number; lower learning_rate"


def test_evaluation_leaves_running_statistics_alone_and_counts_every_image(spec: NetworkSpec, data: PreparedData) -> None:
    network = build_network(spec)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    metrics = evaluate(network, data.splits["test"], data.meta, Classification(), torch.device("cpu"))
    assert set(metrics) == {"top1", "top5", "loss"}
    assert metrics["top5"] == 1.0
    assert (metrics["top1"] * 80) % 1 == pytest.approx(0)
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


def test_outputs_that_are_no_numbers_are_divergence(spec: NetworkSpec, data: PreparedData) -> None:
    network = build_network(spec)
    with torch.no_grad():
        network.get_parameter("classifier.0.bias").fill_(math.nan)
    with pytest.raises(FloatingPointError, match="diverged"):
        evaluate(network, data.splits["test"], data.meta, Classification(), torch.device("cpu"))


def test_the_thread_count_is_put_back() -> None:
    before = torch.get_num_threads()
    with cpu_threads(before + 1):
        assert torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")
def test_a_missing_cuda_device_is_refused() -> None:
    with pytest.raises(ConfigError, match="torch finds no CUDA device; set device to auto or cpu"):
        resolve_device("cuda")
    assert resolve_device("auto") == torch.device("cpu")
