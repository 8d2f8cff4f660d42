"""BetaNAS on toys with closed forms. A toy block of K paths has constant outputs o_j; its loss is a function of the sum of the gated outputs."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from kfnas.errors import ConfigError, ConfigMismatch, CorruptError, UserError
from kfnas.oneshot.beta_nas import BetaNAS, BetaNASConfig, Draw, StepRecord, importance_gradient, proxyless_nas, records_as_arrays, softmax
from kfnas.oneshot.seeds import random_stream
from kfnas.space import OperatorCosts

Floats = npt.NDArray[np.float64]


def config(**changes: Any) -> BetaNASConfig:
    return BetaNASConfig.model_validate({"num_steps": 100, "beta": 0.0, **changes})


def finite_differences(function: Callable[[Floats], float], point: Floats, step: float = 1e-6) -> Floats:
    return np.array([(function(point + step * unit) - function(point - step * unit)) / (2 * step) for unit in np.eye(len(point))])


def loss_of(output: float) -> float:
    """Not linear, so that the gate gradients depend on the drawn path."""
    return float(np.log1p(np.exp(1.5 * output)) + 0.1 * output**2)


TOYS = {
    "two paths": (np.array([0.7, -0.4]), np.array([0.3, -0.2])),
    "three paths": (np.array([0.7, -0.4, 1.3]), np.array([0.3, -0.2, 0.5])),
}
every_toy = pytest.mark.parametrize(("outputs", "alpha"), TOYS.values(), ids=TOYS)


@every_toy
def test_the_estimator_equals_the_closed_form_by_finite_differences(outputs: Floats, alpha: Floats) -> None:
    p = softmax(alpha)
    for drawn in range(len(outputs)):
        gate = np.eye(len(outputs))[drawn]
        gate_gradients = finite_differences(lambda g: loss_of(float(g @ outputs)), gate)
        # dg_j/dp_j taken as 1: the gate moves as p does.
        expected = finite_differences(lambda a, gate=gate: loss_of(float((gate + softmax(a) - p) @ outputs)), alpha)  # type: ignore[misc]
        np.testing.assert_allclose(importance_gradient(gate_gradients, p), expected, rtol=1e-6, atol=1e-9)


def test_with_two_paths_the_estimator_is_p_times_q_times_the_difference_of_the_gate_gradients() -> None:
    for alpha, gradients in [(0.0, (1.0, 3.0)), (0.8, (-2.0, 0.5))]:
        p = 1 / (1 + np.exp(-alpha))
        found = importance_gradient(np.array(gradients), softmax(np.array([alpha, 0.0])))
        np.testing.assert_allclose(found, [p * (1 - p) * (gradients[0] - gradients[1]), -p * (1 - p) * (gradients[0] - gradients[1])])


@every_toy
def test_for_a_linear_loss_the_estimator_is_the_gradient_of_the_expected_loss(outputs: Floats, alpha: Floats) -> None:
    expected = finite_differences(lambda a: float(softmax(a) @ outputs), alpha)
    np.testing.assert_allclose(importance_gradient(outputs, softmax(alpha)), expected, rtol=1e-6, atol=1e-9)


def test_the_expected_cost_and_its_gradient_are_those_of_the_closed_form() -> None:
    costs = OperatorCosts(2.0, ((1.0, 4.0, 10.0), (3.0, 0.0)))
    search = BetaNAS((3, 2), config(beta=2.0, momentum=0.0, learning_rate=1e-9, second_momentum=0.0), costs=costs)
    search.alpha[0, :] = [0.2, -0.1, 0.4]

    def expected(alpha: Floats) -> float:
        return 2.0 + float(softmax(alpha) @ [1.0, 4.0, 10.0]) + 1.5

    assert search.expected_cost == pytest.approx(expected(search.alpha[0]))
    before = search.alpha.copy()
    search.update(Draw((0, 0), ((0, 1, 2), (0, 1))), [np.zeros(3), np.zeros(2)], 0.0)
    gradient = 2.0 / costs.mean * finite_differences(expected, before[0])
    # With no memory Adam divides a gradient by its own size: what moved is its sign; the second moment keeps its square.
    np.testing.assert_allclose(np.sign(search.alpha - before)[0], -np.sign(gradient))
    np.testing.assert_allclose(np.sqrt(search._second[0]), np.abs(gradient), rtol=1e-5)


def test_alpha_moves_as_torchs_adam_moves_it() -> None:
    search = BetaNAS((3,), config(learning_rate=0.05, drop_factor=0.0))
    alpha = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    adam = torch.optim.Adam([alpha], lr=0.05)
    rng = np.random.default_rng(0)
    for _ in range(20):
        gate_gradients = rng.normal(size=3)
        adam.zero_grad()
        (torch.softmax(alpha, 0) @ torch.from_numpy(gate_gradients)).backward()
        adam.step()
        search.update(Draw((0,), ((0, 1, 2),)), [gate_gradients], 0.0)
    np.testing.assert_allclose(search.alpha[0], alpha.detach().numpy(), rtol=1e-9)


def test_remaining_paths_are_trained_equally_often_and_dropped_ones_never_again() -> None:
    search = BetaNAS((4, 7), config())
    search.remaining[1, [2, 5]] = False
    search.alpha[:] = np.random.default_rng(1).normal(size=search.alpha.shape)
    rng = np.random.default_rng(0)
    search.count([search.training_path(rng) for _ in range(5000)])
    assert search.counts[1, 2] == search.counts[1, 5] == search.counts[0, 4:].sum() == 0
    assert search.counts.sum(axis=1).tolist() == [5000, 5000]
    for block, remaining, bound in [(0, 4, 36.0), (1, 5, 38.0)]:
        counts = search.counts[block][search.remaining[block]]
        # Chi-square with 3 and 4 degrees of freedom: above 36 and 38 with odds of 8e-8 and 2e-7.
        assert ((counts - 5000 / remaining) ** 2 / (5000 / remaining)).sum() < bound


def test_the_drawn_paths_of_phase_two_follow_p() -> None:
    search = BetaNAS((3,), config())
    search.alpha[0] = [1.0, 0.0, -1.0]
    rng = np.random.default_rng(0)
    counts = np.bincount([search.draw(rng).path[0] for _ in range(6000)], minlength=3)
    expected = 6000 * search.probability[0]
    # Chi-square with 2 degrees of freedom: above 33 with odds of 7e-8.
    assert ((counts - expected) ** 2 / expected).sum() < 33


def drop_steps(factor: float = 0.5, warmup: float = 0.1) -> tuple[BetaNAS, list[StepRecord]]:
    """A search in which path j of a block has gate gradient j, so that the later ones become unlikely."""
    search = BetaNAS((4, 2), config(learning_rate=0.2, drop_factor=factor, drop_warmup=warmup, num_steps=60))
    rng, records = np.random.default_rng(0), []
    while search.num_steps_done < search.num_importance_steps:
        draw = search.draw(rng)
        records.append(search.update(draw, [np.array(choices, dtype=np.float64) for choices in draw.compared], 0.5))
    return search, records


def test_unlikely_paths_are_dropped_for_good_after_the_warm_up_and_a_block_keeps_one() -> None:
    search, records = drop_steps()
    assert search.remaining.sum(axis=1).tolist() == [1, 1]
    assert search.result() == (0, 0)
    order = [(record.step, path) for record in records for path in record.dropped]
    assert sorted(path for _, path in order) == [(0, 1), (0, 2), (0, 3), (1, 1)]
    assert min(step for step, _ in order) == 7
    assert (records[5].probability[0] < 0.125).any(), "the warm-up holds nothing back here"
    for before, after in itertools.pairwise(records):
        assert ((before.probability == 0) <= (after.probability == 0)).all()


def test_a_path_is_dropped_exactly_when_p_is_below_the_factor_of_uniform() -> None:
    _, records = drop_steps()
    for before, after in itertools.pairwise(records[6:]):
        for block in range(2):
            alpha, remained = after.alpha[block], before.probability[block] > 0
            p = softmax(np.where(remained, alpha, -np.inf))
            expected = {(block, int(choice)) for choice in np.flatnonzero(remained & (p < 0.5 / remained.sum()))}
            assert {path for path in after.dropped if path[0] == block} == expected


def test_a_dropped_path_gets_no_gradient_and_no_count() -> None:
    search, records = drop_steps()
    last = {path: record.alpha[path] for record in records for path in record.dropped}
    assert all(search.alpha[path] == alpha for path, alpha in last.items())
    rng = np.random.default_rng(0)
    search.count([search.training_path(rng) for _ in range(20)])
    assert search.counts.tolist() == [[20, 0, 0, 0], [20, 0, 0, 0]]
    assert search.draw(rng).compared == ((0,), (0,))
    with pytest.raises(UserError, match="finite ones of remaining paths"):
        search.update(Draw((0, 0), ((0, 1), (0,))), [np.zeros(2), np.zeros(1)], 0.0)


def test_even_a_factor_above_one_leaves_the_best_path() -> None:
    search, _ = drop_steps(factor=50.0)
    assert search.remaining.sum(axis=1).tolist() == [1, 1]


def test_a_factor_of_zero_drops_nothing() -> None:
    search, records = drop_steps(factor=0.0)
    assert search.remaining.sum() == 6
    assert not any(record.dropped for record in records)


def test_two_compared_paths_leave_the_probabilities_of_the_others_unchanged() -> None:
    search = BetaNAS((5,), config(gates="two", learning_rate=0.1))
    search.alpha[0] = [0.5, -0.3, 0.1, 0.0, 0.9]
    before = search.probability[0]
    search.update(Draw((1,), ((1, 4),)), [np.array([1.0, -1.0])], 0.0)
    after = search.probability[0]
    np.testing.assert_allclose(after[[0, 2, 3]], before[[0, 2, 3]], rtol=1e-12)
    assert after[1] < before[1]
    assert after[4] > before[4]


def test_two_paths_are_drawn_by_p_and_one_of_them_runs() -> None:
    search = BetaNAS((4, 1, 2), config(gates="two"))
    search.alpha[0] = [2.0, 0.0, 0.0, -2.0]
    rng = np.random.default_rng(0)
    draws = [search.draw(rng) for _ in range(3000)]
    assert all(len(set(draw.compared[0])) == 2 and draw.path[0] in draw.compared[0] for draw in draws)
    assert {draw.compared[1:] for draw in draws} == {((0,), (0, 1))}
    shares = [sum(choice in draw.compared[0] for draw in draws) / 3000 for choice in range(4)]
    assert shares[0] > 0.9 > shares[1] > 0.3 > shares[3]


def test_proxyless_nas_trains_likely_paths_more_and_drops_nothing() -> None:
    settings = proxyless_nas(config(learning_rate=0.05, beta=0.5))
    assert (settings.gates, settings.training_paths, settings.drop_factor, settings.beta) == ("two", "importance", 0.0, 0.5)
    search = BetaNAS((3,), settings, costs=OperatorCosts(0.0, ((1.0, 1.0, 1.0),)))
    search.alpha[0] = [2.0, 0.0, -2.0]
    rng = np.random.default_rng(0)
    search.count([search.training_path(rng) for _ in range(3000)])
    expected = 3000 * search.probability[0]
    # Chi-square with 2 degrees of freedom: above 33 with odds of 7e-8.
    assert ((search.counts[0] - expected) ** 2 / expected).sum() < 33


def steered(target: float, beta: float, steps: int = 300, **changes: Any) -> tuple[BetaNAS, OperatorCosts]:
    """12 blocks of 5 paths; dearer ones are better, with noise."""
    costs = OperatorCosts(1.0, tuple(tuple(0.5 + 0.5 * choice for choice in range(5)) for _ in range(12)))
    worth = np.random.default_rng(7).uniform(0.02, 0.1, size=(12, 5)).cumsum(axis=1)
    search = BetaNAS((5,) * 12, config(num_steps=steps, beta=beta, latency_target=target, learning_rate=0.03, **changes), costs=costs)
    rng = np.random.default_rng(1)
    while search.num_steps_done < search.num_importance_steps:
        draw = search.draw(rng)
        gradients = [-worth[block, list(choices)] + rng.normal(0, 0.1, len(choices)) for block, choices in enumerate(draw.compared)]
        search.update(draw, gradients, 0.0)
    return search, costs


@pytest.mark.parametrize(("target", "beta"), [(11.0, 0.0), (16.0, 20.0), (22.0, 20.0), (28.0, 0.0)])
def test_a_latency_target_steers_beta_until_the_likeliest_network_is_within_a_tenth(target: float, beta: float) -> None:
    search, costs = steered(target, beta)
    assert costs(search.likeliest()) == pytest.approx(target, rel=0.1)
    assert search.result() == search.likeliest()


def test_without_steering_the_likeliest_network_misses_the_target_and_the_result_still_meets_it() -> None:
    search, costs = steered(11.0, 0.0, steering=0.0, damping=0.0)
    assert costs(search.likeliest()) > 11.0 * 1.5
    assert costs(search.result()) == pytest.approx(11.0, rel=0.1)
    assert all(search.remaining[block, choice] for block, choice in enumerate(search.result()))


def test_targets_that_cannot_be_met_are_refused() -> None:
    costs = OperatorCosts(1.0, ((1.0, 2.0),))
    with pytest.raises(ConfigError, match="paths cost 2 to 3"):
        BetaNAS((2,), config(beta=1.0, latency_target=5.0), costs=costs)
    with pytest.raises(ConfigError, match="give a table of costs"):
        BetaNAS((2,), config(beta=1.0, latency_target=5.0))


def test_gate_gradients_that_are_no_numbers_are_refused() -> None:
    with pytest.raises(UserError, match="block 0"):
        BetaNAS((2,), config()).update(Draw((0,), ((0, 1),)), [np.array([np.nan, 0.0])], 0.0)


def test_every_step_is_logged_and_becomes_arrays() -> None:
    search = BetaNAS((3, 2), config(num_steps=4, learning_rate=0.1), costs=OperatorCosts(0.0, ((1.0, 2.0, 3.0), (1.0, 1.0))))
    rng, records = np.random.default_rng(0), []
    for step in range(4):
        search.count([search.training_path(rng)])
        draw = search.draw(rng)
        records.append(search.update(draw, [rng.normal(size=len(choices)) for choices in draw.compared], 0.1 * step))
    arrays = records_as_arrays(records)
    assert {name: array.shape for name, array in arrays.items()} == {
        "step": (4,),
        "alpha": (4, 2, 3),
        "probability": (4, 2, 3),
        "counts": (4, 2, 3),
        "beta": (4,),
        "expected_cost": (4,),
        "loss": (4,),
    }
    assert arrays["counts"].sum(axis=(1, 2)).tolist() == [2, 4, 6, 8]
    assert np.isnan(arrays["alpha"][:, 1, 2]).all()
    assert (arrays["probability"][:, 1, 2] == 0).all()
    np.testing.assert_allclose(arrays["probability"].sum(axis=2), 1)
    np.testing.assert_allclose(arrays["loss"], [0.0, 0.1, 0.2, 0.3])
    assert (np.diff(arrays["alpha"][:, 0, :], axis=0) != 0).all()


def advance(search: BetaNAS, stop: int) -> None:
    while search.num_steps_done < stop:
        rng = random_stream(0, "toy", search.num_steps_done)
        search.count([search.training_path(rng)])
        draw = search.draw(rng)
        search.update(draw, [rng.normal(size=len(choices)) + np.arange(len(choices)) for choices in draw.compared], 0.0)


@pytest.mark.parametrize("gates", ["all", "two"])
def test_saved_and_restored_at_any_step_it_goes_on_alike(gates: str) -> None:
    costs = OperatorCosts(0.0, ((1.0, 2.0, 3.0), (1.0, 4.0, 1.0)))

    def fresh() -> BetaNAS:
        return BetaNAS((3, 3), config(num_steps=40, gates=gates, learning_rate=0.2, beta=1.0, latency_target=4.0), costs=costs)

    whole = fresh()
    advance(whole, 40)
    assert not whole.remaining.all(), "nothing was dropped: the test would not see a lost mask"
    for stop in (0, 1, 13, 30, 39):
        first, second = fresh(), fresh()
        advance(first, stop)
        second.restore(first.save())
        assert second.save() == first.save()
        advance(second, 40)
        assert second.save() == whole.save()


def test_a_state_of_another_search_or_of_damaged_bytes_is_refused() -> None:
    saved = BetaNAS((3,), config()).save()
    with pytest.raises(ConfigMismatch, match="num_choices"):
        BetaNAS((2,), config()).restore(saved)
    with pytest.raises(ConfigMismatch, match="config"):
        BetaNAS((3,), config(learning_rate=0.5)).restore(saved)
    with pytest.raises(CorruptError, match="earlier one"):
        BetaNAS((3,), config()).restore(saved[: len(saved) // 2])
