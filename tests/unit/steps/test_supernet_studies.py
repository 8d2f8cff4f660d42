"""Rows of a study that search on one supernet: PC-NAS's table 3, sweeps of its sizes, and BetaNAS beside ProxylessNAS's update."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from kfnas.config import parse
from kfnas.errors import ConfigError, NotFound
from kfnas.space import MixopSpace, load_space
from kfnas.space.mixop_operators import Bottleneck, Identity
from kfnas.space.mixop_skeletons import MixopSkeleton, Stage
from kfnas.steps import context
from kfnas.steps.compare_study import compare_study
from kfnas.steps.config import RunConfig
from kfnas.steps.context import open_run
from kfnas.steps.status import progress
from kfnas.steps.study import plan_study
from kfnas.steps.study_config import StudyConfig
from kfnas.steps.supernet_search import SupernetSearch, load_supernet
from kfnas.testing.supernet_sequence import SupernetSequence, small_supernet_search


@pytest.fixture(autouse=True)
def tiny_space(monkeypatch: pytest.MonkeyPatch) -> None:
    operators = (Bottleneck("MBConv", 3, 3), Bottleneck("MBConv", 1, 5), Identity())
    skeleton = MixopSkeleton("tiny", 8, 8, (Stage(8, 2, 1), Stage(16, 2, 2)), 32, narrow_head=True)
    space = MixopSpace("tiny", skeleton, operators, reference="MBConv_3_3")
    monkeypatch.setattr(context, "load_space", lambda name: space if name == "tiny" else load_space(name))


def study_of(store: Path, rows: list[Any]) -> StudyConfig:
    base = small_supernet_search(store, "pcnas", space={"name": "tiny", "width": 1.0}).model_dump(mode="json", exclude={"name", "seed", "pool", "prior"})
    return parse(StudyConfig, {"name": "t3", "base": base, "rows": rows, "seeds": [0]})


def searched(config: RunConfig, folder: Path) -> SupernetSearch:
    sequence = SupernetSequence(config, folder / config.name, config.name)
    sequence.begin()
    while not progress(sequence.text).searching_done:
        sequence.round()
    return load_supernet(open_run(config.text), sequence.pointer)


def test_table_3_crosses_both_trainings_with_both_searches(tmp_path: Path) -> None:
    study = study_of(tmp_path / "store", ["pcnas", "pcnas-evolved", "pcnas-uniform", "oneshot"])
    found = {variant.row.name: searched(variant.config, tmp_path) for variant in plan_study(study).variants}
    assert found["pcnas-evolved"].weights == found["pcnas"].weights
    assert found["pcnas-evolved"].evolution.models
    assert found["pcnas-uniform"].weights != found["pcnas"].weights
    assert found["pcnas-uniform"].num_epochs == found["pcnas"].num_epochs == found["pcnas-evolved"].num_epochs
    assert found["oneshot"].weights not in (found["pcnas"].weights, found["pcnas-uniform"].weights)
    compare_study(study.text, tmp_path / "metrics.json", tmp_path / "page.html")
    metrics = json.loads((tmp_path / "metrics.json").read_text())["metrics"]
    assert metrics["pcnas/num_epochs"] == metrics["pcnas-uniform/num_epochs"] == found["pcnas"].num_epochs
    assert metrics["pcnas-evolved/num_epochs"] == 0
    assert metrics["pcnas/device_seconds"] > metrics["pcnas-evolved/device_seconds"] > 0
    page = (tmp_path / "page.html").read_text()
    assert "agent pcnas" in page
    assert "t3-pcnas-evolved-s0" in page


def test_sizes_of_pcnas_are_swept_by_rows_of_ones_own(tmp_path: Path) -> None:
    rows = [{"name": f"p{size}", "set": {"algorithm": "pcnas", "oneshot": {"pcnas": {"pool_size": size}}}} for size in (1, 3)]
    configs = [variant.config for variant in plan_study(study_of(tmp_path / "store", rows)).variants]
    assert [config.shared.pcnas.pool_size for config in configs] == [1, 3]
    assert {config.shared.pcnas.num_evaluations for config in configs} == {2}


def test_proxylessnas_differs_from_betanas_in_its_update_alone(tmp_path: Path) -> None:
    ours, theirs = (variant.config.shared.betanas for variant in plan_study(study_of(tmp_path / "store", ["betanas", "proxylessnas"])).variants)
    from kfnas.oneshot import proxyless_nas

    assert theirs == proxyless_nas(ours)
    assert theirs != ours


def test_weights_that_are_not_there_yet_are_asked_for(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="put it there"):
        study_of(tmp_path / "store", ["pcnas-evolved", "pcnas"])
    _, evolved = (variant.config for variant in plan_study(study_of(tmp_path / "store", ["pcnas", "pcnas-evolved"])).variants)
    with pytest.raises(NotFound, match=r"weights_of: no search 't3-pcnas-s0'"):
        searched(evolved, tmp_path)
