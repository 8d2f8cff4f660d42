"""`kfnas table`: what it prints, and that it measures nothing twice."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kfnas.measure import OperatorTable
from kfnas.space import MixopSpace
from kfnas.space.mixop_operators import PC_NAS_SMALL
from kfnas.space.mixop_skeletons import small_skeleton
from kfnas.steps import context, latency_table
from kfnas.testing.table_device import AdditiveDevice
from kfnas_pipelines.cli import main


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> AdditiveDevice:
    device = AdditiveDevice(bias_ms=0.2, slowdown=1.3, noise=0.01)
    monkeypatch.setattr(context, "load_space", lambda _name: MixopSpace("tiny", small_skeleton(6), PC_NAS_SMALL[:4]))
    monkeypatch.setattr(latency_table, "open_device", lambda _run: device)
    return device


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "flowers.yaml"
    task = {"name": "classification", "source": "digits", "resolution": 8, "limit": 96, "num_train": 48, "num_val": 24}
    path.write_text(json.dumps({"name": "flowers", "task": task, "cost": "mult_adds", "store": str(tmp_path / "store")}))
    return path


def said(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[str, str]:
    assert main(["table", *map(str, arguments)]) == 0
    captured = capsys.readouterr()
    return captured.out, captured.err


def test_the_errors_are_printed_beside_those_of_plainer_predictors(
    device: AdditiveDevice, config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text, progress = said(capsys, config, "--networks", 20, "--output", tmp_path / "table.json")
    table = OperatorTable.model_validate_json((tmp_path / "table.json").read_text())
    errors = table.errors()
    assert errors is not None
    rows = {line[:12].strip(): line[12:].split() for line in text.splitlines()}
    assert rows["table"] == [f"{errors.mean_absolute:.2%}", f"{errors.bias:+.2%}", f"{errors.r2:.3f}", f"{errors.spearman:.3f}", f"{errors.error_95:.2%}"]
    assert {"sum alone", "mult-adds"} <= set(rows)
    assert "20 networks of" in text
    assert "additive 1, CPUExecutionProvider, 1 thread, batch 1, float32" in text
    assert 'table: {"held_out": 20}' in text
    assert "round 3 of 3" in progress
    assert errors.mean_absolute < 0.03


def test_a_table_that_is_there_is_only_printed(device: AdditiveDevice, config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, _ = said(capsys, config, "--networks", 0)
    measured = len(device.asked)
    again, progress = said(capsys, config, "--networks", 0)
    assert again == first and progress == ""
    assert "no network was held out" in first
    assert len(device.asked) == measured
