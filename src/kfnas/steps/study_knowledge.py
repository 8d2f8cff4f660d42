"""What two searches share: the operators of their best architectures (FNAS's Fig. 2), and whether a critic that starts from the other's errs less (Fig. 3a)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any

import numpy as np

from kfnas.report import figures
from kfnas.report.study_page import StudyReport, StudyRow, StudySection, StudyTable
from kfnas.report.study_plots import Pair, Plot, Series, curves, pairs
from kfnas.space import Architecture, Space
from kfnas.steps.study_config import StudyConfig
from kfnas.steps.study_report import KICKERS, header, numbers, provenance, searches_table, study_state
from kfnas.steps.study_results import RowResult, SearchResult
from kfnas.studies.curves import mean_curve, running_mean
from kfnas.studies.operators import Operator, compare_operators
from kfnas.studies.statistics import Interval, paired_bootstrap

NUM_LISTED = 20
CLEAR_Z = 2.0
_SEED = 0x0F16


@dataclass(frozen=True)
class Comparison:
    """What the two searches share.

    Attributes:
        operators: of the best architectures, the largest difference first; empty while one of the searches has trained nothing.
        num_first, num_second: architectures behind them.
        correlation: Pearson's, of the two shares over all operators; None without operators.
        errors: mean |V - R| of each row's scored samples, one for each seed, over as many first samples as all rows of that seed have.
        gain: error of the row that starts from the donor less the fresh row's, paired by seed; None for fewer than two seeds.
    """

    operators: tuple[Operator, ...]
    num_first: int
    num_second: int
    correlation: float | None
    errors: dict[str, list[float]]
    gain: Interval | None


def compare_knowledge(study: StudyConfig, space: Space, donor: SearchResult, rows: Sequence[RowResult]) -> Comparison:
    """Compare the donor's search with those of the row that starts from nothing, and that row's critic with those that start from the donor's."""
    fresh = next(row for row in rows if not row.row.needs_donor)
    first, second = best_tokens(space, [donor], study.best), best_tokens(space, fresh.searches[:1], study.best)
    operators = tuple(compare_operators(space, first, second)) if first and second else ()
    shares = np.array([[operator.first, operator.second] for operator in operators])
    correlation = float(np.corrcoef(shares.T)[0, 1]) if len(operators) > 1 and shares.std(0).all() else None
    errors = _errors(rows)
    given = next((row for row in rows if row.row.prior), None)
    gain = None
    if given is not None and len(errors[fresh.row.name]) >= 2:
        gain = paired_bootstrap(errors[given.row.name], errors[fresh.row.name], rng=np.random.default_rng(_SEED))
    return Comparison(operators, len(first), len(second), correlation, errors, gain)


def best_tokens(space: Space, searches: Sequence[SearchResult], count: int) -> list[tuple[int, ...]]:
    """Canonical tokens of the `count` distinct architectures of highest reward that were trained and are within the budget."""
    scored: dict[tuple[int, ...], float] = {}
    for search in searches:
        for row, reward in zip(search.activated, search.rewards, strict=True):
            if reward == reward:
                tokens = space.canonical(space.architecture(Architecture.parse(row.architecture).tokens)).tokens
                scored[tokens] = max(reward, scored.get(tokens, reward))
    return sorted(scored, key=lambda tokens: -scored[tokens])[:count]


def knowledge_metrics(found: Comparison) -> dict[str, float]:
    """What is known, as metrics."""
    metrics = {f"{row}/critic_error": fmean(errors) for row, errors in found.errors.items() if errors}
    if found.operators:
        metrics |= {
            "operators/max_difference": max(abs(operator.difference) for operator in found.operators),
            "operators/mean_difference": fmean(abs(operator.difference) for operator in found.operators),
            "operators/num_clear": float(sum(abs(operator.z) >= CLEAR_Z for operator in found.operators)),
            "operators/num_architectures": float(min(found.num_first, found.num_second)),
        }
    if found.correlation is not None:
        metrics["operators/correlation"] = found.correlation
    if found.gain is not None:
        metrics |= {"critic/error_difference": found.gain.mid, "critic/error_difference_low": found.gain.low, "critic/error_difference_high": found.gain.high}
    return metrics


def operator_records(found: Comparison) -> list[dict[str, Any]]:
    """Every operator as a flat record."""
    return [asdict(operator) for operator in found.operators]


def knowledge_report(study: StudyConfig, rows: Sequence[RowResult], donor: SearchResult, found: Comparison) -> StudyReport:
    """The page."""
    searches = [donor, *(search for row in rows for search in row.searches)]
    fresh = next(row for row in rows if not row.row.needs_donor).searches[0].name
    return StudyReport(
        name=study.name,
        kicker=KICKERS[study.kind],
        headline=_headline(found, fresh, donor.name),
        state=study_state(searches),
        facts=header(study, donor),
        numbers=numbers(searches),
        sections=(
            StudySection(
                "Operators of the best architectures",
                _operator_tables(found, donor.name, fresh),
                _operator_plots(found, donor.name, fresh),
                text=f"The share that chose each operator, of the best {found.num_first} architectures of {donor.name} and {found.num_second} of {fresh}.",
                empty="One of the searches has trained nothing yet.",
            ),
            StudySection(
                "Error of the critic along training",
                _error_tables(found),
                _error_plots(rows),
                text="|V - R| of samples that were trained after V had scored them, in units of the reward.",
                empty="No critic has scored a sample before it was trained yet.",
            ),
            StudySection("Searches", [searches_table(searches)]),
        ),
        config=study.model_dump(mode="json"),
        provenance=provenance(),
    )


def _errors(rows: Sequence[RowResult]) -> dict[str, list[float]]:
    errors: dict[str, list[float]] = {row.row.name: [] for row in rows}
    for searches in zip(*(row.searches for row in rows), strict=True):
        found = [search.critic_errors() for search in searches]
        count = min(map(len, found))
        if count:
            for row, values in zip(rows, found, strict=True):
                errors[row.row.name].append(fmean(values[:count]))
    return errors


def _headline(found: Comparison, fresh: str, donor: str) -> str:
    parts = []
    if found.operators:
        clear = sum(abs(operator.z) >= CLEAR_Z for operator in found.operators)
        parts.append(f"{clear} of {len(found.operators)} operators differ by two standard errors or more between {donor} and {fresh}")
    if found.gain is not None:
        parts.append(f"a critic that starts from {donor} errs by {found.gain.mid:+.4f} ({found.gain.low:+.4f} to {found.gain.high:+.4f}) against a fresh one")
    return "; ".join(parts) + "." if parts else "Nothing can be compared yet."


def _operator_tables(found: Comparison, donor: str, fresh: str) -> list[StudyTable]:
    if not found.operators:
        return []
    rows = [
        StudyRow(
            operator.decision,
            [
                operator.choice,
                f"{100 * operator.first:.1f} %",
                f"{100 * operator.second:.1f} %",
                f"{100 * operator.difference:+.1f}",
                f"{operator.z:+.1f}",
            ],
            own=abs(operator.z) >= CLEAR_Z,
        )
        for operator in found.operators[:NUM_LISTED]
    ]
    caption = f"The {len(rows)} largest differences of {len(found.operators)}. The last column is the difference in standard errors of two such shares."
    return [StudyTable(("Decision", "Choice", donor, fresh, "Difference, points", "z"), rows, caption, frozenset({"Choice"}))]


def _operator_plots(found: Comparison, donor: str, fresh: str) -> list[Plot]:
    if not found.operators:
        return []
    places = [Pair(f"{operator.decision} {operator.choice}", operator.first, operator.second) for operator in found.operators]
    draw = pairs(places, first=donor, second=fresh, x=f"{len(places)} operators, the largest difference first", y="expectation")
    return [Plot("operators", draw, f"Expectation of {len(places)} operators in either search", "Every operator, the largest difference first.")]


def _error_tables(found: Comparison) -> list[StudyTable]:
    rows = [StudyRow(row, [figures.plain(fmean(errors)), str(len(errors))], own=True) for row, errors in found.errors.items() if errors]
    caption = "Mean over as many first samples as every row of a seed has, then over seeds."
    return [StudyTable(("Row", "Mean error", "Seeds"), rows, caption)] if rows else []


def _error_plots(rows: Sequence[RowResult]) -> list[Plot]:
    series = []
    for row in rows:
        errors = [values for search in row.searches if (values := search.critic_errors())]
        curve = mean_curve([running_mean(values, max(5, len(values) // 10)) for values in errors])
        if len(curve.x):
            band = len(errors) > 1
            series.append(Series(row.row.name, list(curve.x), list(curve.mean), list(curve.low) if band else (), list(curve.high) if band else ()))
    if not series:
        return []
    draw = curves(series, x="activated samples that the critic had scored", y="|V - R|, running mean")
    return [Plot("critic_error", draw, "Running mean of the critic's error along trained samples", "Mean over seeds; the band is one standard error.")]
