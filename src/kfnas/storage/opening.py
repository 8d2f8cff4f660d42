"""`open_store`: the one place where an address chooses an adapter."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from urllib.parse import unquote, urlsplit

from kfnas.errors import UserError
from kfnas.storage.blobs import BlobStore, is_key

KNOWN = "a folder's path, file:///folder, memory://name or s3://bucket/prefix"


def open_store(uri: str) -> BlobStore:
    """Open the store at an address: a folder's path, `file:///folder`, `memory://name` or `s3://bucket/prefix`.

    A folder is created by its first write. For S3, boto3 takes endpoint, region and credentials from the environment (`AWS_ENDPOINT_URL`,
    `AWS_ACCESS_KEY_ID`, ...), and the store is asked at once whether it keeps conditional writes.

    Raises:
        UserError: the address is of no known kind, or its bucket does not exist.
        UnsupportedStore: the store does not keep conditional writes.
        StoreUnavailable: it does not answer.
        AccessDenied: it refuses the credentials.
    """
    scheme = uri.partition("://")[0].lower() if "://" in uri else ""
    adapter = ADAPTERS.get(scheme)
    if not uri or adapter is None:
        raise UserError(f"store {uri!r} is of no known kind; give {KNOWN}")
    return adapter(uri)


def _folder(uri: str) -> BlobStore:
    from kfnas.storage.local import LocalStore

    return LocalStore(Path(uri).expanduser())


def _file(uri: str) -> BlobStore:
    from kfnas.storage.local import LocalStore

    address = urlsplit(uri)
    if address.netloc not in ("", "localhost") or not address.path or address.query or address.fragment:
        raise UserError(f"store {uri!r} names no local folder; write file:///folder with three slashes")
    return LocalStore(Path(unquote(address.path)))


def _memory(uri: str) -> BlobStore:
    from kfnas.storage.memory import MemoryStore

    return MemoryStore.named(uri.partition("://")[2])


def _s3(uri: str) -> BlobStore:
    from kfnas.storage.s3 import S3Store

    bucket, _, prefix = uri.partition("://")[2].partition("/")
    prefix = prefix.strip("/")
    if not bucket or (prefix and not is_key(prefix)):
        raise UserError(f"store {uri!r} names no bucket, or an unfit prefix; write s3://bucket/prefix")
    return S3Store.open(bucket, prefix)


ADAPTERS: dict[str, Callable[[str], BlobStore]] = {"": _folder, "file": _file, "memory": _memory, "s3": _s3}
"""Adapter for each scheme ("" is a plain path); a new store is a row here and a file beside this one."""
