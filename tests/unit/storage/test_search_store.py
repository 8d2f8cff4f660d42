"""A search in a local folder survives killed processes and a full disk."""

import os
import resource
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from kfnas.errors import StaleFence, StorageFull
from kfnas.storage import BlobStore, LocalStore, Owner, Pointer, SearchStore
from kfnas.testing.faults import FaultPlan, FaultyStore

NOW = 1_700_000_000.0


def write(folder: Path, text: str) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "state.json").write_text(text)
    (folder / "weights.bin").write_bytes(text.encode() * 1000)
    return folder


def claimed(store: BlobStore, run_id: str = "run") -> tuple[SearchStore, Pointer]:
    search = SearchStore(store, "demo")
    return search, search.claim(Owner.of_process(run_id), "digest", lambda folder: write(folder, "initial") and None, now=NOW)


def killed_in_child(work: Callable[[], object]) -> bool:
    """Whether `work`, in a process of its own, was killed before it ended."""
    child = os.fork()
    if child == 0:
        try:
            work()
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


def text_of(search: SearchStore, folder: Path) -> str:
    head = search.head()
    assert head is not None
    search.read_state(head.pointer(), folder)
    return (folder / "state.json").read_text()


def test_a_commit_killed_at_every_write_and_rename_leaves_a_whole_state_and_can_be_repeated(tmp_path: Path) -> None:
    num_kills = 0
    for kinds in (("put_if_absent", "swap"), ("rename",)):
        for when in ("before", "after") if "swap" in kinds else ("before",):
            for nth in range(1, 10):
                root = tmp_path / f"{kinds[0]}-{when}-{nth}"
                search, start = claimed(LocalStore(root))
                plan = FaultPlan(nth=nth, kinds=kinds, when=when)  # type: ignore[arg-type]
                victim = SearchStore(FaultyStore(LocalStore(root), plan), "demo")
                folder = write(tmp_path / "next", "next")
                if not killed_in_child(lambda victim=victim, start=start, folder=folder: victim.commit(start, folder, round=1)):  # type: ignore[misc]
                    break
                num_kills += 1
                assert text_of(search, tmp_path / "seen") in ("initial", "next")
                pointer = search.commit(start, folder, round=1)
                assert pointer.sequence == 1
                assert text_of(search, tmp_path / "seen") == "next"
    assert num_kills == 4 * 3  # two files, a manifest, the head


def test_a_claim_killed_at_every_write_can_be_repeated(tmp_path: Path) -> None:
    nth = 0
    for nth in range(1, 10):
        root = tmp_path / str(nth)
        victim = FaultyStore(LocalStore(root), FaultPlan(nth=nth, kinds=("rename",)))
        if not killed_in_child(lambda victim=victim: claimed(victim)):  # type: ignore[misc]
            break
        search, pointer = claimed(LocalStore(root), "next run")
        assert pointer.sequence == 0
        assert text_of(search, tmp_path / "seen") == "initial"
    assert nth == 5


def test_a_step_that_outlives_its_run_cannot_commit(tmp_path: Path) -> None:
    search, old = claimed(LocalStore(tmp_path / "store"))
    dead = Owner.of_process("run").model_copy(update={"pid_start": "1"})
    search.claim(dead, "digest", lambda folder: None, now=NOW)
    resumed = search.claim(Owner.of_process("resumed"), "digest", lambda folder: None, now=NOW + 1)
    assert resumed.fence == 2
    with pytest.raises(StaleFence):
        search.commit(old, write(tmp_path / "late", "late"), round=1)
    assert text_of(search, tmp_path / "seen") == "initial"


def test_a_full_disk_during_a_commit_loses_nothing(tmp_path: Path) -> None:
    search, start = claimed(LocalStore(tmp_path / "store"))
    folder = write(tmp_path / "next", "next")
    (folder / "weights.bin").write_bytes(os.urandom(100_000))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, limits[1]))
    try:
        with pytest.raises(StorageFull):
            search.commit(start, folder, round=1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert text_of(search, tmp_path / "seen") == "initial"
    assert search.commit(start, folder, round=1).sequence == 1
    assert text_of(search, tmp_path / "seen") == "next"
