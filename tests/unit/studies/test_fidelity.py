"""Figures of a fidelity study from accuracies that are known."""

from __future__ import annotations

import numpy as np
import pytest

from kfnas.errors import UserError
from kfnas.studies.fidelity import Accuracies, Criterion, Proxy, fidelity_of, spread_of

NUM = 40


def noisy(quality: np.ndarray, noise: float, rng: np.random.Generator) -> np.ndarray:
    return quality + noise * rng.standard_normal(len(quality))


def study(*, seed: int = 0, truth_noise: float = 0.005, pool_noise: float = 0.01, random_noise: tuple[float, ...] = (0.04, 0.01)) -> Accuracies:
    """Architectures that differ by 0.02, and trainings that tell of it with more or less noise."""
    rng = np.random.default_rng(seed)
    quality = 0.8 + 0.02 * rng.standard_normal(NUM)
    truth = np.stack([noisy(quality, truth_noise, rng) for _ in range(3)], axis=1)
    random = {Proxy("random", epochs): noisy(quality - 0.2 / epochs, noise, rng) for epochs, noise in enumerate(random_noise, start=1)}
    return Accuracies(truth, {Proxy("pool", 1): noisy(quality, pool_noise, rng), **random})


def figures(accuracies: Accuracies, **criterion: float):
    return fidelity_of(accuracies, Criterion(**criterion), rng=np.random.default_rng(1))


def test_a_pool_that_ranks_as_well_as_twice_the_epochs_passes() -> None:
    result = figures(study(pool_noise=0.002))
    assert result.passes
    assert result.failings == []
    assert [ranked.proxy for ranked in result.proxies] == [Proxy("random", 1), Proxy("random", 2), Proxy("pool", 1)]
    assert all(ranked.spearman.n == NUM for ranked in result.proxies)
    assert result.difference.low <= result.difference.mid <= result.difference.high
    by_proxy = {ranked.proxy: ranked.spearman.value for ranked in result.proxies}
    assert result.difference.mid == pytest.approx(by_proxy[Proxy("pool", 1)] - by_proxy[Proxy("random", 2)])
    assert result.mean_agreement > 0.8
    assert result.reliability == pytest.approx(3 * result.mean_agreement / (1 + 2 * result.mean_agreement))


def test_a_pool_that_misleads_fails_and_says_by_how_much() -> None:
    result = figures(study(pool_noise=5))
    assert not result.passes
    (failing,) = result.failings
    assert f"rho(pool, epoch 1) - rho(random, epoch 2) is {result.difference.mid:+.3f}" in failing
    assert "is not above -0.1" in failing
    assert result.equivalent_epoch == 1.0


def test_a_truth_that_is_noise_fails_whatever_the_proxies_say() -> None:
    result = figures(study(truth_noise=0.2))
    assert not result.passes
    assert "the truth is too uncertain" in result.failings[0]


def test_the_equivalent_epoch_lies_on_the_line_between_the_measured_ones() -> None:
    truth = np.arange(10.0)
    swapped = [truth.copy() for _ in range(3)]
    for values, pairs in zip(swapped, (4, 2, 0), strict=True):
        for first in range(0, 2 * pairs, 2):
            values[[first, first + 1]] = values[[first + 1, first]]
    rho = [1 - 6 * 2 * pairs / (10 * 99) for pairs in (4, 2, 0)]
    accuracies = Accuracies(np.stack([truth, truth], axis=1), {Proxy("random", 1): swapped[0], Proxy("random", 3): swapped[2], Proxy("pool", 1): swapped[1]})
    result = figures(accuracies, random_epoch=3)
    assert [ranked.spearman.value for ranked in result.proxies] == pytest.approx([rho[0], rho[2], rho[1]])
    assert result.equivalent_epoch == pytest.approx(1 + 2 * (rho[1] - rho[0]) / (rho[2] - rho[0]))
    beyond = Accuracies(accuracies.truth, {Proxy("random", 1): swapped[0], Proxy("random", 2): swapped[1], Proxy("pool", 1): swapped[2]})
    assert figures(beyond).equivalent_epoch is None


def test_an_architecture_with_a_failed_training_is_left_out_of_every_figure() -> None:
    whole = study()
    truth = whole.truth.copy()
    truth[3, 1] = np.nan
    proxies = {proxy: values.copy() for proxy, values in whole.proxies.items()}
    proxies[Proxy("pool", 1)][7] = np.nan
    result = figures(Accuracies(truth, proxies))
    assert (result.num_architectures, result.num_dropped) == (NUM - 2, 2)
    kept = [index for index in range(NUM) if index not in (3, 7)]
    same = figures(Accuracies(whole.truth[kept], {proxy: values[kept] for proxy, values in whole.proxies.items()}))
    assert [ranked.spearman for ranked in result.proxies] == [ranked.spearman for ranked in same.proxies]


def test_the_spread_between_architectures_is_told_from_that_between_seeds() -> None:
    rng = np.random.default_rng(0)
    truth = rng.normal(0, 0.03, (4000, 1)) + rng.normal(0, 0.01, (4000, 3))
    assert spread_of(truth) == pytest.approx((0.03, 0.01), rel=0.05)  # a sample of 4,000 is off by more than 4% once in 10,000 times
    assert spread_of(rng.normal(0, 0.01, (4000, 3)))[0] < 0.002


def test_what_the_criterion_needs_must_be_there() -> None:
    with pytest.raises(UserError, match="nothing was trained for 3 epochs from random weights; add 3 to `epochs`"):
        figures(study(), random_epoch=3)
    whole = study()
    flat = {**whole.proxies, Proxy("random", 2): np.full(NUM, 0.1)}
    with pytest.raises(UserError, match=r"after 2 epochs from random weights each architecture has accuracy 0\.1, so nothing is ranked"):
        figures(Accuracies(whole.truth, flat))
    with pytest.raises(UserError, match="the truth has 1 seed"):
        figures(Accuracies(whole.truth[:, :1], whole.proxies))
