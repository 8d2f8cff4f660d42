"""Curves of searches over what they have spent: the best so far, averaged over seeds, and where it reaches a level for good.

A search's curve is a step function: it changes where a child ends, at a number of activated samples or of device-seconds, and keeps its last value after
the search's end, since nothing is forgotten.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from kfnas.studies.statistics import tail_share

Floats = npt.NDArray[np.float64]
NUM_POINTS = 200


@dataclass(frozen=True)
class Steps:
    """A step function: `y[i]` from `x[i]` on. `x` does not decrease."""

    x: Floats
    y: Floats

    def at(self, places: Floats) -> Floats:
        """Values at places; NaN before the first step."""
        index = np.searchsorted(self.x, places, side="right") - 1
        values = self.y[np.maximum(index, 0)] if len(self.y) else np.full(len(places), np.nan)
        return np.where(index >= 0, values, np.nan)


@dataclass(frozen=True)
class MeanCurve:
    """Mean over seeds on a grid, with the range of plus and minus one standard error (equal to the mean for one seed)."""

    x: Floats
    mean: Floats
    low: Floats
    high: Floats


def best_so_far(values: Sequence[float], spent: Sequence[float]) -> Steps:
    """The highest value so far, over what had been spent when it was known. NaN is skipped.

    Args:
        values: of each sample, in order.
        spent: what each sample cost alone, 0 or more; 1 each counts samples.
    """
    scores = np.where(np.isnan(np.asarray(values, dtype=np.float64)), -np.inf, np.asarray(values, dtype=np.float64))
    best = np.maximum.accumulate(scores) if len(scores) else scores
    known = np.isfinite(best)
    return Steps(np.cumsum(np.asarray(spent, dtype=np.float64))[known], best[known])


def running_mean(values: Sequence[float], window: int) -> Steps:
    """Mean of the last `window` values at each number of values, from the first full window on (of all, where there are fewer)."""
    numbers = np.asarray(values, dtype=np.float64)
    window = max(1, min(window, len(numbers)))
    if not len(numbers):
        return Steps(numbers, numbers)
    sums = np.concatenate([[0.0], np.cumsum(numbers)])
    return Steps(np.arange(window, len(numbers) + 1, dtype=np.float64), (sums[window:] - sums[:-window]) / window)


def grid_of(runs: Sequence[Steps], num: int = NUM_POINTS) -> Floats:
    """Places from where every run has a value to where the longest ends; none where some run has no value at all."""
    if not runs or any(not len(run.x) for run in runs):
        return np.zeros(0)
    start, end = max(float(run.x[0]) for run in runs), max(float(run.x[-1]) for run in runs)
    return np.linspace(start, max(start, end), num)


def mean_curve(runs: Sequence[Steps], num: int = NUM_POINTS) -> MeanCurve:
    """Mean over runs of one kind, one for each seed."""
    grid = grid_of(runs, num)
    if not len(grid):
        return MeanCurve(grid, grid, grid, grid)
    values = np.stack([run.at(grid) for run in runs])
    mean = values.mean(0)
    error = values.std(0, ddof=1) / np.sqrt(len(runs)) if len(runs) > 1 else np.zeros_like(mean)
    return MeanCurve(grid, mean, mean - error, mean + error)


def reaches(runs: Sequence[Steps], level: float) -> float | None:
    """What had been spent where the mean over runs first stays at or above `level`; None where it does not.

    Exact, not on a grid: the mean of step functions changes only where one of them does.
    """
    if not len(grid_of(runs, 2)):
        return None
    start = max(float(run.x[0]) for run in runs)
    places = np.unique(np.concatenate([run.x for run in runs]))
    places = places[places >= start]
    above = np.mean([run.at(places) for run in runs], axis=0) >= level - 1e-12
    if not above[-1]:
        return None
    below = np.flatnonzero(~above)
    return float(places[below[-1] + 1 if len(below) else 0])


def saving(baseline: Sequence[Steps], runs: Sequence[Steps]) -> float | None:
    """How many times less than the baseline a row spends until its mean reaches the baseline's final mean; None where it never does."""
    if not len(grid_of(baseline, 2)):
        return None
    level = float(np.mean([run.y[-1] for run in baseline]))
    own, needed = reaches(baseline, level), reaches(runs, level)
    return None if own is None or needed is None or needed <= 0 else own / needed


def saving_interval(
    baseline: Sequence[Steps], runs: Sequence[Steps], rng: np.random.Generator, *, level: float = 0.95, resamples: int = 1000
) -> tuple[float, float] | None:
    """Bounds of `saving` by bootstrap over seeds, drawn together for both (the i-th run of either has the same seed). A resample in which the row does not
    reach the baseline's final value counts as a saving of 0. None for fewer than 3 seeds, or unequal numbers of them.
    """
    if len(baseline) != len(runs) or len(runs) < 3:
        return None
    found = []
    for _ in range(resamples):
        drawn = rng.integers(len(runs), size=len(runs))
        found.append(saving([baseline[index] for index in drawn], [runs[index] for index in drawn]) or 0.0)
    tail = tail_share(len(runs), level)
    return float(np.quantile(found, tail, method="lower")), float(np.quantile(found, 1 - tail, method="higher"))
