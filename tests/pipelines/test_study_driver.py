"""A study on one machine, its searches run by the steps in this process: what runs, what is not run again, what an interruption leaves."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner

from kfnas.config import parse
from kfnas.errors import BudgetError, ConfigError, ConfigMismatch, RunInterrupted
from kfnas.steps.config import RunConfig, load_run_config
from kfnas.steps.status import progress, release_lease
from kfnas.steps.study import plan_study
from kfnas.steps.study_config import StudyConfig
from kfnas.testing.sequence import StepSequence, outcome_of, small_search
from kfnas_pipelines import study_driver
from kfnas_pipelines.study_commands import prove as commands
from kfnas_pipelines.study_driver import page_path, prove


def study(store: Path | str, **fields: Any) -> StudyConfig:
    base = small_search(store, rounds=1).model_dump(mode="json", exclude={"name", "seed", "pool", "prior"})
    base["search"] = {"batch_size": 2}
    return parse(StudyConfig, {"name": "s", "base": base, "rows": ["none", "random"], "seeds": [0], **fields})


class Runner:
    """Runs the rounds of searches by their steps, and counts that as their end; the one named `stops` is killed after its children are trained, once."""

    def __init__(self, folder: Path, stops: str = "") -> None:
        self.folder, self.stops = folder, stops
        self.ran: list[str] = []

    def __call__(self, config: RunConfig) -> None:
        if progress(config.text).searching_done:
            return
        self.ran.append(config.name)
        sequence = StepSequence(config, self.folder / f"{config.name}-{len(self.ran)}", run_id=f"run-{len(self.ran)}")
        sequence.begin()
        for shard in sequence.open_round():
            sequence.train(shard)
        if config.name == self.stops:
            self.stops = ""
            release_lease(config.text, sequence.owner.run_id)
            raise RunInterrupted("stopped")
        sequence.close_round()
        release_lease(config.text, sequence.owner.run_id)


@pytest.fixture
def compared(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the studies that were compared, the comparison itself left out."""
    names: list[str] = []
    monkeypatch.setattr(study_driver, "compare", lambda study, plan=None: names.append(study.name) or Path("page"))
    return names


def test_a_killed_study_goes_on_where_it_stands_and_gives_what_an_unbroken_one_gives(tmp_path, compared):
    told: list[str] = []
    given, runner = study(tmp_path / "one"), Runner(tmp_path, stops="s-random-s0")
    with pytest.raises(RunInterrupted):
        prove(given, tell=told.append, drive_search=runner)
    assert (runner.ran, compared) == (["s-none-s0", "s-random-s0"], [])
    prove(given, tell=told.append, drive_search=runner)
    assert runner.ran == ["s-none-s0", "s-random-s0", "s-random-s0"]
    assert compared == ["s"]
    assert told[-1] == "study s: search 2 of 2, s-random-s0"
    unbroken = study(tmp_path / "two")
    prove(unbroken, tell=told.append, drive_search=Runner(tmp_path / "other"))
    assert [outcome_of(config) for config in plan_study(given).searches] == [outcome_of(config) for config in plan_study(unbroken).searches]


def test_a_search_that_finds_nothing_within_the_budget_is_a_result(tmp_path, compared, monkeypatch):
    told: list[str] = []

    def drive(config: RunConfig) -> None:
        raise BudgetError("no trained architecture is near the target")

    monkeypatch.setattr(study_driver, "progress", lambda text: SimpleNamespace(searching_done=True))
    prove(study(tmp_path), tell=told.append, drive_search=drive)
    assert compared == ["s"]
    assert told[1] == "s-none-s0 ends without a network: no trained architecture is near the target"


def test_a_budget_that_nothing_meets_ends_the_study_before_it_searches(tmp_path, compared):
    impossible = study(tmp_path, rows=["random"])
    search = {**impossible.base["search"], "reward": {"kind": "hard", "target": 1.0}}
    impossible = impossible.model_copy(update={"base": {**impossible.base, "search": search}})
    with pytest.raises(BudgetError, match="no architecture meets mult_adds 1"):
        prove(impossible, tell=lambda _: None)
    assert compared == []


def test_a_study_whose_base_has_changed_is_refused(tmp_path, compared):
    given = study(tmp_path, rows=["random"])
    StepSequence(plan_study(given).searches[0], tmp_path / "artifacts").begin()
    changed = study(tmp_path, rows=["random"])
    changed = changed.model_copy(update={"base": {**changed.base, "rounds": 2}})
    with pytest.raises(ConfigMismatch, match="rounds: 1 then, 2 now"):
        prove(changed, tell=lambda _: None)


def test_a_donor_that_is_not_there_or_not_done_is_refused_before_any_row_is_run(tmp_path, compared):
    rows = [{"name": "none", "agent": "mnas"}, {"name": "uac", "agent": "mnas+uac", "prior": True}]
    given = study(tmp_path, kind="transfer", rows=rows, donor={"search": "earlier"})
    runner = Runner(tmp_path)
    with pytest.raises(ConfigError, match=r"donor\.search: no search 'earlier' in "):
        prove(given, tell=lambda _: None, drive_search=runner)
    earlier = small_search(tmp_path, rounds=2).model_copy(update={"name": "earlier"})
    sequence = StepSequence(earlier, tmp_path / "artifacts")
    sequence.begin()
    release_lease(earlier.text, sequence.owner.run_id)
    with pytest.raises(ConfigError, match=r"donor\.search: 'earlier' has done 0 of its 2 rounds"):
        prove(given, tell=lambda _: None, drive_search=runner)
    shutil.move(tmp_path / "searches", tmp_path / "elsewhere" / "searches")
    moved = study(tmp_path / "elsewhere", kind="transfer", rows=rows, donor={"search": "earlier"})
    with pytest.raises(ConfigError, match=r"donor\.search: 'earlier' has done 0 of its 2 rounds"):
        prove(moved, tell=lambda _: None, drive_search=runner)
    pooled = study(tmp_path, kind="transfer", rows=["akp"], donor={"search": "earlier", "pool": "empty"})
    with pytest.raises(ConfigError, match=r"donor\.pool: pool .empty. in .* holds nothing; fill it first"):
        prove(pooled, tell=lambda _: None, drive_search=runner)
    assert (runner.ran, compared) == ([], [])


def test_the_page_stands_beside_a_local_store_s_reports(tmp_path):
    given = study(tmp_path)
    base = plan_study(given).variants[0].config
    assert page_path(given, base) == tmp_path / "reports" / "s-ablation.html"
    assert page_path(given, base.model_copy(update={"store": "s3://b/p"})) == Path("s-ablation-report.html")


def test_pipelines_of_a_study_are_written_in_the_order_in_which_they_run(tmp_path):
    path = tmp_path / "study.yaml"
    path.write_text(study("s3://bucket/prefix").model_dump_json())
    done = CliRunner().invoke(commands, ["ablation", str(path), "--compile", str(tmp_path / "ir"), "--image", "x/python:1", "--rounds", "1"])
    assert done.exit_code == 0, done.output
    assert done.output.split() == [str(tmp_path / "ir" / name) for name in ("s-rounds-1.yaml", "s-finish-1.yaml")]


def test_each_search_s_own_configuration_can_be_written(tmp_path):
    path = tmp_path / "study.yaml"
    path.write_text(study(tmp_path / "store").model_dump_json())
    done = CliRunner().invoke(commands, ["ablation", str(path), "--configs", str(tmp_path / "configs")])
    assert done.exit_code == 0, done.output
    planned = plan_study(study(tmp_path / "store")).searches
    assert [load_run_config(Path(line)).digest for line in done.output.split()] == [config.digest for config in planned]


@pytest.mark.parametrize("name", ["ablation", "transfer", "knowledge", "fidelity"])
def test_every_study_has_a_help_with_an_example(name):
    done = CliRunner().invoke(commands, [name, "--help"])
    assert done.exit_code == 0
    assert f"kfnas prove {name} " in done.output
