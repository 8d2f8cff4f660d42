"""Numbers as a reader wants them: percents, units, thousands."""

from __future__ import annotations

import math
from typing import TypeGuard

NONE = "–"
COST_NAMES = {"latency_ms": "Latency", "mult_adds": "Mult-adds", "params": "Parameters"}


def known(value: float | None) -> TypeGuard[float]:
    """Whether there is a finite number to show."""
    return value is not None and math.isfinite(value)


def percent(value: float | None) -> str:
    """A fraction in percent; a metric outside [0, 1] as it is."""
    if not known(value):
        return NONE
    return f"{100 * value:.2f} %" if 0 <= value <= 1 else f"{value:.4g}"


def millions(value: float | None) -> str:
    """A count with its unit: 1.23 M, 45.6 k."""
    if not known(value):
        return NONE
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if abs(value) >= 0.9995 * size:
            return f"{_three_digits(value / size)} {unit}"
    return f"{value:.0f}"


def milliseconds(value: float | None) -> str:
    """A latency."""
    return NONE if not known(value) else f"{_three_digits(value)} ms"


def _three_digits(value: float) -> str:
    """Three significant digits, zeros kept, so that a column lines up."""
    return f"{value:#.3g}".rstrip(".") if 1e-3 <= abs(value) < 1000 else f"{value:.3g}"


def cost_text(value: float | None, cost: str) -> str:
    """A cost in the unit that its name says."""
    if cost == "latency_ms":
        return milliseconds(value)
    return millions(value) if cost in COST_NAMES else plain(value)


def cost_phrase(value: float | None, cost: str) -> str:
    """A cost within a sentence: 2.31 ms, 6.10 M mult-adds."""
    return cost_text(value, cost) + ("" if cost == "latency_ms" else f" {cost_name(cost).lower()}")


def plain(value: float | None) -> str:
    """A number to four digits."""
    return NONE if not known(value) else f"{value:.4g}"


def ratio(value: float | None, target: float | None) -> str:
    """A share of the target."""
    return NONE if not known(value) or not target else f"{value / target:.3f}"


def hours(value: float) -> str:
    """Device-hours; seconds and minutes where they say more."""
    if value >= 1:
        return f"{value:.1f} h"
    return f"{value * 60:.1f} min" if value * 60 >= 1 else f"{value * 3600:.0f} s"


def grouped(value: float) -> str:
    """A count with thin spaces between thousands."""
    return f"{value:,.0f}".replace(",", "\u202f")


def count(value: float) -> str:
    """A number of epochs: whole where it is whole."""
    return grouped(value) if value >= 100 or value == round(value) else f"{value:.3g}"


def cost_name(cost: str) -> str:
    """What a cost is called in a heading."""
    return COST_NAMES.get(cost, cost.replace("_", " "))
