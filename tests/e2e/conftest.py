"""The command line as a user has it: a process of its own, in a folder of its own."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import yaml

from kfnas_pipelines.cli import main

QUICK_LATENCY = {"warmup": 1, "min_runs": 5, "max_runs": 10, "min_seconds": 0, "max_spread": 10, "cpu_ratio_floor": 0}

Kfnas = Callable[..., subprocess.CompletedProcess[str]]
Configured = Callable[..., Path]
Refused = Callable[..., tuple[int, list[str]]]


@pytest.fixture
def kfnas(tmp_path: Path) -> Kfnas:
    """Runs `kfnas ARGUMENTS` in `tmp_path`, with `environment` added to this process's own."""

    def run(*arguments: str | Path, environment: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "kfnas_pipelines.cli", *map(str, arguments)]
        own = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
        return subprocess.run(command, cwd=tmp_path, env=own | dict(environment or {}), capture_output=True, text=True, check=False, timeout=600)

    return run


@pytest.fixture(scope="session")
def write_config() -> Configured:
    """Writes into a folder the YAML of a search that takes seconds, on scikit-learn's digits; fields given by name replace its own."""

    def write(folder: Path, **fields: object) -> Path:
        config = {
            "name": "tiny",
            "task": {"name": "classification", "source": "digits", "resolution": 16, "limit": 300, "num_train": 150, "num_val": 60},
            "space": {"name": "mnas_small", "width": 0.3},
            "cost": "mult_adds",
            "search": {"batch_size": 2},
            "rounds": 1,
            "proxy": {"steps": 3, "batch_size": 16},
            "retrain": {"steps": 3, "batch_size": 16},
            "top_k": 1,
            "comparisons": False,
            "latency": QUICK_LATENCY,
            "store": str(folder / "store"),
            "execution": {"shards": 1},
        }
        path = folder / "search.yaml"
        path.write_text(yaml.safe_dump(config | fields))
        return path

    return write


@pytest.fixture
def configured(write_config: Configured, tmp_path: Path) -> Configured:
    """`write_config` into `tmp_path`."""
    return functools.partial(write_config, tmp_path)


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Refused:
    """Calls a command in this process that must fail, saying nothing on stdout and no traceback: its exit status and its lines of stderr."""

    def call(*arguments: str | Path) -> tuple[int, list[str]]:
        capsys.readouterr()
        status = main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        assert captured.out == ""
        assert "Traceback" not in captured.err
        return status, captured.err.splitlines()

    return call
