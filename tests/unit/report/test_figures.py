from __future__ import annotations

import pytest

from kfnas.report import figures


@pytest.mark.parametrize(("value", "shown"), [(None, "–"), (0.9123, "91.23 %"), (1.0, "100.00 %"), (-3.25, "-3.25"), (47.0, "47")])
def test_percent(value: float | None, shown: str) -> None:
    assert figures.percent(value) == shown


@pytest.mark.parametrize(("value", "shown"), [(None, "–"), (950, "950"), (210_000, "210 k"), (6_100_000, "6.10 M"), (4.2e9, "4.20 G"), (999_999, "1.00 M")])
def test_millions(value: float | None, shown: str) -> None:
    assert figures.millions(value) == shown


@pytest.mark.parametrize(
    ("value", "cost", "shown"), [(2.3, "latency_ms", "2.30 ms"), (12.345, "latency_ms", "12.3 ms"), (6e6, "mult_adds", "6.00 M"), (3.14159, "joules", "3.142")]
)
def test_a_cost_is_shown_in_its_unit(value: float, cost: str, shown: str) -> None:
    assert figures.cost_text(value, cost) == shown


def test_a_share_of_no_target_is_unknown() -> None:
    assert figures.ratio(1.0, None) == "–"
    assert figures.ratio(2.41, 2.4) == "1.004"


@pytest.mark.parametrize(("value", "shown"), [(2.66, "2.7 h"), (0.5, "30.0 min"), (0.01, "36 s"), (0, "0 s")])
def test_hours(value: float, shown: str) -> None:
    assert figures.hours(value) == shown
