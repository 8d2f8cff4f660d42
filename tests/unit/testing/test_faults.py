"""The faults that other tests build on happen where and when they are asked for."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from kfnas.errors import StoreUnavailable
from kfnas.storage import LocalStore, MemoryStore, open_store
from kfnas.testing.faults import FaultPlan, FaultyStore, count_operations, install

WRITES = "import sys; from kfnas.storage import open_store; s = open_store(sys.argv[1]); [s.put(f'{sys.argv[2]}{n}', b'x') for n in range(3)]; print('done')"


def run(folder: Path, environment: dict[str, str], name: str = "k") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", WRITES, str(folder / "store"), name]
    return subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, check=False, start_new_session=True)


@pytest.mark.parametrize(("when", "expected"), [("before", False), ("after", True)])
def test_the_nth_write_fails_before_or_after_its_effect(when: str, expected: bool) -> None:
    store = FaultyStore(MemoryStore(), FaultPlan(nth=3, when=when, action="raise"))  # type: ignore[arg-type]
    store.put("a", b"")
    store.get("a")
    store.put_if_absent("b", b"")
    with pytest.raises(StoreUnavailable, match="asked for"):
        store.swap("c", b"", None)
    assert store.exists("c") is expected
    store.put("d", b"")
    assert store.operations == [("put", "a"), ("put_if_absent", "b"), ("swap", "c"), ("put", "d")]


def test_only_chosen_kinds_and_keys_count() -> None:
    store = FaultyStore(MemoryStore(), FaultPlan(nth=1, kinds=("put",), key="HEAD$", action="raise"))
    store.put("searches/a", b"")
    store.swap("searches/HEAD", b"", None)
    with pytest.raises(StoreUnavailable):
        store.put("searches/HEAD", b"")


def test_an_action_of_ones_own_is_called() -> None:
    called: list[int] = []
    store = FaultyStore(MemoryStore(), FaultPlan(nth=1), action=lambda: called.append(1))
    store.put("a", b"")
    assert called == [1]
    assert store.exists("a")


def test_the_instant_before_a_rename_can_be_met(tmp_path: Path) -> None:
    store = FaultyStore(LocalStore(tmp_path), FaultPlan(nth=2, kinds=("rename",), action="raise"))
    store.put("a", b"old")
    with pytest.raises(StoreUnavailable):
        store.put("a", b"new")
    assert store.get("a") == b"old"


def test_a_process_is_killed_at_the_chosen_operation(tmp_path: Path) -> None:
    for nth, when, survivors in [(1, "before", []), (2, "before", ["k0"]), (2, "after", ["k0", "k1"])]:
        folder = tmp_path / f"{nth}-{when}"
        folder.mkdir()
        finished = run(folder, install(folder, FaultPlan(nth=nth, when=when)))  # type: ignore[arg-type]
        assert (finished.returncode, finished.stdout) == (-signal.SIGKILL, "")
        assert list(open_store(str(folder / "store")).list("")) == survivors


def test_operations_are_counted_over_processes_and_the_fault_happens_once(tmp_path: Path) -> None:
    counter = tmp_path / "operations"
    environment = install(tmp_path, FaultPlan(nth=5, kinds=("rename",), counter=counter))
    assert run(tmp_path, environment, "a").stdout == "done\n"
    assert run(tmp_path, environment, "b").returncode == -signal.SIGKILL
    assert run(tmp_path, environment, "c").stdout == "done\n"
    assert count_operations(counter) == 8
    assert list(open_store(str(tmp_path / "store")).list("")) == ["a0", "a1", "a2", "b0", "c0", "c1", "c2"]


def test_a_dry_run_counts_only(tmp_path: Path) -> None:
    counter = tmp_path / "operations"
    assert run(tmp_path, install(tmp_path, FaultPlan(counter=counter))).stdout == "done\n"
    assert [line.split()[1:] for line in counter.read_text().splitlines()] == [["put", "k0"], ["put", "k1"], ["put", "k2"]]


def test_another_process_can_be_the_target(tmp_path: Path) -> None:
    with subprocess.Popen(["sleep", "600"]) as victim:
        (tmp_path / "pid").write_text(str(victim.pid))
        finished = run(tmp_path, install(tmp_path, FaultPlan(nth=2, target=str(tmp_path / "pid"))))
        assert finished.stdout == "done\n"
        assert victim.wait(10) == -signal.SIGKILL


@pytest.mark.parametrize("target", ["group", "self"])
def test_the_group_or_the_process_alone_is_killed(tmp_path: Path, target: str) -> None:
    environment = install(tmp_path, FaultPlan(nth=2, target=target))
    shell = f'{sys.executable} -c "{WRITES}" {tmp_path / "store"} k; echo survived'
    finished = subprocess.run(["sh", "-c", shell], env={**os.environ, **environment}, capture_output=True, text=True, check=False, start_new_session=True)
    assert ("survived" in finished.stdout) is (target == "self")


def test_without_the_variable_nothing_is_armed(tmp_path: Path) -> None:
    environment = install(tmp_path, FaultPlan(nth=1))
    assert run(tmp_path, {"PYTHONPATH": environment["PYTHONPATH"]}).stdout == "done\n"


def test_production_code_never_imports_the_faults() -> None:
    code = "import sys, kfnas.storage; assert not [name for name in sys.modules if name.startswith('kfnas.testing')]"
    subprocess.run([sys.executable, "-c", code], check=True)
