"""The step that compares, on searches that were really run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from kfnas.config import parse
from kfnas.errors import ConfigMismatch, NotFound, SpaceError
from kfnas.steps.compare_study import PAGE, compare_study, study_blob
from kfnas.steps.config import RunConfig
from kfnas.steps.context import open_run
from kfnas.steps.study import plan_study
from kfnas.steps.study_config import StudyConfig
from kfnas.testing.sequence import StepSequence, small_search


def study_of(store: Path, name: str, **fields: Any) -> StudyConfig:
    base = small_search(store, rounds=1).model_dump(mode="json", exclude={"name", "seed", "pool", "prior"})
    base["search"] = {"batch_size": 2}
    return parse(StudyConfig, {"name": name, "base": base, **fields})


def search(config: RunConfig, folder: Path) -> StepSequence:
    """The rounds of a search, without its end: exporting a network takes longer than all of them."""
    sequence = StepSequence(config, folder / config.name)
    sequence.begin()
    for shard in sequence.open_round():
        sequence.train(shard)
    sequence.close_round()
    return sequence


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("study")


@pytest.fixture(scope="module")
def ablation(folder: Path) -> StudyConfig:
    study = study_of(folder / "store", "abl", rows=["none", "all"], seeds=[0])
    none, everything = plan_study(study).searches
    search(none, folder).finish()
    search(everything, folder)
    return study


def compared(study: StudyConfig, folder: Path) -> tuple[dict[str, Any], str]:
    compare_study(study.text, folder / "metrics.json", folder / "page.html")
    return json.loads((folder / "metrics.json").read_text()), (folder / "page.html").read_text()


def test_an_ablation_is_a_table_a_page_and_files_in_the_store(ablation, folder):
    metrics, page = compared(ablation, folder)
    assert (metrics["num_finished"], metrics["num_searches"], metrics["tracked"]) == (1, 2, False)
    values = metrics["metrics"]
    assert values["none/num_activated"] == values["none/num_drawn"] == 2
    assert 0 <= values["none/top1"] <= 1
    assert values["all/device_seconds"] > 0
    assert "all/top1" not in values
    store = open_run(plan_study(ablation).variants[0].config.text).store
    assert store.get(study_blob(ablation, PAGE)).decode() == page
    assert json.loads(store.get(study_blob(ablation, "tables/rows.json")))[1]["akp"] is True
    assert "abl-none-s0" in page


def test_comparing_changes_no_search(ablation, folder):
    configs = plan_study(ablation).searches
    before = [open_run(config.text).searches.head() for config in configs]
    compared(ablation, folder)
    assert [open_run(config.text).searches.head() for config in configs] == before


def test_a_study_can_be_compared_before_its_searches_are_there(ablation, folder):
    longer = ablation.model_copy(update={"seeds": (0, 5)})
    metrics, page = compared(longer, folder)
    assert (metrics["num_finished"], metrics["num_searches"]) == (1, 4)
    assert "not begun" in page


def test_searches_of_another_configuration_are_not_compared(ablation, folder):
    changed = ablation.model_copy(update={"base": {**ablation.base, "rounds": 2}})
    with pytest.raises(ConfigMismatch, match="rounds: 1 then, 2 now"):
        compared(changed, folder)


def test_an_existing_search_gives_its_critic_and_its_pool(ablation, folder):
    study = study_of(folder / "store", "kno", kind="knowledge", rows=["fresh", "both"], donor={"search": "abl-all-s0", "pool": "abl-all-s0"}, seeds=[0])
    fresh, both = plan_study(study).searches
    search(fresh, folder)
    search(both, folder)
    assert open_run(fresh.text).searches.record("search", "prior") is None
    assert open_run(both.text).searches.record("search", "prior") is not None
    metrics, page = compared(study, folder)
    assert metrics["metrics"]["operators/num_architectures"] == 2
    assert "abl-all-s0" in page
    assert "Operators of the best architectures" in page


def test_operators_of_a_donor_of_another_space_are_not_compared(ablation, folder):
    study = study_of(folder / "store", "other", kind="knowledge", donor={"search": "abl-all-s0", "pool": "abl-all-s0"}, seeds=[0])
    changed = study.model_copy(update={"base": {**study.base, "space": {"name": "mnas_tiny"}}})
    with pytest.raises(SpaceError, match="operators compare in one space alone"):
        compare_study(changed.text, folder / "m", folder / "p")


def test_a_donor_that_is_not_there_is_told(folder):
    study = study_of(folder / "store", "lost", kind="transfer", donor={"search": "nobody", "pool": "p"})
    with pytest.raises(NotFound, match=r"donor\.search: no search 'nobody'"):
        compare_study(study.text, folder / "m", folder / "p")
