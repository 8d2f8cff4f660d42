"""A pool in two stores: bring one up to what the other has, either way."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from kfnas.config import Config
from kfnas.pool.entries import Row
from kfnas.pool.manifest import PoolVersion
from kfnas.pool.packs import read_rows
from kfnas.pool.pool import Pool
from kfnas.pool.pushing import EMPTY, add_rows


class MirrorReport(Config):
    """What a mirroring did.

    Attributes:
        source: the version that was read.
        target: the version that holds all of it.
        added, replaced, known: entries, as in `PushReport`.
        sent_bytes: size of the entries that were copied.
        problems: entries of the source that are missing, torn or damaged, and were not copied.
    """

    source: PoolVersion
    target: PoolVersion
    added: int = 0
    replaced: int = 0
    known: int = 0
    sent_bytes: int = 0
    problems: tuple[str, ...] = ()


def mirror(source: Pool, target: Pool) -> MirrorReport:
    """Push to `target` what `source` has and it lacks. Run both ways, two pools answer alike and have one digest.

    Entries are copied as they are stored, each compared with its digest on the way. Running it again copies nothing.

    Raises:
        PoolMismatch: the pools are of different spaces or numbers of iterations.
    """
    report = _copied(source, target)
    if not report.problems or source.head() == report.source:
        return report
    # A compaction and a prune may have moved what could not be read.
    again = _copied(source, target)
    new = {"added": report.added + again.added, "replaced": report.replaced + again.replaced, "sent_bytes": report.sent_bytes + again.sent_bytes}
    return again.model_copy(update={**new, "known": again.known - report.added - report.replaced})


def _copied(source: Pool, target: Pool) -> MirrorReport:
    snapshot = source.at()
    if snapshot.version == EMPTY:
        return MirrorReport(source=EMPTY, target=target.head())
    problems = list(snapshot.problems)
    sent_bytes = 0

    def blobs(rows: Sequence[Row]) -> Iterator[tuple[Row, bytes | memoryview]]:
        nonlocal sent_bytes
        for row, data, problem in read_rows(source.access.store, source.access.root, rows):
            if data is None:
                problems.append(problem)
            else:
                sent_bytes += len(data)
                yield row, data

    report = add_rows(target.access, snapshot.rows, blobs, space=snapshot.space, iterations=snapshot.iterations, pack_bytes=target.pack_bytes)
    return MirrorReport(
        source=snapshot.version,
        target=report.version,
        added=report.added,
        replaced=report.replaced,
        known=report.known,
        sent_bytes=sent_bytes,
        problems=tuple(problems),
    )
