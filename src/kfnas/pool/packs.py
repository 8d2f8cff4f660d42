"""Packs: many entries' safetensors blobs one after another in one blob of about 32 MB, named by the sha256 of their sha256s.

A pack holds no index: the segments say where in it each entry lies, and the digest of each. Few large blobs are quick to write, to list and
to read whole; a reader of some entries fetches the ranges that hold them, and whatever small gaps lie between.
"""

from __future__ import annotations

import hashlib
import itertools
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import NamedTuple

from kfnas.errors import NotFound
from kfnas.pool.entries import Row
from kfnas.pool.manifest import blob_name
from kfnas.storage import BlobStore

PACK_BYTES = 32_000_000
MERGE_GAP_BYTES = 1_000_000
"""Unwanted bytes between two wanted entries that are cheaper to fetch along than to ask twice."""

RANGE_BYTES = 16_000_000
"""Most that one request asks for: half a pack, so that memory holds few packs however many requests are under way."""

_NUM_WORKERS = 8
_NUM_UPLOADS = 2


class Loaded(NamedTuple):
    """An entry's blob, as a view of the range that was read, or why there is none."""

    row: Row
    data: memoryview | None
    problem: str = ""


class _Range(NamedTuple):
    pack: str
    start: int
    stop: int
    rows: tuple[Row, ...]


def write_packs(store: BlobStore, root: str, sweep: int, blobs: Iterable[tuple[Row, bytes | memoryview]], *, pack_bytes: int = PACK_BYTES) -> list[Row]:
    """Upload entries in packs; their rows with the places where they lie.

    Args:
        root: key of the pool's folder.
        sweep: the manifest's sweep at this moment.
        blobs: rows and their bytes, of which a few packs are held at a time.
        pack_bytes: a pack is closed before it grows beyond this, unless one entry alone is larger.
    """
    with ThreadPoolExecutor(_NUM_UPLOADS) as pool:
        stored: list[Row] = []
        uploads: deque[Future[list[Row]]] = deque()
        for group in _grouped(blobs, pack_bytes):
            if len(uploads) == _NUM_UPLOADS:
                stored += uploads.popleft().result()
            uploads.append(pool.submit(_write_pack, store, root, sweep, group))
        return stored + [row for upload in uploads for row in upload.result()]


def write_blob(store: BlobStore, key: str, data: bytes) -> None:
    """Write an immutable blob whose name follows from its bytes; one that is there with other bytes (a torn copy, a damaged disk) is replaced."""
    if store.put_if_absent(key, data):
        return
    try:
        whole = store.get(key) == data
    except NotFound:  # a prune was faster: the manifest's sweep has moved on, and the caller will upload again
        whole = False
    if not whole:
        store.put(key, data)


def read_rows(store: BlobStore, root: str, rows: Iterable[Row], *, merge_gap_bytes: int = MERGE_GAP_BYTES) -> Iterator[Loaded]:
    """The blobs of entries, in the order in which they are stored; of a missing, torn or wrong one the problem, never the bytes.

    Several ranges are fetched at a time, for a server answers one request slower than the network could carry it, and handed on as they come.
    """
    ranges = _ranges(rows, merge_gap_bytes)
    with ThreadPoolExecutor(_NUM_WORKERS) as pool:
        waiting: deque[Future[list[Loaded]]] = deque()
        pending = iter(ranges)
        try:
            for each in itertools.islice(pending, _NUM_WORKERS):
                waiting.append(pool.submit(_read_range, store, root, each))
            while waiting:
                loaded = waiting.popleft().result()
                for each in itertools.islice(pending, 1):
                    waiting.append(pool.submit(_read_range, store, root, each))
                yield from loaded
        finally:
            for future in waiting:
                future.cancel()


def _grouped(blobs: Iterable[tuple[Row, bytes | memoryview]], pack_bytes: int) -> Iterator[list[tuple[Row, bytes | memoryview]]]:
    """What goes into each pack."""
    group: list[tuple[Row, bytes | memoryview]] = []
    size = 0
    for row, data in blobs:
        if group and size + len(data) > pack_bytes:
            yield group
            group, size = [], 0
        group.append((row, data))
        size += len(data)
    if group:
        yield group


def _write_pack(store: BlobStore, root: str, sweep: int, blobs: Sequence[tuple[Row, bytes | memoryview]]) -> list[Row]:
    digest = hashlib.sha256("".join(row.sha256 for row, _ in blobs).encode()).hexdigest()
    name = blob_name("packs", sweep, digest)
    write_blob(store, f"{root}/{name}", b"".join(data for _, data in blobs))
    offsets = itertools.accumulate((row.length for row, _ in blobs), initial=0)
    return [replace(row, pack=name, offset=offset) for (row, _), offset in zip(blobs, offsets, strict=False)]


def _ranges(rows: Iterable[Row], merge_gap_bytes: int) -> list[_Range]:
    """Wanted ranges of the packs, with small gaps between entries closed, none longer than `RANGE_BYTES` unless one entry alone is."""
    ranges: list[_Range] = []
    for row in sorted(rows, key=lambda row: (row.pack, row.offset)):
        stop = row.offset + row.length
        last = ranges[-1] if ranges else None
        near = last is not None and last.pack == row.pack and row.offset <= last.stop + merge_gap_bytes
        if near and last is not None and stop - last.start <= RANGE_BYTES:
            ranges[-1] = _Range(row.pack, last.start, max(last.stop, stop), (*last.rows, row))
        else:
            ranges.append(_Range(row.pack, row.offset, stop, (row,)))
    return ranges


def _read_range(store: BlobStore, root: str, wanted: _Range) -> list[Loaded]:
    try:
        data = memoryview(store.get_range(f"{root}/{wanted.pack}", wanted.start, max(1, wanted.stop - wanted.start)))
    except NotFound:
        return [Loaded(row, None, f"{_named(row)}: {wanted.pack} is missing") for row in wanted.rows]
    parts = [data[row.offset - wanted.start :][: row.length] for row in wanted.rows]
    if 2 * sum(row.length for row in wanted.rows) < len(data):  # views would keep the gaps between them in memory
        parts = [memoryview(bytes(part)) for part in parts]
    return [_checked(row, part) for row, part in zip(wanted.rows, parts, strict=True)]


def _checked(row: Row, data: memoryview) -> Loaded:
    if len(data) < row.length:
        return Loaded(row, None, f"{_named(row)}: {row.pack} ends before it does")
    if hashlib.sha256(data).hexdigest() != row.sha256:
        return Loaded(row, None, f"{_named(row)}: its bytes in {row.pack} differ from their digest")
    return Loaded(row, data)


def _named(row: Row) -> str:
    what = f"block {row.key.block} {'-'.join(map(str, row.key.tokens))}" if row.key.block >= 0 else row.key.part
    return f"entry {what} of child {row.source[:12]}"
