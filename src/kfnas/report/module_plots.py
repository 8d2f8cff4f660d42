"""The plots of FNAS's three modules: what the critic's uncertainty is worth, where a round's samples come from, and what the pool holds for them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator, PercentFormatter

from kfnas.report.canvas import BAD, BEST, BUDGET, DOT, FRONT, KNOWN, MEAN, MUTED, REUSED, TRUSTED, legend, scatter
from kfnas.report.data import PoolUse, ReportData, Sample, foretold
from kfnas.report.figures import known

NUM_BINS = 8
SOURCES = (
    ("trained", DOT),
    ("trained to audit the critic", BEST),
    ("trusted", TRUSTED),
    ("from the buffer", REUSED),
    ("known before", KNOWN),
    ("not trained", BAD),
)
_NAMES = {"policy": "trained", "audit": "trained to audit the critic", "trusted": "trusted", "exploited": "from the buffer", "cached": "known before"}
_MODULE_SOURCES = frozenset({"trusted", "exploited", "audit"})


class Judged(NamedTuple):
    """One trained sample as the critic saw it when it was drawn; all three in units of reward."""

    round: int
    uncertainty: float
    error: float


def has_critic(data: ReportData) -> bool:
    """Whether the critic had scored any sample that was then trained."""
    return bool(judged(data.samples))


def has_sources(data: ReportData) -> bool:
    """Whether any sample came from a critic or a buffer."""
    return any(sample.source in _MODULE_SOURCES for sample in data.samples)


def has_pool(data: ReportData) -> bool:
    """Whether any round asked a pool for blocks."""
    return any(known(use.match_ratio) for use in data.pool)


def judged(samples: Sequence[Sample]) -> list[Judged]:
    """Trained samples with the critic's uncertainty U and its error |V - R|, in the order of the history."""
    return [
        Judged(sample.round, float(sample.uncertainty), abs(sample.value - sample.reward))
        for sample in foretold(samples)
        if known(sample.value) and known(sample.uncertainty) and known(sample.reward)
    ]


def coverage(samples: Sequence[Sample]) -> float | None:
    """Share of the critic's errors that were at most its uncertainty, a fraction; None where it scored nothing that was trained."""
    found = judged(samples)
    return sum(each.error <= each.uncertainty for each in found) / len(found) if found else None


def draw_calibration(axes: Axes, data: ReportData) -> None:
    """The critic's error against the uncertainty that it had stated, and the mean error of samples of like uncertainty."""
    found = judged(data.samples)
    scatter(axes, [(each.uncertainty, each.error) for each in found], label="trained sample", color=DOT, s=16, linewidths=0)
    top = max(max(each.uncertainty for each in found), 1e-9)
    axes.plot([0, top], [0, top], color=BUDGET, linewidth=1.2, linestyle=(0, (5, 3)), label="error = U")
    bins = _bins(found)
    if len(bins) > 1:
        axes.plot(*zip(*bins, strict=True), color=MEAN, linewidth=1.6, marker="o", markersize=4, label="mean error of like U")
    axes.set_xlabel("uncertainty U when drawn (reward)")
    axes.set_ylabel("error |V − R| (reward)")
    axes.set_xlim(left=0)
    axes.set_ylim(bottom=0)
    legend(axes)


def draw_critic_error(axes: Axes, data: ReportData) -> None:
    """The critic's mean error and mean uncertainty on each round's newly trained samples, before it is fitted on them."""
    found = judged(data.samples)
    rounds = sorted({each.round for each in found})
    activated = np.cumsum([sum(each.round == number for each in found) for number in rounds])
    errors = [float(np.mean([each.error for each in found if each.round == number])) for number in rounds]
    uncertainties = [float(np.mean([each.uncertainty for each in found if each.round == number])) for number in rounds]
    size = 4 if len(rounds) < 60 else 0
    axes.plot(activated, errors, color=BEST, linewidth=1.8, marker="o", markersize=size, label="mean error |V − R|")
    axes.plot(activated, uncertainties, color=MEAN, linewidth=1.6, marker="o", markersize=size, label="mean uncertainty U")
    axes.set_xlabel("trained samples that the critic had scored")
    axes.set_ylabel("reward")
    axes.set_ylim(bottom=0)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    legend(axes)


def draw_sources(axes: Axes, data: ReportData) -> None:
    """Where each round's samples come from, stacked."""
    rounds = sorted({sample.round for sample in data.samples})
    place = {number: index for index, number in enumerate(rounds)}
    counts = {name: np.zeros(len(rounds)) for name, _ in SOURCES}
    for sample in data.samples:
        counts[_source(sample)][place[sample.round]] += 1
    below = np.zeros(len(rounds))
    for name, colour in SOURCES:
        if counts[name].any():
            axes.bar(rounds, counts[name], bottom=below, width=0.9 if len(rounds) < 60 else 1.0, color=colour, label=name, linewidth=0)
            below += counts[name]
    axes.set_xlabel("round")
    axes.set_ylabel("samples")
    axes.grid(axis="x", visible=False)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    legend(axes)


def draw_pool(axes: Axes, data: ReportData) -> None:
    """How much of each round's blocks the pool matched, and from when on children started from it."""
    uses = [use for use in data.pool if known(use.match_ratio)]
    size = 4 if len(uses) < 60 else 0
    warm = [use.round for use in data.pool if use.warm]
    if warm:
        axes.axvspan(warm[0] - 0.5, max(use.round for use in data.pool) + 0.5, color="#eef3f8", linewidth=0, label="children start from the pool")
    for name, colour, values in (
        ("matched blocks", BEST, [use.match_ratio for use in uses]),
        ("the very same block", FRONT, [use.hit_ratio for use in uses]),
        ("mean similarity", MEAN, [use.similarity for use in uses]),
    ):
        points = [(use.round, value) for use, value in zip(uses, values, strict=True) if known(value)]
        if points:
            axes.plot(*zip(*points, strict=True), color=colour, linewidth=1.7, marker="o", markersize=size, label=name)
    if known(data.min_match):
        axes.axhline(data.min_match, color=MUTED, linewidth=1.1, linestyle=(0, (5, 3)), label="needed to start from it")
    axes.set_xlabel("round")
    axes.set_ylim(-0.03, 1.05)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0, symbol=" %"))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    legend(axes)


def warm_since(uses: Sequence[PoolUse]) -> int | None:
    """First round whose children started from the pool."""
    return next((use.round for use in uses if use.warm), None)


def _bins(found: Sequence[Judged]) -> list[tuple[float, float]]:
    """(mean uncertainty, mean error) of groups of equal size along the uncertainty."""
    ordered = sorted(found, key=lambda each: each.uncertainty)
    groups = np.array_split(np.array([(each.uncertainty, each.error) for each in ordered]), max(1, min(NUM_BINS, len(ordered) // 5)))
    return [(float(group[:, 0].mean()), float(group[:, 1].mean())) for group in groups]


def _source(sample: Sample) -> str:
    name = _NAMES.get(sample.source, "not trained")
    return "not trained" if sample.source in ("policy", "audit") and not sample.activated else name
