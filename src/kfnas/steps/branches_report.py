"""The page, table and figure of what sharing weights among more branches does."""

from __future__ import annotations

import csv
import io
from datetime import UTC, datetime

from kfnas.report.study_page import StudyReport, StudyRow, StudySection, StudyTable, study_files
from kfnas.report.study_plots import Plot, Series, curves
from kfnas.steps.config import RunConfig
from kfnas.steps.context import code_version
from kfnas.studies.branches import Branches
from kfnas.studies.statistics import Interval


def branches_headline(figures: Branches) -> str:
    """The outcome in a sentence or two."""
    means = ", ".join(f"{values.mean():.4f} with {_branches(count)}" for count, values in figures.accuracies.items())
    gaps = "".join(
        f" {fewer} less {more} branches: accuracy {_interval(figures.accuracy_gaps[fewer, more], 4)}, tau {_interval(figures.tau_gaps[fewer, more], 2)}."
        for fewer, more in figures.accuracy_gaps
    )
    return f"Mean accuracy is {means}.{gaps}"


def branches_files(figures: Branches, config: RunConfig, epochs: int) -> dict[str, bytes]:
    """Page, figure and table by relative path."""
    num_seeds = len(figures.accuracies[1])
    report = StudyReport(
        name=f"{config.name}-branches",
        kicker="Networks that share weights with more or fewer others",
        headline=branches_headline(figures),
        state="finished",
        facts=[
            ("Space", f"{config.space.name}, width x{config.space.width:g}"),
            ("Training", f"{epochs} epochs alone, as many times more as there are branches; paths drawn uniformly in each block"),
        ],
        numbers=[(str(len(figures.networks)), "networks"), (str(num_seeds), "seeds")],
        sections=(
            StudySection(
                "Accuracy and rank",
                [_table(figures)],
                [Plot("branches", curves(_series(figures), x="network", y="accuracy on mini-val"), "Accuracy of each network by the number of branches")],
                text="Tau is of a seed's accuracies with the mean accuracies of the networks that share nothing. Bands go from the lowest to the highest seed.",
            ),
        ),
        config=config.model_dump(mode="json"),
        provenance=[("Code", code_version()), ("Written", datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"))],
    )
    return {**study_files(report), "networks.csv": _csv(figures)}


def _table(figures: Branches) -> StudyTable:
    rows = []
    for count, values in figures.accuracies.items():
        tau = f"{figures.taus[count].mean():.2f}" if count in figures.taus else "-"
        rows.append(StudyRow(_branches(count), [f"{values.mean():.4f}", tau, *(f"{value:.4f}" for value in values.mean(axis=0))], own=count == 1))
    return StudyTable(("Sharing", "Mean accuracy", "Kendall's tau", *(f"Network {number + 1}" for number in range(len(figures.networks)))), rows)


def _series(figures: Branches) -> list[Series]:
    places = [float(number + 1) for number in range(len(figures.networks))]
    return [
        Series(_branches(count), places, values.mean(axis=0).tolist(), values.min(axis=0).tolist(), values.max(axis=0).tolist())
        for count, values in figures.accuracies.items()
    ]


def _branches(count: int) -> str:
    return "nothing shared" if count == 1 else f"{count} branches"


def _interval(gap: Interval, digits: int) -> str:
    return f"{gap.mid:+.{digits}f} ({gap.low:+.{digits}f} to {gap.high:+.{digits}f})"


def _csv(figures: Branches) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["branches", "seed", "architecture", "accuracy"])
    for count, values in figures.accuracies.items():
        for seed, row in enumerate(values.tolist()):
            writer.writerows([count, seed, name, accuracy] for name, accuracy in zip(figures.networks, row, strict=True))
    return text.getvalue().encode()
