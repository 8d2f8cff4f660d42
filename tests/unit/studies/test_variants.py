"""Rows become searches that differ in what the rows say and in nothing else."""

from __future__ import annotations

import pytest

from kfnas.errors import ConfigError
from kfnas.studies.variants import ABLATION_ROWS, TRANSFER_ROWS, Row, derived, derived_donor, merged

BASE = {"rounds": 4, "search": {"batch_size": 8, "reward": {"target": 2.0}}, "pool": {"name": "template", "floor": 0.7}, "task": {"name": "a", "x": 1}}


def fields(row: Row, **given: str) -> dict:
    return derived(BASE, row, study="s", seed=3, **given)


def test_nested_fields_are_merged_and_a_task_is_replaced_whole():
    assert merged({"a": {"b": 1, "c": 2}, "d": 3}, {"a": {"c": 5}, "e": 6}) == {"a": {"b": 1, "c": 5}, "d": 3, "e": 6}
    assert merged({"task": {"name": "a", "x": 1}}, {"task": {"name": "b"}}) == {"task": {"name": "b"}}
    assert merged({"a": None}, {"a": {"b": 1}}) == {"a": {"b": 1}}


def test_merging_leaves_the_base_as_it_is():
    base = {"a": {"b": 1}}
    merged(base, {"a": {"c": 2}})
    assert base == {"a": {"b": 1}}


@pytest.mark.parametrize(("row", "agent"), [("none", "mnas"), ("uac", "mnas+uac"), ("aeb", "mnas+aeb"), ("uac-aeb", "fnas"), ("random", "random")])
def test_rows_without_a_pool_differ_in_their_agent_alone(row, agent):
    expected = {**BASE, "name": f"s-{row}-s3", "seed": 3, "search": {**BASE["search"], "agent": agent}}
    del expected["pool"]
    assert fields(ABLATION_ROWS[row]) == expected


@pytest.mark.parametrize(("row", "agent"), [("akp", "mnas"), ("all", "fnas")])
def test_a_pool_of_its_own_is_named_after_its_search(row, agent):
    value = fields(ABLATION_ROWS[row])
    assert value["pool"] == {"name": f"s-{row}-s3", "floor": 0.7}
    assert value["search"]["agent"] == agent


def test_a_donor_s_pool_is_read_and_not_written():
    assert fields(TRANSFER_ROWS["akp"], donor_pool="d")["pool"] == {"name": "d", "floor": 0.7, "push": False}
    assert "prior" not in fields(TRANSFER_ROWS["akp"], donor_pool="d")


def test_a_row_that_follows_the_base_has_a_pool_where_the_base_has_one():
    assert fields(TRANSFER_ROWS["fresh"])["pool"]["name"] == "s-fresh-s3"
    assert "pool" not in derived({}, TRANSFER_ROWS["fresh"], study="s", seed=0)


def test_a_prior_names_the_donor_s_search():
    assert fields(TRANSFER_ROWS["both"], donor_search="d", donor_pool="p")["prior"] == "d"


@pytest.mark.parametrize(("row", "given", "what"), [("uac", {"donor_pool": "p"}, "search"), ("akp", {"donor_search": "d"}, "pool")])
def test_a_row_without_its_donor_is_refused(row, given, what):
    with pytest.raises(ConfigError, match=rf"row '{row}' starts from a donor's {what}.*donor\.{what}"):
        fields(TRANSFER_ROWS[row], **given)


def test_a_row_changes_the_fields_that_it_sets():
    row = Row(name="two", agent="mnas", pool="own", set={"proxy": {"epochs": 2}, "pool": {"floor": 0.9}})
    value = fields(row)
    assert value["proxy"] == {"epochs": 2}
    assert value["pool"] == {"name": "s-two-s3", "floor": 0.9}


def test_a_donor_has_all_modules_and_trains_one_network_at_its_end():
    donor = derived_donor({**BASE, "top_k": 5}, {"task": {"name": "b"}, "rounds": 9}, study="s", seed=1)
    assert (donor["name"], donor["seed"], donor["rounds"], donor["top_k"], donor["comparisons"]) == ("s-donor", 1, 9, 1, False)
    assert donor["task"] == {"name": "b"}
    assert donor["search"] == {"agent": "fnas", "batch_size": 8, "reward": {"target": 2.0}}
    assert donor["pool"] == {"name": "s-donor", "floor": 0.7, "read": False}, "it fills its pool and does not start from it"
    warm = derived_donor(BASE, {"pool": {"read": True, "floor": 0.5, "min_match": 0.9}}, study="s", seed=1)
    assert warm["pool"] == {"name": "s-donor", "read": True, "floor": 0.5, "min_match": 0.9}


def test_what_belongs_to_the_base_s_pool_alone_is_not_passed_on():
    base = {**BASE, "pool": {"name": "template", "floor": 0.7, "version": 4, "read": False, "push": False}}
    pools = [derived(base, row, study="s", seed=3, donor_pool="d")["pool"] for row in (ABLATION_ROWS["akp"], TRANSFER_ROWS["akp"])]
    assert pools == [{"name": "s-akp-s3", "floor": 0.7}, {"name": "d", "floor": 0.7, "push": False}]
    assert derived(base, TRANSFER_ROWS["fresh"], study="s", seed=3)["pool"] == {"name": "s-fresh-s3", "floor": 0.7, "read": False}
    assert derived_donor(base, {}, study="s", seed=9)["pool"] == {"name": "s-donor", "floor": 0.7, "read": False}
