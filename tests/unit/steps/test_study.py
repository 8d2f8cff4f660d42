"""Which searches a study plans: their names, their configurations, their seeds, and what is refused before anything runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from kfnas.config import parse
from kfnas.errors import ConfigError
from kfnas.steps.study import plan_study
from kfnas.steps.study_config import StudyConfig, load_study_config, study_config

BASE: dict[str, Any] = {
    "task": {"name": "classification", "source": "digits"},
    "search": {"batch_size": 8},
    "proxy": {"steps": 5},
    "rounds": 3,
    "cost": "mult_adds",
}


def study(**fields: Any) -> StudyConfig:
    return parse(StudyConfig, {"name": "s", "base": {**BASE, "store": "/stores/one"}, "seeds": [0, 1], **fields})


def write(folder: Path, **fields: Any) -> Path:
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump({"name": "s", "base": BASE, **fields}), encoding="utf-8")
    return path


def test_an_ablation_is_each_row_with_each_seed_seed_by_seed():
    plan = plan_study(study())
    names = [f"s-{row}-s{seed}" for seed in (0, 1) for row in ("none", "akp", "uac", "aeb", "all")]
    assert [config.name for config in plan.searches] == names
    assert plan.donor is None
    assert [(variant.row.name, variant.seed) for variant in plan.variants[:2]] == [("none", 0), ("akp", 0)]


def test_rows_of_one_seed_differ_in_name_agent_and_pool_alone():
    seed = [variant.config for variant in plan_study(study()).variants if variant.seed == 1]
    assert {config.seed for config in seed} == {1}
    rest = [config.model_dump(mode="json", exclude={"name", "pool", "search"}) for config in seed]
    assert all(one == rest[0] for one in rest)
    assert [config.search.agent for config in seed] == ["mnas", "mnas", "mnas+uac", "mnas+aeb", "fnas"]
    assert [config.pool.name if config.pool else None for config in seed] == [None, "s-akp-s1", None, None, "s-all-s1"]
    assert len({config.digest for config in seed}) == 5


def test_another_row_or_seed_leaves_the_other_searches_as_they_are():
    small = {config.name: config.digest for config in plan_study(study()).searches}
    large = {config.name: config.digest for config in plan_study(study(seeds=[0, 1, 2], rows=["random", "none", "akp", "uac", "aeb", "all"])).searches}
    assert len(large) == 18
    assert small.items() <= large.items()


def test_a_transfer_runs_its_donor_first_and_each_row_says_what_it_takes_from_it():
    plan = plan_study(study(kind="transfer", donor={"set": {"task": {"name": "classification", "source": "fashion-mnist"}}, "seed": 7}))
    assert plan.searches[0] is plan.donor
    assert plan.donor is not None
    assert (plan.donor.name, plan.donor.seed, plan.donor.task["source"], plan.donor.search.agent) == ("s-donor", 7, "fashion-mnist", "fnas")
    rows = {variant.row.name: variant.config for variant in plan.variants if variant.seed == 0}
    assert {name: (config.prior.search if config.prior else None, config.pool.name if config.pool else None) for name, config in rows.items()} == {
        "fresh": (None, None),
        "uac": ("s-donor", None),
        "akp": (None, "s-donor"),
        "both": ("s-donor", "s-donor"),
    }
    assert {config.search.agent for config in rows.values()} == {"fnas"}
    assert all(config.pool is None or not config.pool.push for config in rows.values())


def test_an_existing_search_is_a_donor_that_is_not_run():
    plan = plan_study(study(kind="transfer", donor={"search": "old", "pool": "blocks"}))
    assert plan.donor is None
    assert plan.variants[1].config.prior.search == "old"
    assert plan.variants[2].config.pool.name == "blocks"


def test_an_existing_search_without_its_pool_cannot_give_one():
    with pytest.raises(ConfigError, match=r"row 'akp' starts from a donor's pool.*donor\.pool"):
        plan_study(study(kind="transfer", donor={"search": "old"}))


def test_a_donor_of_another_space_is_refused_before_anything_runs():
    with pytest.raises(ConfigError, match=r"row uac searches .*mnas_small.*critics and pools are of one space"):
        plan_study(study(kind="transfer", donor={"set": {"space": {"name": "mnas_tiny"}}}))


def test_a_donor_that_no_row_starts_from_is_not_run():
    assert plan_study(study(kind="transfer", rows=["fresh", "none"], donor={"set": {"rounds": 4}})).donor is None


def test_a_store_that_is_no_text_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="store"):
        plan_study(load_study_config(write(tmp_path, base={**BASE, "store": None}), "ablation"))


def test_knowledge_takes_a_transfer_s_file_and_its_searches(tmp_path):
    path = write(tmp_path, kind="transfer", rows=["none", "both", "fresh", "uac"], baseline="fresh", donor={"set": {"rounds": 4}})
    given, shown = load_study_config(path, "transfer"), load_study_config(path, "knowledge")
    assert [row.name for row in shown.rows] == ["fresh", "uac"]
    transfer = {config.name: config.digest for config in plan_study(given).searches}
    assert {config.name: config.digest for config in plan_study(shown).searches}.items() <= transfer.items()


def test_knowledge_needs_a_row_of_either_kind(tmp_path):
    with pytest.raises(ConfigError, match="such as fresh and uac"):
        load_study_config(write(tmp_path, kind="transfer", rows=["none", "both"], donor={"set": {"rounds": 4}}), "knowledge")


def test_a_row_of_one_s_own_is_all_that_it_says():
    own = study(rows=["none", {"name": "akp-2", "agent": "mnas", "pool": "own", "set": {"proxy": {"steps": 10}}}])
    config = plan_study(own).variants[1].config
    assert (config.name, config.proxy.steps, config.search.agent) == ("s-akp-2-s0", 10, "mnas")


def test_a_study_is_the_same_after_it_was_text():
    given = study(kind="transfer", rows=["uac", {"name": "x", "agent": "random"}], donor={"set": {"rounds": 4}})
    assert study_config(given.text) == given


def test_a_store_is_one_place_wherever_steps_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert load_study_config(write(tmp_path), "ablation").base["store"] == str(tmp_path / "runs")
    assert load_study_config(write(tmp_path), "ablation", ("base.store=s3://b/p", "seeds=[5]")).base["store"] == "s3://b/p"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"rows": ["nothing"]}, "nothing is not known"),
        ({"rows": ["none", "none"]}, "there twice"),
        ({"seeds": [1, 1]}, "there twice"),
        ({"seeds": []}, "seeds"),
        ({"rows": []}, "rows"),
        ({"baseline": "all", "rows": ["none", "uac"]}, "none of the rows"),
        ({"base": {**BASE, "name": "x"}}, r"base\.name: rows and seeds give it"),
        ({"base": {**BASE, "seed": 1}}, r"base\.seed"),
        ({"donor": {"search": "old", "set": {"rounds": 1}}}, "existing search cannot be changed"),
        ({"base": {**BASE, "pool": "mine"}}, r"base\.pool: 'mine' is no mapping of fields"),
        ({"base": {**BASE, "search": "fnas"}}, r"base\.search: 'fnas' is no mapping"),
        ({"donor": {"set": {"pool": "x"}}}, r"donor\.set\.pool: 'x' is no mapping"),
        ({"rows": [{"name": "x", "set": {"search": "fnas"}}]}, r"rows: x: set\.search: 'fnas' is no mapping"),
        ({"kind": "transfer", "donor": {"set": {"rounds": 4}, "seed": 1}}, r"donor\.seed: 1 is one of the rows' seeds"),
        ({"kind": "contest"}, "kind"),
        ({"colour": 1}, "colour: unknown field"),
    ],
)
def test_a_wrong_study_is_refused_with_what_is_wrong(fields, message):
    with pytest.raises(ConfigError, match=message):
        study(**fields)


def test_a_wrong_field_of_the_base_is_told_with_its_row():
    with pytest.raises(ConfigError, match=r"study s, row none: task: .*source"):
        plan_study(study(base={**BASE, "task": {"name": "classification", "source": 3}}))


def test_a_file_of_another_kind_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="use `kfnas prove ablation`"):
        load_study_config(write(tmp_path, kind="ablation"), "transfer")
