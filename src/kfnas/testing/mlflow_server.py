"""A real MLflow tracking server on loopback, for contract tests."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_MANNERS = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "DO_NOT_TRACK": "true"}


class MLflowServer:
    """`mlflow server` with a sqlite database and a folder of artifacts under `folder`; it can be stopped and started again on the same port."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def uri(self) -> str:
        """Address for clients."""
        return f"http://127.0.0.1:{self.port}"

    def start(self, *, timeout_seconds: float = 120.0) -> None:
        """Start the server and wait until it answers.

        Raises:
            RuntimeError: it ended, or did not answer in time; the message holds the end of its log.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        log = self.folder / "server.log"
        command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self.port), "--workers", "1"]
        command += ["--backend-store-uri", f"sqlite:///{self.folder / 'mlflow.db'}", "--artifacts-destination", str(self.folder / "artifacts")]
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
        with log.open("ab") as output:
            environment = {**os.environ, **_MANNERS, "PATH": path}
            self._process = subprocess.Popen(command, stdout=output, stderr=output, cwd=self.folder, env=environment, start_new_session=True)
        deadline = time.monotonic() + timeout_seconds
        while not self.answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise RuntimeError(f"the MLflow server on port {self.port} did not come up:\n{log.read_text(errors='replace')[-2000:]}")
            time.sleep(0.1)

    def answers(self) -> bool:
        """Whether the server's health address answers."""
        try:
            with urllib.request.urlopen(f"{self.uri}/health", timeout=2) as response:
                return bool(response.status == 200)
        except (urllib.error.URLError, OSError):
            return False

    def stop(self) -> None:
        """Stop the server and its workers; stopping twice is fine."""
        process, self._process = self._process, None
        if process is None:
            return
        for number in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(process.pid, number)
                process.wait(timeout=10)
            except ProcessLookupError:
                process.wait(timeout=10)
                return
            except subprocess.TimeoutExpired:
                continue


@contextmanager
def mlflow_server(folder: Path) -> Iterator[MLflowServer]:
    """A running server, stopped at the end of the block."""
    server = MLflowServer(folder)
    server.start()
    try:
        yield server
    finally:
        server.stop()


def free_port() -> int:
    """A loopback TCP port that nothing listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
