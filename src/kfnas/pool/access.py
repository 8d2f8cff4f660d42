"""A pool's folder in a store: its manifest, read and moved by compare-and-swap, and its index segments, read once.

pools/<name>/MANIFEST                          the only blob that changes: see `kfnas.pool.manifest`
pools/<name>/segments/<sweep>-<sha256>         immutable lists of entries: see `kfnas.pool.segments`
pools/<name>/packs/<sweep>-<digest>            immutable runs of safetensors blobs: see `kfnas.pool.packs`
"""

from __future__ import annotations

import hashlib
import random
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from kfnas.config import canonical_json
from kfnas.errors import ConflictError, CorruptError, NotFound, PreconditionFailed, UserError
from kfnas.pool.entries import Row, Slot, misfits, winners
from kfnas.pool.manifest import Manifest, Segment, blob_name, parse_manifest
from kfnas.pool.packs import write_blob
from kfnas.pool.segments import decode_segment, encode_segment
from kfnas.storage import BlobStore, check_key

MAX_RACES = 100

_FIRST_PAUSE_SECONDS = 0.02
_LONGEST_PAUSE_SECONDS = 1.0
_NUM_WORKERS = 4


class Index(NamedTuple):
    """The entries of a version: of each slot the one that stays, and what could not be read."""

    rows: dict[Slot, Row]
    problems: list[str]


class PoolAccess:
    """A pool's blobs. Safe among threads; segments that were read stay in memory.

    Args:
        store: where.
        name: name of the pool: letters, digits and `. _ = + @ -`.

    Raises:
        UserError: the name is unfit.
    """

    def __init__(self, store: BlobStore, name: str) -> None:
        if not name or "/" in name:
            raise UserError(f"pool name {name!r} is not allowed; use letters, digits and . _ = + @ - and begin with a letter, digit or underscore")
        self.store = store
        self.name = name
        self.root = check_key(f"pools/{name}")
        self.where = f"{store.uri}: pool {name!r}"
        self._manifest_key = f"{self.root}/MANIFEST"
        self._segments: dict[str, list[Row]] = {}

    def read(self) -> tuple[Manifest | None, str | None]:
        """The manifest and the version that `moved` expects; None and None where there is no pool yet.

        Raises:
            CorruptError: it is damaged.
            StateVersionError: a newer kfnas wrote it.
        """
        try:
            data, version = self.store.get_versioned(self._manifest_key)
        except NotFound:
            return None, None
        return parse_manifest(data, self.where, self._manifest_key), version

    def existing(self) -> tuple[Manifest, str]:
        """The manifest of a pool that must be there.

        Raises:
            NotFound: nothing was ever pushed to it.
        """
        manifest, version = self.read()
        if manifest is None or version is None:
            raise NotFound(f"{self.where} does not exist; mend its name or the store's address, or push to it first")
        return manifest, version

    def moved(self, manifest: Manifest, version: str | None) -> bool:
        """Replace the manifest read as `version`; False where another writer was faster."""
        try:
            self.store.swap(self._manifest_key, canonical_json(manifest).encode(), version)
        except PreconditionFailed:
            return False
        return True

    def change(self, change: Callable[[Manifest], Manifest]) -> Manifest:
        """Replace the manifest by `change(manifest)`, again on the newer one when another writer was faster. An equal one is not written."""
        for _ in self.races():
            manifest, version = self.existing()
            changed = change(manifest)
            if changed == manifest or self.moved(changed, version):
                return changed
        raise AssertionError("unreachable")

    def races(self) -> Iterator[int]:
        """Numbers of attempts, with a pause of random length before each but the first, so that many writers do not meet again and again.

        Raises:
            ConflictError: as many attempts were lost as no pool should see.
        """
        pause = _FIRST_PAUSE_SECONDS
        for attempt in range(MAX_RACES):
            yield attempt
            time.sleep(random.SystemRandom().uniform(0, pause))
            pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)
        raise ConflictError(f"{self.where} changed under each of {MAX_RACES} attempts; try again, or find what writes to it so often")

    def rows(self, segments: Sequence[Segment], *, again: bool = False) -> tuple[list[Row], dict[str, str]]:
        """All rows of some segments, and by its key what is wrong with each that cannot be read: of these there is no row.

        Args:
            again: read those too that are in memory.

        Raises:
            StateVersionError: a newer kfnas wrote one.
        """
        missing = [segment.key for segment in segments if again or segment.key not in self._segments]
        problems: dict[str, str] = {}
        with ThreadPoolExecutor(_NUM_WORKERS) as pool:
            for key, found in zip(missing, pool.map(self._read_segment, missing), strict=True):
                if isinstance(found, str):
                    problems[key] = found
                else:
                    self._segments[key] = found
        return [row for segment in segments if segment.key not in problems for row in self._segments[segment.key]], problems

    def index(self, manifest: Manifest, number: int) -> Index:
        """The entries of a version.

        Raises:
            StateVersionError: a newer kfnas wrote some of them.
        """
        rows, problems = self.rows(manifest.alive(number))
        odd = misfits(rows)
        return Index(winners(row for row in rows if row not in odd), [*problems.values(), *odd.values()])

    def write_segment(self, rows: Sequence[Row], manifest: Manifest) -> Segment:
        """Upload stored rows as a segment of the version that follows the manifest's."""
        ordered = sorted(rows, key=lambda row: row.order)
        data = encode_segment(ordered)
        digest = hashlib.sha256(data).hexdigest()
        key = blob_name("segments", manifest.sweep, digest)
        write_blob(self.store, f"{self.root}/{key}", data)
        self._segments[key] = ordered
        return Segment(key=key, since=manifest.number + 1, num_rows=len(ordered), packs=tuple(sorted({row.pack for row in ordered})))

    def blobs(self) -> list[str]:
        """Names of all packs and segments that the store holds, needed or not."""
        return [key.removeprefix(f"{self.root}/") for kind in ("packs", "segments") for key in self.store.list(f"{self.root}/{kind}/")]

    def _read_segment(self, key: str) -> list[Row] | str:
        try:
            return decode_segment(self.store.get(f"{self.root}/{key}"), key)
        except (NotFound, CorruptError) as error:
            return f"{self.where}: {key}: {error}"
