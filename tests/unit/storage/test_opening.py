"""`open_store` chooses the adapter by the address and by nothing else."""

import subprocess
import sys
from pathlib import Path

import pytest

from kfnas.errors import UserError
from kfnas.storage import LocalStore, MemoryStore, open_store


def test_a_path_opens_a_folder(tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "a b#c"))
    assert isinstance(store, LocalStore)
    store.put("key", b"x")
    assert (tmp_path / "a b#c" / "key").read_bytes() == b"x"
    assert open_store(store.uri).get("key") == b"x"


def test_a_relative_path_is_of_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert open_store("runs/store").uri == (tmp_path / "runs" / "store").as_uri()


def test_a_tilde_is_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert open_store("~/store").uri == (tmp_path / "store").as_uri()


def test_a_named_memory_store_is_the_same_one_again() -> None:
    open_store("memory://one").put("a", b"x")
    assert isinstance(open_store("memory://one"), MemoryStore)
    assert open_store("memory://one").get("a") == b"x"
    assert not open_store("memory://two").exists("a")


@pytest.mark.parametrize(
    "uri", ["", "gs://bucket/x", "http://host/x", "file://host/x", "file://", "file:///x?y=1", "s3://", "s3:///prefix", "s3://bucket/../x"]
)
def test_an_unknown_address_is_refused_with_the_known_ones(uri: str) -> None:
    with pytest.raises(UserError, match=r"s3://bucket/prefix|file:///folder"):
        open_store(uri)


def test_local_stores_import_neither_boto3_nor_torch(tmp_path: Path) -> None:
    code = f"import sys, kfnas.storage as s; s.open_store({str(tmp_path)!r}); assert not {{'boto3', 'botocore', 'torch', 'numpy'}} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
