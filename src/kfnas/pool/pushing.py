"""Adding entries: upload packs, upload a segment, move the manifest. Whoever loses the race for the manifest goes on from the newer one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

from kfnas.config import Config
from kfnas.errors import PoolMismatch, UserError
from kfnas.pool.access import PoolAccess
from kfnas.pool.entries import Row, Slot, content_digest, unlike, winners
from kfnas.pool.manifest import Manifest, PoolVersion, Segment, VersionRecord
from kfnas.pool.packs import PACK_BYTES, write_packs

EMPTY = PoolVersion(number=0, digest=content_digest([]))
"""The version of a pool that nothing was pushed to."""

Blobs = Callable[[Sequence[Row]], Iterator[tuple[Row, bytes | memoryview]]]


class PushReport(Config):
    """What became of a push.

    Attributes:
        version: one that holds all of the entries, or better ones in their slots.
        added: entries that filled an empty slot.
        replaced: entries that took the place of a lesser one.
        known: entries that were there already, or whose slot holds a better one.
    """

    version: PoolVersion
    added: int = 0
    replaced: int = 0
    known: int = 0


def add_rows(access: PoolAccess, rows: Iterable[Row], blobs: Blobs, *, space: str, iterations: int, pack_bytes: int = PACK_BYTES) -> PushReport:
    """Make entries part of the pool's next version, those apart that it need not take.

    Nothing is visible before the manifest moves, and then all of it is. What is uploaded again after a lost race is only what is missing
    under the newer manifest.

    Args:
        blobs: the bytes of wanted rows; it may leave out some that cannot be read.

    Raises:
        PoolMismatch: the pool is of another space or number of iterations.
        UserError: an entry has another number of tokens, or another size of embedding, than others at its position.
        StateVersionError: a newer kfnas wrote the pool.
    """
    offered = list(rows)
    stored: dict[Row, Row] = {}
    failed: set[Row] = set()
    sweep = -1
    for _ in access.races():
        manifest, version = access.read()
        manifest = manifest or Manifest(space=space, iterations=iterations)
        check_fits(access, manifest, space, iterations)
        index = access.index(manifest, manifest.number).rows
        _check_lengths(offered, index)
        fresh = [row for row in _better(offered, index) if row not in failed]
        if manifest.sweep != sweep:
            stored, sweep = {}, manifest.sweep
        missing = [row for row in fresh if row not in stored]
        stored.update((row, row) for row in write_packs(access.store, access.root, sweep, blobs(missing), pack_bytes=pack_bytes))
        failed.update(row for row in missing if row not in stored)
        new = [stored[row] for row in fresh if row in stored]
        if not new:
            head = manifest.head() if manifest.number else EMPTY
            return PushReport(version=head, known=len(offered) - len(failed))
        changed = following(manifest, access.write_segment(new, manifest), {**index, **winners(new)}.values())
        if access.moved(changed, version):
            replaced = sum(row.slot in index for row in new)
            return PushReport(version=changed.head(), added=len(new) - replaced, replaced=replaced, known=len(offered) - len(failed) - len(new))
    raise AssertionError("unreachable")


def following(manifest: Manifest, segment: Segment, rows: Iterable[Row], *, without: Iterable[str] = (), retired: float | None = None) -> Manifest:
    """The manifest of the next version: with `segment`, and without the segments named `without`.

    Args:
        rows: the entries of that version.
        retired: when the earlier versions were replaced, where the caller has a clock.
    """
    listed = list(rows)
    number, dropped = manifest.number + 1, set(without)
    kept = tuple(each.model_copy(update={"until": number}) if each.until is None and each.key in dropped else each for each in manifest.segments)
    earlier = tuple(each.model_copy(update={"retired": each.retired if each.retired is not None else retired}) for each in manifest.versions)
    record = VersionRecord(number=number, digest=content_digest(listed), num_entries=len(listed))
    return manifest.model_copy(update={"number": number, "segments": (*kept, segment), "versions": (*earlier, record)})


def check_fits(access: PoolAccess, manifest: Manifest, space: str, iterations: int) -> None:
    """Refuse what would make a pool's entries unequal.

    Raises:
        PoolMismatch: another space, or another number of iterations.
    """
    if manifest.space != space:
        raise PoolMismatch(f"{access.where} is of space {manifest.space[:12]}, and this one is {space[:12]}; use another pool for another space")
    if manifest.iterations != iterations:
        raise PoolMismatch(
            f"{access.where} holds children trained for {manifest.iterations} iterations in all, and these were trained for {iterations}; "
            "train them equally long, or use another pool"
        )


def _check_lengths(rows: Iterable[Row], index: dict[Slot, Row]) -> None:
    """Refuse entries that could be compared with no others at their position."""
    lengths = {row.position: row.lengths for row in index.values()}
    for row in rows:
        if row.lengths != lengths.setdefault(row.position, row.lengths):
            raise UserError(f"{unlike(row, lengths[row.position])}; push what `blocks_of` makes of the pool's space")


def _better(rows: Iterable[Row], index: dict[Slot, Row]) -> list[Row]:
    """Of the rows offered, the best of each slot, where the index has none or a lesser one, in lexicographic order."""
    best = winners(rows).values()
    return sorted((row for row in best if row.slot not in index or row.precedence < index[row.slot].precedence), key=lambda row: row.order)
