"""One compiled pipeline, run with kfp.local in a process of its own:

    python -m kfnas_pipelines.local_runner PIPELINE.yaml ARGUMENTS.json --root FOLDER

kfp.local's configuration is one per process and its state grows with every loop, hence a process a run. Everything that kfp and the steps print goes to
one log of bounded size. The exit status is 0 when every task succeeded, else 1; the causes are in the log, where `kfnas.steps.boundary.failures_in` finds
them, and once more in the root folder, for the log's disk may be the one that is full.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import re
import shutil
import sys
import tempfile
import threading
import traceback
from pathlib import Path
from typing import Any

from kfnas.steps.boundary import MARKER

LOG_NAME = "run.log"
OLDER_SUFFIX = ".1"
CAUSES_NAME = "causes"
LOG_BYTES = 16 * 2**20
RUN_FAILED = "kfnas-run-failed: "
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


class BoundedLog(io.TextIOBase):
    """A text file that keeps its newest part: past `limit` bytes what was written becomes PATH.1, in the place of an older one.

    Lines that tell the cause of a failure go to the file `causes` as well. A file that cannot be written, on a full disk, is no reason to fail.
    """

    def __init__(self, path: Path, limit: int = LOG_BYTES, causes: Path | None = None) -> None:
        self._path, self._limit, self._causes = path, limit, causes
        self._lock = threading.Lock()
        self._open()

    def _open(self) -> None:
        self._file = self._path.open("a", encoding="utf-8", errors="replace", buffering=1)
        self._size = self._path.stat().st_size

    def writable(self) -> bool:
        """Always."""
        return True

    def write(self, text: str) -> int:
        """Append; the file is changed at the end of a line only."""
        with self._lock:
            with contextlib.suppress(OSError):
                self._append(text)
            if self._causes is not None and (MARKER in text or RUN_FAILED in text):
                with contextlib.suppress(OSError), self._causes.open("a", encoding="utf-8", errors="replace") as causes:
                    causes.write(text)
        return len(text)

    def flush(self) -> None:
        """Write what is held back to the file."""
        with contextlib.suppress(OSError):
            self._file.flush()

    def _append(self, text: str) -> None:
        self._file.write(text)
        self._size += len(text.encode("utf-8", "replace"))
        if self._size > self._limit and text.endswith("\n"):
            self._file.close()
            self._path.replace(self._path.with_name(self._path.name + OLDER_SUFFIX))
            self._open()

    def fileno(self) -> int:
        """Descriptor of the present file."""
        return self._file.fileno()


def log_lines(log: Path) -> list[str]:
    """Lines of a run's log, older part first; none when there is no log."""
    lines: list[str] = []
    for part in (log.with_name(log.name + OLDER_SUFFIX), log):
        with contextlib.suppress(FileNotFoundError):
            lines += part.read_text(encoding="utf-8", errors="replace").splitlines()
    return lines


def run_pipeline(pipeline: Path, arguments: dict[str, Any], root: Path) -> None:
    """Run a compiled pipeline to its end, with `root` for what its tasks pass to each other. Once per process.

    Raises:
        RuntimeError: a task failed; the message names the innermost.
    """
    from kfp import components, local
    from kfp.local import logging_utils

    # kfp.local indents by wrapping builtins.print, and its loop threads undo that out of order: the indentation, and the time to print it, double with
    # every loop.
    logging_utils.indented_print = contextlib.nullcontext
    local.init(local.SubprocessRunner(use_venv=False), pipeline_root=str(root / "artifacts"), workspace_root=str(root / "workspace"), raise_on_error=True)
    components.load_component_from_file(str(pipeline))(**arguments)


def prepare_environment(root: Path) -> None:
    """What the steps inherit: one computing thread, unbuffered logs, no import from the working folder, temporary files under `root`."""
    scratch = root / "tmp"
    scratch.mkdir(parents=True, exist_ok=True)
    os.environ.update(OMP_NUM_THREADS="1", PYTHONUNBUFFERED="1", PYTHONSAFEPATH="1", TMPDIR=str(scratch))
    tempfile.tempdir = None


def main(arguments: list[str] | None = None) -> int:
    """Entry point of the process; returns its exit status."""
    parser = argparse.ArgumentParser(prog="python -m kfnas_pipelines.local_runner", description="Run one compiled pipeline with kfp.local.")
    parser.add_argument("pipeline", type=Path, help="compiled pipeline (IR YAML)")
    parser.add_argument("arguments", type=Path, help="JSON file with the pipeline's arguments")
    parser.add_argument("--root", type=Path, required=True, help="folder for what tasks pass to each other and for temporary files")
    parser.add_argument("--log", type=Path, help=f"file for the log; {LOG_NAME} in the root when not given")
    parser.add_argument("--keep", action="store_true", help="keep what tasks passed to each other")
    given = parser.parse_args(arguments)
    root = given.root.resolve()
    root.mkdir(parents=True, exist_ok=True)
    sys.stdout = sys.stderr = BoundedLog(given.log or root / LOG_NAME, causes=root / CAUSES_NAME)
    prepare_environment(root)
    try:
        run_pipeline(given.pipeline, json.loads(given.arguments.read_text(encoding="utf-8")), root)
    except RuntimeError as error:
        sys.stderr.write(f"\n{RUN_FAILED}{_COLOUR.sub('', str(error))}\n")
        return 1
    except Exception as error:  # noqa: BLE001  (the outermost boundary)
        traceback.print_exc()
        sys.stderr.write(f"\n{RUN_FAILED}{type(error).__name__}: {error}\n")
        return 1
    finally:
        if not given.keep:
            for folder in ("artifacts", "workspace", "tmp"):
                shutil.rmtree(root / folder, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
