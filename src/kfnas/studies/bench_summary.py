"""What a comparison of searches says: curves with bands, samples to a reference's final value, paired tests; as numbers, a table and a CSV file.

The curve of a run is the score of what looked best so far, by activated samples; after a search that used its space up it keeps its last value. Every
interval resamples seeds, which all entrants share.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np

from kfnas.errors import ConfigError
from kfnas.studies.bench_runs import WINDOW, Run
from kfnas.studies.statistics import Band, Floats, HitRatio, Interval, SignTest, hit_ratio, incumbent_curve, mean_band, paired_bootstrap, sign_test

CHECKPOINTS = (50, 100, 200, 300, 500, 600, 1000, 2000)
LEVEL = 0.95


class Judging(NamedTuple):
    """Whose final value is the mark, where entrants are compared, and which pairs of them."""

    reference: str
    checkpoints: tuple[int, ...]
    pairs: tuple[tuple[str, str], ...]


class Comparison(NamedTuple):
    """Two entrants after `samples` activated samples each: the mean of first - second over seeds, and who won how many seeds."""

    samples: int
    first: str
    second: str
    difference: Interval
    sign: SignTest


@dataclass(frozen=True)
class EntrantSummary:
    """One entrant over all seeds.

    Attributes:
        curves: score of the best-looking architecture, [seeds, samples].
        band: their mean and its interval.
        hit: samples to the reference's final value.
        hits: samples to what the reference has at each checkpoint.
        num_activated: fewest activated samples of a run; less than asked for where the space was used up.
        distinct_share: distinct architectures per hundred drawn, mean over seeds.
        distinct_share_last: the same among the last hundred drawn, which tells a policy that has collapsed.
        cpu_seconds: processor time of one search, mean over seeds.
        versions: digests of the code that the runs were made with.
    """

    label: str
    curves: Floats
    band: Band
    hit: HitRatio
    hits: tuple[HitRatio, ...]
    num_activated: int
    distinct_share: float
    distinct_share_last: float
    cpu_seconds: float
    versions: tuple[str, ...]


@dataclass(frozen=True)
class Summary:
    """A comparison's outcome. The first of `comparisons` are at the first checkpoint; `outdated`: labels with runs of other code than the present."""

    objective: str
    seeds: tuple[int, ...]
    samples: int
    reference: str
    entrants: tuple[EntrantSummary, ...]
    checkpoints: tuple[int, ...]
    comparisons: tuple[Comparison, ...]
    outdated: tuple[str, ...] = ()

    def entrant(self, label: str) -> EntrantSummary:
        """The entrant of a label."""
        return next(item for item in self.entrants if item.label == label)


def judging(labels: Sequence[str], samples: int, reference: str | None = None, checkpoints: Sequence[int] = (), focus: str | None = None) -> Judging:
    """How a comparison will be judged; worth asking before hours of searches.

    Args:
        labels: of all who take part.
        samples: activated samples of each search.
        reference: label whose final value is the mark; None: `mnas`, or the first.
        checkpoints: numbers of samples at which entrants are tested against each other; empty: round ones, and `samples`.
        focus: label to test against every other one; None: all pairs.

    Raises:
        ConfigError: a label that takes no part, or a checkpoint beyond the samples.
    """
    for option, label in (("reference", reference), ("focus", focus)):
        if label is not None and label not in labels:
            raise ConfigError(f"{option}: {label!r} takes no part; choose of {', '.join(labels)}")
    chosen = tuple(sorted(set(checkpoints) or {*(point for point in CHECKPOINTS if point < samples), samples}))
    if not 1 <= chosen[0] <= chosen[-1] <= samples:
        raise ConfigError(f"checkpoints are {list(chosen)}; give numbers from 1 to the {samples} samples of a search")
    pairs = tuple(combinations(labels, 2)) if focus is None else tuple((focus, label) for label in labels if label != focus)
    return Judging(reference or ("mnas" if "mnas" in labels else labels[0]), chosen, pairs)


def summarise(
    runs: Mapping[str, Sequence[Run]],
    *,
    objective: str,
    seeds: Sequence[int],
    samples: int,
    rules: Judging,
    codes: Mapping[str, str] | None = None,
) -> Summary:
    """Judge runs.

    Args:
        runs: by label, one for each seed in the order of `seeds`.
        objective: its name.
        seeds: which all entrants share.
        samples: activated samples of each run.
        rules: what `judging` returned for these labels and samples.
        codes: `Entrant.code` of each label, which its runs are compared with; None: they are not.

    Raises:
        ConfigError: a run had no success at all.
    """
    curves = {label: np.stack([judged(run, samples) for run in group]) for label, group in runs.items()}
    entrants = tuple(_entrant(label, group, curves[label], curves[rules.reference], rules.checkpoints) for label, group in runs.items())
    compared = tuple(_compare(point, pair, curves) for point in rules.checkpoints for pair in rules.pairs)
    outdated = tuple(item.label for item in entrants if codes is not None and item.versions != (codes[item.label],))
    return Summary(objective, tuple(seeds), samples, rules.reference, entrants, rules.checkpoints, compared, outdated)


def judged(run: Run, samples: int) -> Floats:
    """Curve of a run, [samples]: the incumbent's score. Before the first success it is the lowest score of the run, after the last sample the
    last value."""
    curve = incumbent_curve(run.observed, run.score)
    if np.isnan(curve).all():
        raise ConfigError("a search had no success in all its samples: give more samples, or an objective that fails less")
    curve = np.where(np.isnan(curve), np.nanmin(run.score), curve)
    return np.concatenate([curve, np.full(samples - len(curve), curve[-1])])


def as_json(summary: Summary) -> dict[str, Any]:
    """JSON value of all that a summary holds; infinite ratios are None."""
    return {
        "objective": summary.objective,
        "seeds": list(summary.seeds),
        "samples": summary.samples,
        "reference": summary.reference,
        "level": LEVEL,
        "entrants": {item.label: _entrant_json(item, summary.checkpoints) for item in summary.entrants},
        "outdated": list(summary.outdated),
        "comparisons": [
            {
                "samples": item.samples,
                "first": item.first,
                "second": item.second,
                "difference": _interval_json(item.difference),
                "wins": item.sign.wins,
                "losses": item.sign.losses,
                "ties": item.sign.ties,
                "p_value": item.sign.p_value,
            }
            for item in summary.comparisons
        ],
    }


def as_csv(summary: Summary) -> str:
    """Mean curves and their bands, one line for each entrant and number of samples."""
    output = io.StringIO()
    writer = csv.writer(output, lineterminator="\n")
    writer.writerow(["agent", "samples", "mean", "low", "high", "seeds"])
    for item in summary.entrants:
        for index, (low, mid, high) in enumerate(zip(item.band.low, item.band.mid, item.band.high, strict=True)):
            writer.writerow([item.label, index + 1, *(f"{value:.8g}" for value in (mid, low, high)), len(summary.seeds)])
    return output.getvalue()


def as_markdown(summary: Summary) -> str:
    """The table: scores at checkpoints, samples to the reference's final value, distinct draws, seconds; and the paired tests."""
    digits = _digits(summary)
    mark = summary.entrant(summary.reference).hit.threshold
    head = ["agent", *(f"{point}" for point in summary.checkpoints), "samples to mark", "ratio [95%]", f"distinct per 100 (last {WINDOW})", "CPU s"]
    lines = [
        f"# {summary.objective}: {len(summary.seeds)} seeds, {summary.samples} samples",
        "",
        "Mean score of the architecture that looked best, after so many activated samples, with its 95% interval over seeds.",
        f"The mark is what {_cell(summary.reference)} ends with: {mark:.{digits}f}. Samples to it: from there on the mean curve stays at or above it.",
        f"Ratio: to the samples that {_cell(summary.reference)} itself takes, paired by seed.",
        "",
        _row(head),
        _row(["---"] * len(head)),
        *(_row(_cells(item, summary, digits)) for item in summary.entrants),
    ]
    lines += [f"\n{_cell(item.label)}: a search used its space up after {item.num_activated} samples." for item in summary.entrants if _short(item, summary)]
    head = ["agent", *(f"as {summary.reference} after {point}" for point in summary.checkpoints)]
    lines += [
        "",
        f"Samples from which the mean curve stays at or above what {_cell(summary.reference)} has after so many, and their share of these:",
        "",
        _row([_cell(text) for text in head]),
        _row(["---"] * len(head)),
        *(_row([_cell(item.label), *map(_hit_cell, item.hits)]) for item in summary.entrants if item.label != summary.reference),
    ]
    mixed = [item.label for item in summary.entrants if len(item.versions) > 1 and item.label not in summary.outdated]
    lines += [f"\nRuns of several versions of the code are mixed: {', '.join(map(_cell, mixed))}."] if mixed else []
    lines += [f"\nRuns of other code than the present, so that agents may not compare: {', '.join(map(_cell, summary.outdated))}."] if summary.outdated else []
    if summary.comparisons:
        head = ["samples", "first", "second", "first - second [95%]", "seeds won : lost : tied", "sign test p"]
        lines += ["", "Paired by seed:", "", _row(head), _row(["---"] * len(head))]
        lines += [_row(_comparison_cells(item, digits)) for item in summary.comparisons]
    return "\n".join(lines) + "\n"


def _entrant(label: str, runs: Sequence[Run], curves: Floats, reference: Floats, checkpoints: Sequence[int]) -> EntrantSummary:
    return EntrantSummary(
        label=label,
        curves=curves,
        band=mean_band(curves, rng=_rng(), level=LEVEL),
        hit=hit_ratio(curves, reference, rng=_rng(), level=LEVEL),
        hits=tuple(hit_ratio(curves, reference, rng=_rng(), at=point, level=LEVEL) for point in checkpoints),
        num_activated=min(len(run.tokens) for run in runs),
        distinct_share=float(np.mean([100 * run.distinct / run.draws for run in runs])),
        distinct_share_last=float(np.mean([100 * run.distinct_last / min(run.draws, WINDOW) for run in runs])),
        cpu_seconds=float(np.mean([run.cpu_seconds for run in runs])),
        versions=tuple(sorted({run.code for run in runs})),
    )


def _compare(point: int, pair: tuple[str, str], curves: Mapping[str, Floats]) -> Comparison:
    first, second = (curves[label][:, point - 1] for label in pair)
    return Comparison(point, *pair, paired_bootstrap(first, second, rng=_rng(), level=LEVEL), sign_test(first, second))


def _rng() -> np.random.Generator:
    """Every interval from the same resamples: what is reported does not depend on what else is."""
    return np.random.default_rng(0)


def _short(item: EntrantSummary, summary: Summary) -> bool:
    return item.num_activated < summary.samples


def _digits(summary: Summary) -> int:
    """Decimals that tell the entrants apart: two more than the range of the mean curves needs, two at least."""
    values = np.concatenate([item.band.mid for item in summary.entrants])
    span = float(np.ptp(values))
    return max(2, min(8, 2 - math.floor(math.log10(span)))) if span > 0 else 2


def _cells(item: EntrantSummary, summary: Summary, digits: int) -> list[str]:
    band = item.band
    points = [point - 1 for point in summary.checkpoints]
    scores = [f"{band.mid[at]:.{digits}f} [{band.low[at]:.{digits}f}, {band.high[at]:.{digits}f}]" for at in points]
    hit = item.hit
    distinct = f"{item.distinct_share:.0f} ({item.distinct_share_last:.0f})"
    return [_cell(item.label), *scores, "never" if hit.hit is None else str(hit.hit), _ratios(hit), distinct, f"{item.cpu_seconds:.1f}"]


def _comparison_cells(item: Comparison, digits: int) -> list[str]:
    low, mid, high = (f"{value:+.{digits}f}" for value in item.difference)
    won = f"{item.sign.wins} : {item.sign.losses} : {item.sign.ties}"
    return [str(item.samples), _cell(item.first), _cell(item.second), f"{mid} [{low}, {high}]", won, f"{item.sign.p_value:.2g}"]


def _hit_cell(hit: HitRatio) -> str:
    return f"{'never' if hit.hit is None else hit.hit}: {_ratios(hit)}"


def _ratios(hit: HitRatio) -> str:
    return f"{_ratio(hit.ratio.mid)} [{_ratio(hit.ratio.low)}, {_ratio(hit.ratio.high)}]"


def _ratio(value: float) -> str:
    return f"{value:.2f}" if math.isfinite(value) else "∞"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _entrant_json(item: EntrantSummary, checkpoints: Sequence[int]) -> dict[str, Any]:
    at = {str(point): _interval_json(Interval(*(float(values[point - 1]) for values in item.band))) for point in checkpoints}
    return {
        "scores": at,
        "by_seed": {str(point): item.curves[:, point - 1].tolist() for point in checkpoints},
        "hit": _hit_json(item.hit),
        "hits": {str(point): _hit_json(hit) for point, hit in zip(checkpoints, item.hits, strict=True)},
        "num_activated": item.num_activated,
        "distinct_per_hundred": item.distinct_share,
        "distinct_per_hundred_last": item.distinct_share_last,
        "cpu_seconds": item.cpu_seconds,
        "code": list(item.versions),
    }


def _hit_json(hit: HitRatio) -> dict[str, Any]:
    return {"threshold": hit.threshold, "samples": hit.hit, "reference_samples": hit.reference_hit, "ratio": _interval_json(hit.ratio)}


def _interval_json(interval: Interval) -> dict[str, float | None]:
    return {name: value if math.isfinite(value) else None for name, value in interval._asdict().items()}
