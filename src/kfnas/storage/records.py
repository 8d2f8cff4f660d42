"""Small immutable JSON records: children, latencies, final results. Written once, verified whenever read.

A record's file holds the record, its key and its digest, so that a damaged file or one under another's name is noticed.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from kfnas.config import canonical_json, digest_of
from kfnas.errors import CorruptError, NotFound, StateVersionError, UserError
from kfnas.storage.blobs import BlobStore, check_key

FORMAT = 1

_SUFFIX = ".json"


def put_record(store: BlobStore, folder: str, key: str, record: Mapping[str, Any]) -> bool:
    """Write a record unless there is one under the key; whether it was written.

    Raises:
        UserError: the record holds what JSON cannot: NaN, an infinity, or an object of another type.
    """
    try:
        value = json.loads(canonical_json(dict(record)))
    except (ValueError, TypeError) as error:
        raise UserError(f"record {folder}/{key} is not JSON ({error}); leave non-finite numbers out and turn objects into plain values") from error
    body = {"format": FORMAT, "key": key, "digest": digest_of(value), "record": value}
    return store.put_if_absent(_path(folder, key), canonical_json(body).encode())


def get_record(store: BlobStore, folder: str, key: str) -> dict[str, Any] | None:
    """The record, or None where there is none.

    Raises:
        CorruptError: the file is damaged or holds another record.
        StateVersionError: a newer kfnas wrote it.
    """
    path = _path(folder, key)
    try:
        text = store.get(path)
    except NotFound:
        return None
    try:
        body = json.loads(text)
        if body["format"] > FORMAT:
            raise StateVersionError(f"{store.uri}: record {path!r} has format {body['format']} and this kfnas knows {FORMAT}; install a newer kfnas")
        if body["key"] != key or body["digest"] != digest_of(body["record"]):
            raise ValueError("digest or key differs")
        return dict(body["record"])
    except (ValueError, KeyError, TypeError) as error:
        raise CorruptError(f"{store.uri}: record {path!r} is damaged ({error}); delete it, and it is made again") from error


def list_records(store: BlobStore, folder: str) -> Iterator[str]:
    """Sorted keys of the folder's records."""
    start = f"{folder}/"
    return (path.removeprefix(start).removesuffix(_SUFFIX) for path in store.list(start) if path.endswith(_SUFFIX) and "/" not in path.removeprefix(start))


def delete_record(store: BlobStore, folder: str, key: str) -> None:
    """Remove a record; an absent one is fine."""
    store.delete(_path(folder, key))


def _path(folder: str, key: str) -> str:
    return check_key(f"{folder}/{key}{_SUFFIX}")
