"""The plots of searches on one supernet: importance and training of a block's paths along the steps, as in BetaNAS's figure 5."""

from __future__ import annotations

from collections.abc import Iterable

from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from kfnas.report.canvas import legend
from kfnas.report.data import SHARED, PathTrace, ReportData, Sample


def is_shared(sample: Sample) -> bool:
    """Whether a sample was scored with shared weights, and is no child."""
    return sample.source == SHARED


def has_trace(data: ReportData) -> bool:
    """Whether a block's paths were logged along the steps."""
    return data.trace is not None and len(data.trace.steps) > 0


def draw_importance(axes: Axes, data: ReportData) -> None:
    """Alpha of each path of the block along the steps; a dropped path's line ends."""
    trace = _trace(data)
    _lines(axes, trace, ([row[path] for row in trace.alpha] for path in range(len(trace.choices))))
    axes.set_ylabel(f"importance alpha in {trace.block}", parse_math=False)
    legend(axes)


def draw_training(axes: Axes, data: ReportData) -> None:
    """Training steps on each path of the block along the steps: lines of one slope are paths that are trained alike."""
    trace = _trace(data)
    _lines(axes, trace, ([row[path] for row in trace.counts] for path in range(len(trace.choices))))
    axes.set_ylabel("weight steps on the path so far")
    axes.set_ylim(bottom=0)
    legend(axes)


def _trace(data: ReportData) -> PathTrace:
    assert data.trace is not None
    return data.trace


def _lines(axes: Axes, trace: PathTrace, values: Iterable[list[float | int | None]]) -> None:
    colours = colormaps["viridis"].resampled(len(trace.choices))
    for path, (choice, line) in enumerate(zip(trace.choices, values, strict=True)):
        shown = [(step, value) for step, value in zip(trace.steps, line, strict=True) if value is not None]
        if shown:
            axes.plot(*zip(*shown, strict=True), color=colours(path), linewidth=1.5, label=choice.replace("_", " "))
    axes.set_xlabel("importance step")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
