"""A whole small study: compiled, run by kfp.local as a cluster would run it, then compared from the command line."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from kfnas.steps.context import open_run
from kfnas.steps.status import progress
from kfnas.steps.study import plan_study
from kfnas.steps.study_config import load_study_config
from kfnas.testing.sequence import small_search
from kfnas_pipelines.environment import LOCAL
from kfnas_pipelines.local_runner import log_lines
from kfnas_pipelines.study_pipelines import compile_study


def write_study(folder: Path) -> Path:
    base: dict[str, Any] = small_search(folder / "store", rounds=1).model_dump(mode="json", exclude={"name", "seed", "pool", "prior"})
    base |= {"search": {"batch_size": 2}, "execution": {"shards": 1}}
    path = folder / "study.yaml"
    path.write_text(json.dumps({"name": "e2e", "base": base, "rows": ["random", "akp"], "seeds": [0]}))
    return path


@pytest.mark.slow
def test_a_compiled_study_runs_its_searches_and_compares_them(kfnas, tmp_path):
    path = write_study(tmp_path)
    study = load_study_config(path, "ablation")
    rounds = compile_study(tmp_path / "ir", study, LOCAL, num_rounds=1, parallelism=2)[0]
    arguments = tmp_path / "arguments.json"
    arguments.write_text("{}")
    root = tmp_path / "root"
    command = [sys.executable, "-m", "kfnas_pipelines.local_runner", str(rounds), str(arguments), "--root", str(root), "--keep"]
    done = subprocess.run(command, check=False)
    assert done.returncode == 0, "\n".join(log_lines(root / "run.log")[-50:])
    searches = plan_study(study).searches
    assert [progress(config.text).rounds_done for config in searches] == [1, 1]
    assert all(next(iter(open_run(config.text).searches.children()), None) for config in searches)
    (metrics,) = root.glob("artifacts/**/compare-study/metrics")
    assert json.loads(metrics.read_text())["num_searches"] == 2
    page = tmp_path / "store" / "reports" / "e2e-ablation.html"
    assert not page.exists()
    shown = kfnas("prove", "ablation", path, "--report")
    assert shown.returncode == 0, shown.stderr
    assert shown.stdout.split() == ["report", str(page)]
    assert "e2e-akp-s0" in page.read_text()
