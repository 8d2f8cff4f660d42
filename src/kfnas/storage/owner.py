"""Who holds a search, and whether that holder can be known to be gone.

A lease alone would make a user wait after each crash. A holder that is a process of this machine is asked after directly: its pid and start
time name it beyond doubt, and a boot id and a pid namespace tell whether that pid is a pid of ours. Of any other holder only its lease
speaks.
"""

from __future__ import annotations

import os
import socket
from pathlib import Path

from kfnas.config import Config

_PROC = Path("/proc")


class Owner(Config):
    """The run that holds a search.

    Attributes:
        run_id: name of the run; the same run may claim again.
        host: its host's name.
        boot_id: this boot of the host's kernel; "" where it cannot be known.
        pid: the process that lives as long as the run does; None where there is none, as on a cluster.
        pid_start: when that process started, in the kernel's ticks.
        pid_namespace: the namespace in which `pid` counts.
    """

    run_id: str
    host: str
    boot_id: str
    pid: int | None = None
    pid_start: str | None = None
    pid_namespace: str | None = None

    @classmethod
    def of_process(cls, run_id: str, pid: int | None = None) -> Owner:
        """A run that lives as long as a process of this machine: this one, or `pid` (such as the driver that started this one)."""
        pid = os.getpid() if pid is None else pid
        return cls(run_id=run_id, host=socket.gethostname(), boot_id=_boot_id(), pid=pid, pid_start=_start_of(pid), pid_namespace=_pid_namespace())

    @classmethod
    def of_run(cls, run_id: str) -> Owner:
        """A run that no single process stands for: only its lease says whether it lives."""
        return cls(run_id=run_id, host=socket.gethostname(), boot_id=_boot_id())

    def is_gone(self) -> bool:
        """True only if the run's process is one of this machine, as this process sees it, and does not exist any more."""
        ours = bool(self.boot_id) and self.host == socket.gethostname() and self.boot_id == _boot_id() and self.pid_namespace == _pid_namespace()
        if not ours or self.pid is None or self.pid_start is None:
            return False
        return _start_of(self.pid) != self.pid_start

    def __str__(self) -> str:
        process = f"process {self.pid} on " if self.pid is not None else ""
        return f"run {self.run_id!r} ({process}host {self.host})"


def _boot_id() -> str:
    try:
        return (_PROC / "sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def _pid_namespace() -> str | None:
    try:
        return str((_PROC / "self/ns/pid").readlink())
    except OSError:
        return None


def _start_of(pid: int) -> str | None:
    """Start time of a living process; None for one that ended, zombies included, or where it cannot be known."""
    try:
        fields = (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    state, start = fields[0], fields[19]
    return None if state in ("Z", "X") else start
