"""Whether the holder of a search lives: asked of real processes."""

import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from kfnas.errors import SearchBusy, StaleFence
from kfnas.storage import LocalStore, Owner, Pointer, SearchStore

NOW = 1_700_000_000.0

HOLDER = textwrap.dedent(
    """
    import sys, time
    from kfnas.storage import LocalStore, Owner, SearchStore

    def initial(folder):
        (folder / "state.json").write_text("initial")

    search = SearchStore(LocalStore(sys.argv[1]), "demo")
    search.claim(Owner.of_process("holder"), "digest", initial, now=float(sys.argv[2]))
    print("held", flush=True)
    time.sleep(600)
    """
)


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A living process that holds the search."""
    with subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path / "store"), str(NOW)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        yield process
        process.kill()


def claim(tmp_path: Path, now: float = NOW + 1) -> Pointer:
    search = SearchStore(LocalStore(tmp_path / "store"), "demo")
    return search.claim(Owner.of_process("heir"), "digest", lambda folder: None, now=now)


def test_a_live_process_keeps_its_search(holder: subprocess.Popen[bytes], tmp_path: Path) -> None:
    with pytest.raises(SearchBusy, match=rf"run 'holder' \(process {holder.pid} on host .*\) since 2023-11-14 22:13:20 UTC.*stop it, or take"):
        claim(tmp_path)


def test_a_killed_process_loses_its_search_at_once(holder: subprocess.Popen[bytes], tmp_path: Path) -> None:
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert claim(tmp_path).fence == 2


def test_a_killed_process_that_nobody_reaped_loses_its_search_too(holder: subprocess.Popen[bytes], tmp_path: Path) -> None:
    os.kill(holder.pid, signal.SIGKILL)
    os.waitid(os.P_PID, holder.pid, os.WEXITED | os.WNOWAIT)
    assert claim(tmp_path).fence == 2


def test_a_live_process_whose_lease_ended_loses_its_search(holder: subprocess.Popen[bytes], tmp_path: Path) -> None:
    assert claim(tmp_path, now=NOW + 120).fence == 2
    with pytest.raises(StaleFence):
        SearchStore(LocalStore(tmp_path / "store"), "demo").renew("holder", now=NOW + 121)


def test_this_process_is_not_gone() -> None:
    owner = Owner.of_process("run")
    assert owner.pid == os.getpid()
    assert not owner.is_gone()


def test_a_process_can_be_named_by_its_id(holder: subprocess.Popen[bytes]) -> None:
    owner = Owner.of_process("run", holder.pid)
    assert not owner.is_gone()
    holder.kill()
    holder.wait()
    assert owner.is_gone()


def test_a_process_id_that_was_given_to_another_process_is_gone() -> None:
    assert Owner.of_process("run").model_copy(update={"pid_start": "1"}).is_gone()


@pytest.mark.parametrize("field", ["host", "boot_id", "pid_namespace"])
def test_a_process_elsewhere_is_never_known_to_be_gone(field: str) -> None:
    here = Owner.of_process("run").model_copy(update={"pid_start": "1"})
    assert not here.model_copy(update={field: "another"}).is_gone()


def test_a_run_without_a_process_is_never_known_to_be_gone() -> None:
    assert not Owner.of_run("run").is_gone()


def test_an_owner_goes_through_json() -> None:
    owner = Owner.of_process("run")
    assert Owner.model_validate_json(owner.model_dump_json()) == owner
