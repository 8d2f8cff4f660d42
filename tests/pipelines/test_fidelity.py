"""The fidelity study's pipeline, and the command that runs it on one machine."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
import yaml

from kfnas.errors import ConfigError, ConfigMismatch, RunInterrupted, StepFailed, UserError
from kfnas.steps.fidelity_config import FidelityConfig, load_fidelity_config
from kfnas_pipelines.environment import LOCAL, Environment, Resources
from kfnas_pipelines.fidelity import compile_fidelity
from kfnas_pipelines.fidelity_run import run_fidelity

GOLDEN = Path(__file__).parent / "golden" / "fidelity.yaml"
CLUSTER = Environment(image="registry.example/kfnas/steps-python:golden", train=Resources(cpu=4, memory="16Gi", accelerator="nvidia.com/gpu"))
STUDY = """
name: tiny
base:
  store: store
  task: {name: classification, source: digits, resolution: 8, num_train: 128, num_val: 200}
  proxy: {batch_size: 8, learning_rate: 0.02}
architectures: 4
epochs: [1, 2]
truth: {epochs: 2, seeds: 2}
donors: {architectures: 2, epochs: 2}
"""
NUM_TRAININGS = 4 * 2 + 2 * 4 * 2 + 2


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "study.yaml"
    path.write_text(STUDY)
    return path


@pytest.fixture
def study(path: Path) -> FidelityConfig:
    return load_fidelity_config(path, (f"base.store={path.parent / 'store'}",))


def test_the_compiled_pipeline_is_the_golden_one(tmp_path: Path) -> None:
    text = compile_fidelity(tmp_path / "fidelity.yaml", 0, CLUSTER).read_text()
    if os.environ.get("UPDATE_GOLDEN"):
        GOLDEN.write_text(text)
    assert GOLDEN.exists(), "no golden file yet; write it with UPDATE_GOLDEN=1"
    assert text == GOLDEN.read_text(), "the compiled pipeline changed; if that is meant, write it anew with UPDATE_GOLDEN=1"


def test_donors_are_trained_before_the_pool_and_the_pool_is_filled_before_what_starts_from_it(tmp_path: Path) -> None:
    dag = yaml.safe_load(compile_fidelity(tmp_path / "fidelity.yaml", environment=LOCAL).read_text())["root"]["dag"]["tasks"]
    first, second = sorted(name for name in dag if name.startswith("for-loop"))
    assert first in dag["fidelity-pool"]["dependentTasks"]
    assert dag[first]["parameterIterator"]["items"]["inputParameter"].startswith("pipelinechannel--fidelity-plan-Output")
    assert dag[second]["parameterIterator"]["items"]["inputParameter"].startswith("pipelinechannel--fidelity-pool-Output")
    assert second in dag["fidelity-compare"]["dependentTasks"]
    with pytest.raises(ConfigError, match="parallelism must be 0"):
        compile_fidelity(tmp_path / "x.yaml", -1)


def test_no_task_of_it_is_cached(tmp_path: Path) -> None:
    spec = yaml.safe_load(compile_fidelity(tmp_path / "fidelity.yaml", environment=LOCAL).read_text())
    dags = [spec["root"]["dag"], *(component["dag"] for component in spec["components"].values() if "dag" in component)]
    tasks = {name: task for dag in dags for name, task in dag["tasks"].items() if not name.startswith("for-loop")}
    assert set(tasks) == {"fidelity-plan", "fidelity-train", "fidelity-pool", "fidelity-train-2", "fidelity-compare"}
    assert not any(task.get("cachingOptions", {}).get("enableCache", False) for task in tasks.values())


class Failing:
    """A pipeline run that ends badly, or one that never ends."""

    def __init__(self, status: int | None) -> None:
        self.status, self.stopped = status, False

    def __call__(self, pipeline: Path, arguments: dict[str, str], log: Path) -> Failing:
        assert pipeline.exists()
        assert json.loads(arguments["config"])["name"] == "tiny"
        return self

    def __enter__(self) -> Failing:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def wait(self, seconds: float) -> int | None:
        if self.status is None:
            os.kill(os.getpid(), signal.SIGINT)
        return self.status

    def stop(self) -> None:
        self.stopped = True

    def failure(self) -> StepFailed:
        return StepFailed("what a step said")


def test_a_failed_run_tells_why_and_where_its_log_is(study: FidelityConfig, tmp_path: Path) -> None:
    stream = io.StringIO()
    with pytest.raises(StepFailed, match="what a step said"):
        run_fidelity(study, tmp_path / "page.html", stream=stream, launch=Failing(1))  # type: ignore[arg-type]
    assert str(tmp_path / "store" / "logs" / "tiny") in stream.getvalue()


def test_a_run_is_stopped_in_order(study: FidelityConfig, tmp_path: Path) -> None:
    process = Failing(None)
    with pytest.raises(RunInterrupted, match="stopped by SIGINT; the same command goes on"):
        run_fidelity(study, tmp_path / "page.html", launch=process)  # type: ignore[arg-type]
    assert process.stopped


def test_what_cannot_run_is_refused_before_anything_runs(study: FidelityConfig, tmp_path: Path) -> None:
    memory = study.model_copy(update={"base": {**study.base, "store": "memory://x"}})
    with pytest.raises(UserError, match="lives in one process"):
        run_fidelity(memory, tmp_path / "page.html")
    with pytest.raises(StepFailed):
        run_fidelity(study, tmp_path / "page.html", launch=Failing(1))  # type: ignore[arg-type]
    with pytest.raises(ConfigMismatch, match="architectures was 4, is 6"):
        run_fidelity(study.model_copy(update={"architectures": 6}), tmp_path / "page.html")


@pytest.mark.slow
def test_a_killed_study_goes_on_and_trains_no_finished_child_again(path: Path) -> None:
    command = [sys.executable, "-m", "kfnas_pipelines.cli", "prove", "fidelity", str(path)]
    folder = path.parent
    children = folder / "store" / "searches" / "tiny" / "children"
    process = subprocess.Popen(command, cwd=folder, stderr=subprocess.DEVNULL)
    end = time.monotonic() + 300
    while time.monotonic() < end and process.poll() is None and (not children.is_dir() or len(list(children.iterdir())) < 4):
        time.sleep(0.1)
    runner = int(Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()[0])
    process.kill()
    process.wait()
    os.killpg(runner, signal.SIGKILL)
    before = {file.name: file.read_bytes() for file in children.iterdir() if not file.name.startswith(".")}
    assert 4 <= len(before) < NUM_TRAININGS
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stderr
    assert all((children / name).read_bytes() == content for name, content in before.items())
    logs = sorted((folder / "store" / "logs" / "tiny").iterdir())
    ended = Counter(line.partition("child ")[2].split()[0] for line in logs[-1].read_text().splitlines() if " finished: " in line)
    kept = {json.loads(content)["record"]["id"] for content in before.values()}
    assert set(ended.values()) == {1}
    assert not kept & set(ended)
    assert len(list(children.iterdir())) == NUM_TRAININGS
    assert "n = 4" in done.stdout
    assert "<svg" in (folder / "store" / "reports" / "tiny.html").read_text()
