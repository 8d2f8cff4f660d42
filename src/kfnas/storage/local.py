"""Blobs as files of a local folder, safe against crashes and among processes.

A blob is written to `.kfnas/tmp`, flushed to disk, then renamed into its place, and the folder is flushed too: after a crash at any instant
a blob is the old one or the new one. Every change of a key happens under one of sixteen lock files (`flock`, which the kernel releases when
its holder dies), so reading a version and renaming over it are one step. An unfinished write keeps its own file locked: the next writer
removes those that nobody holds any more.

Blobs are made read-only files, since only a rename ever replaces one. The folder must be on a file system with `flock` and atomic renames.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from kfnas.errors import AccessDenied, NotFound, PreconditionFailed, StorageFull, StoreUnavailable, UserError
from kfnas.storage.blobs import RESERVED, VersionedBlob, check_key, check_prefix, check_range, is_key

_ABSENT = (FileNotFoundError, NotADirectoryError, IsADirectoryError)
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_FORBIDDEN = {errno.EACCES, errno.EPERM, errno.EROFS}
_NUM_LOCKS = 16


class LocalStore:
    """A `BlobStore` in a folder, which the first write creates.

    Args:
        root: the folder.
        before_publish: called with the key when its bytes are safe in a temporary file and the rename comes next: the seam where tests kill
            a writer.
    """

    def __init__(self, root: Path | str, *, before_publish: Callable[[str], None] | None = None) -> None:
        self.root = Path(root).absolute()
        self.before_publish = before_publish
        self._prepared = False

    @property
    def uri(self) -> str:
        """The folder as a `file://` address."""
        return self.root.as_uri()

    def path(self, key: str) -> Path:
        """The file that holds the blob, if there is one: to be read or hard-linked, never written."""
        return self.root / check_key(key)

    def get(self, key: str) -> bytes:
        """See `BlobStore.get`."""
        with self._mapped("read", key):
            return self.path(key).read_bytes()

    def get_versioned(self, key: str) -> VersionedBlob:
        """See `BlobStore.get_versioned`."""
        data = self.get(key)
        return VersionedBlob(data, _version(data))

    def get_range(self, key: str, start: int, length: int) -> bytes:
        """See `BlobStore.get_range`."""
        check_range(key, start, length)
        with self._mapped("read", key), self.path(key).open("rb") as file:
            file.seek(start)
            return file.read(length)

    def exists(self, key: str) -> bool:
        """See `BlobStore.exists`."""
        path = self.path(key)
        try:
            with self._mapped("read", key):
                return path.is_file()
        except NotFound:
            return False

    def put(self, key: str, data: bytes) -> None:
        """See `BlobStore.put`."""
        with self._mapped("write", key, len(data)), self._written(key, data) as temporary, self._locked(key):
            self._publish(key, temporary)

    def put_if_absent(self, key: str, data: bytes) -> bool:
        """See `BlobStore.put_if_absent`."""
        if self.exists(key):
            return False
        with self._mapped("write", key, len(data)), self._written(key, data) as temporary, self._locked(key):
            if self.exists(key):
                return False
            self._publish(key, temporary)
            return True

    def swap(self, key: str, data: bytes, expected: str | None) -> str:
        """See `BlobStore.swap`."""
        with self._mapped("write", key, len(data)), self._written(key, data) as temporary, self._locked(key):
            if self._current(key) != expected:
                raise PreconditionFailed(f"{self.uri}: blob {key!r} is not of the expected version; read it again")
            self._publish(key, temporary)
        return _version(data)

    def list(self, prefix: str) -> Iterator[str]:
        """See `BlobStore.list`."""
        folder = self.root / check_prefix(prefix).rpartition("/")[0]
        with self._mapped("list", prefix):
            found = [name for name in self._files(folder) if name.startswith(prefix) and is_key(name)]
        return iter(sorted(found))

    def delete(self, key: str) -> None:
        """See `BlobStore.delete`."""
        if not self.exists(key):
            return
        with self._mapped("delete", key), self._locked(key):
            path = self.path(key)
            path.unlink(missing_ok=True)
            _flush_folder(path.parent)

    def _current(self, key: str) -> str | None:
        try:
            return self.get_versioned(key).version
        except NotFound:
            return None

    def _files(self, folder: Path) -> Iterator[str]:
        for parent, folders, names in os.walk(folder, onerror=_raise_unless_absent):
            folders[:] = [name for name in folders if not name.startswith(".")]
            relative = Path(parent).relative_to(self.root)
            yield from ((relative / name).as_posix() for name in names)

    @contextmanager
    def _written(self, key: str, data: bytes) -> Iterator[Path]:
        """A temporary file with the bytes, flushed to disk; its lock says that its writer lives."""
        self._prepare()
        path, descriptor = self._temporary()
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(descriptor, view) :]
            os.fsync(descriptor)
            yield path
        finally:
            os.close(descriptor)
            path.unlink(missing_ok=True)

    def _temporary(self) -> tuple[Path, int]:
        """A new locked file that no sweep has taken for a dead writer's in between."""
        while True:
            path = self._own("tmp") / f"{os.getpid()}-{secrets.token_hex(8)}"
            descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o444)
            if _try_lock(descriptor) and os.fstat(descriptor).st_nlink:
                return path, descriptor
            os.close(descriptor)

    def _publish(self, key: str, temporary: Path) -> None:
        path = self.path(key)
        _make_folder(path.parent)
        if self.before_publish is not None:
            self.before_publish(key)
        temporary.replace(path)
        _flush_folder(path.parent)

    @contextmanager
    def _locked(self, key: str) -> Iterator[None]:
        """Hold the key's lock file."""
        self._prepare()
        number = hashlib.sha256(key.encode()).digest()[0] % _NUM_LOCKS
        descriptor = os.open(self._own("locks") / f"{number:02d}", os.O_CREAT | os.O_RDWR, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def _prepare(self) -> None:
        """Make the folders and remove what writers that died left behind, once for each opened store."""
        if self._prepared:
            return
        if self.root.exists() and not self.root.is_dir():
            raise UserError(f"store {str(self.root)!r} is a file; give a folder")
        for name in ("tmp", "locks"):
            _make_folder(self._own(name))
        for path in self._own("tmp").iterdir():
            _remove_abandoned(path)
        self._prepared = True

    def _own(self, name: str) -> Path:
        return self.root / RESERVED / name

    @contextmanager
    def _mapped(self, verb: str, key: str, size: int = 0) -> Iterator[None]:
        """Turn an operating system's error into one of ours."""
        try:
            yield
        except OSError as error:
            what = f"{self.uri}: cannot {verb} {key!r}"
            if verb != "write" and isinstance(error, _ABSENT):
                raise NotFound(f"{self.uri}: no blob {key!r}") from None
            if error.errno in _FULL:
                raise StorageFull(
                    f"{what} ({size} bytes): {error.strerror}; free some room there and resume: the blob that was there before is unchanged"
                ) from error
            if error.errno in _FORBIDDEN:
                raise AccessDenied(f"{what}: {error.strerror}; give this user the right to {verb} there, or use another store") from error
            if isinstance(error, NotADirectoryError | IsADirectoryError | FileExistsError):
                raise UserError(f"{what}: another blob has the name of one of its folders, or the reverse; use another key") from error
            raise StoreUnavailable(f"{what}: {error.strerror or error}; check the disk or mount, then try again") from error


def _version(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _raise_unless_absent(error: OSError) -> None:
    if not isinstance(error, _ABSENT):
        raise error


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _remove_abandoned(path: Path) -> None:
    """Remove a temporary file unless its writer still holds it."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return
    try:
        if _try_lock(descriptor):
            path.unlink(missing_ok=True)
    finally:
        os.close(descriptor)


def _make_folder(path: Path) -> None:
    """Create a folder and its parents so that they survive a crash."""
    if path.is_dir():
        return
    _make_folder(path.parent)
    path.mkdir(exist_ok=True)
    _flush_folder(path.parent)


def _flush_folder(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
