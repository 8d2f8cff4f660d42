"""Keeping a pool in order: verify it, compact what small pushes scattered, delete what no kept version needs."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple

from kfnas.config import Config
from kfnas.pool.access import PoolAccess
from kfnas.pool.entries import Row, content_digest, misfits, winners
from kfnas.pool.manifest import Manifest, PoolVersion, Segment, sweep_of
from kfnas.pool.packs import PACK_BYTES, read_rows, write_packs
from kfnas.pool.pushing import following

GRACE_SECONDS = 86_400.0
"""How long a replaced version stays readable without a pin, and an upload that nothing refers to stays at all."""

_WORTHWHILE_SHARE = 0.75
"""A pack of which less than this is live is written anew."""


class VerifyReport(Config):
    """What a check found.

    Attributes:
        version: the current one.
        num_versions: versions that are kept.
        num_segments, num_packs, num_entries: what they refer to.
        read_bytes: how much of it was read and compared with its digest; 0 unless deep.
        num_unneeded: blobs that no kept version refers to: a prune deletes them, or a push under way is about to refer to them.
        problems: what is missing, torn or damaged, and versions that are not what was recorded of them. Readers pass damage over; `compact`
            drops it, and mirroring from a whole copy, or pushing again, then brings it back.
    """

    version: PoolVersion
    num_versions: int
    num_segments: int
    num_packs: int
    num_entries: int
    read_bytes: int
    num_unneeded: int
    problems: tuple[str, ...]


class CompactReport(Config):
    """What compacting did.

    Attributes:
        version: the current one afterwards, with the digest of the one before unless entries were dropped or that one's was wrong.
        changed: whether there was anything to do.
        num_entries: entries of the version.
        num_rewritten: entries that were written into new packs.
        dropped: damaged entries and segments that the new version is without.
    """

    version: PoolVersion
    changed: bool
    num_entries: int
    num_rewritten: int = 0
    dropped: tuple[str, ...] = ()


class PruneReport(Config):
    """What a prune did.

    Attributes:
        kept_versions: numbers of the versions that are still readable.
        num_versions: versions that are readable no more.
        num_deleted: blobs that were deleted.
        num_waiting: blobs that nothing refers to, to be deleted when they have waited long enough.
        expired_pins: holders whose time had come.
    """

    kept_versions: tuple[int, ...]
    num_versions: int
    num_deleted: int
    num_waiting: int
    expired_pins: tuple[str, ...]


def verify(access: PoolAccess, *, deep: bool = True) -> VerifyReport:
    """Check that every kept version is whole. All is read anew, whatever is in memory.

    Args:
        deep: read every entry and compare it with its digest; otherwise only see that the packs are there.

    Raises:
        NotFound: there is no pool.
        StateVersionError: a newer kfnas wrote some of it.
    """
    manifest, _ = access.existing()
    rows, unreadable = access.rows(manifest.segments, again=True)
    odd = misfits(rows)
    problems = [*unreadable.items(), *((row.pack, problem) for row, problem in odd.items())]
    strange = [] if problems else _unlike_their_records(access, manifest)
    places = {(row.pack, row.offset): row for row in rows}
    names = set(access.blobs())
    packs = {row.pack for row in rows}
    read_bytes = 0
    if deep:
        for row, data, problem in read_rows(access.store, access.root, places.values()):
            read_bytes += row.length
            if data is None:
                problems.append((row.pack, problem))
    else:
        problems += [(pack, f"{access.where}: {pack} is missing") for pack in sorted(packs - names)]
    if problems:  # a prune may have forgotten meanwhile, and deleted, what only old versions needed
        needed = access.existing()[0].references()
        problems = [(key, problem) for key, problem in problems if key in needed]
    return VerifyReport(
        version=manifest.head(),
        num_versions=len(manifest.versions),
        num_segments=len(manifest.segments),
        num_packs=len(packs),
        num_entries=len(places),
        read_bytes=read_bytes,
        num_unneeded=len(names - manifest.references()),
        problems=(*(problem for _, problem in problems), *strange),
    )


def compact(access: PoolAccess, *, now: float, pack_bytes: int = PACK_BYTES) -> CompactReport:
    """Make the current version one segment and few well-filled packs. It answers every query as before, and has the same digest.

    Every entry is read and compared with its digest; what is damaged is dropped and reported. The earlier versions stay readable until they
    are pruned. Pushes may go on meanwhile.

    Raises:
        NotFound: there is no pool.
        StateVersionError: a newer kfnas wrote some of it.
        ConflictError: another compaction was always faster, or entries went on becoming unreadable.
    """
    for _ in access.races():
        manifest, version = access.existing()
        segments = manifest.alive(manifest.number)
        rows, unreadable = access.rows(segments, again=True)
        odd = misfits(rows)
        kept, damaged = _whole(access, [row for row in rows if row not in odd])
        dropped = [*unreadable.values(), *odd.values(), *damaged]
        poor = _poor_packs(kept, rows, damaged, pack_bytes)
        as_recorded = content_digest(kept) == manifest.head().digest
        if not dropped and not poor and len(segments) == 1 and len(kept) == len(rows) and as_recorded:
            return CompactReport(version=manifest.head(), changed=False, num_entries=len(kept))
        wanted = [row for row in kept if row.pack in poor]
        rewritten = _rewrite(access, manifest, wanted, pack_bytes)
        if len(rewritten) < len(wanted):
            continue  # one has just become unreadable: it is to be reported, and a lesser one of its slot may stay
        stored = [row for row in kept if row.pack not in poor] + rewritten
        segment = access.write_segment(stored, manifest)
        changed = _committed(access, manifest, version, _Plan(segments, segment, stored), now)
        if changed is not None:
            entries = changed.version(changed.number).num_entries
            return CompactReport(version=changed.head(), changed=True, num_entries=entries, num_rewritten=len(rewritten), dropped=tuple(dropped))
    raise AssertionError("unreachable")


def prune(access: PoolAccess, *, now: float, grace_seconds: float = GRACE_SECONDS) -> PruneReport:
    """Forget old versions and delete what no kept version refers to.

    Kept are the current version, the versions with a pin that has not expired, and those that a prune first found replaced less than
    `grace_seconds` ago. The same grace holds for blobs that nothing refers to, which a push under way may have uploaded; should that push
    commit after they are gone, it finds the manifest's `sweep` moved on and uploads again. So the grace spares work; safety does not hang
    on it.

    Raises:
        NotFound: there is no pool.
        ConflictError: the race for the manifest was lost too often.
    """
    for _ in access.races():
        manifest, version = access.existing()
        pruned = _without_old_versions(manifest, now, grace_seconds)
        gone = manifest.references() - pruned.references()
        unneeded = {key: manifest.unneeded.get(key, now) for key in access.blobs() if key not in pruned.references()}
        due = sorted(key for key, since in unneeded.items() if key in gone or now - since >= grace_seconds)
        sweep = max([manifest.sweep, *(sweep_of(key) + 1 for key in due)])
        pruned = pruned.model_copy(update={"sweep": sweep, "unneeded": unneeded})
        if pruned != manifest and not access.moved(pruned, version):
            continue
        for key in due:
            access.store.delete(f"{access.root}/{key}")
        return PruneReport(
            kept_versions=tuple(record.number for record in pruned.versions),
            num_versions=len(manifest.versions) - len(pruned.versions),
            num_deleted=len(due),
            num_waiting=len(unneeded) - len(due),
            expired_pins=tuple(sorted(set(manifest.pins) - set(pruned.pins))),
        )
    raise AssertionError("unreachable")


class _Plan(NamedTuple):
    """A compaction that is uploaded: the segments it replaces, the one it makes of them, and that one's rows."""

    replaced: Sequence[Segment]
    segment: Segment
    rows: Sequence[Row]


def _committed(access: PoolAccess, manifest: Manifest, version: str | None, plan: _Plan, now: float) -> Manifest | None:
    """Move the manifest; None where what was uploaded is of no use any more, since another compaction or a prune came between."""
    keys = {segment.key for segment in plan.replaced}
    for attempt in access.races():
        if attempt:
            sweep = manifest.sweep
            manifest, version = access.existing()
            if manifest.sweep != sweep or not keys <= {segment.key for segment in manifest.alive(manifest.number)}:
                return None
        others, _ = access.rows([segment for segment in manifest.alive(manifest.number) if segment.key not in keys])
        segment = plan.segment.model_copy(update={"since": manifest.number + 1})
        changed = following(manifest, segment, winners([*plan.rows, *others]).values(), without=keys, retired=now)
        if access.moved(changed, version):
            return changed
    raise AssertionError("unreachable")


def _unlike_their_records(access: PoolAccess, manifest: Manifest) -> list[str]:
    """Kept versions of which number or digest of the entries is not what was recorded, as when a segment came back that was gone at a push."""
    problems = []
    for record in manifest.versions:
        rows = access.index(manifest, record.number).rows.values()
        digest = content_digest(rows)
        if (len(rows), digest) != (record.num_entries, record.digest):
            recorded = f"{record.num_entries} of digest {record.digest[:12]} are recorded"
            problems.append(f"{access.where}: version {record.number} has {len(rows)} entries of digest {digest[:12]}, and {recorded}")
    return problems


def _whole(access: PoolAccess, rows: Iterable[Row]) -> tuple[list[Row], list[str]]:
    """Of each slot the best entry that can be read, and what is wrong with those that cannot."""
    candidates = {(row.pack, row.offset): row for row in rows}
    checked: set[tuple[str, int]] = set()
    problems: list[str] = []
    while True:
        kept = winners(candidates.values()).values()
        unchecked = [row for row in kept if (row.pack, row.offset) not in checked]
        if not unchecked:
            return sorted(kept, key=lambda row: row.order), problems
        for row, data, problem in read_rows(access.store, access.root, unchecked):
            checked.add((row.pack, row.offset))
            if data is None:
                problems.append(problem)
                del candidates[row.pack, row.offset]


def _poor_packs(kept: Iterable[Row], rows: Iterable[Row], damaged: Collection[str], pack_bytes: int) -> set[str]:
    """Packs worth writing anew: those with much that is not live, and small ones where there are several."""
    total: dict[str, int] = {}
    for row in {(row.pack, row.offset): row for row in rows}.values():
        total[row.pack] = total.get(row.pack, 0) + row.length
    live = dict.fromkeys(total, 0)
    for row in kept:
        live[row.pack] += row.length
    small = {pack for pack, size in live.items() if 0 < size < pack_bytes / 2}
    wasteful = {pack for pack, size in live.items() if 0 < size < _WORTHWHILE_SHARE * total[pack]}
    return wasteful | (small if len(small) > 1 or damaged else set())


def _rewrite(access: PoolAccess, manifest: Manifest, rows: Sequence[Row], pack_bytes: int) -> list[Row]:
    """The rows in new packs, those apart that have just become unreadable; memory holds a few packs at most."""
    readable = ((row, data) for row, data, _ in read_rows(access.store, access.root, rows) if data is not None)
    return write_packs(access.store, access.root, manifest.sweep, readable, pack_bytes=pack_bytes)


def _without_old_versions(manifest: Manifest, now: float, grace_seconds: float) -> Manifest:
    """The manifest with unexpired pins, kept versions and the segments that these have; replaced versions get the time, once."""
    pins = {holder: pin for holder, pin in manifest.pins.items() if pin.expires > now}
    pinned = {pin.number for pin in pins.values()} | {manifest.number}
    seen = [
        record.model_copy(update={"retired": now}) if record.retired is None and record.number != manifest.number else record for record in manifest.versions
    ]
    versions = tuple(record for record in seen if record.number in pinned or record.retired is None or now - record.retired < grace_seconds)
    numbers = [record.number for record in versions]
    needed = {segment.key for number in numbers for segment in manifest.alive(number)}
    segments = tuple(segment for segment in manifest.segments if segment.key in needed)
    return manifest.model_copy(update={"pins": pins, "versions": versions, "segments": segments})
