"""What this machine is and what disturbs timing on it: processor, cgroup CPU quota and throttling, affinity of the calling thread."""

from __future__ import annotations

import logging
import os
import platform
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

_logger = logging.getLogger(__name__)

_PROC = Path("/proc")
_CGROUP_ROOT = Path("/sys/fs/cgroup")


class CpuLimits(NamedTuple):
    """CPU bandwidth control of the process: tightest quota of its cgroups in cores (None: no quota), and how often they were throttled (None: not counted)."""

    quota_cores: float | None
    num_throttled: int | None


def cpu_limits(proc: Path = _PROC, root: Path = _CGROUP_ROOT) -> CpuLimits:
    """Quota and throttling counter of the process's cgroup and all above it; versions 1 and 2.

    Inside a container the paths in /proc may be the host's: what does not exist is skipped, and the root of the mount is always read.
    """
    quotas: list[float] = []
    throttled: list[int] = []
    for directory in _cpu_directories(_read(proc / "self/cgroup"), root):
        quota = _quota(directory)
        if quota is not None:
            quotas.append(quota)
        count = re.search(r"^nr_throttled (\d+)$", _read(directory / "cpu.stat"), re.MULTILINE)
        if count:
            throttled.append(int(count[1]))
    return CpuLimits(min(quotas, default=None), sum(throttled) if throttled else None)


def cpu_model(proc: Path = _PROC) -> str:
    """Name of the processor with family, model and stepping, which tell apart those whose names a cloud has masked."""
    fields: dict[str, str] = {}
    for line in _read(proc / "cpuinfo").splitlines():
        key, separator, value = line.partition(":")
        if separator:
            fields.setdefault(key.strip().lower(), value.strip())
    name = fields.get("model name") or fields.get("hardware") or platform.processor() or platform.machine()
    keys = ("cpu family", "model", "stepping", "cpu implementer", "cpu part", "cpu variant", "cpu revision")
    details = ", ".join(f"{key.removeprefix('cpu ')} {fields[key]}" for key in keys if key in fields)
    return f"{name} ({details})" if details else name


def accelerator_models(proc: Path = _PROC) -> list[str]:
    """Sorted names of the NVIDIA GPUs that the driver reports; empty without one."""
    found = (re.search(r"^Model:\s*(.+?)\s*$", _read(path), re.MULTILINE) for path in (proc / "driver/nvidia/gpus").glob("*/information"))
    return sorted(match[1] for match in found if match)


def allowed_cores() -> list[int]:
    """Cores that the calling thread may run on, sorted; all of them where the system has no affinity."""
    if sys.platform == "linux":
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def current_core(proc: Path = _PROC) -> int | None:
    """The core that the calling thread last ran on: the scheduler's own choice."""
    fields = _read(proc / "thread-self/stat").rpartition(")")[2].split()
    return int(fields[36]) if len(fields) > 36 else None


@contextmanager
def pinned(cores: Sequence[int]) -> Iterator[tuple[int, ...] | None]:
    """The calling thread, and threads it starts meanwhile, run on `cores` only; the affinity of before is restored at the end.

    Yields the cores in force, or None where the system does not pin.
    """
    if sys.platform != "linux":
        yield None
        return
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, cores)
    except OSError as error:
        _logger.warning("cannot pin to cores %s (%s); measuring unpinned", list(cores), error)
        yield None
        return
    try:
        yield tuple(sorted(cores))
    finally:
        os.sched_setaffinity(0, before)


def involuntary_switches(whole_process: bool) -> int | None:
    """How often the scheduler took the core away so far, from the calling thread or from the whole process; None where it is not counted."""
    if sys.platform == "win32":
        return None
    import resource

    thread = getattr(resource, "RUSAGE_THREAD", resource.RUSAGE_SELF)
    return resource.getrusage(resource.RUSAGE_SELF if whole_process else thread).ru_nivcsw


def _cpu_directories(membership: str, root: Path) -> list[Path]:
    directories: list[Path] = []
    for line in membership.splitlines():
        hierarchy, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if hierarchy == "0" and not controllers:
            mounts = [root, root / "unified"]
        elif "cpu" in controllers.split(","):
            mounts = [root / "cpu", root / controllers]
        else:
            continue
        for mount in mounts:
            steps = [part for part in path.split("/") if part not in ("", "..")]
            directories += [mount.joinpath(*steps[:depth]) for depth in range(len(steps), -1, -1)]
    unique = {directory.resolve(): None for directory in directories if directory.is_dir()}
    return list(unique)


def _quota(directory: Path) -> float | None:
    quota, _, period = _read(directory / "cpu.max").strip().partition(" ")
    if not quota:
        quota, period = (_read(directory / name).strip() for name in ("cpu.cfs_quota_us", "cpu.cfs_period_us"))
    if not quota.isdigit() or not period.isdigit() or int(period) == 0:
        return None
    return int(quota) / int(period)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
