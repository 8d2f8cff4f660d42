"""`kfnas pool` on a store with two damaged and mended pools."""

from pathlib import Path

import numpy as np
import pytest

from kfnas.pool import Pool, PoolEntry
from kfnas.storage import LocalStore
from kfnas_pipelines.cli import main


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    store = LocalStore(tmp_path / "store")
    for number in range(3):
        embedding = np.eye(4, dtype=np.float32)[number]
        entry = PoolEntry(0, (number,), embedding, {"0.w": np.full(100, number, dtype=np.float32)}, f"child-{number}", 50, task="flowers")
        Pool(store, "shared").push([entry], space="5" * 64, iterations=50)
    return store


def said(capsys: pytest.CaptureFixture[str], *arguments: object, status: int = 0) -> str:
    assert main(["pool", *map(str, arguments)]) == status
    captured = capsys.readouterr()
    assert "Traceback" not in captured.err
    return captured.out + captured.err


def test_inspect_says_what_a_pool_holds(store: LocalStore, capsys: pytest.CaptureFixture[str]) -> None:
    Pool(store, "shared").pin(2, "search-1", now=1_700_000_000.0, seconds=60)
    text = said(capsys, "inspect", store.root, "shared")
    assert "iterations  50" in text
    assert "entries     3, 0.0 MB, in 3 packs and 3 segments" in text
    assert "tasks       flowers: 3" in text
    assert "pinned      version 2 by search-1 until 2023-11-14 22:14 UTC" in text
    Pool(store, "shared").pin(2, "search-2", now=1_700_000_000.0, seconds=1e15)
    assert "pinned      version 2 by search-2 until 1e+15 seconds after 1970" in said(capsys, "inspect", store.root, "shared")
    assert "does not exist" in said(capsys, "inspect", store.root, "none", status=1)


def test_a_damaged_pool_is_found_and_mended_from_its_copy(store: LocalStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    copy = tmp_path / "copy"
    assert "3 entries added" in said(capsys, "sync", store.root, "shared", copy, "--direction", "to")
    assert "no problems" in said(capsys, "verify", store.root, "shared")
    pack = next(store.list("pools/shared/packs/"))
    store.put(pack, store.get(pack)[:-1])
    assert "1 problems" in said(capsys, "verify", store.root, "shared", status=1)
    assert "no problems" in said(capsys, "verify", store.root, "shared", "--quick")
    assert "2 entries" in said(capsys, "compact", store.root, "shared")
    text = said(capsys, "sync", store.root, "shared", copy)
    assert "0 entries added" in text
    assert "1 entries added" in text
    assert "kept versions: 5; 4 forgotten" in said(capsys, "prune", store.root, "shared", "--grace-hours", "0")
    assert "no problems" in said(capsys, "verify", store.root, "shared")
    assert len(Pool(store, "shared").at()) == 3


def test_wrong_arguments_are_refused(store: LocalStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "give 0 or more" in said(capsys, "prune", store.root, "shared", "--grace-hours", "-1", status=2)
    assert "holds nothing to copy" in said(capsys, "sync", store.root, "none", tmp_path / "copy", status=1)
    assert "ftp" in said(capsys, "inspect", "ftp://host/x", "shared", status=2)
