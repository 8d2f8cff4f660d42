"""Folders as content-addressed snapshots."""

import hashlib
import json
from pathlib import Path

import pytest

from kfnas.errors import CorruptError, NotFound, StateVersionError, UserError
from kfnas.storage import LocalStore, MemoryStore, get_blob, get_directory, put_blob, put_directory, read_manifest


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    for name in ("mini_train.safetensors", "test.safetensors", "meta.json"):
        (folder / name).write_bytes(name.encode() * 10)
    return folder


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def put_manifest(store: MemoryStore, manifest: object) -> str:
    """A manifest with a right digest, whatever it says."""
    text = json.dumps(manifest).encode()
    digest = hashlib.sha256(text).hexdigest()
    store.put(f"data/snapshots/{digest}.json", text)
    return digest


def test_a_folder_comes_back(data: Path, tmp_path: Path) -> None:
    store = MemoryStore()
    digest = put_directory(store, "data", data, {"name": "fashion"})
    manifest = get_directory(store, "data", digest, tmp_path / "out" / "deep")
    assert names(tmp_path / "out" / "deep") == names(data) == sorted(manifest.files)
    assert manifest.facts == {"name": "fashion"}
    for path in data.iterdir():
        assert (tmp_path / "out" / "deep" / path.name).read_bytes() == path.read_bytes()


def test_the_digest_goes_by_content_names_and_facts(data: Path) -> None:
    store = MemoryStore()
    digest = put_directory(store, "data", data)
    assert put_directory(MemoryStore(), "elsewhere", data) == digest
    assert put_directory(store, "data", data, {"a": 1}) != digest
    (data / "meta.json").write_text("other")
    assert put_directory(store, "data", data) != digest


def test_only_the_wanted_files_are_read(data: Path, tmp_path: Path) -> None:
    store = MemoryStore()
    digest = put_directory(store, "data", data)
    store.delete(f"data/blobs/{read_manifest(store, 'data', digest).files['test.safetensors'].sha256}")
    get_directory(store, "data", digest, tmp_path / "out", only={"mini_train.safetensors", "meta.json"})
    assert names(tmp_path / "out") == ["meta.json", "mini_train.safetensors"]
    with pytest.raises(CorruptError, match=r"test\.safetensors' is missing"):
        get_directory(store, "data", digest, tmp_path / "out")


def test_an_unknown_wanted_file_is_named(data: Path, tmp_path: Path) -> None:
    store = MemoryStore()
    digest = put_directory(store, "data", data)
    with pytest.raises(NotFound, match=r"has no none\.bin; it has meta\.json, "):
        get_directory(store, "data", digest, tmp_path / "out", only={"none.bin"})


@pytest.mark.parametrize("name", ["../escaped", "/escaped", "a/b", "..", ".", ".hidden", "", "a\\b", "a\x00b"])
def test_a_snapshot_cannot_write_outside_its_folder(tmp_path: Path, name: str) -> None:
    store = MemoryStore()
    entry = {"sha256": put_blob(store, "data", b"x"), "size": 1}
    digest = put_manifest(store, {"format": 1, "files": {name: entry}, "facts": {}})
    with pytest.raises(CorruptError, match="not plain"):
        get_directory(store, "data", digest, tmp_path / "out")
    assert names(tmp_path) == []


@pytest.mark.parametrize("sha256", ["../../HEAD", "", "0" * 63, "G" * 64])
def test_a_blob_is_named_by_a_digest_only(tmp_path: Path, sha256: str) -> None:
    store = MemoryStore()
    digest = put_manifest(store, {"format": 1, "files": {"a": {"sha256": sha256, "size": 1}}, "facts": {}})
    with pytest.raises(CorruptError, match="no sha256"):
        get_directory(store, "data", digest, tmp_path / "out")
    with pytest.raises(CorruptError, match="no sha256"):
        read_manifest(store, "data", sha256)


@pytest.mark.parametrize("manifest", [[], {}, {"format": 1}, {"format": 1, "files": {"a": 3}}, {"format": 1, "files": {}, "more": 1}])
def test_a_manifest_of_another_shape_is_refused(tmp_path: Path, manifest: object) -> None:
    store = MemoryStore()
    with pytest.raises(CorruptError, match="its manifest is none"):
        get_directory(store, "data", put_manifest(store, manifest), tmp_path / "out")


def test_a_manifest_of_a_newer_format_is_refused(tmp_path: Path) -> None:
    store = MemoryStore()
    with pytest.raises(StateVersionError, match="format 2 and this kfnas knows 1; install a newer kfnas"):
        get_directory(store, "data", put_manifest(store, {"format": 2, "files": [], "news": 1}), tmp_path / "out")


def test_folders_links_and_hidden_files_are_refused(data: Path) -> None:
    for make in (lambda path: path.mkdir(), lambda path: path.symlink_to(data / "meta.json")):
        odd = data / "odd"
        make(odd)
        with pytest.raises(UserError, match="odd: a snapshot takes plain files"):
            put_directory(MemoryStore(), "data", data)
        odd.unlink() if odd.is_symlink() else odd.rmdir()
    (data / ".hidden").write_text("")
    with pytest.raises(UserError, match=r"\.hidden: a snapshot takes plain files"):
        put_directory(MemoryStore(), "data", data)
    with pytest.raises(UserError, match="no such folder"):
        put_directory(MemoryStore(), "data", data / "none")


def test_linked_files_share_the_bytes_of_a_local_store(data: Path, tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "store")
    digest = put_directory(store, "data", data)
    manifest = get_directory(store, "data", digest, tmp_path / "linked", link=True)
    get_directory(store, "data", digest, tmp_path / "copied")
    for name, entry in manifest.files.items():
        blob = store.path(f"data/blobs/{entry.sha256}")
        assert (tmp_path / "linked" / name).samefile(blob)
        assert not (tmp_path / "copied" / name).samefile(blob)


def test_reading_over_a_linked_file_leaves_the_store_alone(data: Path, tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "store")
    first = put_directory(store, "data", data)
    get_directory(store, "data", first, tmp_path / "out", link=True)
    (data / "meta.json").write_text("other")
    get_directory(store, "data", put_directory(store, "data", data), tmp_path / "out")
    assert (tmp_path / "out" / "meta.json").read_text() == "other"
    get_directory(store, "data", first, tmp_path / "again")
    assert (tmp_path / "again" / "meta.json").read_bytes() == b"meta.json" * 10


def test_a_damaged_blob_is_refused_even_where_it_would_be_linked(data: Path, tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "store")
    digest = put_directory(store, "data", data)
    entry = read_manifest(store, "data", digest).files["meta.json"]
    store.put(f"data/blobs/{entry.sha256}", b"damaged")
    with pytest.raises(CorruptError, match="differ from their digest"):
        get_directory(store, "data", digest, tmp_path / "out", link=True)
    assert not (tmp_path / "out" / "meta.json").exists()


def test_blobs_are_named_by_their_bytes() -> None:
    store = MemoryStore()
    digest = put_blob(store, "data", b"x")
    assert digest == hashlib.sha256(b"x").hexdigest()
    assert put_blob(store, "data", b"x") == digest
    assert get_blob(store, "data", digest) == b"x"
    with pytest.raises(NotFound):
        get_blob(store, "data", "0" * 64)
