"""Plots of studies: curves with bands over what was spent, and two searches' shares of each operator. Drawn in the style of a search's own plots."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.ticker import PercentFormatter

from kfnas.report import canvas
from kfnas.report.data import ReportData

COLOURS = ("#123f6d", "#c07a1b", "#1d6f5c", "#8a6fae", "#b0411e", "#4f8f86", "#7f9dbd", "#5f6b76", "#a0527d")
MAX_LABELLED = 40
"""Places whose names fit under a plot."""
_NO_SEARCH = ReportData(name="")

Draw = Callable[[Axes], None]


@dataclass(frozen=True)
class Series:
    """A curve: `mean` at each `x`, and where it is known the band from `low` to `high`."""

    label: str
    x: Sequence[float]
    mean: Sequence[float]
    low: Sequence[float] = ()
    high: Sequence[float] = ()


@dataclass(frozen=True)
class Pair:
    """A labelled place with a share for each of two sides."""

    label: str
    first: float
    second: float


@dataclass(frozen=True)
class Plot:
    """A figure of a study: `name` is its file's and keeps its ids apart; `description` tells readers who cannot see it what it shows."""

    name: str
    draw: Draw
    description: str
    caption: str = ""

    def svg(self) -> str:
        """As an SVG element for inlining."""
        return canvas.svg(lambda axes, _: self.draw(axes), _NO_SEARCH, name=self.name)

    def png(self) -> bytes:
        """As a picture for a tracker."""
        return canvas.png(lambda axes, _: self.draw(axes), _NO_SEARCH)


def curves(series: Sequence[Series], *, x: str, y: str, level: float | None = None, level_label: str = "") -> Draw:
    """Curves with bands; `level` is a horizontal line to compare with."""

    def draw(axes: Axes) -> None:
        for index, one in enumerate(series):
            colour = COLOURS[index % len(COLOURS)]
            style = "-" if index < len(COLOURS) else "--"
            axes.plot(one.x, one.mean, color=colour, linewidth=1.7, linestyle=style, label=one.label)
            if len(one.low):
                axes.fill_between(one.x, one.low, one.high, color=colour, alpha=0.14, linewidth=0)
        if level is not None:
            axes.axhline(level, color=canvas.MUTED, linewidth=1.0, linestyle=(0, (4, 3)), label=level_label or None)
        axes.set_xlabel(x, parse_math=False)
        axes.set_ylabel(y, parse_math=False)
        canvas.legend(axes)

    return draw


def pairs(places: Sequence[Pair], *, first: str, second: str, x: str, y: str) -> Draw:
    """Two shares at each place, joined by a line; the places are named where there is room, else all together by `x`."""

    def draw(axes: Axes) -> None:
        positions = list(range(len(places)))
        axes.vlines(positions, [place.first for place in places], [place.second for place in places], color=canvas.RULE, linewidth=1.4, zorder=1)
        axes.scatter(positions, [place.first for place in places], s=14, color=COLOURS[0], label=first, zorder=2, linewidths=0)
        axes.scatter(positions, [place.second for place in places], s=14, color=COLOURS[1], label=second, zorder=2, linewidths=0)
        if len(places) <= MAX_LABELLED:
            axes.set_xticks(positions, [place.label for place in places], rotation=60, ha="right", fontsize=7, parse_math=False)
        else:
            axes.set_xticks([])
            axes.set_xlabel(x, parse_math=False)
        axes.set_ylabel(y, parse_math=False)
        axes.set_ylim(-0.03, 1.03)
        axes.yaxis.set_major_formatter(PercentFormatter(1.0, symbol=" %"))
        axes.grid(axis="x", visible=False)
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)

    return draw
