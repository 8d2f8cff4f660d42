from __future__ import annotations

import pytest

from kfnas.tracking import RoundMetrics, SearchRow, SearchView
from kfnas.tracking.files import flat, table_files
from kfnas.tracking.view import search_points, tail_values


def row(number: int, index: int, **changes: object) -> SearchRow:
    values: dict[str, object] = {"accuracy": 0.5, "cost": 2.0, "reward": 0.25 * (index + 1), "status": "ok", "source": "policy"}
    return SearchRow(round=number, id=f"{number}-{index}", architecture=f"toy:{index}", **{**values, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("status", "source", "activated"),
    [
        ("ok", "policy", True),
        ("failed", "policy", True),
        ("ok", "audit", True),
        ("ok", "cached", False),
        ("infeasible", "policy", False),
        ("unmeasured", "policy", False),
        ("ok", "trusted", False),
        ("ok", "exploited", False),
    ],
)
def test_only_real_trainings_are_activated(status: str, source: str, activated: bool) -> None:
    assert row(0, 0, status=status, source=source).activated is activated


@pytest.mark.parametrize("name", ["", "a'b", "a b", "../x", "x" * 251, "-x"])
def test_a_search_id_that_cannot_be_looked_up_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="cannot be tracked"):
        SearchView(name, "x")


def test_an_unknown_state_is_refused() -> None:
    with pytest.raises(ValueError, match="running, finished or failed"):
        SearchView("x", "x", state="done")


def test_rounds_are_summed_up_as_they_close() -> None:
    rows = (row(0, 0, device_seconds=2.0, epochs=1.0, finished_at=10.0), row(0, 1, source="cached"), row(1, 2, status="failed", accuracy=None, reward=0.0))
    view = SearchView("s", "s", rows, rounds=(RoundMetrics(1, {"ppo/entropy": 1.0, "ppo/bad": float("inf")}, 30.0),))
    points = {(point.name, point.step): (point.value, point.timestamp_ms) for point in search_points(view)}
    assert points["round/mean_reward", 0] == (0.375, 10_000)
    assert points["search/num_activated", 1] == (2.0, 30_000)
    assert points["search/best_reward", 1] == (0.25, 30_000)
    assert points["ppo/entropy", 1] == (1.0, 30_000)
    assert ("ppo/bad", 1) not in points
    assert tail_values(view)[0] == 1


def test_what_the_critic_said_of_a_row_is_tracked_where_it_said_anything() -> None:
    view = SearchView("s", "s", (row(0, 0, value=0.4, uncertainty=0.1), row(0, 1)))
    points = [(point.name, point.step, point.value) for point in search_points(view) if point.name in ("sample/value", "sample/uncertainty")]
    assert points == [("sample/value", 0, 0.4), ("sample/uncertainty", 0, 0.1)]
    assert "value,uncertainty,initialisation" in table_files(view)["tables/history.csv"].decode()


def test_points_after_a_row_are_the_rest_of_all_points() -> None:
    view = SearchView("s", "s", tuple(row(index // 2, index, finished_at=float(index)) for index in range(8)))
    head = list(search_points(SearchView("s", "s", view.rows[:4])))
    tail = list(search_points(view, first_row=4))
    assert sorted(head + tail, key=str) == sorted(search_points(view), key=str)


def test_an_empty_search_has_nothing_to_say() -> None:
    view = SearchView("s", "s")
    assert list(search_points(view)) == []
    assert tail_values(view) == (-1, {}, None)
    assert table_files(view)["tables/history.csv"] == b""


def test_a_configuration_is_flattened_by_dots() -> None:
    assert dict(flat({"a": {"b": 1, "c": {}}, "d": "x", "e": [1]})) == {"a.b": "1", "a.c": "{}", "d": "x", "e": "[1]"}
