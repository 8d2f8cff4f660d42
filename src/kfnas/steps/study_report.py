"""The page of a study of rows: FNAS's Table 4 or Table 5, and best reward along activated samples and along device-seconds."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from kfnas.report import figures
from kfnas.report.data import METRIC_NAMES
from kfnas.report.study_page import StudyReport, StudyRow, StudySection, StudyTable
from kfnas.report.study_plots import Plot, Series, curves
from kfnas.steps.context import code_version
from kfnas.steps.study_config import StudyConfig
from kfnas.steps.study_results import RowResult, SearchResult
from kfnas.steps.study_tables import OVER, RowSummary, Spread, spread
from kfnas.studies.curves import Steps, mean_curve, running_mean

KICKERS = {"ablation": "Ablation of the search's modules", "transfer": "Searches that start from another task's", "knowledge": "What two searches share"}
STATES = {
    "missing": "not begun",
    "searching": "searching",
    "searched": "searched, not retrained",
    "finished": "finished",
    "fruitless": "ended without a network",
}
_EXPLANATION = "Every row draws as many architectures with the same seeds, on the same data, for the same target; it differs in what its columns say."
_WARM = "†"
_YES, _FROM, _NO = "✓", "✓ donor's", ""


def study_report(study: StudyConfig, rows: Sequence[RowResult], table: Sequence[RowSummary], donor: SearchResult | None) -> StudyReport:
    """The page of an ablation or a transfer."""
    searches = [search for row in rows for search in row.searches]
    metric = searches[0].metric
    return StudyReport(
        name=study.name,
        kicker=KICKERS[study.kind],
        headline=_headline(table, study.reference, metric),
        state=study_state(searches),
        facts=header(study, donor),
        numbers=numbers(searches),
        sections=(
            StudySection("Rows", [_rows_table(rows, table, study.reference, metric), _savings_table(table, study.reference, metric)], text=_EXPLANATION),
            StudySection("Best reward along activated samples", plots=_curves(rows, "samples", "activated samples"), empty="No child has been trained yet."),
            StudySection(
                "Best reward along device-seconds", plots=_curves(rows, "device_seconds", "seconds of device time"), empty="No child has been trained yet."
            ),
            StudySection("Mean reward of what is trained", plots=_means(rows), empty="No child has been trained yet."),
            StudySection("Searches", [searches_table(searches)]),
        ),
        config=study.model_dump(mode="json"),
        provenance=provenance(),
    )


def study_state(searches: Sequence[SearchResult]) -> str:
    """Finished when every search has ended."""
    return "finished" if all(search.ended for search in searches) else "running"


def header(study: StudyConfig, donor: SearchResult | None) -> list[tuple[str, str]]:
    """Facts of the header, those without a value left out."""
    facts = [
        ("Seeds", ", ".join(map(str, study.seeds))),
        ("Compared with", study.reference),
        ("Donor", f"{donor.name} ({STATES[donor.state]})" if donor is not None else ""),
    ]
    return [(label, value) for label, value in facts if value]


def numbers(searches: Sequence[SearchResult]) -> list[tuple[str, str]]:
    """What the study has cost."""
    return [
        (f"{sum(search.state == 'finished' for search in searches)} of {len(searches)}", "searches finished"),
        (figures.grouped(sum(len(search.activated) for search in searches)), "activated samples"),
        (figures.count(sum(search.num_epochs for search in searches)), "epochs"),
        (figures.hours(sum(search.device_seconds for search in searches) / 3600), "of device time"),
    ]


def searches_table(searches: Sequence[SearchResult]) -> StudyTable:
    """Every search by name, to look it up with."""
    rows = [
        StudyRow(
            search.name,
            [
                STATES[search.state],
                f"{search.rounds_done} of {search.rounds_total}",
                figures.grouped(len(search.activated)),
                figures.hours(search.device_seconds / 3600),
                figures.percent(search.chosen["metrics"].get(search.metric) if search.chosen is not None else None),
                str(search.chosen["architecture"]) if search.chosen is not None else figures.NONE,
            ],
        )
        for search in searches
    ]
    columns = ("Search", "State", "Rounds", "Activated", "Device time", "Final metric", "Chosen network")
    return StudyTable(columns, rows, texts=frozenset({"State"}), codes=frozenset({"Chosen network"}))


def provenance() -> list[tuple[str, str]]:
    """What the figures hang on."""
    return [("Code", code_version()), ("Written", datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"))]


def _headline(table: Sequence[RowSummary], reference: str, metric: str) -> str:
    baseline = next(row for row in table if row.name == reference)
    waiting = sum(row.num_seeds - row.num_ended for row in table)
    if waiting:
        return f"{waiting} of {sum(row.num_seeds for row in table)} searches are not finished; figures are of those that are."
    others = [row for row in table if row.name != reference]
    if not others:
        return f"{reference} alone: nothing is compared."
    most = max(others, key=lambda row: sum((row.akp, row.uac, row.aeb, row.akp_from, row.uac_from)))
    spent, own = most.num_activated, baseline.num_activated
    words = (
        f"{most.name} trained {figures.count(spent.mean)} children where {reference} trained {figures.count(own.mean)}"
        if spent and own and own.mean
        else most.name
    )
    saved = most.savings["device_seconds"]
    if not _is_warmer(most, baseline) and own and own.mean:
        reached = f"reached {reference}'s final reward with {saved:.1f} times less device time" if saved else f"did not reach {reference}'s final reward"
        words += f", and {reached}"
    if most.top1 and baseline.top1:
        name = METRIC_NAMES.get(metric, metric)
        words += f"; {name} {figures.percent(most.top1.mean)} against {figures.percent(baseline.top1.mean)}"
    fruitless = sum(row.num_ended - row.num_finished for row in table)
    if fruitless:
        words += f"; {fruitless} of {sum(row.num_seeds for row in table)} searches found no network within the budget"
    return words + "."


def _is_warmer(row: RowSummary, baseline: RowSummary) -> bool:
    """Whether its children start from other blocks than the baseline's, so that rewards of the two do not compare."""
    return row.akp and (not baseline.akp or row.akp_from != baseline.akp_from)


def _rows_table(rows: Sequence[RowResult], table: Sequence[RowSummary], reference: str, metric: str) -> StudyTable:
    """The paper's table."""
    name = METRIC_NAMES.get(metric, metric).capitalize()
    with_latency = any(row.latency_ms is not None for row in table)
    columns = ["Row", "AKP", "UAC", "AEB", "Mult-adds", *(["Latency"] if with_latency else []), name, "Activated", "Epochs a child", "Device time", "Seeds"]
    lines = [_line(row, with_latency, own=row.name != reference) for row in table]
    lines += _compared(rows, with_latency, len(columns) - 1)
    caption = f"Means over seeds, ± their standard deviation. {name} is of the network that each search delivers, trained from scratch, on the test set."
    return StudyTable(columns, lines, caption)


def _line(row: RowSummary, with_latency: bool, *, own: bool) -> StudyRow:
    cells = [
        _pool_cell(row),
        (_FROM if row.uac_from else _YES) if row.uac else _NO,
        _YES if row.aeb else _NO,
        figures.millions(row.mult_adds.mean if row.mult_adds else None),
        *([figures.milliseconds(row.latency_ms.mean if row.latency_ms else None)] if with_latency else []),
        _percent(row.top1),
        _count(row.num_activated),
        figures.NONE if row.epochs_a_child is None else figures.plain(row.epochs_a_child),
        figures.hours(row.device_seconds.mean / 3600) if row.device_seconds else figures.NONE,
        f"{row.num_finished} of {row.num_seeds}",
    ]
    return StudyRow(row.name, cells, note=f"agent {row.agent}", own=own)


def _pool_cell(row: RowSummary) -> str:
    """The pool's mark, and how many of the trained children started from it: a pool that matches too little is filled and not used."""
    if not row.akp:
        return _NO
    mark = _FROM if row.akp_from else _YES
    return mark if row.warm_share is None else f"{mark}, {row.warm_share:.0%} warm"


def _savings_table(table: Sequence[RowSummary], reference: str, metric: str) -> StudyTable:
    """What each row gains and saves against the baseline."""
    baseline = next(row for row in table if row.name == reference)
    lines = [
        StudyRow(
            row.name,
            [
                figures.NONE if row.gain is None else f"{100 * row.gain.mid:+.2f} ({100 * row.gain.low:+.2f} to {100 * row.gain.high:+.2f})",
                figures.plain(row.best_reward.mean if row.best_reward else None),
                _count(row.num_drawn),
                _count(row.num_epochs),
                *(_saving(row, over, warm=_is_warmer(row, baseline)) for over in OVER),
            ],
            own=row.name != reference,
        )
        for row in table
    ]
    name = METRIC_NAMES.get(metric, metric)
    caption = f"Against {reference}. Gain in {name} in points, paired by seed, and savings with 95% bootstrap intervals over seeds. A saving is how many times "
    caption += f"less is spent until the mean best reward stays at or above the final one of {reference}."
    if any(_is_warmer(row, baseline) for row in table):
        caption += f" {_WARM} Its children start from trained blocks, which raises the reward of the same network: go by the gain."
    columns = ("Row", f"Gain in {name}", "Best reward", "Drawn", "Epochs in all", "Saving, samples", "Saving, device time")
    return StudyTable(columns, lines, caption)


def _count(value: Spread | None) -> str:
    return figures.count(value.mean) if value is not None else figures.NONE


def _compared(rows: Sequence[RowResult], with_latency: bool, num_cells: int) -> list[StudyRow]:
    """The hand-made network and the random one that the searches were told to train beside theirs."""
    notes = {"reference": "the skeleton's own network, scaled by width to the budget", "random": "a random architecture within the budget"}
    lines = []
    for kind, note in notes.items():
        found = [(final, search.metric) for row in rows for search in row.finished for final in search.finals if final["kind"] == kind and final["metrics"]]
        if not found:
            continue
        mult_adds, latency = spread(final["mult_adds"] for final, _ in found), spread(final["latency_ms"] for final, _ in found)
        cells = ["", "", "", figures.millions(mult_adds.mean if mult_adds else None)]
        cells += [figures.milliseconds(latency.mean if latency else None)] if with_latency else []
        cells += [_percent(spread(final["metrics"].get(metric) for final, metric in found))]
        lines.append(StudyRow(f"network: {kind}", cells + [figures.NONE] * (num_cells - len(cells)), note=note))
    return lines


def _percent(value: Spread | None) -> str:
    if value is None:
        return figures.NONE
    return figures.percent(value.mean) + (f" ± {100 * value.deviation:.2f}" if value.deviation is not None and 0 <= value.mean <= 1 else "")


def _saving(row: RowSummary, over: str, *, warm: bool) -> str:
    value, bounds = row.savings[over], row.bounds[over]
    if value is None:
        return "not reached" if row.num_activated else figures.NONE
    return f"{value:.2f} ×" + (f" ({bounds[0]:.2f} to {bounds[1]:.2f})" if bounds is not None else "") + (f" {_WARM}" if warm else "")


def _curves(rows: Sequence[RowResult], over: str, label: str) -> list[Plot]:
    series = [_series(row.row.name, row.curves(over)) for row in rows]
    series = [one for one in series if len(one.x)]
    if not series:
        return []
    caption = "Mean over seeds; the band is one standard error to either side. A search keeps its best after its end."
    draw = curves(series, x=label, y="best reward so far")
    return [Plot(f"best_reward_{over}", draw, f"Best reward so far along {label}, of {', '.join(one.label for one in series)}", caption)]


def _means(rows: Sequence[RowResult]) -> list[Plot]:
    series = []
    for row in rows:
        rewards = [[value for value in search.rewards if value == value] for search in row.searches]
        runs = [running_mean(values, max(5, len(values) // 10)) for values in rewards if values]
        series.append(_series(row.row.name, runs))
    series = [one for one in series if len(one.x)]
    if not series:
        return []
    caption = "Running mean over a tenth of a search's trained children (5 at least) that are within the budget."
    return [Plot("mean_reward", curves(series, x="activated samples", y="mean reward"), "Running mean of the reward of trained children", caption)]


def _series(label: str, runs: Sequence[Steps]) -> Series:
    curve = mean_curve(runs)
    band = len(runs) > 1
    return Series(label, list(curve.x), list(curve.mean), list(curve.low) if band else (), list(curve.high) if band else ())
