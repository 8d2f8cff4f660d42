"""A pipeline run as a process group of its own: started, waited for, stopped whole, and asked why it failed."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from kfnas.errors import KfnasError, StepFailed, StorageFull
from kfnas.steps.boundary import failures_in
from kfnas_pipelines.local_runner import CAUSES_NAME, RUN_FAILED, log_lines

GRACE_SECONDS = 5.0
NO_ROOM_BYTES = 4096
_TASK = re.compile(r"'([^']+)'")


class PipelineProcess:
    """Runs one compiled pipeline through `local_runner`, in a session of its own, so that a Ctrl-C in the terminal reaches the driver alone.

    A context manager: leaving it stops whatever still runs and removes the scratch folder. The log stays; `causes` are the lines that tell why the run
    failed, for the log's disk may be full.
    """

    def __init__(self, pipeline: Path, arguments: Mapping[str, str], log: Path) -> None:
        self.log = log
        log.parent.mkdir(parents=True, exist_ok=True)
        self._scratch = tempfile.TemporaryDirectory(prefix="kfnas-run-", ignore_cleanup_errors=True)
        self.causes: list[str] = []
        root = Path(self._scratch.name)
        arguments_file = root / "arguments.json"
        arguments_file.write_text(json.dumps(dict(arguments)), encoding="utf-8")
        command = [sys.executable, "-m", "kfnas_pipelines.local_runner", str(pipeline), str(arguments_file), "--root", str(root), "--log", str(log)]
        with log.open("a", encoding="utf-8") as stream:  # for what the interpreter says before the runner has opened its log
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=stream, stderr=stream, start_new_session=True)

    @property
    def pid(self) -> int:
        """Process id, and process group, of the run."""
        return self._process.pid

    def wait(self, seconds: float) -> int | None:
        """Exit status, or None when the run still goes on after `seconds`."""
        try:
            return self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None

    def stop(self, grace_seconds: float = GRACE_SECONDS) -> None:
        """Stop the run and every step of it: asked first, killed after `grace_seconds`."""
        self._signal(signal.SIGTERM)
        end = time.monotonic() + grace_seconds
        while self._alive() and time.monotonic() < end:
            time.sleep(0.05)
        self.kill()

    def kill(self) -> None:
        """Kill the run and every step of it at once."""
        self._signal(signal.SIGKILL)
        self._process.wait()

    def failure(self) -> KfnasError:
        """Why the run failed, as its log tells it."""
        lines = [*self.causes, *log_lines(self.log)]
        failures = failures_in(lines)
        told = next((failure for failure in failures if failure.expected), None) or next(iter(failures), None)
        if told is not None:
            return told.as_error(self.log)
        if (free := shutil.disk_usage(self.log.parent).free) < NO_ROOM_BYTES:
            return StorageFull(
                f"{self.log.parent}: {free} bytes are left on this disk, too few for the run to say why it failed; free some, then `kfnas resume`"
            )
        last = next((line.partition(RUN_FAILED)[2] for line in reversed(lines) if RUN_FAILED in line), "")
        tasks = _TASK.findall(last.partition("Inner task failed:")[2])
        what = f"task {tasks[0]} of the pipeline" if tasks else "the pipeline run"
        return StepFailed(f"{what} ended without saying why (killed, or out of memory?); read {self.log}, mend what it shows, then go on with `kfnas resume`")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._process.poll() is None or self._alive():
            self.stop()
        self.causes = log_lines(Path(self._scratch.name) / CAUSES_NAME)
        self._scratch.cleanup()

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, number)

    def _alive(self) -> bool:
        """Whether any process of the group is left."""
        self._process.poll()
        try:
            os.killpg(self._process.pid, 0)
        except (ProcessLookupError, PermissionError):
            return False
        return True
