"""The page, table and figure of how well shared weights rank networks."""

from __future__ import annotations

import csv
import io
from datetime import UTC, datetime

from matplotlib.axes import Axes

from kfnas.report.study_page import StudyReport, StudyRow, StudySection, StudyTable, study_files
from kfnas.report.study_plots import COLOURS, Plot
from kfnas.steps.config import RunConfig
from kfnas.steps.context import code_version
from kfnas.studies.sharing import KINDS, Sharing

_NAMES = {"pearson": "Pearson's r", "spearman": "Spearman's rho", "kendall": "Kendall's tau"}


def sharing_headline(figures: Sharing) -> str:
    """The outcome in a sentence."""
    said = ", ".join(f"{figures.correlations[name]['pearson'].value:.2f} with the weights of {name}" for name in figures.searches)
    gaps = "".join(
        f"; {figures.searches[0]} less {name}: {gap['pearson'].mid:+.2f} ({gap['pearson'].low:+.2f} to {gap['pearson'].high:+.2f})"
        for name, gap in figures.differences.items()
    )
    return f"Pearson's r of shared with stand-alone accuracy is {said}{gaps}, n = {len(figures.networks)}."


def sharing_files(figures: Sharing, config: RunConfig) -> dict[str, bytes]:
    """Page, figure and table by relative path; `config` is of the search whose candidates were compared."""
    report = StudyReport(
        name=f"{config.name}-sharing",
        kicker="How well shared weights rank networks",
        headline=sharing_headline(figures),
        state="finished",
        facts=[("Space", f"{config.space.name}, width x{config.space.width:g}"), ("Trained alone", _recipe(config))],
        numbers=[(str(len(figures.networks)), "networks")],
        sections=(
            StudySection(
                "Agreement",
                [_agreement(figures), *([_differences(figures)] if figures.differences else [])],
                [Plot("sharing", lambda axes: _draw(axes, figures), "Accuracy with shared weights against accuracy of networks trained alone")],
                text="The networks are candidates of the last updates. Intervals are 95%, by bootstrap over networks; differences are over the same resamples.",
            ),
        ),
        config=config.model_dump(mode="json"),
        provenance=[("Code", code_version()), ("Written", datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"))],
    )
    return {**study_files(report), "networks.csv": _csv(figures)}


def _recipe(config: RunConfig) -> str:
    budget = f"{config.proxy.epochs:g} epochs" if config.proxy.epochs is not None else f"{config.proxy.steps} steps"
    return f"{budget} of the proxy recipe, batch {config.proxy.batch_size}"


def _agreement(figures: Sharing) -> StudyTable:
    rows = [
        StudyRow(name, [f"{found[kind].value:.3f} ({found[kind].low:.3f} to {found[kind].high:.3f})" for kind in KINDS], own=name == figures.searches[0])
        for name, found in figures.correlations.items()
    ]
    return StudyTable(("Shared weights of", *(_NAMES[kind] for kind in KINDS)), rows)


def _differences(figures: Sharing) -> StudyTable:
    rows = [
        StudyRow(f"{figures.searches[0]} less {name}", [f"{gap[kind].mid:+.3f} ({gap[kind].low:+.3f} to {gap[kind].high:+.3f})" for kind in KINDS])
        for name, gap in figures.differences.items()
    ]
    return StudyTable(("Difference", *(_NAMES[kind] for kind in KINDS)), rows)


def _draw(axes: Axes, figures: Sharing) -> None:
    for number, name in enumerate(figures.searches):
        alone, shared = [network.alone for network in figures.networks], [network.shared[name] for network in figures.networks]
        axes.scatter(alone, shared, s=20, color=COLOURS[number % len(COLOURS)], label=name, linewidths=0)
    axes.set_xlabel("accuracy of the network trained alone")
    axes.set_ylabel("accuracy with shared weights")
    axes.legend()


def _csv(figures: Sharing) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["architecture", "alone", *figures.searches])
    writer.writerows([network.architecture, network.alone, *(network.shared[name] for name in figures.searches)] for network in figures.networks)
    return text.getvalue().encode()
