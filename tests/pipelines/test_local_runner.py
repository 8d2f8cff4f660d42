"""One compiled pipeline in a process of its own, with real kfp.local and steps that do nothing."""

import contextlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
from kfp import compiler, dsl
from kfp.dsl import Artifact, Input, Output

from kfnas.steps.boundary import Failure, failures_in
from kfnas_components.images import STEPS_IMAGE
from kfnas_pipelines.local_runner import RUN_FAILED, BoundedLog, log_lines

component = dsl.component(base_image=STEPS_IMAGE, install_kfp_package=False)


@component
def split(num_items: int, text: str, state: Output[Artifact]) -> list[str]:
    from pathlib import Path

    Path(state.path).write_text(text)
    return [str(item) for item in range(num_items)]


@component
def work(item: str, state: Input[Artifact], result: Output[Artifact]) -> None:
    import os
    import tempfile
    from pathlib import Path

    from kfnas.errors import StorageFull
    from kfnas.steps.boundary import boundary

    with boundary("work"):
        text = Path(state.path).read_text()
        if text == "full":
            raise StorageFull("store: no room left; free some")
        if text == "die":
            os._exit(3)
        Path(result.path).write_text(" ".join([item, os.environ["OMP_NUM_THREADS"], tempfile.gettempdir()]))
        print(f"worked on {item}")  # noqa: T201


@component
def join(state: Input[Artifact], after: Output[Artifact]) -> None:
    from pathlib import Path

    Path(after.path).write_text(Path(state.path).read_text() + ", joined")
    print("joined", Path(after.path).read_text())  # noqa: T201


def compiled(folder: Path, num_loops: int = 1) -> Path:
    @dsl.pipeline(name="loops")
    def loops(num_items: int, text: str) -> None:
        previous = None
        for _ in range(num_loops):
            started = split(num_items=num_items, text=text).set_caching_options(False)
            if previous is not None:
                started.after(previous)
            with dsl.ParallelFor(started.outputs["Output"], parallelism=2) as item:
                worked = work(item=item, state=started.outputs["state"]).set_caching_options(False)
            previous = join(state=started.outputs["state"]).set_caching_options(False).after(worked)

    path = folder / "loops.yaml"
    compiler.Compiler().compile(loops, str(path))
    return path


def run(folder: Path, num_loops: int = 1, text: str = "hello", *options: str) -> subprocess.CompletedProcess:
    arguments = folder / "arguments.json"
    arguments.write_text(json.dumps({"num_items": 3, "text": text}))
    pipeline = compiled(folder, num_loops)
    command = [sys.executable, "-m", "kfnas_pipelines.local_runner", str(pipeline), str(arguments), "--root", str(folder / "root"), *options]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_a_pipeline_runs_to_its_end_and_leaves_its_log_alone(tmp_path):
    done = run(tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    log = "\n".join(log_lines(tmp_path / "root" / "run.log"))
    assert all(f"worked on {item}" in log for item in range(3))
    assert "joined hello, joined" in log
    assert sorted(path.name for path in (tmp_path / "root").iterdir()) == ["run.log"]


def test_steps_compute_on_one_thread_and_keep_temporary_files_in_the_root(tmp_path):
    assert run(tmp_path, 1, "hello", "--keep").returncode == 0
    results = sorted((loop / "work" / "result").read_text() for loop in (tmp_path / "root").glob("artifacts/*/for-loop-*"))
    assert results == [f"{item} 1 {tmp_path / 'root' / 'tmp'}" for item in range(3)]


def test_the_log_is_not_indented_further_with_every_loop(tmp_path):
    """kfp.local doubles its indentation, and the time to write it, with every loop: 500 columns after seven."""
    assert run(tmp_path, 7).returncode == 0
    lines = [line for line in log_lines(tmp_path / "root" / "run.log") if line.strip()]
    assert max(len(line) - len(line.lstrip()) for line in lines) < 100


def test_the_cause_of_a_failed_step_is_in_the_log(tmp_path):
    assert run(tmp_path, 1, "full").returncode == 1
    lines = log_lines(tmp_path / "root" / "run.log")
    assert failures_in(lines) == [Failure("work", "StorageFull", "store: no room left; free some", expected=True)]
    assert not any("joined" in line for line in lines)


def test_a_step_that_dies_silently_is_named(tmp_path):
    assert run(tmp_path, 1, "die").returncode == 1
    (line,) = [line for line in log_lines(tmp_path / "root" / "run.log") if line.startswith(RUN_FAILED)]
    assert "Inner task failed: 'work'" in line


@pytest.mark.parametrize(("pipeline", "arguments"), [("missing.yaml", "{}"), ("empty.yaml", "{}"), ("missing.yaml", "{")])
def test_a_pipeline_that_cannot_be_read_ends_with_a_line_that_says_so(pipeline, arguments, tmp_path):
    (tmp_path / "empty.yaml").touch()
    (tmp_path / "arguments.json").write_text(arguments)
    command = [sys.executable, "-m", "kfnas_pipelines.local_runner", str(tmp_path / pipeline), str(tmp_path / "arguments.json"), "--root", str(tmp_path)]
    assert subprocess.run(command, capture_output=True, check=False).returncode == 1
    assert log_lines(tmp_path / "run.log")[-1].startswith(RUN_FAILED)


def test_a_log_keeps_its_newest_part(tmp_path):
    path = tmp_path / "run.log"
    log = BoundedLog(path, limit=1000)
    for number in range(100):
        log.write(f"line {number:04d} of the log")
        log.write("\n")
    log.flush()
    lines = log_lines(path)
    assert lines == [f"line {number:04d} of the log" for number in range(100 - len(lines), 100)]
    assert 1000 <= sum(part.stat().st_size for part in tmp_path.iterdir()) <= 2100


def test_a_log_on_a_full_disk_fails_nobody_and_the_cause_is_kept_elsewhere(tmp_path):
    cause = Failure("update", "StorageFull", "no room left", expected=True)
    log = BoundedLog(tmp_path / "run.log", causes=tmp_path / "causes")
    with contextlib.suppress(OSError), Path("/dev/full").open("w", buffering=1) as full:
        log._file = full
        for line in ("starts", cause.line(), "ends"):
            log.write(line + "\n")
        log.flush()
        log._file = (tmp_path / "run.log").open("a")
    assert failures_in(log_lines(tmp_path / "causes")) == [cause]
    assert log_lines(tmp_path / "run.log") == []


def test_no_log_has_no_lines(tmp_path):
    assert log_lines(tmp_path / "run.log") == []
