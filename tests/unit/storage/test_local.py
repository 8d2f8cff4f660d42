"""The local adapter under the faults of a real machine: full disks, killed writers, folders that are not what they should be."""

import os
import resource
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from kfnas.errors import AccessDenied, NotFound, StorageFull, UserError
from kfnas.storage import LocalStore

KIB = 1024


def temporary_files(store: LocalStore) -> list[Path]:
    return sorted((store.root / ".kfnas" / "tmp").iterdir())


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 KiB; where mounting is not permitted, the tests that need it are skipped (the limit on file sizes below stands for it)."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)], capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip(f"mounting is not permitted here: {mounted.stderr.decode().strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.parametrize("write", ["put", "put_if_absent", "swap"])
def test_a_full_disk_leaves_the_previous_blob_whole(small_disk: Path, write: str) -> None:
    store = LocalStore(small_disk)
    old = os.urandom(100 * KIB)
    version = store.swap("state", old, None)
    calls = {
        "put": lambda: store.put("state", bytes(200 * KIB)),
        "put_if_absent": lambda: store.put_if_absent("another", bytes(200 * KIB)),
        "swap": lambda: store.swap("state", bytes(200 * KIB), version),
    }
    with pytest.raises(StorageFull, match=r"No space left on device; free some room .* unchanged"):
        calls[write]()
    assert store.get_versioned("state") == (old, version)
    assert list(store.list("")) == ["state"]
    assert temporary_files(store) == []
    store.swap("state", b"small", version)
    assert store.get("state") == b"small"


def test_a_limit_on_file_sizes_leaves_the_previous_blob_whole(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    store.put("state", b"old")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (64 * KIB, limits[1]))
    try:
        with pytest.raises(StorageFull, match="File too large"):
            store.put("state", bytes(100 * KIB))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert store.get("state") == b"old"
    assert temporary_files(store) == []


WRITER = textwrap.dedent(
    """
    import sys
    from kfnas.storage import LocalStore

    store = LocalStore(sys.argv[1])
    number = 0
    while True:
        data = bytes([number % 251]) * 300_000
        store.put("put", data)
        store.put_if_absent(f"once/{sys.argv[2]}-{number}", data)
        current = store.get_versioned("swapped").version if store.exists("swapped") else None
        store.swap("swapped", data, current)
        number += 1
        print(number, flush=True)
    """
)


def test_killed_writers_leave_no_torn_blob(tmp_path: Path) -> None:
    num_kills = 12
    for kill in range(num_kills):
        with subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path / "store"), str(kill)], stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            process.stdout.readline()
            time.sleep(0.0037 * kill)
            process.send_signal(signal.SIGKILL)
        store = LocalStore(tmp_path / "store")
        for key in store.list(""):
            data = store.get(key)
            assert len(data) == 300_000
            assert len(set(data)) == 1
    store.put("after", b"x")
    assert temporary_files(store) == []


@pytest.mark.parametrize("write", ["put", "put_if_absent", "swap"])
def test_a_kill_before_the_rename_leaves_the_previous_blob(tmp_path: Path, write: str) -> None:
    store = LocalStore(tmp_path)
    store.put("put", b"old")
    version = store.swap("swap", b"old", None)
    child = os.fork()
    if child == 0:
        victim = LocalStore(tmp_path, before_publish=lambda key: os.kill(os.getpid(), signal.SIGKILL))
        {
            "put": lambda: victim.put("put", b"new"),
            "put_if_absent": lambda: victim.put_if_absent("put_if_absent", b"new"),
            "swap": lambda: victim.swap("swap", b"new", version),
        }[write]()
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    assert store.get("put") == b"old"
    assert store.get("swap") == b"old"
    assert not store.exists("put_if_absent")
    assert len(temporary_files(store)) == 1
    heir = LocalStore(tmp_path)
    heir.put(write, b"next")
    assert heir.get(write) == b"next"
    assert temporary_files(heir) == []


def test_an_unfinished_write_of_a_living_writer_is_not_removed(tmp_path: Path) -> None:
    def open_another(key: str) -> None:
        LocalStore(tmp_path).put("quick", b"y")  # a key with another lock file than "slow", which is held here

    LocalStore(tmp_path, before_publish=open_another).put("slow", b"x")
    assert LocalStore(tmp_path).get("slow") == b"x"


def test_nothing_is_created_by_reading(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "none")
    assert list(store.list("")) == []
    assert not store.exists("a")
    with pytest.raises(NotFound):
        store.get("a")
    store.delete("a")
    assert not (tmp_path / "none").exists()


def test_foreign_files_are_not_listed(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    store.put("a/b", b"x")
    for name in (".DS_Store", "a/.hidden", "with space"):
        (tmp_path / name).write_text("x")
    assert list(store.list("")) == ["a/b"]


def test_blobs_are_read_only_files(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    store.put("a", b"x")
    assert store.path("a").stat().st_mode & 0o222 == 0


def test_a_store_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match="is a file; give a folder"):
        LocalStore(tmp_path / "file").put("a", b"x")


def test_a_blob_below_a_blob_is_refused(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    store.put("a", b"x")
    with pytest.raises(UserError, match="another blob has the name of one of its folders"):
        store.put("a/b", b"y")
    store.put("folder/b", b"x")
    with pytest.raises(UserError, match="another blob has the name of one of its folders"):
        store.put("folder", b"y")
    assert not store.exists("a/b")
    assert not store.exists("folder")


@pytest.fixture
def forbidden_folder(tmp_path: Path) -> Iterator[Path]:
    """A folder with a blob that this process, for the time of the test, may not enter."""
    LocalStore(tmp_path / "store").put("a", b"x")
    tmp_path.chmod(0)
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    yield tmp_path / "store"
    os.seteuid(user)
    tmp_path.chmod(0o700)


def test_a_forbidden_folder_is_denied_and_not_taken_for_empty(forbidden_folder: Path) -> None:
    store = LocalStore(forbidden_folder)
    calls: list[Callable[[], object]] = [
        lambda: store.get("a"),
        lambda: store.exists("a"),
        lambda: store.put("a", b""),
        lambda: store.put_if_absent("a", b""),
        lambda: store.swap("a", b"", None),
        lambda: store.list(""),
        lambda: store.delete("a"),
    ]
    for call in calls:
        with pytest.raises(AccessDenied, match="Permission denied; give this user the right"):
            call()


def test_the_address_is_that_of_the_folder(tmp_path: Path) -> None:
    assert LocalStore(tmp_path / "a b").uri == (tmp_path / "a b").as_uri()
