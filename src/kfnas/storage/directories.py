"""Folders of plain files as immutable, content-addressed snapshots: search states and prepared data.

    <prefix>/blobs/<sha256>                a file's bytes
    <prefix>/snapshots/<digest>.json       a manifest: file names, digests, sizes, and facts about the whole; its own sha256 is the
    snapshot's digest

Blobs are written before the manifest that names them, so a manifest that exists is complete. Equal files of many snapshots are stored once.
Reading verifies every digest before a byte reaches the folder, and takes plain file names only: no snapshot can write outside of it.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from pydantic import Field

from kfnas.config import Config, canonical_json, parse
from kfnas.errors import ConfigError, CorruptError, NotFound, StateVersionError, UserError
from kfnas.storage.blobs import BlobStore, is_name
from kfnas.storage.local import LocalStore

FORMAT = 1

_SHA256 = re.compile(r"[0-9a-f]{64}")


class FileEntry(Config):
    """A file of a snapshot.

    Attributes:
        sha256: digest of its bytes, hex.
        size: number of bytes.
    """

    sha256: str
    size: int


class Manifest(Config):
    """What a snapshot holds.

    Attributes:
        format: version of this format.
        files: its files by name.
        facts: JSON values about the whole, part of its digest.
    """

    format: int = FORMAT
    files: dict[str, FileEntry]
    facts: dict[str, Any] = Field(default_factory=dict)


def put_blob(store: BlobStore, prefix: str, data: bytes) -> str:
    """Store bytes under their own sha256, which is returned (hex)."""
    digest = hashlib.sha256(data).hexdigest()
    store.put_if_absent(_blob_key(prefix, digest), data)
    return digest


def get_blob(store: BlobStore, prefix: str, digest: str) -> bytes:
    """The bytes whose sha256 is `digest`.

    Raises:
        NotFound: the store has no such blob.
        CorruptError: the stored bytes have another digest, or `digest` is none.
    """
    data = store.get(_blob_key(prefix, digest))
    if hashlib.sha256(data).hexdigest() != digest:
        raise CorruptError(f"{store.uri}: the bytes of blob {digest} differ from their digest; delete it and write it again, or restore it from a copy")
    return data


def put_directory(store: BlobStore, prefix: str, directory: Path, facts: Mapping[str, Any] | None = None) -> str:
    """Store a folder's files as a snapshot; its digest. Equal files and facts give the same digest, and writing twice is harmless.

    Args:
        prefix: where in the store, such as "data".
        facts: JSON values kept in the manifest.

    Raises:
        UserError: the folder is missing, or holds anything but plain files with plain names.
    """
    files = {path.name: _put_file(store, prefix, path) for path in _plain_files(directory)}
    manifest = canonical_json(Manifest(files=files, facts=dict(facts or {}))).encode()
    digest = hashlib.sha256(manifest).hexdigest()
    store.put_if_absent(_manifest_key(prefix, digest), manifest)
    return digest


def read_manifest(store: BlobStore, prefix: str, digest: str) -> Manifest:
    """What the snapshot holds.

    Raises:
        NotFound: there is no such snapshot.
        CorruptError: its manifest is damaged, or names a file outside of a folder.
        StateVersionError: a newer kfnas wrote it.
    """
    text = store.get(_manifest_key(prefix, digest))
    what = f"{store.uri}: snapshot {digest}"
    if hashlib.sha256(text).hexdigest() != digest:
        raise CorruptError(f"{what}: its manifest differs from its digest; use an earlier snapshot or a copy")
    return _parsed_manifest(what, text)


def get_directory(store: BlobStore, prefix: str, digest: str, directory: Path, *, only: Collection[str] | None = None, link: bool = False) -> Manifest:
    """Write a snapshot's files into a folder (created if need be), each verified first.

    Args:
        only: names of the files wanted; None for all.
        link: let the files of a local store be hard links to its blobs, which saves the copy: for files that are only read afterwards.

    Returns:
        The whole manifest, whichever files were wanted.

    Raises:
        NotFound: there is no such snapshot, or no such file in it.
        CorruptError: a digest does not match, a blob is missing, or the manifest is damaged; the file concerned is not written.
    """
    manifest = read_manifest(store, prefix, digest)
    unknown = sorted(set(only or ()) - set(manifest.files))
    if unknown:
        raise NotFound(f"{store.uri}: snapshot {digest} has no {', '.join(unknown)}; it has {', '.join(sorted(manifest.files)) or 'no files'}")
    directory.mkdir(parents=True, exist_ok=True)
    for name in sorted(manifest.files if only is None else set(only)):
        _get_file(store, prefix, manifest.files[name], directory / name, link)
    return manifest


def _plain_files(directory: Path) -> list[Path]:
    if not directory.is_dir():
        raise UserError(f"{directory}: no such folder to store; give one with files")
    paths = sorted(directory.iterdir())
    for path in paths:
        if not path.is_file() or path.is_symlink() or not is_name(path.name):
            raise UserError(f"{path}: a snapshot takes plain files named with A-Z a-z 0-9 . _ = + @ - only; remove or rename it")
    return paths


def _put_file(store: BlobStore, prefix: str, path: Path) -> FileEntry:
    data = path.read_bytes()
    digest = hashlib.sha256(data).hexdigest()
    key = _blob_key(prefix, digest)
    if not store.exists(key):
        store.put_if_absent(key, data)
    return FileEntry(sha256=digest, size=len(data))


def _get_file(store: BlobStore, prefix: str, entry: FileEntry, path: Path, link: bool) -> None:
    try:
        data = get_blob(store, prefix, entry.sha256)
    except NotFound:
        raise CorruptError(
            f"{store.uri}: blob {entry.sha256} of file {path.name!r} is missing; use an earlier snapshot or restore the blob from a copy"
        ) from None
    path.unlink(missing_ok=True)  # never write through what may be a link to another blob
    if link and isinstance(store, LocalStore) and _linked(store.path(_blob_key(prefix, entry.sha256)), path):
        return
    path.write_bytes(data)


def _linked(source: Path, target: Path) -> bool:
    try:
        target.hardlink_to(source)
    except OSError:  # another file system, or one without hard links
        return False
    return True


def _parsed_manifest(what: str, text: bytes) -> Manifest:
    try:
        value = json.loads(text)
        if isinstance(value, dict) and isinstance(value.get("format"), int) and value["format"] > FORMAT:
            raise StateVersionError(f"{what} has format {value['format']} and this kfnas knows {FORMAT}; install a newer kfnas")
        manifest = parse(Manifest, value)
    except (ValueError, ConfigError) as error:
        raise CorruptError(f"{what}: its manifest is none ({error}); use an earlier snapshot or a copy") from error
    unfit = sorted(name for name in manifest.files if not is_name(name))
    if unfit:
        raise CorruptError(f"{what}: names files that are not plain ({', '.join(map(repr, unfit))}); nothing of it is read")
    return manifest


def _blob_key(prefix: str, digest: str) -> str:
    return f"{prefix}/blobs/{_checked(digest)}"


def _manifest_key(prefix: str, digest: str) -> str:
    return f"{prefix}/snapshots/{_checked(digest)}.json"


def _checked(digest: str) -> str:
    if not _SHA256.fullmatch(digest):
        raise CorruptError(f"{digest!r} is no sha256 in hex; the pointer or record that holds it is damaged")
    return digest
