"""Compiled studies: the golden file (rewritten with UPDATE_GOLDEN=1), how they are cut into parts, and what holds for each."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from kfnas.config import parse
from kfnas.steps.config import run_config
from kfnas.steps.study import plan_study
from kfnas.steps.study_config import StudyConfig, study_config
from kfnas_pipelines.environment import Environment, Secret
from kfnas_pipelines.study_pipelines import compile_compare_study, compile_study

GOLDEN = Path(__file__).parent / "golden" / "study_rounds.yaml"
CLUSTER = Environment(image="registry.example/kfnas/steps-python:golden", secrets=(Secret(name="kfnas-s3"),))
TEXT_LIMIT = 2**20 / 1.5
BASE: dict[str, Any] = {"task": {"name": "classification", "source": "digits"}, "store": "s3://bucket/prefix", "rounds": 4, "proxy": {"steps": 5}}


def study(**fields: Any) -> StudyConfig:
    return parse(StudyConfig, {"name": "s", "base": BASE, "seeds": [0], **fields})


def spec(path: Path) -> dict[str, Any]:
    return next(yaml.load_all(path.read_text(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)))


def test_a_compiled_study_is_the_golden_one(tmp_path):
    text = without_configurations(compile_study(tmp_path, study(rows=["none", "akp"]), CLUSTER, num_rounds=1)[0])
    if os.environ.get("UPDATE_GOLDEN"):
        GOLDEN.write_text(text)
    assert GOLDEN.exists(), "no golden file yet; write it with UPDATE_GOLDEN=1"
    assert text == GOLDEN.read_text(), "the compiled study changed; if that is meant, write it anew with UPDATE_GOLDEN=1"


def without_configurations(path: Path) -> str:
    """A compiled study whose configurations are left out: their defaults belong to other tests."""
    documents = list(yaml.load_all(path.read_text(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)))
    for name, parameter in documents[0]["root"]["inputDefinitions"]["parameters"].items():
        if parameter.get("defaultValue"):
            parameter["defaultValue"] = f"<{name}>"
    return yaml.dump_all(documents, Dumper=getattr(yaml, "CSafeDumper", yaml.SafeDumper), sort_keys=False)


def test_a_study_is_cut_into_parts_that_a_workflow_holds(tmp_path):
    given = study(rows=["none", "akp"], seeds=[0, 1])
    files = compile_study(tmp_path, given, CLUSTER, num_rounds=8)
    assert [path.name for path in files] == ["s-rounds-1.yaml", "s-rounds-2.yaml", "s-finish-1.yaml", "s-finish-2.yaml"]
    assert all(path.stat().st_size < TEXT_LIMIT for path in files)
    for part in (files[:2], files[2:]):
        configs = [run_config(text) for path in part for text in searches(path)]
        assert [config.name for config in configs] == [variant.config.name for variant in plan_study(given).variants]


def test_the_comparison_is_a_pipeline_of_its_own_too(tmp_path):
    found = spec(compile_compare_study(tmp_path / "compare.yaml", CLUSTER))
    assert set(found["root"]["dag"]["tasks"]) == {"compare-study"}
    assert set(found["root"]["inputDefinitions"]["parameters"]) == {"study"}


@pytest.mark.parametrize(("shards", "num_files"), [(16, 2), (32, 4)])
def test_many_shards_make_smaller_parts(shards, num_files, tmp_path):
    wide = study(base={**BASE, "execution": {"shards": shards}}, rows=["none", "random"])
    assert len(compile_study(tmp_path, wide, CLUSTER, num_rounds=4)) == num_files


def test_the_donor_s_rounds_are_a_pipeline_of_their_own_and_come_first(tmp_path):
    files = compile_study(tmp_path, study(kind="transfer", rows=["uac"], donor={"set": {"rounds": 5}}), CLUSTER, num_rounds=1)
    assert [path.name for path in files] == ["s-donor-rounds.yaml", "s-rounds-1.yaml", "s-finish-1.yaml", "s-finish-2.yaml"]
    assert [run_config(text).name for text in searches(files[0])] == ["s-donor"]
    assert [run_config(text).name for text in searches(files[2])] == ["s-donor"]


def test_a_study_s_configuration_stands_in_its_pipeline(tmp_path):
    given = study(rows=["none"])
    path = compile_study(tmp_path, given, CLUSTER, num_rounds=1)[0]
    assert study_config(spec(path)["root"]["inputDefinitions"]["parameters"]["study"]["defaultValue"]) == given


def test_the_comparison_waits_for_every_search_and_searches_for_none(tmp_path):
    for path in compile_study(tmp_path, study(rows=["none", "akp"]), CLUSTER, num_rounds=1):
        tasks = spec(path)["root"]["dag"]["tasks"]
        others = set(tasks) - {"compare-study"}
        assert len(others) == 2
        assert set(tasks["compare-study"]["dependentTasks"]) == others
        assert not any(tasks[name].get("dependentTasks") for name in others)


def test_a_row_with_a_pool_is_given_the_rounds_that_use_it(tmp_path):
    path = compile_study(tmp_path, study(rows=["none", "akp"]), CLUSTER, num_rounds=1)[0]
    found = spec(path)
    pooled = {
        task["taskInfo"]["name"]: task["componentRef"]["name"] for task in found["root"]["dag"]["tasks"].values() if task["taskInfo"]["name"] != "compare-study"
    }
    assert set(pooled) == {"s-none-s0", "s-akp-s0"}
    assert ["pull-pool" in _executed(found, pooled[name]) for name in ("s-none-s0", "s-akp-s0")] == [False, True]


@pytest.mark.parametrize("name", ["s-rounds-1.yaml", "s-finish-1.yaml"])
def test_every_task_runs_in_the_given_image_uncached_and_with_the_secret(name, tmp_path):
    compile_study(tmp_path, study(rows=["none"]), CLUSTER, num_rounds=1)
    definition, platform = yaml.safe_load_all((tmp_path / name).read_text())
    executors = definition["deploymentSpec"]["executors"]
    assert {executor["container"]["image"] for executor in executors.values()} == {CLUSTER.image}
    assert set(platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]) == set(executors)


def searches(path: Path) -> list[str]:
    """Texts of the configurations of a part, in order."""
    parameters = spec(path)["root"]["inputDefinitions"]["parameters"]
    names = sorted((name for name in parameters if name.startswith("config_")), key=lambda name: int(name.partition("_")[2]))
    return [parameters[name]["defaultValue"] for name in names]


def _executed(found: dict[str, Any], component: str) -> set[str]:
    """Names of the executed components within one that is a pipeline."""
    dag = found["components"][component].get("dag")
    if dag is None:
        return {component.removeprefix("comp-").rstrip("-0123456789")}
    return set().union(*(_executed(found, task["componentRef"]["name"]) for task in dag["tasks"].values()))


def test_rows_on_one_supernet_have_their_own_rounds_and_weights_are_trained_before_they_are_taken(tmp_path):
    base = {**BASE, "space": {"name": "pcnas_s_28", "width": 0.25}, "cost": "mult_adds"}
    given = study(base=base, rows=["pcnas", "pcnas-evolved", "none"])
    first, second, *ends = compile_study(tmp_path, given, CLUSTER, num_rounds=1)
    assert [run_config(text).name for text in searches(first)] == ["s-pcnas-s0", "s-none-s0"]
    assert [run_config(text).name for text in searches(second)] == ["s-pcnas-evolved-s0"]
    components = [set(spec(path)["components"]) for path in (first, second)]
    assert {"comp-decide-mixop", "comp-train-children"} <= components[0]
    assert "comp-evolve" in components[1]
    assert "comp-decide-mixop" not in components[1]
    assert len(ends) == 2
