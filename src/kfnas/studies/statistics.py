"""Paired statistics of repeated experiments: intervals, rank correlations, curves of incumbents, and the samples that a search saves.

Everything that is compared is paired: two searches by their seed, two rankings by their architectures. An interval resamples the pairs, so that what both
sides share (an easy seed, an odd architecture) cancels. Intervals are bootstrap percentiles, widened for small samples as Hesterberg's expanded
percentile interval (arXiv:1411.5279): plain percentiles of 10 pairs cover some 90% where they promise 95%.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from kfnas.errors import UserError

Floats = npt.NDArray[np.float64]
Kind = Literal["spearman", "kendall", "pearson"]

RESAMPLES = 4000
MIN_PAIRS = 3
"""Fewest pairs that a rank correlation takes: of two, every correlation is 1 or -1."""
TOLERANCE = 1e-9
"""Relative slack with which a curve reaches a threshold: means over seeds differ by rounding where the numbers behind them are equal."""

_CHUNK = 1 << 22


class Interval(NamedTuple):
    """An estimate and its confidence interval; `mid` is the statistic of the data themselves, and infinities are possible in ratios."""

    low: float
    mid: float
    high: float


class Correlation(NamedTuple):
    """A correlation in [-1, 1], its confidence interval, and the number of pairs behind it."""

    value: float
    low: float
    high: float
    n: int


class SignTest(NamedTuple):
    """Pairs won, lost and tied, and the two-sided probability of a split at least as uneven between equals; ties are left out of it."""

    wins: int
    losses: int
    ties: int
    p_value: float


class Band(NamedTuple):
    """Mean curve over seeds and its pointwise confidence band, each [samples]."""

    low: Floats
    mid: Floats
    high: Floats


class HitRatio(NamedTuple):
    """How many samples a search needs for what a reference ends with, or has after some samples.

    Attributes:
        threshold: that value of the reference's mean curve.
        hit: samples after which the search's mean curve stays at or above it; None: never.
        reference_hit: the same of the reference itself; the samples after which it has it, where those are given.
        ratio: hit / reference_hit; infinite where the search does not get there.
    """

    threshold: float
    hit: int | None
    reference_hit: int
    ratio: Interval


def paired_bootstrap(
    a: npt.ArrayLike,
    b: npt.ArrayLike,
    *,
    rng: np.random.Generator,
    statistic: Callable[..., npt.ArrayLike] = np.mean,
    level: float = 0.95,
    resamples: int = RESAMPLES,
) -> Interval:
    """Interval of a statistic of the differences a - b.

    Args:
        a: values [pairs], finite.
        b: values [pairs] of the same pairs in the same order.
        rng: source of the resamples.
        statistic: of differences along an axis, such as `np.mean` or `np.median`; called with `axis=-1`.
        level: confidence, in (0, 1).
        resamples: number of resamples.

    Raises:
        UserError: lengths differ, there are fewer than 2 pairs, or a value is not finite.
    """
    differences = np.subtract(*_pairs(2, a=a, b=b))
    _check(level, resamples)
    drawn = np.concatenate([np.asarray(statistic(differences[rows], axis=-1)) for rows in _resamples(differences.size, differences.size, resamples, rng)])
    return _interval(float(np.asarray(statistic(differences, axis=-1))), drawn, differences.size, level)


def sign_test(a: npt.ArrayLike, b: npt.ArrayLike) -> SignTest:
    """Exact two-sided sign test of a against b, paired; a win is a > b.

    Raises:
        UserError: lengths differ, there are no pairs, or a value is not finite.
    """
    differences = np.subtract(*_pairs(1, a=a, b=b))
    wins, losses = int(np.sum(differences > 0)), int(np.sum(differences < 0))
    decided = wins + losses
    tail = sum(math.comb(decided, k) for k in range(min(wins, losses) + 1))
    return SignTest(wins, losses, differences.size - decided, min(1.0, 2 * tail / 2**decided))


def rank_correlation(
    x: npt.ArrayLike, y: npt.ArrayLike, *, rng: np.random.Generator, kind: Kind = "spearman", level: float = 0.95, resamples: int = RESAMPLES
) -> Correlation:
    """Spearman's rho or Kendall's tau-b of pairs, ties at their mean rank, or Pearson's r, with an interval over resampled pairs.

    Resamples in which one side is constant have no correlation and are left out.

    Args:
        x: values [pairs], finite.
        y: values [pairs] of the same pairs.
        rng: source of the resamples.
        kind: spearman, kendall or pearson.
        level: confidence, in (0, 1).
        resamples: number of resamples.

    Raises:
        UserError: lengths differ, there are fewer than 3 pairs, a value is not finite, or one side is constant.
    """
    first, second = _rankable(x=x, y=y)
    _check(level, resamples)
    correlate = _correlations(kind)
    drawn = np.concatenate([correlate(first[rows], second[rows]) for rows in _resamples(first.size, _cells(first.size, kind), resamples, rng)])
    interval = _interval(float(correlate(first[None], second[None])[0]), drawn, first.size, level)
    return Correlation(interval.mid, interval.low, interval.high, first.size)


def paired_correlation_difference(
    truth: npt.ArrayLike,
    x: npt.ArrayLike,
    y: npt.ArrayLike,
    *,
    rng: np.random.Generator,
    kind: Kind = "spearman",
    level: float = 0.95,
    resamples: int = RESAMPLES,
) -> Interval:
    """Interval of correlation(truth, x) - correlation(truth, y), both over the same resampled architectures.

    Args:
        truth: values [pairs] that both should rank alike.
        x: values [pairs] of the first ranking.
        y: values [pairs] of the second ranking.
        rng: source of the resamples.
        kind: spearman, kendall or pearson.
        level: confidence, in (0, 1).
        resamples: number of resamples.

    Raises:
        UserError: as `rank_correlation`.
    """
    target, first, second = _rankable(truth=truth, x=x, y=y)
    _check(level, resamples)
    correlate = _correlations(kind)

    def difference(rows: npt.NDArray[np.intp]) -> Floats:
        return correlate(target[rows], first[rows]) - correlate(target[rows], second[rows])

    drawn = np.concatenate([difference(rows) for rows in _resamples(target.size, _cells(target.size, kind), resamples, rng)])
    return _interval(float(difference(np.arange(target.size)[None])[0]), drawn, target.size, level)


def incumbent_curve(observed: npt.ArrayLike, score: npt.ArrayLike) -> Floats:
    """Score of the best observed sample so far, after each sample: search on what is observed, judge by the score.

    Args:
        observed: what the search saw, [samples] in order, higher is better; NaN where the sample failed.
        score: what the sample is worth, [samples].

    Returns:
        [samples]; the first of equally observed samples stands; NaN before the first success.

    Raises:
        UserError: lengths differ, or there are no samples.
    """
    seen, worth = np.asarray(observed, dtype=np.float64), np.asarray(score, dtype=np.float64)
    if seen.ndim != 1 or seen.shape != worth.shape or not seen.size:
        raise UserError(f"observed has shape {seen.shape} and score {worth.shape}; give one number of each for every sample, at least one")
    ranked = np.where(np.isnan(seen), -np.inf, seen)
    is_record = np.concatenate([[True], ranked[1:] > np.maximum.accumulate(ranked)[:-1]])
    incumbent = np.maximum.accumulate(np.where(is_record, np.arange(seen.size), 0))
    return np.where(np.isnan(seen[incumbent]), np.nan, worth[incumbent])


def hit(curve: npt.ArrayLike, threshold: float) -> int | None:
    """Number of samples, from 1, from which a curve [samples] stays at or above a threshold; None: it ends below it."""
    first = _hits(np.asarray(curve, dtype=np.float64)[None], np.array([threshold]))[0]
    return int(first) if math.isfinite(first) else None


def mean_band(curves: npt.ArrayLike, *, rng: np.random.Generator, level: float = 0.95, resamples: int = RESAMPLES) -> Band:
    """Mean over seeds and a pointwise confidence band.

    Args:
        curves: [seeds, samples], finite.
        rng: source of the resamples.
        level: confidence, in (0, 1).
        resamples: number of resamples.

    Raises:
        UserError: not two-dimensional, fewer than 2 seeds, or a value that is not finite.
    """
    values = _curves("curves", curves)
    _check(level, resamples)
    tail = tail_share(values.shape[0], level)
    drawn = _seed_weights(values.shape[0], resamples, rng) @ values
    low, high = np.quantile(drawn, [tail, 1 - tail], axis=0)
    return Band(low, values.mean(0), high)


def hit_ratio(
    curves: npt.ArrayLike, reference: npt.ArrayLike, *, rng: np.random.Generator, at: int | None = None, level: float = 0.95, resamples: int = RESAMPLES
) -> HitRatio:
    """Samples that a search needs to stay at or above a reference's final value, as a share of the reference's own.

    Both hits are of mean curves over seeds. A resample takes the same seeds of both, and finds the threshold, both hits and their ratio anew.

    Args:
        curves: [seeds, samples] of the search, finite.
        reference: [seeds, samples] of the reference, of the same seeds in the same order.
        at: samples after which the reference's value is the threshold; the reference's share is then of these. None: its final value.
        rng: source of the resamples.
        level: confidence, in (0, 1).
        resamples: number of resamples.

    Raises:
        UserError: shapes differ, fewer than 2 seeds, a value that is not finite, or `at` outside the samples.
    """
    ours, theirs = _curves("curves", curves), _curves("reference", reference)
    if ours.shape != theirs.shape:
        raise UserError(f"curves have shape {ours.shape} and the reference {theirs.shape}; give equally many seeds and samples of both")
    _check(level, resamples)
    if at is not None and not 1 <= at <= theirs.shape[1]:
        raise UserError(f"at is {at}; the curves have {theirs.shape[1]} samples: give 1 to that")
    weights = np.concatenate([np.full((1, len(ours)), 1 / len(ours)), _seed_weights(len(ours), resamples, rng)])
    our_means, their_means = weights @ ours, weights @ theirs
    thresholds = their_means[:, -1 if at is None else at - 1]
    our_hits = _hits(our_means, thresholds)
    their_hits = _hits(their_means, thresholds) if at is None else np.full(len(thresholds), float(at))
    ratios = our_hits / their_hits
    found = int(our_hits[0]) if math.isfinite(our_hits[0]) else None
    return HitRatio(float(thresholds[0]), found, int(their_hits[0]), _interval(float(ratios[0]), ratios[1:], len(ours), level))


def _hits(curves: Floats, thresholds: Floats) -> Floats:
    """First n from which each curve [resamples, samples] stays at or above its threshold [resamples]; infinite where it ends below."""
    slack = TOLERANCE * np.maximum(1.0, np.abs(thresholds))
    below = curves < (thresholds - slack)[:, None]
    last_below = np.where(below.any(1), curves.shape[1] - np.argmax(below[:, ::-1], axis=1), 0)
    return np.where(last_below < curves.shape[1], last_below + 1.0, np.inf)


def _correlations(kind: Kind) -> Callable[[Floats, Floats], Floats]:
    known = {"spearman": _spearman, "kendall": _kendall, "pearson": _pearson}
    if kind not in known:
        raise UserError(f"kind of correlation is {kind!r}; give {', '.join(known)}")
    return known[kind]


def _spearman(x: Floats, y: Floats) -> Floats:
    """Pearson's correlation of mean ranks, [resamples, pairs] each -> [resamples]; NaN where a side is constant."""
    from scipy.stats import rankdata

    return _cosine(*(ranks - ranks.mean(-1, keepdims=True) for ranks in (rankdata(x, axis=-1), rankdata(y, axis=-1))))


def _pearson(x: Floats, y: Floats) -> Floats:
    """Of [resamples, pairs] each -> [resamples]; NaN where a side is constant."""
    return _cosine(*(np.where(np.ptp(values, axis=-1, keepdims=True) > 0, values - values.mean(-1, keepdims=True), 0.0) for values in (x, y)))


def _kendall(x: Floats, y: Floats) -> Floats:
    """Tau-b, [resamples, pairs] each -> [resamples]: the cosine between the signs of all differences; NaN where a side is constant."""
    return _cosine(*(np.sign(values[:, :, None] - values[:, None, :]).reshape(len(values), -1) for values in (x, y)))


def _cosine(x: Floats, y: Floats) -> Floats:
    norms = np.sqrt((x * x).sum(-1) * (y * y).sum(-1))
    with np.errstate(invalid="ignore"):
        return np.clip((x * y).sum(-1) / norms, -1.0, 1.0)


def _cells(num_pairs: int, kind: Kind) -> int:
    """Numbers that one resample's correlation holds at a time."""
    return num_pairs**2 if kind == "kendall" else num_pairs


def _resamples(num_pairs: int, cells: int, resamples: int, rng: np.random.Generator) -> list[npt.NDArray[np.intp]]:
    """Indices [some, pairs] of resampled pairs, in parts that keep memory low."""
    indices = rng.integers(num_pairs, size=(resamples, num_pairs))
    return np.array_split(indices, math.ceil(resamples * cells / _CHUNK))


def _seed_weights(num_seeds: int, resamples: int, rng: np.random.Generator) -> Floats:
    """Share of each seed in each resample, [resamples, seeds]."""
    return rng.multinomial(num_seeds, np.full(num_seeds, 1 / num_seeds), size=resamples) / num_seeds


def _interval(mid: float, drawn: Floats, num_pairs: int, level: float) -> Interval:
    """Widened percentiles; outward to the next resample, since infinities cannot be interpolated."""
    kept = drawn[~np.isnan(drawn)]
    if not kept.size:
        raise UserError(f"no resample of {num_pairs} pairs has a statistic; give more pairs, or pairs with fewer ties")
    tail = tail_share(num_pairs, level)
    return Interval(float(np.quantile(kept, tail, method="lower")), mid, float(np.quantile(kept, 1 - tail, method="higher")))


def tail_share(num_pairs: int, level: float) -> float:
    """Share of resamples to leave out at each end: Hesterberg's Phi(-sqrt(n / (n - 1)) * t), t Student's quantile with n - 1 degrees of
    freedom."""
    from scipy.stats import norm, t

    return float(norm.cdf(-math.sqrt(num_pairs / (num_pairs - 1)) * t.ppf((1 + level) / 2, num_pairs - 1)))


def _check(level: float, resamples: int) -> None:
    if not 0 < level < 1:
        raise UserError(f"level is {level}; give a confidence between 0 and 1, such as 0.95")
    if resamples < 1:
        raise UserError(f"resamples is {resamples}; give 1 or more, such as {RESAMPLES}")


def _pairs(least: int, **named: npt.ArrayLike) -> tuple[Floats, ...]:
    arrays = {name: np.asarray(values, dtype=np.float64) for name, values in named.items()}
    sizes = {name: values.shape for name, values in arrays.items()}
    if any(values.ndim != 1 for values in arrays.values()) or len(set(sizes.values())) > 1:
        shown = ", ".join(f"{name} {shape}" for name, shape in sizes.items())
        raise UserError(f"shapes are {shown}; give one-dimensional values of the same pairs, in the same order")
    size = next(iter(sizes.values()))[0]
    if size < least:
        raise UserError(f"there are {size} pairs; give at least {least}")
    for name, values in arrays.items():
        if not np.isfinite(values).all():
            wrong = int(np.argmin(np.isfinite(values)))
            raise UserError(f"{name}[{wrong}] is {values[wrong]}; leave out the pairs that have no value on every side")
    return tuple(arrays.values())


def _rankable(**named: npt.ArrayLike) -> tuple[Floats, ...]:
    arrays = _pairs(MIN_PAIRS, **named)
    for name, values in zip(named, arrays, strict=True):
        if np.ptp(values) == 0:
            raise UserError(f"{name} is constant ({values[0]:g} in all {values.size} pairs), so it ranks nothing; give values that differ")
    return arrays


def _curves(name: str, value: npt.ArrayLike) -> Floats:
    curves = np.asarray(value, dtype=np.float64)
    if curves.ndim != 2 or curves.shape[0] < 2 or curves.shape[1] < 1:
        raise UserError(f"{name} have shape {curves.shape}; give [seeds, samples] with at least 2 seeds")
    if not np.isfinite(curves).all():
        seed, sample = np.argwhere(~np.isfinite(curves))[0]
        raise UserError(f"{name}[{seed}, {sample}] is {curves[seed, sample]}; fill the samples before the first success")
    return curves
