"""Blobs in this process's memory: for tests and for trying things out. Nothing outlives the process."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator

from kfnas.errors import NotFound, PreconditionFailed
from kfnas.storage.blobs import VersionedBlob, check_key, check_prefix, check_range

_named: dict[str, MemoryStore] = {}
_naming = threading.Lock()


class MemoryStore:
    """A `BlobStore` in a dictionary, safe among threads."""

    def __init__(self, name: str = "anonymous") -> None:
        self._name = name
        self._blobs: dict[str, bytes] = {}
        self._lock = threading.Lock()

    @classmethod
    def named(cls, name: str) -> MemoryStore:
        """The store of that name in this process: every call gives the same one."""
        with _naming:
            return _named.setdefault(name, cls(name))

    @property
    def uri(self) -> str:
        """Address within this process (of a store from `named`)."""
        return f"memory://{self._name}"

    def get(self, key: str) -> bytes:
        """See `BlobStore.get`."""
        try:
            return self._blobs[check_key(key)]
        except KeyError:
            raise NotFound(f"{self.uri}: no blob {key!r}") from None

    def get_versioned(self, key: str) -> VersionedBlob:
        """See `BlobStore.get_versioned`."""
        data = self.get(key)
        return VersionedBlob(data, _version(data))

    def get_range(self, key: str, start: int, length: int) -> bytes:
        """See `BlobStore.get_range`."""
        check_range(key, start, length)
        return self.get(key)[start : start + length]

    def exists(self, key: str) -> bool:
        """See `BlobStore.exists`."""
        return check_key(key) in self._blobs

    def put(self, key: str, data: bytes) -> None:
        """See `BlobStore.put`."""
        with self._lock:
            self._blobs[check_key(key)] = bytes(data)

    def put_if_absent(self, key: str, data: bytes) -> bool:
        """See `BlobStore.put_if_absent`."""
        check_key(key)
        with self._lock:
            if key in self._blobs:
                return False
            self._blobs[key] = bytes(data)
            return True

    def swap(self, key: str, data: bytes, expected: str | None) -> str:
        """See `BlobStore.swap`."""
        check_key(key)
        with self._lock:
            current = self._blobs.get(key)
            if (None if current is None else _version(current)) != expected:
                raise PreconditionFailed(f"{self.uri}: blob {key!r} is not of the expected version; read it again")
            self._blobs[key] = bytes(data)
            return _version(data)

    def list(self, prefix: str) -> Iterator[str]:
        """See `BlobStore.list`."""
        check_prefix(prefix)
        with self._lock:
            keys = sorted(key for key in self._blobs if key.startswith(prefix))
        return iter(keys)

    def delete(self, key: str) -> None:
        """See `BlobStore.delete`."""
        with self._lock:
            self._blobs.pop(check_key(key), None)


def _version(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
