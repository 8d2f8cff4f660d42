"""The page of a fidelity study: FNAS's Fig. 3b and 3c, the figures as a table, and what they rest on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from matplotlib.axes import Axes

from kfnas.report import figures as words
from kfnas.report.study_page import StudyReport, StudyRow, StudySection, StudyTable
from kfnas.report.study_plots import Draw, Plot, Series, curves
from kfnas.steps.context import code_version
from kfnas.steps.fidelity_children import FidelityPlan, Study
from kfnas.steps.fidelity_pool import PoolUse
from kfnas.studies.fidelity import INITIALISATIONS, Fidelity, Initialisation, RankedProxy
from kfnas.studies.statistics import Correlation

_TRUTH_TEXT = "Where two seeds agree little, architectures differ by little more than chance does, and one training of each cannot rank them."
_FROM = {"random": "random weights", "pool": "the pool"}


@dataclass(frozen=True)
class Spent:
    """What the trainings took together."""

    num_trained: int
    num_failed: int
    num_epochs: int
    device_seconds: float

    @classmethod
    def of(cls, records: Iterable[Mapping[str, Any]]) -> Spent:
        """The sum over records of the ledger."""
        listed = list(records)
        failed = sum(record["status"] != "ok" for record in listed)
        return cls(len(listed), failed, sum(record["epochs"] for record in listed), sum(float(record["device_seconds"]) for record in listed))


def fidelity_report(study: Study, planned: FidelityPlan, figures: Fidelity, used: PoolUse, spent: Spent) -> StudyReport:
    """The page."""
    config, sizes = study.config, planned.data.meta["sizes"]
    return StudyReport(
        name=config.name,
        kicker="How well short trainings rank architectures",
        headline=headline(figures),
        state="finished",
        facts=[
            (
                "Task",
                f"{planned.data.meta.get('source', study.any_run.config.task['name'])}, {sizes['mini_train']} images to train, {sizes['mini_val']} to score",
            ),
            ("Space", f"{study.any_run.space.name}, width x{study.any_run.config.space.width:g}"),
            ("Truth", f"mean of {config.truth.seeds} seeds at {config.truth.epochs} epochs"),
            ("Pool", f"{config.donors.architectures} other architectures at {config.donors.epochs} epochs, on other images"),
        ],
        numbers=[
            (str(figures.num_architectures), "architectures ranked"),
            (words.grouped(spent.num_trained), "trainings"),
            (words.grouped(spent.num_epochs), "epochs"),
            (words.hours(spent.device_seconds / 3600), "of device time"),
        ],
        sections=(
            StudySection("Ranking after k epochs", [_table(figures)], _plots(figures), text=_explanation(config.truth.epochs)),
            StudySection("Criterion", [_criterion(figures)]),
            StudySection("The truth", [_truth(figures)], text=_TRUTH_TEXT),
            StudySection("The pool", [_pool(used, config.donors.min_match)], text=_pool_text(used, config.donors.min_match)),
        ),
        config=config.model_dump(mode="json"),
        provenance=[
            ("Data", planned.data.digest[:12]),
            ("Donors' data", planned.donor_data.digest[:12]),
            ("Pool", f"version {used.version.number}, {used.version.digest[:12]}"),
            ("Code", code_version()),
            ("Written", datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")),
        ],
    )


def headline(figures: Fidelity) -> str:
    """The outcome in a sentence or two."""
    asked, gap = figures.criterion, figures.difference
    pool = next(each for each in figures.curve("pool") if each.proxy.epochs == asked.pool_epoch)
    random = next(each for each in figures.curve("random") if each.proxy.epochs == asked.random_epoch)
    verdict = "Passes" if figures.passes else "Does not pass"
    return (
        f"{verdict}: Spearman's rho with the truth is {pool.spearman.value:.2f} after {_epochs(asked.pool_epoch)} from the pool and "
        f"{random.spearman.value:.2f} after {_epochs(asked.random_epoch)} from random weights; the difference is {gap.mid:+.2f} "
        f"({gap.low:+.2f} to {gap.high:+.2f}), n = {figures.num_architectures}."
    )


def _epochs(number: int) -> str:
    return f"{number} epoch" + ("" if number == 1 else "s")


def _explanation(truth_epochs: int) -> str:
    return (
        f"Each architecture is trained anew for every k, with a learning-rate schedule that ends after k epochs, as a search would train it; its rank is "
        f"compared with that after {truth_epochs} epochs. Intervals are 95%, by bootstrap over architectures."
    )


def _plots(figures: Fidelity) -> list[Plot]:
    both = ", from random weights and from the pool, with 95% intervals"
    return [
        Plot("spearman", _curves(figures, "spearman", "Spearman's rho with the truth"), f"Spearman's rho after k epochs{both}"),
        Plot("kendall", _curves(figures, "kendall", "Kendall's tau with the truth"), f"Kendall's tau after k epochs{both}"),
    ]


def _curves(figures: Fidelity, kind: str, label: str) -> Draw:
    def series(initialisation: Initialisation) -> Series:
        ranked = figures.curve(initialisation)
        values: list[Correlation] = [getattr(each, kind) for each in ranked]
        return Series(
            f"from {_FROM[initialisation]}",
            [each.proxy.epochs for each in ranked],
            [value.value for value in values],
            [value.low for value in values],
            [value.high for value in values],
        )

    level = figures.mean_agreement if kind == "spearman" else None
    plain = curves([series(each) for each in INITIALISATIONS], x="epochs", y=label, level=level, level_label="one seed of the truth with another")
    ticks = sorted({ranked.proxy.epochs for ranked in figures.proxies})

    def draw(axes: Axes) -> None:
        plain(axes)
        axes.set_xticks(ticks)

    return draw


def _table(figures: Fidelity) -> StudyTable:
    columns = ("From", "Epochs", "Spearman's rho", "Kendall's tau", "n", "Mean accuracy")
    return StudyTable(columns, [_line(ranked) for each in INITIALISATIONS for ranked in figures.curve(each)], texts=frozenset({"From"}))


def _line(ranked: RankedProxy) -> StudyRow:
    cells = [
        str(ranked.proxy.epochs),
        _with_interval(ranked.spearman),
        _with_interval(ranked.kendall),
        str(ranked.spearman.n),
        words.percent(ranked.accuracy),
    ]
    return StudyRow(_FROM[ranked.proxy.initialisation], cells, own=ranked.proxy.initialisation == "pool")


def _with_interval(value: Correlation) -> str:
    return f"{value.value:.3f} ({value.low:.3f} to {value.high:.3f})"


def _criterion(figures: Fidelity) -> StudyTable:
    asked, gap = figures.criterion, figures.difference
    rows = [
        StudyRow(
            f"rho(pool, epoch {asked.pool_epoch}) - rho(random, epoch {asked.random_epoch})",
            [f"{gap.mid:+.3f} ({gap.low:+.3f} to {gap.high:+.3f})", f"lower bound above {-asked.tolerance:g}", _met(gap.low > -asked.tolerance)],
        ),
        StudyRow(
            "agreement of two seeds of the truth",
            [f"{figures.mean_agreement:.3f}", f"at least {asked.min_agreement:g}", _met(figures.mean_agreement >= asked.min_agreement)],
        ),
        StudyRow(
            f"epochs from random weights that rank like {_epochs(asked.pool_epoch)} from the pool",
            ["more than were measured" if figures.equivalent_epoch is None else f"{figures.equivalent_epoch:.1f}", "", ""],
        ),
    ]
    return StudyTable(("Figure", "Measured", "Asked", "Met"), rows, texts=frozenset({"Asked"}))


def _met(met: bool) -> str:
    return "yes" if met else "no"


def _truth(figures: Fidelity) -> StudyTable:
    between, within = figures.spread
    rows = [StudyRow(f"Spearman's rho of two seeds, pair {number}", [_with_interval(pair)]) for number, pair in enumerate(figures.agreement, start=1)]
    rows += [
        StudyRow("Mean over the seeds with another such mean", [f"{figures.reliability:.3f}"], note="expected, by Spearman and Brown's formula"),
        StudyRow("Deviation between architectures", [f"{100 * between:.2f} points"]),
        StudyRow("Deviation between seeds", [f"{100 * within:.2f} points"]),
    ]
    if figures.num_dropped:
        rows.append(StudyRow("Architectures left out, since a training of theirs failed", [str(figures.num_dropped)]))
    return StudyTable(("Figure", "Value"), rows)


def _pool(used: PoolUse, min_match: float) -> StudyTable:
    rows = [
        StudyRow("Entries", [words.grouped(used.entries)]),
        StudyRow(
            "Match ratio",
            [f"{used.matched} of {used.queried} ({words.percent(used.match_ratio)})"],
            note=f"a search starts from the pool at {100 * min_match:g} % or more",
        ),
        StudyRow("Hit ratio", [f"{used.hits} of {used.queried} ({words.percent(used.hits / used.queried)})"], note="the donor's block is the very same"),
        StudyRow("Mean similarity", [f"{used.similarity:.3f}"]),
        StudyRow("Parameters that come from the pool", [words.percent(used.filled)]),
        StudyRow("Damaged entries passed over", [str(len(used.problems))]),
    ]
    return StudyTable(("Figure", "Value"), rows)


def _pool_text(used: PoolUse, min_match: float) -> str:
    if used.match_ratio >= min_match:
        return ""
    return "Fewer blocks matched than a search asks for before it starts from a pool: with these donors a search would start every child from random weights."
