"""The first thing that a user does with new data, and what can be asked about it afterwards."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml

from kfnas.steps.config import load_run_config, trial_of
from kfnas_pipelines.cli import main

COLUMNS = ("Network", "Mult-adds", "Params", "Top-1", "Top-5", "Latency", "Samples", "Epochs", "Device time")


@pytest.mark.slow
def test_a_trial_goes_through_every_stage_and_all_commands_work_on_its_store(kfnas, configured, tmp_path, capsys):
    path = configured(comparisons=True, retrain={"epochs": 50}, search={"batch_size": 8, "reward": {"target": 200_000}}, top_k=3)
    done = kfnas("try", path)
    assert done.returncode == 0, done.stderr
    name = trial_of(load_run_config(path)).name
    assert re.search(rf"search     {name} in file://.*\nstate      finished\nrounds     1 of 1\nchildren   1 trained, 0 of them failed", done.stdout)
    assert "finalists  1 of 1 trained, evaluated and exported" in done.stdout
    page = tmp_path / "store" / "reports" / f"{name}.html"
    assert f"report     {page}" in done.stdout
    assert "finished" in done.stderr or "final training" in done.stderr

    again = kfnas("try", path)
    assert again.returncode == 0
    assert f"search {name} is finished" in again.stderr

    trial = tmp_path / "trial.yaml"
    trial.write_text(yaml.safe_dump(trial_of(load_run_config(path)).model_dump(mode="json")))

    def said(*arguments: object) -> str:
        capsys.readouterr()
        assert main([str(argument) for argument in arguments]) == 0
        return capsys.readouterr().out

    assert "state      finished" in said("status", trial)
    assert " 0 rows and 0 runs written, 1 rows in all; models registered" in said("sync", trial)
    assert said("report", trial, "--output", tmp_path / "page.html") == f"report     {tmp_path / 'page.html'}\n"
    assert_self_contained(tmp_path / "page.html")
    table = (tmp_path / "page.html").read_text().partition("<caption>")[2].partition("</table>")[0]
    assert all(f">{column}<" in table for column in COLUMNS)
    assert "searched-1" in table
    assert json.loads(said("config", "schema"))["title"] == "RunConfig"
    compiled = [Path(line).name for line in said("compile", "--output", tmp_path / "ir").splitlines()]
    rounds = ["search_rounds.yaml", "finish_search.yaml", "search_rounds_pooled.yaml"]
    assert compiled == [*rounds, "sync_pool.yaml", "operator_table.yaml", "pcnas_search.yaml", "betanas_search.yaml", "oneshot_search.yaml"]


def assert_self_contained(page: Path) -> None:
    text = page.read_text()
    assert text.startswith("<!doctype html>") or text.startswith("<!DOCTYPE html>")
    assert not re.search(r"""(?:src|href)=["'](?!#|data:)""", text)
    assert "<script src" not in text


@pytest.mark.parametrize("retrain", [{"epochs": 50}, {"steps": 1500}, {"steps": 5}])
def test_a_trial_trains_briefly_whatever_budget_the_search_has(retrain, configured):
    trial = trial_of(load_run_config(configured(retrain=retrain, search={"reward": {"kind": "soft", "target": 1.0, "alpha_below": -0.1}})))
    assert trial.retrain.epochs is None
    assert trial.retrain.steps == min(100, retrain.get("steps", 100))
    assert (trial.search.batch_size, trial.rounds, trial.top_k, trial.comparisons) == (1, 1, 1, False)
    assert trial.search.reward.target is None
    assert trial_of(trial).name != trial.name
