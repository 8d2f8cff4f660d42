"""What the page says of critic, buffer and pool."""

from __future__ import annotations

import re

import pytest

from kfnas.report import PoolUse, ReportData, plot_files, render_report
from kfnas.report.data import foretold
from kfnas.report.module_plots import coverage, judged, warm_since
from kfnas.tracking import SearchRow


def row(index: int, source: str = "policy", **changes: object) -> SearchRow:
    values: dict[str, object] = {"accuracy": 0.5, "cost": 2.0, "reward": 0.5, "status": "ok", "value": 0.4, "uncertainty": 0.05 * (index + 1)}
    return SearchRow(round=index // 4, id=str(index), architecture=f"toy:{index}", source=source, **{**values, **changes})  # type: ignore[arg-type]


MIXED = [row(0), row(1, "audit"), row(2, "trusted", accuracy=None), row(3, "exploited"), row(4, "cached"), row(5, status="infeasible", accuracy=None)]
USES = [PoolUse(0, 0.5, 0.0, 0.7, False), PoolUse(1, None, None, None, False), PoolUse(2, 1.0, 0.25, 0.9, True)]


def test_only_trained_samples_that_the_critic_had_scored_judge_it() -> None:
    rows = [*MIXED, row(6, value=None), row(7, uncertainty=None), row(8, status="failed", accuracy=None), row(9, reward=None)]
    found = judged(rows)
    assert [each.uncertainty for each in found] == pytest.approx([0.05, 0.1])
    assert [each.error for each in found] == pytest.approx([0.1, 0.1])


def test_coverage_is_the_share_of_errors_within_the_uncertainty() -> None:
    rows = [row(index, uncertainty=uncertainty) for index, uncertainty in enumerate([0.05, 0.2, 0.3, 0.01])]
    assert coverage(rows) == 0.5
    assert coverage([row(0, value=None)]) is None


def test_the_first_warm_round_is_told() -> None:
    assert warm_since(USES) == 2
    assert warm_since(USES[:2]) is None


def test_a_search_with_all_modules_has_a_plot_for_each() -> None:
    data = ReportData("demo", samples=MIXED, pool=USES, min_match=0.99)
    assert sorted(plot_files(data)) == [f"plots/{name}.png" for name in ("calibration", "critic_error", "pareto", "pool", "reward", "sources")]
    text = re.sub(r"\s+", " ", render_report(data))
    assert "1 were trusted: their reward is the critic's. 1 came from the experience buffer." in text
    assert "50.00 % of 2 errors were at most U" in text
    assert "From round 2 on, children start from the blocks of earlier ones." in text


def test_a_search_without_modules_says_nothing_of_them() -> None:
    text = render_report(ReportData("demo", samples=[row(0, value=None, uncertainty=None)]))
    assert not re.search("critic|pool|come from", text.partition("</style>")[2])


def test_a_pool_that_never_matched_enough_is_said_so() -> None:
    assert "every child started from random weights" in render_report(ReportData("demo", samples=MIXED, pool=USES[:1], min_match=0.99))


def test_a_word_for_children_that_begin_otherwise_is_no_error_of_the_critic() -> None:
    kinds = ["random", "random", "pool:0123456789ab", "pool:0123456789ab"]
    rows = [
        SearchRow(number, f"{number}", "t:0", 0.5, None, 0.5, "ok", "policy", value=0.4 + number / 100, uncertainty=0.1, initialisation=kind)
        for number, kind in enumerate(kinds)
    ]
    assert [row.round for row in foretold(rows)] == [0, 1, 3]
    assert [each.round for each in judged(rows)] == [0, 1, 3]
