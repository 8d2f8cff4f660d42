"""The figure of a comparison: mean curves with their bands, the mark, and where each curve reaches it."""

from __future__ import annotations

import io
from typing import Any, Literal

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from kfnas.report.canvas import MUTED, STYLE
from kfnas.studies.bench_summary import EntrantSummary, Summary

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#5b4a9c", "#7a7a7a", "#8c510a", "#20262d")
"""Okabe and Ito's, which the colour-blind tell apart, and some more."""
DASHES: tuple[Any, ...] = ("solid", (0, (5, 1.5)), (0, (2, 1)))
_FIRST_SHARE = 0.04
_JUDGED_SHARE = 0.12


def figure(summary: Summary, kind: Literal["png", "svg"]) -> bytes:
    """The figure as a PNG or SVG file; equal summaries give equal bytes."""
    with mpl.rc_context({**STYLE, "svg.hashsalt": "kfnas bench"}):
        canvas = Figure(figsize=(9.6, 5.2), layout="constrained")
        (FigureCanvasAgg if kind == "png" else FigureCanvasSVG)(canvas)
        _draw(canvas.add_subplot(), summary)
        output = io.BytesIO()
        metadata = {"Software": None} if kind == "png" else {"Date": None, "Creator": None}
        canvas.savefig(output, format=kind, dpi=150, metadata=metadata)
    return output.getvalue()


def _draw(axes: Axes, summary: Summary) -> None:
    samples = np.arange(1, summary.samples + 1)
    mark = summary.entrant(summary.reference).hit.threshold
    axes.axhline(mark, color=MUTED, linewidth=0.9, linestyle=(0, (4, 3)), zorder=1)
    axes.annotate(
        f"what {summary.reference} ends with",
        (0, mark),
        xycoords=("axes fraction", "data"),
        xytext=(4, 3),
        textcoords="offset points",
        ha="left",
        va="bottom",
        fontsize=8.5,
        color=MUTED,
    )
    for index, item in enumerate(summary.entrants):
        colour = COLOURS[index % len(COLOURS)]
        axes.fill_between(samples, item.band.low, item.band.high, color=colour, alpha=0.13, linewidth=0)
        dashes = DASHES[index // len(COLOURS) % len(DASHES)]
        axes.plot(samples, item.band.mid, color=colour, linewidth=1.7, linestyle=dashes, label=_label(item, summary))
        if item.hit.hit is not None:
            axes.plot(item.hit.hit, item.band.mid[item.hit.hit - 1], "o", color=colour, markeredgecolor="white", markersize=6.5, zorder=5)
    _zoom(axes, summary)
    axes.set_xlabel("activated samples")
    axes.set_ylabel("score of what looked best")
    axes.set_title(f"{summary.objective}: mean of {len(summary.seeds)} seeds, 95% band; dots: from here on at or above the mark", loc="left", fontsize=10)
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), fontsize=9)


def _label(item: EntrantSummary, summary: Summary) -> str:
    """The entrant, and its samples to the mark."""
    return item.label.replace("$", r"\$") + (f"  ({item.hit.hit})" if item.hit.hit is not None else "  (never)")


def _zoom(axes: Axes, summary: Summary) -> None:
    """Samples on a logarithmic axis without the first few, and the scores that are reached a little later: what was drawn at random would flatten the
    rest."""
    first = max(1, min(10, round(_FIRST_SHARE * summary.samples)))
    if summary.samples > 2 * first:
        axes.set_xscale("log")
        ticks = [*(point for point in (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000) if first <= point < 0.9 * summary.samples), summary.samples]
        axes.set_xticks(ticks)
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.xaxis.set_minor_locator(mpl.ticker.NullLocator())
        axes.set_xlim(first, summary.samples * 1.02)
    judged = int(_JUDGED_SHARE * summary.samples)
    shown = np.concatenate([np.concatenate([item.band.low[judged:], item.band.high[judged:]]) for item in summary.entrants])
    low, high = float(shown.min()), float(shown.max())
    room = 0.04 * (high - low) or 0.5
    axes.set_ylim(low - room, high + room)
