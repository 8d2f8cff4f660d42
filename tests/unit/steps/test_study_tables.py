"""The table of a study from hand-made searches: means over seeds, gains, savings, and what is left out."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest

from kfnas.space import Space
from kfnas.steps.study_config import StudyConfig
from kfnas.steps.study_knowledge import best_tokens, compare_knowledge, knowledge_metrics
from kfnas.steps.study_report import study_report
from kfnas.steps.study_results import RowResult, SearchResult
from kfnas.steps.study_tables import RowSummary, as_csv, spread, study_metrics, summaries, table_records
from kfnas.studies.variants import ABLATION_ROWS, TRANSFER_ROWS, Row
from kfnas.tracking import SearchRow, SearchView

SPACE = Space.from_decisions({"a": [0, 1, 2, 3], "b": [0, 1]}, name="t")
CONFIG = {"search": {"reward": {"kind": "hard", "target": 10.0}}}


def sample(index: int, reward: float | None, **fields: Any) -> SearchRow:
    values = {"accuracy": reward, "cost": 5.0, "status": "ok", "source": "policy", "device_seconds": 2.0, "epochs": 0.5}
    return SearchRow(round=0, id=f"{index}", architecture=f"t:{index % 4}-{index // 4 % 2}", reward=reward, **{**values, **fields})


def search(name: str, rewards: list[float], *, top1: float | None = 0.8, seconds: float = 2.0, rows: list[SearchRow] | None = None) -> SearchResult:
    samples = rows if rows is not None else [sample(index, reward, device_seconds=seconds) for index, reward in enumerate(rewards)]
    chosen = {"name": "searched-1", "kind": "searched", "architecture": "t:0-0", "mult_adds": 100, "latency_ms": None, "metrics": {"top1": top1}}
    done = top1 is not None
    return SearchResult(
        name,
        SearchView(name, name, tuple(samples), CONFIG, target=10.0, cost="mult_adds"),
        (chosen,) if done else (),
        chosen if done else None,
        rounds_done=1,
        rounds_total=1,
    )


def result(row: Row, searches: list[SearchResult], has_pool: bool = False) -> RowResult:
    return RowResult(row, row.agent or "mnas", has_pool, len(searches), tuple(searches))


def rows(**fields: Any) -> list[RowResult]:
    slow, fast = [0.1, 0.2, 0.3, 0.5], [0.1, 0.6]
    return [
        result(ABLATION_ROWS["none"], [search("n0", slow, top1=0.80), search("n1", slow, top1=0.82)]),
        result(ABLATION_ROWS["all"], [search("a0", fast, top1=0.83, seconds=1.0), search("a1", fast, top1=0.84, seconds=1.0)], has_pool=True),
    ]


def summary(found: list[RowResult]) -> dict[str, RowSummary]:
    return {row.name: row for row in summaries(found, "none")}


def test_modules_are_read_off_agent_and_pool():
    table = summary(rows())
    assert (table["none"].akp, table["none"].uac, table["none"].aeb) == (False, False, False)
    assert (table["all"].akp, table["all"].uac, table["all"].aeb) == (True, True, True)


def test_a_pool_says_how_many_children_started_from_it():
    warm = [sample(0, 0.1), replace(sample(1, 0.2), initialisation="pool:0123456789ab"), replace(sample(2, 0.3), status="failed")]
    found = result(ABLATION_ROWS["akp"], [search("a0", [], top1=0.8, rows=warm)], has_pool=True)
    table = {row.name: row for row in summaries([result(ABLATION_ROWS["none"], [search("n0", [0.1], top1=0.8)]), found], "none")}
    assert (table["none"].warm_share, table["akp"].warm_share) == (None, 0.5)
    assert [record["warm_share"] for record in table_records(list(table.values()))] == [None, 0.5]


def test_costs_are_means_over_seeds():
    table = summary(rows())
    assert (table["none"].num_activated.mean, table["all"].num_activated.mean) == (4.0, 2.0)
    assert (table["none"].device_seconds.mean, table["all"].device_seconds.mean) == (8.0, 2.0)
    assert (table["none"].num_epochs.mean, table["none"].epochs_a_child) == (2.0, 0.5)
    assert table["none"].top1.mean == pytest.approx(0.81)
    assert table["none"].top1.deviation == pytest.approx(0.02 / math.sqrt(2))


def test_savings_are_of_what_is_spent_until_the_baseline_s_final_reward():
    table = summary(rows())
    assert table["none"].savings == {"samples": 1.0, "device_seconds": 1.0}
    assert table["all"].savings == {"samples": 2.0, "device_seconds": 4.0}
    assert table["all"].bounds == {"samples": None, "device_seconds": None}, "two seeds have no interval"


def test_a_seed_that_found_nothing_within_the_budget_is_not_left_out_of_a_saving():
    found = rows()
    nothing = search("a1", [], rows=[sample(0, 0.9, cost=11.0)])
    table = summary([found[0], result(ABLATION_ROWS["all"], [found[1].searches[0], nothing], has_pool=True)])
    assert table["all"].savings == table["all"].bounds == {"samples": None, "device_seconds": None}


def test_a_search_that_ends_without_a_network_is_no_search_that_goes_on():
    found = rows()
    nothing = replace(search("a1", [], rows=[sample(0, 0.9, cost=11.0)], top1=None), fruitless=True)
    both = [found[0], result(ABLATION_ROWS["all"], [found[1].searches[0], nothing], has_pool=True)]
    table = summaries(both, "none")
    assert (table[1].num_finished, table[1].num_ended) == (1, 2)
    report = study_report(StudyConfig(name="s", base={}), both, table, None)
    assert report.state == "finished"
    assert "1 of 4 searches found no network within the budget" in report.headline


def test_the_gain_is_paired_by_seed():
    gain = summary(rows())["all"].gain
    assert gain.mid == pytest.approx(0.025)
    assert gain.low <= gain.mid <= gain.high
    assert summary(rows())["none"].gain is None


def test_only_seeds_that_both_have_finished_are_compared():
    found = rows()
    late = result(ABLATION_ROWS["all"], [found[1].searches[0], SearchResult("a1", rounds_total=1)], has_pool=True)
    table = summary([found[0], late])
    assert (table["all"].num_finished, table["all"].num_seeds) == (1, 2)
    assert table["all"].gain is None
    assert table["all"].savings["samples"] == 2.0


def test_a_study_that_has_not_begun_has_a_table_without_figures():
    empty = [result(ABLATION_ROWS[name], [SearchResult(f"{name}0", rounds_total=1)]) for name in ("none", "all")]
    table = summary(empty)
    assert table["all"].top1 is table["all"].num_activated is table["all"].savings["samples"] is None
    report = study_report(StudyConfig(name="s", base={}), empty, list(table.values()), None)
    assert report.state == "running"
    assert "2 of 2 searches are not finished" in report.headline


def test_rewards_of_children_over_the_budget_or_failed_are_no_best():
    found = search("x", [], rows=[sample(0, 0.9, cost=11.0), sample(1, 0.1, status="failed"), sample(2, 0.4), sample(3, 0.8, source="trusted")])
    assert [reward for reward in found.rewards if reward == reward] == [0.4]
    assert list(found.best_reward("samples").x) == [3.0], "those that were trained for nothing were trained"
    assert list(found.best_reward("device_seconds").x) == [6.0]


def test_states_of_a_search_follow_its_rounds_and_its_end():
    assert SearchResult("x", rounds_total=1).state == "missing"
    assert search("x", [0.1], top1=None).state == "searched"
    assert search("x", [0.1]).state == "finished"


def test_metrics_and_records_hold_the_table():
    table = summaries(rows(), "none")
    metrics = study_metrics(table)
    assert metrics["all/saving_samples"] == 2.0
    assert metrics["all/top1"] == pytest.approx(0.835)
    assert "none/gain_top1" not in metrics
    records = table_records(table)
    assert [record["name"] for record in records] == ["none", "all"]
    assert as_csv(records).decode().splitlines()[0].startswith("name,agent,akp,uac,aeb")
    assert as_csv([]) == b""


def test_the_page_names_what_the_row_of_most_modules_saves():
    found = rows()
    found[1] = result(ABLATION_ROWS["all"], list(found[1].searches))
    report = study_report(StudyConfig(name="s", base={}), found, summaries(found, "none"), None)
    assert report.state == "finished"
    assert report.headline.startswith("all trained 2 children where none trained 4, and reached none's final reward with 4.0 times less device time")
    assert [plot.name for section in report.sections for plot in section.plots] == ["best_reward_samples", "best_reward_device_seconds", "mean_reward"]


def test_a_saving_by_rewards_of_warm_children_is_marked_and_no_headline():
    found = rows()
    report = study_report(StudyConfig(name="s", base={}), found, summaries(found, "none"), None)
    assert "times less device time" not in report.headline
    savings = report.sections[0].tables[1]
    assert savings.rows[1].cells[-2:] == ["2.00 × †", "4.00 × †"]
    assert "†" in savings.caption
    pools = [result(Row(name="none", pool="own"), found[0].searches, has_pool=True), result(Row(name="all", pool="donor"), found[1].searches, has_pool=True)]
    assert "†" in study_report(StudyConfig(name="s", base={}), pools, summaries(pools, "none"), None).sections[0].tables[1].caption, "another's pool is warmer"
    cold = study_report(StudyConfig(name="s", base={}), found[:1], summaries(found[:1], "none"), None)
    assert "†" not in cold.sections[0].tables[1].caption


def test_a_spread_leaves_out_what_is_not_known():
    assert spread([1.0, None, 3.0, math.inf]).mean == 2.0
    assert spread([1.0]).deviation is None
    assert spread([None]) is None


def test_the_best_architectures_are_distinct_and_by_reward():
    found = search("x", [], rows=[sample(0, 0.1), sample(1, 0.9), sample(0, 0.5), sample(2, 0.7, cost=99.0), sample(3, 0.3)])
    assert best_tokens(SPACE, [found], 2) == [(1, 0), (0, 0)]
    assert best_tokens(SPACE, [found], 9) == [(1, 0), (0, 0), (3, 0)]


def test_knowledge_compares_operators_and_the_critics_first_errors():
    def scored(errors: list[float]) -> list[SearchRow]:
        return [sample(index, 0.5, value=0.5 - error) for index, error in enumerate(errors)]

    donor = search("d", [0.1, 0.2, 0.3])
    fresh = result(TRANSFER_ROWS["fresh"], [search(f"f{seed}", [], rows=scored([0.4, 0.2, 0.2])) for seed in range(2)])
    given = result(TRANSFER_ROWS["uac"], [search(f"u{seed}", [], rows=scored([0.1, 0.1])) for seed in range(2)])
    found = compare_knowledge(StudyConfig(kind="knowledge", name="s", base={}), SPACE, donor, [fresh, given])
    assert (found.num_first, found.num_second) == (3, 3)
    assert found.errors == {"fresh": pytest.approx([0.3, 0.3]), "uac": pytest.approx([0.1, 0.1])}, "as many first samples as both have"
    assert found.gain.mid == pytest.approx(-0.2)
    assert found.correlation == pytest.approx(1.0)
    assert knowledge_metrics(found)["operators/max_difference"] == 0.0


def test_knowledge_without_a_trained_sample_is_empty():
    fresh = result(TRANSFER_ROWS["fresh"], [SearchResult("f", rounds_total=1)])
    given = result(TRANSFER_ROWS["uac"], [SearchResult("u", rounds_total=1)])
    found = compare_knowledge(StudyConfig(kind="knowledge", name="s", base={}), SPACE, SearchResult("d"), [fresh, given])
    assert (found.operators, found.correlation, found.gain) == ((), None, None)
    assert knowledge_metrics(found) == {}
