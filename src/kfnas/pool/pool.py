"""`Pool`: the knowledge that searches share, in any store."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TypeVar

from pydantic import Field

from kfnas.config import Config
from kfnas.errors import NotFound, PoolMismatch, UserError
from kfnas.pool import upkeep
from kfnas.pool.access import PoolAccess
from kfnas.pool.entries import PoolEntry, Row, pack_tensors, row_of
from kfnas.pool.manifest import Manifest, Pin, PoolVersion
from kfnas.pool.packs import PACK_BYTES
from kfnas.pool.pushing import EMPTY, PushReport, add_rows, check_fits
from kfnas.pool.snapshot import PoolSnapshot
from kfnas.pool.upkeep import CompactReport, PruneReport, VerifyReport
from kfnas.storage import BlobStore

ValueT = TypeVar("ValueT", int, str)


class PoolInfo(Config):
    """What a pool holds, from its manifest and index alone.

    Attributes:
        name: the pool's.
        version: the current one.
        space: digest of the space, "" while nothing was pushed.
        iterations: optimiser steps of every child's whole training, 0 while nothing was pushed.
        num_entries: entries that the current version answers with.
        size_bytes: their size.
        blocks: entries of each block, by its index; -1 for layers outside of the blocks.
        tasks: entries of each task.
        generations: entries of each generation.
        num_segments, num_packs: blobs of the current version.
        versions: numbers of the versions that are kept.
        pins: who holds which version, and until when.
        problems: what could not be read of the index.
    """

    name: str
    version: PoolVersion
    space: str = ""
    iterations: int = 0
    num_entries: int = 0
    size_bytes: int = 0
    blocks: dict[int, int] = Field(default_factory=dict)
    tasks: dict[str, int] = Field(default_factory=dict)
    generations: dict[int, int] = Field(default_factory=dict)
    num_segments: int = 0
    num_packs: int = 0
    versions: tuple[int, ...] = ()
    pins: dict[str, Pin] = Field(default_factory=dict)
    problems: tuple[str, ...] = ()


class Pool:
    """A pool of trained blocks, shared by any number of searches, processes and machines. Safe among threads.

    It is of one space and of one number of training iterations, settled by the first push. What a push that returned has stored is never
    lost. An entry that is no better than the holder of its slot is not stored: should the holder prove damaged later, push again after
    `compact` has dropped it. Clocks are arguments: `now` is in seconds since the epoch.

    Args:
        store: where.
        name: name of the pool: letters, digits and `. _ = + @ -`.
        pack_bytes: size at which packs are closed.

    Raises:
        UserError: the name is unfit.
    """

    def __init__(self, store: BlobStore, name: str, *, pack_bytes: int = PACK_BYTES) -> None:
        self.name = name
        self.access = PoolAccess(store, name)
        self.pack_bytes = pack_bytes

    def head(self) -> PoolVersion:
        """The current version; `EMPTY` (number 0) before the first push."""
        manifest, _ = self.access.read()
        return EMPTY if manifest is None or manifest.number == 0 else manifest.head()

    def info(self) -> PoolInfo:
        """What the pool holds."""
        manifest, _ = self.access.read()
        if manifest is None:
            return PoolInfo(name=self.name, version=EMPTY)
        index = self.access.index(manifest, manifest.number)
        rows = list(index.rows.values())
        return PoolInfo(
            name=self.name,
            version=manifest.head(),
            space=manifest.space,
            iterations=manifest.iterations,
            num_entries=len(rows),
            size_bytes=sum(row.length for row in rows),
            blocks=_counts(row.key.block for row in rows),
            tasks=_counts(row.task for row in rows),
            generations=_counts(row.generation for row in rows),
            num_segments=len(manifest.alive(manifest.number)),
            num_packs=len({row.pack for row in rows}),
            versions=tuple(record.number for record in manifest.versions),
            pins=manifest.pins,
            problems=tuple(index.problems),
        )

    def push(self, entries: Iterable[PoolEntry], *, space: str, iterations: int, generation: int = 0) -> PushReport:
        """Store blocks of trained children, those apart whose slots hold better ones. Pushing the same again makes no new version.

        Args:
            entries: what `blocks_of` gave, of any number of children.
            space: digest of the space.
            iterations: optimiser steps of each child's whole training.
            generation: of the children: 0 where all began at random, 1 where all began from one version of a pool of such children.

        Raises:
            PoolMismatch: the pool, or an entry, is of another space, number of iterations or generation: such children were not trained
                alike.
            UserError: an entry is none that a pool can keep, or has another number of tokens, or another size of embedding, than others at its
                position.
            ConflictError: the race for the manifest was lost too often.
        """
        rows: list[Row] = []
        data_of: dict[Row, bytes] = {}
        _check_alike((), iterations, generation)
        for entry in entries:  # one by one: the caller may make them as they are asked for, and a child's tensors may go once they are packed
            _check_alike((entry,), iterations, generation)
            data = pack_tensors(entry.tensors)
            rows.append(row_of(entry, data))
            data_of[rows[-1]] = data

        def blobs(wanted: Sequence[Row]) -> Iterator[tuple[Row, bytes]]:
            return ((row, data_of[row]) for row in wanted)

        return add_rows(self.access, rows, blobs, space=space, iterations=iterations, pack_bytes=self.pack_bytes)

    def require(self, *, space: str, iterations: int) -> None:
        """Refuse to go on with a pool of something else; an empty one takes anything.

        Raises:
            PoolMismatch: the pool is of another space or number of iterations.
        """
        manifest, _ = self.access.read()
        if manifest is not None:
            check_fits(self.access, manifest, space, iterations)

    def at(self, version: PoolVersion | int | None = None) -> PoolSnapshot:
        """A version, open for reading; None opens the current one.

        Raises:
            NotFound: the version is not kept any more, or is one of another pool.
        """
        manifest, _ = self.access.read()
        snapshot = self._opened(manifest, version)
        if snapshot.problems and (newer := self.access.read()[0]) != manifest:  # a prune may have deleted what the first manifest names
            return self._opened(newer, version)
        return snapshot

    def _opened(self, manifest: Manifest | None, version: PoolVersion | int | None) -> PoolSnapshot:
        number = _number(manifest, version)
        if manifest is None or number == 0:
            return PoolSnapshot(self.access, EMPTY, [], [])
        record = manifest.find(number if version is None else version)
        index = self.access.index(manifest, record.number)
        opened = PoolVersion(number=record.number, digest=record.digest)
        return PoolSnapshot(self.access, opened, index.rows.values(), index.problems, space=manifest.space, iterations=manifest.iterations)

    def pin(self, version: PoolVersion | int, holder: str, *, now: float, seconds: float) -> None:
        """Keep a version readable until `now + seconds`, or until the holder pins another one; pinning again renews. Version 0 needs none.

        Args:
            holder: who needs it, such as a search's name; one pin each.

        Raises:
            NotFound: the version is not kept any more.
        """
        number = version.number if isinstance(version, PoolVersion) else version
        if not holder or seconds <= 0:
            raise UserError(f"pin of {holder!r} for {seconds} seconds: name a holder, and give more than 0 seconds")
        if number == 0:
            return

        def pinned(manifest: Manifest) -> Manifest:
            pin = Pin(number=manifest.find(version).number, expires=now + seconds)
            return manifest.model_copy(update={"pins": {**manifest.pins, holder: pin}})

        self.access.change(pinned)

    def unpin(self, holder: str) -> None:
        """Give a pin up; harmless where there is none."""
        manifest, _ = self.access.read()
        if manifest is None or holder not in manifest.pins:
            return
        self.access.change(lambda manifest: manifest.model_copy(update={"pins": {name: pin for name, pin in manifest.pins.items() if name != holder}}))

    def verify(self, *, deep: bool = True) -> VerifyReport:
        """Check the kept versions; see `kfnas.pool.upkeep.verify`."""
        return upkeep.verify(self.access, deep=deep)

    def compact(self, *, now: float) -> CompactReport:
        """Gather what small pushes scattered; see `kfnas.pool.upkeep.compact`."""
        return upkeep.compact(self.access, now=now, pack_bytes=self.pack_bytes)

    def prune(self, *, now: float, grace_seconds: float = upkeep.GRACE_SECONDS) -> PruneReport:
        """Delete what no kept version needs; see `kfnas.pool.upkeep.prune`."""
        return upkeep.prune(self.access, now=now, grace_seconds=grace_seconds)


def _number(manifest: Manifest | None, version: PoolVersion | int | None) -> int:
    if version is None:
        return 0 if manifest is None else manifest.number
    number = version.number if isinstance(version, PoolVersion) else version
    if manifest is None and number != 0:
        raise NotFound(f"the pool is empty and has no version {number}; mend its name or the store's address")
    return number


def _check_alike(entries: Sequence[PoolEntry], iterations: int, generation: int) -> None:
    if iterations < 1 or generation < 0:
        raise UserError(f"a push of {iterations} iterations and generation {generation}; give 1 or more, and 0 or more")
    for entry in entries:
        if entry.iterations != iterations:
            raise PoolMismatch(
                f"child {entry.source!r} was trained for {entry.iterations} iterations in all, not {iterations}; push children that were trained alike"
            )
        if entry.generation != generation:
            raise PoolMismatch(f"child {entry.source!r} is of generation {entry.generation}, not {generation}; push children that began alike")


def _counts(values: Iterable[ValueT]) -> dict[ValueT, int]:
    counts: dict[ValueT, int] = {}
    for value in values:
        counts[value] = counts.get(value, 0) + 1
    return dict(sorted(counts.items()))
