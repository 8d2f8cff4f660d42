"""The two plots of a search: reward along samples, accuracy against cost. Inline SVG for the page, PNG for a tracker."""

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
from matplotlib.ticker import FuncFormatter, MaxNLocator, PercentFormatter

from kfnas.report.data import ReportData, Sample
from kfnas.report.figures import cost_name, cost_text, known, millions

INK, MUTED, RULE = "#20262d", "#5f6b76", "#d9dee3"
DOT, BEST, MEAN, FRONT, BUDGET, BAD = "#7f9dbd", "#123f6d", "#c07a1b", "#1d6f5c", "#b0411e", "#b0411e"
_MAX_VECTOR_POINTS = 1500  # beyond it the cloud of points becomes an image inside the SVG, or the page would weigh megabytes
_STYLE = {
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


def plot_files(data: ReportData) -> dict[str, bytes]:
    """PNG files by relative path, for a tracker; the plots that have nothing to show are left out."""
    drawn = {"plots/reward.png": (has_rewards, draw_rewards), "plots/pareto.png": (has_costs, draw_pareto)}
    return {path: _png(draw, data) for path, (has, draw) in drawn.items() if has(data)}


def svg(draw: Draw, data: ReportData, *, name: str) -> str:
    """One plot as an SVG element for inlining; `name` keeps its ids apart from those of another plot on the page."""
    with mpl.rc_context({**_STYLE, "svg.hashsalt": name}):
        figure = _figure(draw, data, FigureCanvasSVG)
        output = io.StringIO()
        figure.savefig(output, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    return _inline(output.getvalue())


def has_rewards(data: ReportData) -> bool:
    """Whether any sample has a reward."""
    return any(known(sample.reward) for sample in data.samples)


def has_costs(data: ReportData) -> bool:
    """Whether any sample has both accuracy and cost."""
    return any(known(sample.accuracy) and known(sample.cost) for sample in data.samples)


def draw_rewards(axes: Axes, data: ReportData) -> None:
    """Reward of each sample, the best one so far, and each round's mean."""
    points = [(index + 1, sample) for index, sample in enumerate(data.samples) if known(sample.reward)]
    good = [(number, sample.reward) for number, sample in points if sample.activated and sample.status == "ok"]
    seen = [(number, sample.reward) for number, sample in points if not sample.activated and sample.status == "ok"]
    bad = [(number, sample.reward) for number, sample in points if sample.status != "ok"]
    _scatter(axes, good, label="trained", color=DOT, s=16, linewidths=0)
    _scatter(axes, seen, label="known before", facecolors="none", edgecolors=DOT, s=14, linewidths=0.8)
    _scatter(axes, bad, label="over budget, failed or unmeasured", color=BAD, marker="x", s=14, linewidths=0.9, alpha=0.7)
    means = _round_means(points)
    axes.plot(*zip(*means, strict=True), color=MEAN, linewidth=1.6, label="mean of the round", marker="o", markersize=3 if len(means) < 60 else 0)
    best = _running_best(good)
    if best:
        best.append((len(data.samples), best[-1][1]))
        axes.step(*zip(*best, strict=True), where="post", color=BEST, linewidth=1.8, label="best so far")
    axes.set_xlabel("sample")
    axes.set_ylabel("reward")
    axes.set_xlim(0, len(data.samples) + 1)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    _zoom(axes, [value for _, value in good + seen])
    _legend(axes)


def draw_pareto(axes: Axes, data: ReportData) -> None:
    """Accuracy against cost on the proxy task, the front, the budget, and the finalists."""
    shown = [sample for sample in data.samples if known(sample.accuracy) and known(sample.cost)]
    cloud = [(sample.cost, sample.accuracy) for sample in shown]
    _scatter(axes, cloud, label="trained", color=DOT, s=16, linewidths=0)
    front = sorted(_places([sample for sample in shown if sample.id in set(data.pareto)]))
    if front:
        axes.step(*zip(*front, strict=True), where="post", color=FRONT, linewidth=1.6, label="Pareto front")
        _scatter(axes, front, color=FRONT, s=22, zorder=3, linewidths=0)
    if data.target:
        axes.axvline(data.target, color=BUDGET, linewidth=1.3, linestyle=(0, (5, 3)), label=f"budget {cost_text(data.target, data.cost)}")
    by_architecture = {sample.architecture: sample for sample in shown}
    chosen = [final for final in data.finals if final.kind == "searched" and final.architecture in by_architecture]
    for number, final in enumerate(chosen, 1):
        ((x, y),) = _places([by_architecture[final.architecture]])
        axes.scatter([x], [y], s=110, facecolors="white", edgecolors=BEST, linewidths=1.6, zorder=4, label="retrained" if number == 1 else None)
        axes.annotate(str(number), (x, y), ha="center", va="center_baseline", fontsize=8, color=BEST, weight="bold", zorder=5)
    axes.set_xlabel("latency (ms)" if data.cost == "latency_ms" else cost_name(data.cost).lower(), parse_math=False)
    axes.set_ylabel(f"{data.quality} on the proxy task", parse_math=False)
    if all(0 <= y <= 1 for _, y in _places(shown)):
        axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=None, symbol=" %"))
    if data.cost != "latency_ms":
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: millions(value)))
    _zoom(axes, [y for _, y in cloud])
    _legend(axes)


def _scatter(axes: Axes, points: Sequence[tuple[float | None, float | None]], **style: Any) -> None:
    if points:
        dense = {"alpha": 0.55} if len(points) > 600 else {}
        axes.scatter(*zip(*points, strict=True), rasterized=len(points) > _MAX_VECTOR_POINTS, **{**dense, **style})


def _places(samples: Sequence[Sample]) -> list[tuple[float, float]]:
    return [(float(sample.cost or 0.0), float(sample.accuracy or 0.0)) for sample in samples]


def _round_means(points: Sequence[tuple[int, Sample]]) -> list[tuple[float, float]]:
    rounds: dict[int, list[tuple[int, float]]] = {}
    for number, sample in points:
        rounds.setdefault(sample.round, []).append((number, float(sample.reward or 0.0)))
    return [(sum(number for number, _ in items) / len(items), sum(value for _, value in items) / len(items)) for items in rounds.values()]


def _running_best(points: Sequence[tuple[int, float | None]]) -> list[tuple[int, float]]:
    best: list[tuple[int, float]] = []
    for number, value in points:
        if value is not None and (not best or value > best[-1][1]):
            best.append((number, value))
    return best


def _zoom(axes: Axes, values: Sequence[float | None]) -> None:
    """Limit the y axis to where most values are, so that a few collapsed children do not flatten the rest."""
    ordered = sorted(value for value in values if value is not None)
    if len(ordered) < 8:
        return
    low, high = ordered[len(ordered) // 20], ordered[-1]
    if ordered[0] < low - 2 * (high - low) and high > low:
        axes.set_ylim(low - 0.6 * (high - low), high + 0.15 * (high - low))
        axes.set_title("the lowest values lie below this picture", loc="left", fontsize=8.5, color=MUTED)


def _legend(axes: Axes) -> None:
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.17), ncols=5, handlelength=1.6, columnspacing=1.4)


def _figure(draw: Draw, data: ReportData, canvas: type[FigureCanvasAgg] | type[FigureCanvasSVG]) -> Figure:
    figure = Figure(figsize=(9.2, 3.9), layout="constrained")
    canvas(figure)
    draw(figure.add_subplot(), data)
    return figure


def _png(draw: Draw, data: ReportData) -> bytes:
    with mpl.rc_context(_STYLE):
        figure = _figure(draw, data, FigureCanvasAgg)
        output = io.BytesIO()
        figure.savefig(output, format="png", dpi=140, metadata={"Software": None})
    return output.getvalue()


def _inline(text: str) -> str:
    """The bare element: no prolog, no metadata, no namespaces (HTML knows them), sized by the page."""
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r' xmlns(:\w+)?="[^"]*"', "", text)
    head, _, rest = text.partition(">")
    head = re.sub(r' (width|height|version)="[^"]*"', "", head)
    return f'{head} aria-hidden="true">{rest}'.strip()
