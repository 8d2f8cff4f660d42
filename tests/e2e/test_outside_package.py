"""A user's own space and task, in a package that is installed beside kfnas: `tests/e2e/outside_package`."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import mlflow
import onnxruntime
import pytest

from kfnas.steps.config import load_run_config
from kfnas.steps.context import open_run
from kfnas.steps.view import finalists

SOURCE = Path(__file__).with_name("outside_package")
FIELDS = {
    "name": "discs",
    "task": {"name": "disc_size", "num_images": 100},
    "space": {"name": "towers", "width": 1.0},
    "search": {"batch_size": 3, "reward": {"target": 100_000}},
    "proxy": {"steps": 30, "batch_size": 16, "learning_rate": 0.02},
    "retrain": {"steps": 30, "batch_size": 16, "learning_rate": 0.02},
    "top_k": 2,
    "execution": {"shards": 1, "workers": 2},
}


@pytest.fixture
def installed(tmp_path, monkeypatch) -> dict[str, str]:
    """The package built and installed by pip, into a folder of its own so that this environment stays as it is; the variable that adds the folder."""
    folder = tmp_path / "site-packages"
    shutil.copytree(SOURCE, tmp_path / "discs", ignore=shutil.ignore_patterns("__pycache__"))
    options = ["--quiet", "--no-index", "--no-deps", "--no-build-isolation", "--disable-pip-version-check", "--target", str(folder)]
    subprocess.run([sys.executable, "-m", "pip", "install", *options, str(tmp_path / "discs")], check=True, timeout=120)
    monkeypatch.syspath_prepend(str(folder))
    return {"PYTHONPATH": str(folder)}


@pytest.mark.slow
def test_a_space_and_a_task_of_another_package_run_to_the_end(kfnas, configured, installed, tmp_path):
    path = configured(**FIELDS)
    done = kfnas("run", path, environment=installed)
    assert done.returncode == 0, done.stderr
    assert "state      finished" in done.stdout
    run = open_run(load_run_config(path).text)

    children = [run.searches.child(key) for key in run.searches.children()]
    assert children
    for child in children:
        assert child["status"] == "ok"
        assert child["accuracy"] == pytest.approx(1 / (1 + child["metrics"]["mean_error_pixels"]))

    finals = finalists(run)
    errors = {final["name"]: final["metrics"]["mean_error_pixels"] for final in finals}
    best = min(errors, key=errors.get)
    assert run.searches.record("final", "summary")["best"] == best
    for final in finals:
        session = onnxruntime.InferenceSession(run.searches.blob(final["onnx"]))
        assert session.get_inputs()[0].shape[1:] == [1, 16, 16]
        assert session.get_outputs()[0].shape[1:] == [1]

    client = mlflow.MlflowClient(f"sqlite:///{tmp_path}/store/tracking/mlflow.db", f"sqlite:///{tmp_path}/store/tracking/mlflow.db")
    assert client.get_model_version_by_alias("discs", "candidate").tags["kfnas.final"] == best

    page = (tmp_path / "store" / "reports" / "discs.html").read_text()
    assert f"{best} reaches mean_error_pixels" in page
    assert "1 / (1 + mean_error_pixels) on the proxy task" in page
    assert ">Mult-adds/T<" in page

    kept = [path for path in (tmp_path / "store").rglob("*") if path.is_file() and path.suffix != ".log"]
    assert not [path for path in kept if b"discs.tasks" in path.read_bytes() or b"discs.spaces" in path.read_bytes()], "plug-ins are kept by name only"

    status = kfnas("status", path, environment=installed)
    assert "best       mean_error_pixels " in status.stdout


def test_a_task_s_own_check_comes_before_anything_runs(refused, configured, installed, tmp_path):
    path = configured(**FIELDS | {"task": {"name": "disc_size", "colour": "red"}})
    assert refused("run", path) == (2, ["kfnas: error: task: colour 'red': the discs are white; write colour: white"])
    assert not (tmp_path / "store").exists()


def test_a_package_that_is_not_installed_is_named_with_what_is(refused, configured):
    status, (line,) = refused("status", configured(**FIELDS))
    assert status == 2
    assert line == "kfnas: error: task 'disc_size' is not installed; known are classification: install the package that has it, or mend the name"
