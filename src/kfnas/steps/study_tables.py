"""What is reported of the rows of a study: the columns of FNAS's Table 4 and Table 5, means over seeds, and what each row saves against the baseline.

A saving is how many times less a row spends until the mean over seeds of its best reward reaches the baseline's final mean, for good. It is taken on the
proxy task's rewards, which are what a search sees; the accuracy of networks trained from scratch stands beside it.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

import numpy as np

from kfnas.controller.candidates import RANDOM
from kfnas.controller.config import BUFFER_AGENTS, CRITIC_AGENTS
from kfnas.steps.study_results import RowResult, SearchResult
from kfnas.studies.curves import saving, saving_interval
from kfnas.studies.statistics import Interval, paired_bootstrap

OVER = ("samples", "device_seconds")
MIN_SEEDS = 2
_FACTS = ("name", "agent", "akp", "uac", "aeb", "akp_from", "uac_from", "warm_share", "num_seeds", "num_finished", "num_ended")
_SPREADS = ("top1", "mult_adds", "latency_ms", "num_activated", "num_drawn", "num_epochs", "device_seconds", "best_reward")
_SEED = 0x57D7


@dataclass(frozen=True)
class Spread:
    """A mean over seeds, the standard deviation over them (None for one), and how many there are."""

    mean: float
    deviation: float | None
    num: int


@dataclass(frozen=True)
class RowSummary:
    """One line of the table; None stands for what is not known yet. Costs and accuracy are of the network that each search delivers.

    Attributes:
        akp, uac, aeb: which modules are on; `akp_from`, `uac_from` say whether they start from the donor.
        warm_share: of the trained children, those that started from a pool's blocks; None without a pool.
        num_finished, num_ended: seeds that have delivered a network, and those that have nothing left to do.
        top1: the task's metric on the test set.
        gain: difference in it from the baseline, paired by seed.
        epochs_a_child: training budget of one child; `num_epochs` of all together.
        device_seconds: that children were in training.
        savings: by `samples` and `device_seconds`.
        bounds: 95% intervals of the savings, from 3 seeds on.
    """

    name: str
    agent: str
    akp: bool
    uac: bool
    aeb: bool
    akp_from: bool
    uac_from: bool
    warm_share: float | None
    num_seeds: int
    num_finished: int
    num_ended: int
    top1: Spread | None
    gain: Interval | None
    mult_adds: Spread | None
    latency_ms: Spread | None
    num_activated: Spread | None
    num_drawn: Spread | None
    epochs_a_child: float | None
    num_epochs: Spread | None
    device_seconds: Spread | None
    best_reward: Spread | None
    savings: Mapping[str, float | None]
    bounds: Mapping[str, tuple[float, float] | None]


def summaries(rows: Sequence[RowResult], reference: str) -> list[RowSummary]:
    """The table's lines, in order. What a search cost is counted when its rounds are done."""
    baseline = next(row for row in rows if row.row.name == reference)
    return [_summary(row, baseline) for row in rows]


def spread(values: Iterable[float | None]) -> Spread | None:
    """Mean and deviation of the values that are there."""
    known = [float(value) for value in values if value is not None and math.isfinite(value)]
    return Spread(fmean(known), stdev(known) if len(known) > 1 else None, len(known)) if known else None


def study_metrics(table: Sequence[RowSummary]) -> dict[str, float]:
    """The table as metrics, `row/name_unit`."""
    metrics: dict[str, float] = {}
    for row in table:
        for name in _SPREADS:
            value = getattr(row, name)
            if value is not None:
                metrics[f"{row.name}/{name}"] = value.mean
        metrics |= {f"{row.name}/saving_{over}": value for over, value in row.savings.items() if value is not None}
        if row.gain is not None:
            metrics |= {f"{row.name}/gain_top1": row.gain.mid, f"{row.name}/gain_top1_low": row.gain.low, f"{row.name}/gain_top1_high": row.gain.high}
        metrics[f"{row.name}/num_finished"] = float(row.num_finished)
    return metrics


def table_records(table: Sequence[RowSummary]) -> list[dict[str, Any]]:
    """The table as flat records, one a row: what is written as CSV and JSON."""
    records = []
    for row in table:
        record: dict[str, Any] = {name: getattr(row, name) for name in _FACTS}
        for name in _SPREADS:
            value: Spread | None = getattr(row, name)
            record |= {name: value.mean if value else None, f"{name}_deviation": value.deviation if value else None}
        record["epochs_a_child"] = row.epochs_a_child
        for over in OVER:
            low, high = row.bounds[over] or (None, None)
            record |= {f"saving_{over}": row.savings[over], f"saving_{over}_low": low, f"saving_{over}_high": high}
        gain = row.gain
        record |= {"gain_top1": gain.mid if gain else None, "gain_top1_low": gain.low if gain else None, "gain_top1_high": gain.high if gain else None}
        records.append(record)
    return records


def as_csv(records: Sequence[Mapping[str, Any]]) -> bytes:
    """Flat records of equal keys as CSV; none, none."""
    if not records:
        return b""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, fieldnames=list(records[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(records)
    return text.getvalue().encode()


def _summary(row: RowResult, baseline: RowResult) -> RowSummary:
    done, finished = row.searched, row.finished
    rng = np.random.default_rng(_SEED)
    is_baseline = row is baseline
    return RowSummary(
        name=row.row.name,
        agent=row.agent,
        akp=row.has_pool,
        uac=row.agent in CRITIC_AGENTS,
        aeb=row.agent in BUFFER_AGENTS,
        akp_from=row.row.pool == "donor",
        uac_from=row.row.prior,
        warm_share=_warm_share(done) if row.has_pool else None,
        num_seeds=row.num_seeds,
        num_finished=len(finished),
        num_ended=sum(search.ended for search in row.searches),
        top1=spread(map(_top1, finished)),
        gain=None if is_baseline else _gain(row, baseline, rng),
        mult_adds=spread(_chosen(finished, "mult_adds")),
        latency_ms=spread(_chosen(finished, "latency_ms")),
        num_activated=spread(float(len(search.activated)) for search in done),
        num_drawn=spread(float(len(search.view.rows)) for search in done if search.view is not None),
        epochs_a_child=_epochs_a_child(done),
        num_epochs=spread(search.num_epochs for search in done),
        device_seconds=spread(search.device_seconds for search in done),
        best_reward=spread(float(curve.y[-1]) for search in done if len((curve := search.best_reward("samples")).y)),
        savings={over: _paired(row, baseline, over, saving) for over in OVER},
        bounds={over: None if is_baseline else _paired(row, baseline, over, lambda base, own: saving_interval(base, own, rng)) for over in OVER},
    )


def _top1(search: SearchResult) -> float | None:
    return search.chosen["metrics"].get(search.metric) if search.chosen is not None else None


def _chosen(searches: Sequence[SearchResult], name: str) -> list[float | None]:
    return [search.chosen[name] for search in searches if search.chosen is not None]


def _warm_share(searches: Sequence[SearchResult]) -> float | None:
    trained = [row for search in searches for row in search.activated if row.status == "ok"]
    return fmean(row.initialisation != RANDOM for row in trained) if trained else None


def _epochs_a_child(searches: Sequence[SearchResult]) -> float | None:
    epochs = [row.epochs for search in searches for row in search.activated if row.status == "ok"]
    return max(epochs, default=None)


def _both(row: RowResult, baseline: RowResult, has: Callable[[SearchResult], bool]) -> list[tuple[SearchResult, SearchResult]]:
    """Searches of baseline and row with the same seed, where both have come far enough."""
    return [(theirs, ours) for theirs, ours in zip(baseline.searches, row.searches, strict=True) if has(theirs) and has(ours)]


def _gain(row: RowResult, baseline: RowResult, rng: np.random.Generator) -> Interval | None:
    both = _both(row, baseline, lambda search: _top1(search) is not None)
    if len(both) < MIN_SEEDS:
        return None
    theirs, ours = ([float(_top1(search) or 0.0) for search in side] for side in zip(*both, strict=True))
    return paired_bootstrap(ours, theirs, rng=rng)


def _paired(row: RowResult, baseline: RowResult, over: str, measure: Callable[..., Any]) -> Any:
    """A measure of the curves of baseline and row, of the seeds that both have searched to the end.

    None also where a search of the row found nothing within the budget: it does not reach the quality, and the others' mean would hide it.
    """
    if any(not len(search.best_reward(over).x) for search in row.searched):
        return None
    both = _both(row, baseline, lambda search: search.has_searched and len(search.best_reward(over).x) > 0)
    if not both:
        return None
    theirs, ours = ([search.best_reward(over) for search in side] for side in zip(*both, strict=True))
    return measure(theirs, ours)
