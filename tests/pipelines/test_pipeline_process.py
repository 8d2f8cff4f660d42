import os
import subprocess
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from kfp import compiler, dsl

from kfnas.errors import StaleFence, StepFailed, StorageFull
from kfnas.steps.boundary import Failure
from kfnas_components.images import STEPS_IMAGE
from kfnas_pipelines.local_runner import RUN_FAILED
from kfnas_pipelines.pipeline_process import PipelineProcess


@dsl.component(base_image=STEPS_IMAGE, install_kfp_package=False)
def linger(note: str) -> None:
    import os
    import time
    from pathlib import Path

    Path(note).write_text(str(os.getpid()))
    time.sleep(120)


@pytest.fixture(scope="module")
def lingering(tmp_path_factory) -> Path:
    @dsl.pipeline(name="linger")
    def pipeline(note: str) -> None:
        linger(note=note).set_caching_options(False)

    path = tmp_path_factory.mktemp("ir") / "linger.yaml"
    compiler.Compiler().compile(pipeline, str(path))
    return path


def started(process: PipelineProcess, note: Path) -> int:
    end = time.monotonic() + 60
    while not (note.exists() and note.read_text()):
        assert process.wait(0.05) is None, process.log.read_text()
        assert time.monotonic() < end, "the step never started"
    return int(note.read_text())


def is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def test_stopping_a_run_stops_its_steps_and_clears_its_scratch(lingering, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "scratch"))
    (tmp_path / "scratch").mkdir()
    with PipelineProcess(lingering, {"note": str(tmp_path / "note")}, tmp_path / "logs" / "run.log") as process:
        step = started(process, tmp_path / "note")
        assert os.getpgid(step) == process.pid != os.getpgid(0)
        process.stop(grace_seconds=2)
        assert process.wait(5) is not None
    assert not is_running(step)
    assert list((tmp_path / "scratch").iterdir()) == []
    assert "linger" in process.log.read_text()


def test_leaving_a_run_stops_it(lingering, tmp_path):
    with PipelineProcess(lingering, {"note": str(tmp_path / "note")}, tmp_path / "run.log") as process:
        step = started(process, tmp_path / "note")
    assert not is_running(step)


def test_a_run_that_succeeds_has_status_0(tmp_path):
    @dsl.component(base_image=STEPS_IMAGE, install_kfp_package=False)
    def nothing() -> None:
        pass

    @dsl.pipeline(name="nothing")
    def pipeline() -> None:
        nothing().set_caching_options(False)

    compiler.Compiler().compile(pipeline, str(tmp_path / "p.yaml"))
    with PipelineProcess(tmp_path / "p.yaml", {}, tmp_path / "run.log") as process:
        assert process.wait(60) == 0


@pytest.fixture
def failed(tmp_path) -> PipelineProcess:
    with PipelineProcess(tmp_path / "missing.yaml", {}, tmp_path / "run.log") as process:
        assert process.wait(60) == 1
    return process


def test_the_error_that_a_step_was_meant_to_show_comes_first(failed):
    crash = Failure("train_children", "KeyError", "'x'", expected=False)
    told = Failure("update", "StaleFence", "taken over", expected=True)
    failed.log.write_text(f"{crash.line()}\n    {told.line()}\n")
    error = failed.failure()
    assert type(error) is StaleFence
    assert str(error) == "taken over"


def test_an_unforeseen_error_names_the_log(failed):
    failed.log.write_text(Failure("train_children", "KeyError", "'x'", expected=False).line())
    error = failed.failure()
    assert type(error) is StepFailed
    assert str(failed.log) in str(error)


def test_a_silent_death_names_task_log_and_remedy(failed):
    failed.log.write_text(f"{RUN_FAILED}Pipeline 'x' finished with status FAILURE. Inner task failed: 'train-children' inside 'for-loop-1-iteration-1'.\n")
    message = str(failed.failure())
    assert message.startswith("task train-children of the pipeline ended without saying why")
    assert str(failed.log) in message
    assert "`kfnas resume`" in message


def test_a_run_without_a_log_still_has_a_failure(failed):
    failed.log.unlink()
    assert str(failed.failure()).startswith("the pipeline run ended without saying why")


def test_the_older_part_of_a_log_is_read_too(failed):
    failed.log.with_name("run.log.1").write_text(Failure("update", "StorageFull", "full", expected=True).line())
    assert type(failed.failure()) is StorageFull


def test_where_there_is_no_room_to_tell_a_cause_that_is_the_cause(failed, monkeypatch):
    failed.log.write_text("")
    failed.causes.clear()
    monkeypatch.setattr("shutil.disk_usage", lambda folder: SimpleNamespace(free=0))
    error = failed.failure()
    assert type(error) is StorageFull
    assert "0 bytes are left" in str(error)


def test_the_runner_is_a_session_of_its_own(lingering, tmp_path):
    with PipelineProcess(lingering, {"note": str(tmp_path / "note")}, tmp_path / "run.log") as process:
        session = subprocess.run(["ps", "-o", "sid=", "-p", str(process.pid)], capture_output=True, text=True, check=True).stdout.strip()
        assert int(session) == process.pid
