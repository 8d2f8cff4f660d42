"""Intervals, tests and curves against closed forms, scipy, and simulated coverage."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.stats

from kfnas.errors import UserError
from kfnas.studies.statistics import (
    Correlation,
    Interval,
    SignTest,
    _correlations,
    hit,
    hit_ratio,
    incumbent_curve,
    mean_band,
    paired_bootstrap,
    paired_correlation_difference,
    rank_correlation,
    sign_test,
)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_a_constant_difference_has_an_interval_of_no_width() -> None:
    interval = paired_bootstrap([5.0, 7.0, 11.0], [3.0, 5.0, 9.0], rng=rng())
    assert interval == Interval(2.0, 2.0, 2.0)


def test_mid_is_the_statistic_of_the_data() -> None:
    a, b = [1.0, 2.0, 9.0], [0.0, 0.0, 0.0]
    assert paired_bootstrap(a, b, rng=rng()).mid == 4.0
    assert paired_bootstrap(a, b, rng=rng(), statistic=np.median).mid == 2.0


def test_large_samples_give_the_normal_interval_of_the_mean_difference() -> None:
    generator = rng(1)
    shared = generator.normal(0, 50, 400)
    a, b = shared + generator.normal(0.3, 1, 400), shared + generator.normal(0, 1, 400)
    interval = paired_bootstrap(a, b, rng=rng(2), resamples=20_000)
    error = np.std(a - b, ddof=1) / math.sqrt(400)
    assert interval.low == pytest.approx(interval.mid - 1.96 * error, abs=0.06 * error * 2)
    assert interval.high == pytest.approx(interval.mid + 1.96 * error, abs=0.06 * error * 2)


@pytest.mark.parametrize("num_pairs", [10, 30])
def test_the_interval_of_a_mean_covers_the_truth_as_often_as_it_says(num_pairs: int) -> None:
    generator, trials = rng(3), 600
    covered = 0
    for _ in range(trials):
        a, b = generator.normal(0.5, 1, num_pairs), generator.normal(0, 1, num_pairs)
        interval = paired_bootstrap(a, b, rng=generator, resamples=500)
        covered += interval.low <= 0.5 <= interval.high
    # Binomial standard deviation 0.9 points; three of them, and some room for what a bootstrap of few pairs lacks. Plain percentiles of 10 pairs
    # cover some 90% and fail this.
    assert 0.925 <= covered / trials <= 0.98


def test_equal_generators_give_equal_intervals_and_others_differ() -> None:
    a, b = rng(5).normal(size=12), rng(6).normal(size=12)
    assert paired_bootstrap(a, b, rng=rng(1)) == paired_bootstrap(a, b, rng=rng(1))
    assert paired_bootstrap(a, b, rng=rng(1)) != paired_bootstrap(a, b, rng=rng(2))


@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        ([1.0, 2.0], [1.0], "shapes are"),
        ([[1.0, 2.0]], [[1.0, 2.0]], "one-dimensional"),
        ([1.0], [2.0], "1 pairs; give at least 2"),
        ([1.0, math.nan], [1.0, 2.0], r"a\[1\] is nan"),
        ([1.0, 2.0], [math.inf, 2.0], r"b\[0\] is inf"),
    ],
)
def test_pairs_that_cannot_be_compared_are_refused(a: list[float], b: list[float], message: str) -> None:
    with pytest.raises(UserError, match=message):
        paired_bootstrap(a, b, rng=rng())


@pytest.mark.parametrize(("level", "resamples", "message"), [(1.0, 10, "level is 1.0"), (0.0, 10, "level is 0.0"), (0.9, 0, "resamples is 0")])
def test_a_senseless_level_or_number_of_resamples_is_refused(level: float, resamples: int, message: str) -> None:
    with pytest.raises(UserError, match=message):
        paired_bootstrap([1.0, 2.0], [0.0, 0.0], rng=rng(), level=level, resamples=resamples)


@pytest.mark.parametrize(("wins", "losses", "ties"), [(20, 0, 0), (9, 3, 2), (5, 5, 0), (0, 1, 4), (0, 0, 3)])
def test_sign_test_equals_the_binomial_test(wins: int, losses: int, ties: int) -> None:
    a = [1.0] * wins + [-1.0] * losses + [0.0] * ties
    expected = scipy.stats.binomtest(wins, wins + losses).pvalue if wins + losses else 1.0
    assert sign_test(a, [0.0] * len(a)) == SignTest(wins, losses, ties, pytest.approx(expected))


@pytest.mark.parametrize("kind", ["spearman", "kendall"])
@pytest.mark.parametrize("decimals", [6, 0])
def test_rank_correlation_equals_scipys_with_and_without_ties(kind: str, decimals: int) -> None:
    x = np.round(rng(7).normal(0, 2, 40), decimals)
    y = np.round(x + rng(8).normal(0, 2, 40), decimals)
    expected = (scipy.stats.spearmanr if kind == "spearman" else scipy.stats.kendalltau)(x, y).statistic
    correlation = rank_correlation(x, y, rng=rng(), kind=kind, resamples=200)  # type: ignore[arg-type]
    assert correlation.value == pytest.approx(expected)
    assert correlation.low < correlation.value < correlation.high
    assert correlation.n == 40


def test_equal_and_reversed_rankings_correlate_fully() -> None:
    x = np.arange(10.0)
    for kind in ("spearman", "kendall"):
        assert rank_correlation(x, np.exp(x), rng=rng(), kind=kind, resamples=100) == Correlation(1.0, 1.0, 1.0, 10)  # type: ignore[arg-type]
        assert rank_correlation(x, -x, rng=rng(), kind=kind, resamples=100) == Correlation(-1.0, -1.0, -1.0, 10)  # type: ignore[arg-type]


def test_the_interval_of_a_rank_correlation_covers_the_truth() -> None:
    # Of two normal variables with Pearson's r, Spearman's rho is 6 / pi * asin(r / 2), and Kendall's tau 2 / pi * asin(r).
    generator, trials, r = rng(9), 300, 0.7
    truth = {"spearman": 6 / math.pi * math.asin(r / 2), "kendall": 2 / math.pi * math.asin(r)}
    covered = dict.fromkeys(truth, 0)
    for _ in range(trials):
        x = generator.normal(size=40)
        y = r * x + math.sqrt(1 - r * r) * generator.normal(size=40)
        for kind, value in truth.items():
            correlation = rank_correlation(x, y, rng=generator, kind=kind, resamples=200)  # type: ignore[arg-type]
            covered[kind] += correlation.low <= value <= correlation.high
    assert all(0.90 <= count / trials <= 0.99 for count in covered.values()), covered


def test_resamples_without_a_correlation_are_left_out() -> None:
    correlation = rank_correlation([0.0, 0.0, 1.0], [0.0, 0.5, 1.0], rng=rng(), resamples=500)
    assert -1 <= correlation.low <= correlation.value <= correlation.high <= 1


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        ([1.0, 1.0, 1.0], [1.0, 2.0, 3.0], r"x is constant \(1 in all 3 pairs\)"),
        ([1.0, 2.0, 3.0], [0.5, 0.5, 0.5], "y is constant"),
        ([1.0, 2.0], [1.0, 2.0], "2 pairs; give at least 3"),
        ([1.0, 2.0, 3.0], [1.0, math.nan, 3.0], r"y\[1\] is nan"),
    ],
)
def test_what_ranks_nothing_is_refused(x: list[float], y: list[float], message: str) -> None:
    with pytest.raises(UserError, match=message):
        rank_correlation(x, y, rng=rng())
    with pytest.raises(UserError):
        paired_correlation_difference([1.0, 2.0, 3.0][: len(x)], x, y, rng=rng())


def test_an_unknown_kind_of_correlation_is_refused() -> None:
    with pytest.raises(UserError, match="kind of correlation is 'phi'"):
        rank_correlation([1.0, 2.0, 3.0], [1.0, 2.0, 3.0], rng=rng(), kind="phi")  # type: ignore[arg-type]


def test_the_difference_of_correlations_is_of_the_same_pairs() -> None:
    truth = rng(10).normal(size=60)
    near, far = truth + rng(11).normal(0, 0.3, 60), truth + rng(12).normal(0, 1.5, 60)
    interval = paired_correlation_difference(truth, near, far, rng=rng())
    expected = scipy.stats.spearmanr(truth, near).statistic - scipy.stats.spearmanr(truth, far).statistic
    assert interval.mid == pytest.approx(expected)
    assert 0 < interval.low < interval.mid < interval.high
    assert paired_correlation_difference(truth, near, near, rng=rng()) == Interval(0.0, 0.0, 0.0)


def test_the_difference_of_correlations_is_narrower_than_two_intervals_where_errors_are_shared() -> None:
    truth = rng(13).normal(size=60)
    shared = truth + rng(14).normal(0, 1, 60)
    x, y = shared + rng(15).normal(0, 0.1, 60), shared + rng(16).normal(0, 0.1, 60)
    interval = paired_correlation_difference(truth, x, y, rng=rng())
    alone = rank_correlation(truth, x, rng=rng())
    assert interval.high - interval.low < 0.5 * (alone.high - alone.low)


def test_the_incumbent_is_judged_by_its_score_not_by_what_was_observed() -> None:
    curve = incumbent_curve([0.1, 0.5, 0.4, 0.5, 0.9], [1.0, 2.0, 9.0, 8.0, 0.5])
    assert curve.tolist() == [1.0, 2.0, 2.0, 2.0, 0.5]


def test_a_failed_sample_is_never_the_incumbent() -> None:
    curve = incumbent_curve([math.nan, 0.2, math.nan, 0.3], [math.nan, 2.0, 7.0, 3.0])
    assert math.isnan(curve[0])
    assert curve[1:].tolist() == [2.0, 2.0, 3.0]


def test_the_incumbent_of_a_very_bad_observation_is_still_the_incumbent() -> None:
    assert incumbent_curve([-math.inf, -5.0], [1.0, 2.0]).tolist() == [1.0, 2.0]


@pytest.mark.parametrize(("observed", "score"), [([], []), ([1.0], [1.0, 2.0]), ([[1.0]], [[1.0]])])
def test_samples_without_a_score_are_refused(observed: list[float], score: list[float]) -> None:
    with pytest.raises(UserError, match="one number of each"):
        incumbent_curve(observed, score)


@pytest.mark.parametrize(
    ("curve", "expected"),
    [([1.0, 3.0, 2.0, 3.0, 4.0], 4), ([3.0, 3.0], 1), ([3.0, 2.9], None), ([0.0, 0.0], None), ([0.0, 3.0 - 1e-12], 2)],
)
def test_a_hit_is_where_the_curve_stays_at_or_above(curve: list[float], expected: int | None) -> None:
    assert hit(curve, 3.0) == expected


def test_a_band_is_the_mean_and_its_resamples() -> None:
    curves = np.stack([np.full(5, value) for value in (1.0, 2.0, 3.0, 6.0)])
    band = mean_band(curves, rng=rng())
    assert band.mid.tolist() == [3.0] * 5
    assert (band.low < 3.0).all() and (band.high > 3.0).all()
    assert (band.low >= 1.0).all() and (band.high <= 6.0).all()


def ramps(lengths: list[int], num_samples: int = 40) -> np.ndarray:
    """Curves that rise linearly to 1 within so many samples and stay."""
    return np.stack([np.minimum(1.0, np.arange(1, num_samples + 1) / length) for length in lengths])


def test_twice_as_fast_a_search_has_a_ratio_of_a_half() -> None:
    result = hit_ratio(ramps([10] * 6), ramps([20] * 6), rng=rng())
    assert (result.threshold, result.hit, result.reference_hit) == (pytest.approx(1.0), 10, 20)
    assert result.ratio == Interval(0.5, 0.5, 0.5)


def test_seeds_that_differ_widen_the_ratio_and_pairing_narrows_it() -> None:
    slow = [12, 16, 20, 24, 28, 32, 36, 38]
    paired = hit_ratio(ramps([length // 2 for length in slow]), ramps(slow), rng=rng())
    crossed = hit_ratio(ramps([length // 2 for length in reversed(slow)]), ramps(slow), rng=rng())
    assert paired.ratio.mid == crossed.ratio.mid == 0.5
    assert paired.ratio.high - paired.ratio.low < crossed.ratio.high - crossed.ratio.low


def test_the_mark_may_be_what_the_reference_has_on_the_way() -> None:
    result = hit_ratio(ramps([10] * 6), ramps([20] * 6), rng=rng(), at=10)
    assert (result.threshold, result.hit, result.reference_hit) == (pytest.approx(0.5), 5, 10)
    assert result.ratio == Interval(0.5, 0.5, 0.5)


@pytest.mark.parametrize("at", [0, 41])
def test_a_mark_beyond_the_curves_is_refused(at: int) -> None:
    with pytest.raises(UserError, match="give 1 to that"):
        hit_ratio(ramps([10] * 6), ramps([20] * 6), rng=rng(), at=at)


def test_a_search_that_never_gets_there_has_an_infinite_ratio() -> None:
    result = hit_ratio(0.9 * ramps([5] * 4), ramps([10] * 4), rng=rng())
    assert result.hit is None
    assert result.ratio == Interval(math.inf, math.inf, math.inf)


def test_one_that_gets_there_on_some_seeds_only_has_no_upper_bound() -> None:
    ours = ramps([5] * 6)
    ours[0] *= 0.5
    ours[1:] += 0.11
    result = hit_ratio(ours, ramps([20] * 6), rng=rng())
    assert result.hit is not None
    assert math.isfinite(result.ratio.low) and math.isinf(result.ratio.high)


@pytest.mark.parametrize(
    ("ours", "theirs", "message"),
    [
        (np.ones((3, 4)), np.ones((3, 5)), "equally many seeds and samples"),
        (np.ones((1, 4)), np.ones((1, 4)), "at least 2 seeds"),
        (np.ones(4), np.ones(4), "shape"),
        (np.full((2, 2), np.nan), np.ones((2, 2)), r"curves\[0, 0\] is nan"),
    ],
)
def test_curves_that_do_not_belong_together_are_refused(ours: np.ndarray, theirs: np.ndarray, message: str) -> None:
    with pytest.raises(UserError, match=message):
        hit_ratio(ours, theirs, rng=rng())


def test_pearson_of_a_constant_side_is_not_a_number() -> None:
    # The mean of three 0.1 is not 0.1: what is left of the difference is no correlation.
    assert np.isnan(_correlations("pearson")(np.full((1, 3), 0.1), np.array([[0.3, 0.1, 0.2]]))).all()
