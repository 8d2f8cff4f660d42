"""Failures and kills at a chosen operation of a blob store, in this process or in every process that a test starts.

    FaultyStore(store, FaultPlan(nth=3, kinds=("swap",), when="after", action="raise"))          # in this process
    environment = faults.install(folder, FaultPlan(nth=17, counter=folder / "operations"))       # in the processes started with it

Operations that the plan's `kinds` and `key` choose are counted from 1, across processes where there is a `counter` file, and the n-th one
meets the action. With `nth=0` they are counted only: a dry run tells how many there are.

`install` reaches other processes by a `sitecustomize` module on their PYTHONPATH, which calls `arm_from_environment`; that one wraps the
adapters behind `kfnas.storage.open_store`. Nothing in kfnas itself looks for faults.
"""

from __future__ import annotations

import fcntl
import functools
import json
import os
import re
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from kfnas.config import Config, canonical_json, parse
from kfnas.errors import StoreUnavailable
from kfnas.storage import opening
from kfnas.storage.blobs import BlobStore, VersionedBlob
from kfnas.storage.local import LocalStore

VARIABLE = "KFNAS_TESTING_FAULTS"

Kind = Literal["get", "exists", "list", "delete", "put", "put_if_absent", "swap", "rename"]


class FaultPlan(Config):
    """Which operation meets which fault.

    Attributes:
        nth: number of the operation, from 1; 0 for none.
        kinds: operations that count. `rename` is the instant of a local store between writing a temporary file and renaming it.
        when: whether the fault comes before or after the operation's effect (for `rename` it is the instant itself).
        action: `raise` StoreUnavailable, or `kill` with SIGKILL.
        target: what is killed: `self`, the process `group`, the `parent`, or the process whose id is in the file of this path.
        key: regular expression that a key must contain to count; "" for every key.
        counter: file that counts over all processes, one line `pid kind key` an operation; None counts in each store on its own.
    """

    nth: int = 0
    kinds: tuple[Kind, ...] = ("put", "put_if_absent", "swap")
    when: Literal["before", "after"] = "before"
    action: Literal["raise", "kill"] = "kill"
    target: str = "self"
    key: str = ""
    counter: Path | None = None


class FaultyStore:
    """A `BlobStore` around another one that counts operations and fails at one of them.

    Args:
        inner: the store that does the work.
        plan: what is counted, and what happens when.
        action: called instead of the plan's action.

    Attributes:
        operations: `(kind, key)` of each operation that counted in this object.
    """

    def __init__(self, inner: BlobStore, plan: FaultPlan, action: Callable[[], None] | None = None) -> None:
        self.inner = inner
        self.plan = plan
        self.operations: list[tuple[str, str]] = []
        self._action = action or functools.partial(perform, plan)
        if "rename" in plan.kinds and isinstance(inner, LocalStore):
            inner.before_publish = self._at_rename

    @property
    def uri(self) -> str:
        """Address of the inner store."""
        return self.inner.uri

    def get(self, key: str) -> bytes:
        """See `BlobStore.get`."""
        with self._counted("get", key):
            return self.inner.get(key)

    def get_versioned(self, key: str) -> VersionedBlob:
        """See `BlobStore.get_versioned`."""
        with self._counted("get", key):
            return self.inner.get_versioned(key)

    def get_range(self, key: str, start: int, length: int) -> bytes:
        """See `BlobStore.get_range`."""
        with self._counted("get", key):
            return self.inner.get_range(key, start, length)

    def exists(self, key: str) -> bool:
        """See `BlobStore.exists`."""
        with self._counted("exists", key):
            return self.inner.exists(key)

    def put(self, key: str, data: bytes) -> None:
        """See `BlobStore.put`."""
        with self._counted("put", key):
            self.inner.put(key, data)

    def put_if_absent(self, key: str, data: bytes) -> bool:
        """See `BlobStore.put_if_absent`."""
        with self._counted("put_if_absent", key):
            return self.inner.put_if_absent(key, data)

    def swap(self, key: str, data: bytes, expected: str | None) -> str:
        """See `BlobStore.swap`."""
        with self._counted("swap", key):
            return self.inner.swap(key, data, expected)

    def list(self, prefix: str) -> Iterator[str]:
        """See `BlobStore.list`."""
        with self._counted("list", prefix):
            return self.inner.list(prefix)

    def delete(self, key: str) -> None:
        """See `BlobStore.delete`."""
        with self._counted("delete", key):
            self.inner.delete(key)

    @contextmanager
    def _counted(self, kind: Kind, key: str) -> Iterator[None]:
        chosen = self._is_nth(kind, key)
        if chosen and self.plan.when == "before":
            self._action()
        yield
        if chosen and self.plan.when == "after":
            self._action()

    def _at_rename(self, key: str) -> None:
        if self._is_nth("rename", key):
            self._action()

    def _is_nth(self, kind: Kind, key: str) -> bool:
        """Count the operation, if the plan chooses it; whether it is the n-th."""
        if kind not in self.plan.kinds or not re.search(self.plan.key, key):
            return False
        self.operations.append((kind, key))
        number = len(self.operations) if self.plan.counter is None else _count(self.plan.counter, f"{os.getpid()} {kind} {key}")
        return number == self.plan.nth


def perform(plan: FaultPlan) -> None:
    """Do the plan's action now.

    Raises:
        StoreUnavailable: the action is `raise`.
    """
    if plan.action == "raise":
        raise StoreUnavailable("a fault that the test asked for; try again")
    if plan.target == "group":
        os.killpg(os.getpgrp(), signal.SIGKILL)
    named = {"self": os.getpid, "parent": os.getppid}.get(plan.target)
    os.kill(named() if named else int(Path(plan.target).read_text()), signal.SIGKILL)


def install(folder: Path, plan: FaultPlan) -> dict[str, str]:
    """Prepare processes that meet the plan's fault.

    Args:
        folder: existing folder for the `sitecustomize` module.

    Returns:
        Environment variables to start them with.
    """
    (folder / "sitecustomize.py").write_text("from kfnas.testing.faults import arm_from_environment\n\narm_from_environment()\n")
    path = os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH")]))
    return {"PYTHONPATH": path, VARIABLE: canonical_json(plan)}


def arm_from_environment() -> None:
    """Make every store that this process opens from now on meet the fault that the environment describes, if it describes one."""
    text = os.environ.get(VARIABLE)
    if text:
        plan = parse(FaultPlan, json.loads(text), source=VARIABLE)
        opening.ADAPTERS.update({scheme: functools.partial(_open_faulty, adapter, plan) for scheme, adapter in opening.ADAPTERS.items()})


def count_operations(counter: Path) -> int:
    """How many operations the plan's counter file has seen."""
    return len(counter.read_text().splitlines()) if counter.exists() else 0


def _open_faulty(adapter: Callable[[str], BlobStore], plan: FaultPlan, uri: str) -> BlobStore:
    return FaultyStore(adapter(uri), plan)


def _count(counter: Path, line: str) -> int:
    """Append a line to the file; its number."""
    with counter.open("a+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        number = len(file.readlines()) + 1
        file.write(line + "\n")
        file.flush()
    return number
