"""What the report's plots are drawn on, and in which colours. Inline SVG for the page, PNG for a tracker."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Sequence
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from kfnas.report.data import ReportData

INK, MUTED, RULE = "#20262d", "#5f6b76", "#d9dee3"
DOT, BEST, MEAN, FRONT, BUDGET, BAD = "#7f9dbd", "#123f6d", "#c07a1b", "#1d6f5c", "#b0411e", "#b0411e"
TRUSTED, REUSED, KNOWN = "#d9a441", "#8a6fae", "#c3ccd4"
_MAX_VECTOR_POINTS = 1500  # beyond it the cloud of points becomes an image inside the SVG, or the page would weigh megabytes
STYLE = {
    "font.family": "sans-serif",
    "font.sans-serif": ["Helvetica", "Arial", "Liberation Sans", "DejaVu Sans"],
    "font.size": 9.5,
    "axes.edgecolor": RULE,
    "axes.labelcolor": MUTED,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#eceff2",
    "grid.linewidth": 0.8,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "text.color": INK,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "svg.fonttype": "none",
}

Draw = Callable[[Axes, ReportData], None]


def svg(draw: Draw, data: ReportData, *, name: str) -> str:
    """One plot as an SVG element for inlining; `name` keeps its ids apart from those of another plot on the page."""
    with mpl.rc_context({**STYLE, "svg.hashsalt": name}):
        figure = _figure(draw, data, FigureCanvasSVG)
        output = io.StringIO()
        figure.savefig(output, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    return _inline(output.getvalue())


def png(draw: Draw, data: ReportData) -> bytes:
    """One plot as a PNG file."""
    with mpl.rc_context(STYLE):
        figure = _figure(draw, data, FigureCanvasAgg)
        output = io.BytesIO()
        figure.savefig(output, format="png", dpi=140, metadata={"Software": None})
    return output.getvalue()


def scatter(axes: Axes, points: Sequence[tuple[float | None, float | None]], **style: Any) -> None:
    """Points, if there are any; where they are many, as an image inside the SVG."""
    if points:
        dense = {"alpha": 0.55} if len(points) > 600 else {}
        axes.scatter(*zip(*points, strict=True), rasterized=len(points) > _MAX_VECTOR_POINTS, **{**dense, **style})


def zoom(axes: Axes, values: Sequence[float | None]) -> None:
    """Limit the y axis to where most values are, so that a few collapsed children do not flatten the rest."""
    ordered = sorted(value for value in values if value is not None)
    if len(ordered) < 8:
        return
    low, high = ordered[len(ordered) // 20], ordered[-1]
    if ordered[0] < low - 2 * (high - low) and high > low:
        axes.set_ylim(low - 0.6 * (high - low), high + 0.15 * (high - low))
        axes.set_title("the lowest values lie below this picture", loc="left", fontsize=8.5, color=MUTED)


def legend(axes: Axes) -> None:
    """Below the plot, in one line."""
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.17), ncols=5, handlelength=1.6, columnspacing=1.4)


def _figure(draw: Draw, data: ReportData, canvas: type[FigureCanvasAgg] | type[FigureCanvasSVG]) -> Figure:
    figure = Figure(figsize=(9.2, 3.9), layout="constrained")
    canvas(figure)
    draw(figure.add_subplot(), data)
    return figure


def _inline(text: str) -> str:
    """The bare element: no prolog, no metadata, no namespaces (HTML knows them), sized by the page."""
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r' xmlns(:\w+)?="[^"]*"', "", text)
    head, _, rest = text.partition(">")
    head = re.sub(r' (width|height|version)="[^"]*"', "", head)
    return f'{head} aria-hidden="true">{rest}'.strip()
