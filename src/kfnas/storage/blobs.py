"""The port: a store of named byte strings with two conditional writes, and nothing that knows what the bytes mean.

Everything that must survive (heads, snapshots, records, data) stands on two promises that every adapter keeps:

- a blob is whole or absent: no reader and no crash ever sees a part of one;
- `put_if_absent` and `swap` decide in one place and at once: of several writers on a key, in any number of processes, exactly one wins.

A version names content, as an S3 ETag does: a blob that returns to its earlier bytes has its earlier version again.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple, Protocol

from kfnas.errors import UserError

RESERVED = ".kfnas"
"""First segment of an adapter's own files (locks, unfinished writes, probes); no key begins with a dot."""

_SEGMENT = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._=+@-]{0,199}", re.ASCII)
_PREFIX = re.compile(r"[A-Za-z0-9._=+@/-]*", re.ASCII)
_MAX_KEY = 900


class VersionedBlob(NamedTuple):
    """A blob and the version that `swap` expects."""

    data: bytes
    version: str


class BlobStore(Protocol):
    """Named byte strings. A key is a relative path such as `searches/demo/HEAD`; see `check_key`.

    A key is never the folder of another one (`a` beside `a/b`): adapters may refuse it.

    Any method raises `StoreUnavailable` when the store does not answer, `AccessDenied` when it refuses the credentials, `UserError` for an
    unfit key; writing also raises `StorageFull`, and then what was there before is unchanged.
    """

    @property
    def uri(self) -> str:
        """What `open_store` opens to reach the same blobs."""
        ...

    def get(self, key: str) -> bytes:
        """The blob's bytes.

        Raises:
            NotFound: there is none.
        """
        ...

    def get_versioned(self, key: str) -> VersionedBlob:
        """The blob's bytes and their version.

        Raises:
            NotFound: there is none.
        """
        ...

    def get_range(self, key: str, start: int, length: int) -> bytes:
        """The blob's bytes from offset `start`, at most `length` of them: fewer where the blob ends earlier, none beyond its end.

        Raises:
            NotFound: there is no such blob.
            UserError: `start` is negative, or `length` is not positive.
        """
        ...

    def exists(self, key: str) -> bool:
        """Whether the blob is there."""
        ...

    def put(self, key: str, data: bytes) -> None:
        """Write a blob, whether or not there is one."""
        ...

    def put_if_absent(self, key: str, data: bytes) -> bool:
        """Write a blob where there is none; False, and nothing written, where there is one."""
        ...

    def swap(self, key: str, data: bytes, expected: str | None) -> str:
        """Replace the blob whose version is `expected` (None: there is no blob yet); the new version.

        Raises:
            PreconditionFailed: the blob is another one by now, or is gone, or (for None) is there; nothing was written.
        """
        ...

    def list(self, prefix: str) -> Iterator[str]:
        """Keys that start with the text `prefix` ("" lists all), sorted by code point."""
        ...

    def delete(self, key: str) -> None:
        """Remove a blob; an absent one is fine."""
        ...


def check_key(key: str) -> str:
    """`key`, if it may name a blob on every adapter.

    Segments between slashes are 1 to 200 of `A-Z a-z 0-9 . _ = + @ -` and begin with a letter, a digit or an underscore, so none is empty,
    `.`, `..` or hidden; a key has at most 900 characters.

    Raises:
        UserError: it may not.
    """
    if not is_key(key):
        raise UserError(
            f"blob key {key!r} is not allowed; use segments of A-Z a-z 0-9 . _ = + @ - that begin with a letter, digit or underscore, joined by single slashes"
        )
    return key


def check_range(key: str, start: int, length: int) -> None:
    """Refuse a range that is none.

    Raises:
        UserError: `start` is negative, or `length` is not positive.
    """
    if start < 0 or length < 1:
        raise UserError(f"blob {key!r}: no range of {length} bytes from offset {start}; give an offset of 0 or more and a length of 1 or more")


def is_key(text: str) -> bool:
    """Whether `text` may name a blob; see `check_key`."""
    return len(text) <= _MAX_KEY and all(_SEGMENT.fullmatch(segment) for segment in text.split("/"))


def is_name(text: str) -> bool:
    """Whether `text` is one segment of a key: a plain file name."""
    return _SEGMENT.fullmatch(text) is not None


def check_prefix(prefix: str) -> str:
    """`prefix`, if some key may start with it.

    Raises:
        UserError: none may.
    """
    folders = prefix.split("/")[:-1]
    if not _PREFIX.fullmatch(prefix) or not all(_SEGMENT.fullmatch(segment) for segment in folders):
        raise UserError(f"blob prefix {prefix!r} is not allowed; give the beginning of a key, or '' for all")
    return prefix
