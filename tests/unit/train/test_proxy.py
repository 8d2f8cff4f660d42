"""Children: what they learn, that they repeat, and how they fail."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

from kfnas.errors import DataError, SpaceError
from kfnas.nn import build_network
from kfnas.space import LinearSpec, NetworkSpec
from kfnas.train import ChildOutcome, Classification, PreparedData, ProxyConfig, train_child

RECIPE = ProxyConfig(epochs=4, batch_size=32, learning_rate=0.1)


def same(one: ChildOutcome, other: ChildOutcome) -> bool:
    assert one.weights is not None
    assert other.weights is not None
    weights = all(torch.equal(tensor, other.weights[name]) for name, tensor in one.weights.items())
    return weights and (one.accuracy, one.metrics) == (other.accuracy, other.metrics)


def test_a_child_learns_and_gives_its_weights(spec: NetworkSpec, data: PreparedData) -> None:
    outcome = train_child(spec, data, Classification(), RECIPE, seed=0)
    assert outcome.status == "ok"
    assert outcome.reason is None
    assert outcome.accuracy == outcome.metrics["top1"] > 0.8
    assert set(outcome.metrics) == {"top1", "top5", "loss", "train_loss"}
    assert outcome.device_seconds > 0
    assert outcome.weights is not None
    build_network(spec).load_state_dict(dict(outcome.weights))


def test_equal_seeds_give_equal_children_and_leave_global_randomness_alone(spec: NetworkSpec, data: PreparedData) -> None:
    recipe = RECIPE.model_copy(update={"augment": True, "epochs": 1.0})
    spec = dataclasses.replace(spec, dropout=0.2)
    state = torch.get_rng_state()
    first = train_child(spec, data, Classification(), recipe, seed=1)
    torch.rand(3)
    torch.set_rng_state(state)
    again = train_child(spec, data, Classification(), recipe, seed=1)
    assert same(first, again)
    assert torch.equal(torch.get_rng_state(), state)
    assert not same(first, train_child(spec, data, Classification(), recipe, seed=2))


def test_neither_the_test_set_nor_the_rest_is_needed(spec: NetworkSpec, data: PreparedData) -> None:
    few = PreparedData({name: data.splits[name] for name in ("mini_train", "mini_val")}, data.meta)
    recipe = RECIPE.model_copy(update={"epochs": 1.0})
    assert same(train_child(spec, few, Classification(), recipe, seed=0), train_child(spec, data, Classification(), recipe, seed=0))
    with pytest.raises(DataError, match="mini_val"):
        train_child(spec, PreparedData({"mini_train": data.splits["mini_train"]}, data.meta), Classification(), recipe, seed=0)


def test_a_child_may_start_from_given_weights(spec: NetworkSpec, data: PreparedData) -> None:
    trained = train_child(spec, data, Classification(), RECIPE, seed=0)
    assert trained.weights is not None
    recipe = ProxyConfig(steps=1, learning_rate=1e-6, batch_size=32, batch_norm_momentum=1e-6)
    warm = train_child(spec, data, Classification(), recipe, seed=1, initial_weights=trained.weights)
    assert warm.accuracy == pytest.approx(trained.accuracy, abs=0.05)
    some = {name: tensor for name, tensor in trained.weights.items() if name.startswith("stem")}
    partly = train_child(spec, data, Classification(), recipe, seed=1, initial_weights=some)
    assert partly.weights is not None
    torch.testing.assert_close(partly.weights["stem.op.conv.weight"], trained.weights["stem.op.conv.weight"], atol=1e-4, rtol=0)


def test_given_weights_that_do_not_fit_are_the_callers_error(spec: NetworkSpec, data: PreparedData) -> None:
    with pytest.raises(SpaceError, match="name 'stray', which the network lacks"):
        train_child(spec, data, Classification(), RECIPE, seed=0, initial_weights={"stray": torch.zeros(1)})
    with pytest.raises(SpaceError, match="do not fit the network"):
        train_child(spec, data, Classification(), RECIPE, seed=0, initial_weights={"classifier.0.bias": torch.zeros(9)})


def test_divergence_is_a_failed_child(spec: NetworkSpec, data: PreparedData) -> None:
    outcome = train_child(spec, data, Classification(), ProxyConfig(epochs=8, batch_size=32, learning_rate=1e9, warmup=0), seed=0)
    assert outcome.status == "failed"
    assert outcome.reason is not None
    assert outcome.reason.startswith("diverged: ")
    assert outcome.accuracy is None
    assert outcome.weights is None


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (MemoryError(), "out of memory: MemoryError"),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), "out of memory: CUDA out of memory. Tried to allocate 2 GiB"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"), "out of memory: "),
        (RuntimeError("expected 4 channels\nmore"), "RuntimeError: expected 4 channels"),
    ],
)
def test_a_childs_own_errors_become_reasons(outside_package: Path, spec: NetworkSpec, data: PreparedData, error: Exception, reason: str) -> None:
    from odd_tasks import Raising

    outcome = train_child(spec, data, Raising(error), RECIPE, seed=0)
    assert outcome.status == "failed"
    assert outcome.reason is not None
    assert outcome.reason.startswith(reason)


def test_a_mistake_in_a_task_is_not_blamed_on_the_child(outside_package: Path, spec: NetworkSpec, data: PreparedData) -> None:
    from odd_tasks import Raising

    with pytest.raises(TypeError, match="a mistake"):
        train_child(spec, data, Raising(TypeError("a mistake")), RECIPE, seed=0)


def test_a_network_that_cannot_be_allocated_is_a_failed_child(spec: NetworkSpec, data: PreparedData) -> None:
    huge = dataclasses.replace(spec, classifier=(LinearSpec(8, 2**45),))
    outcome = train_child(huge, data, Classification(), RECIPE, seed=0)
    assert outcome.status == "failed"
    assert outcome.reason is not None
    assert outcome.reason.startswith("out of memory: ")


def test_a_head_is_trained_and_is_no_part_of_the_result(outside_package: Path, spec: NetworkSpec, data: PreparedData) -> None:
    from odd_tasks import WithHead

    outcome = train_child(spec, data, WithHead(), RECIPE, seed=0)
    assert outcome.accuracy is not None
    assert outcome.accuracy > 0.6
    assert outcome.weights is not None
    assert set(outcome.weights) == set(build_network(spec).state_dict())


def test_a_users_own_task_needs_only_its_own_lines(outside_package: Path, spec: NetworkSpec) -> None:
    from angle_task import AngleConfig, AngleTask

    task = AngleTask()
    data = task.prepare(AngleConfig(), seed=0)
    inputs = task.network_inputs(data.meta)
    assert inputs == (1, 16, 2)
    network = dataclasses.replace(spec, classifier=(LinearSpec(8, inputs.num_outputs),))
    outcome = train_child(network, data, task, ProxyConfig(epochs=15, batch_size=32), seed=0)
    assert outcome.accuracy is not None
    error = outcome.metrics["mean_error_degrees"]
    assert outcome.accuracy == pytest.approx(1 / (1 + error))
    assert 0 < error < 20
