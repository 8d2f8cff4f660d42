"""The one blob of a pool that changes: which index segments make up which version, who has pinned one, and how far sweeping has come.

A version is never written down by itself. Each commit gives the next number; a segment is part of the versions from its `since` up to, and
without, its `until`. So one read opens any version that is still kept, and a version costs a hundred bytes.

`sweep` makes deletion safe without trusting clocks. Packs and segments carry in their names the sweep in which they were uploaded. Pruning
first moves `sweep` on, in the manifest, and only then deletes blobs of earlier sweeps. A writer that uploaded before and commits after finds
another sweep in the manifest than the one it uploaded under, and uploads again: nothing that is referred to can be gone.
"""

from __future__ import annotations

from pydantic import Field

from kfnas.config import Config, parse_document
from kfnas.errors import NotFound

FORMAT = 1


class PoolVersion(Config):
    """A state of a pool.

    Attributes:
        number: counts the pool's commits from 1; 0 is the empty pool.
        digest: sha256 (hex) of its entries, wherever they are stored: compacting leaves it as it is, and a mirrored pool has the same.
    """

    number: int = Field(ge=0)
    digest: str


class Segment(Config):
    """An immutable list of entries.

    Attributes:
        key: name of its blob within the pool.
        since: first version that it is part of.
        until: first version that it is part of no more; None: it is part of the current one.
        num_rows: entries in it.
        packs: names of the packs that hold them.
    """

    key: str
    since: int
    until: int | None = None
    num_rows: int
    packs: tuple[str, ...]


class VersionRecord(Config):
    """A version that is still kept.

    Attributes:
        number, digest: see `PoolVersion`.
        num_entries: entries that it answers with.
        retired: when a prune first found it replaced by a later one; None: not yet.
    """

    number: int
    digest: str
    num_entries: int
    retired: float | None = None


class Pin(Config):
    """A version that a live reader holds.

    Attributes:
        number: the version.
        expires: until when, in seconds since the epoch.
    """

    number: int
    expires: float


class Manifest(Config):
    """See the module. `unneeded` holds blobs that no kept version refers to, and when a prune first saw that."""

    format: int = FORMAT
    space: str
    iterations: int
    number: int = 0
    sweep: int = 0
    segments: tuple[Segment, ...] = ()
    versions: tuple[VersionRecord, ...] = ()
    pins: dict[str, Pin] = Field(default_factory=dict)
    unneeded: dict[str, float] = Field(default_factory=dict)

    def version(self, number: int) -> VersionRecord:
        """The record of a kept version.

        Raises:
            NotFound: it is kept no more, or never was.
        """
        for record in self.versions:
            if record.number == number:
                return record
        kept = ", ".join(str(record.number) for record in self.versions[-8:]) or "none"
        raise NotFound(f"the pool has no version {number} (kept: {kept}); pin a version that must stay readable, or take the current one")

    def find(self, wanted: PoolVersion | int) -> VersionRecord:
        """The record of a kept version: an int is a number; a `PoolVersion` is known by its content, which compacting and mirroring keep while numbers
        change.

        Raises:
            NotFound: it is kept no more, or never was.
        """
        if isinstance(wanted, int):
            return self.version(wanted)
        same = [record for record in self.versions if record.digest == wanted.digest]
        if same:
            return next((record for record in same if record.number == wanted.number), same[-1])
        there = self.version(wanted.number)
        raise NotFound(
            f"version {wanted.number} is {there.digest[:12]}, not {wanted.digest[:12]}; it is one of another pool: mend the name, or the store's address"
        )

    def head(self) -> PoolVersion:
        """The current version."""
        record = self.version(self.number)
        return PoolVersion(number=record.number, digest=record.digest)

    def alive(self, number: int) -> tuple[Segment, ...]:
        """The segments of a version."""
        return tuple(segment for segment in self.segments if segment.since <= number and (segment.until is None or number < segment.until))

    def references(self) -> set[str]:
        """Names of all blobs that the segments need."""
        return {key for segment in self.segments for key in (segment.key, *segment.packs)}


def parse_manifest(text: bytes, where: str, key: str) -> Manifest:
    """The manifest that the bytes hold, found under `key`.

    Raises:
        CorruptError: they hold none.
        StateVersionError: a newer kfnas wrote them.
    """
    remedy = f"restore it from a backup, or delete {key}, then `kfnas pool sync` from a whole copy"
    return parse_document(Manifest, text, newest=FORMAT, where=where, what="a pool's manifest", remedy=remedy)


def sweep_of(key: str) -> int:
    """The sweep in which a pack or segment was uploaded; -1 for a name that is neither's."""
    number = key.rpartition("/")[2].partition("-")[0]
    return int(number) if number.isascii() and number.isdigit() else -1


def blob_name(kind: str, sweep: int, digest: str) -> str:
    """Name within the pool of a pack or segment."""
    return f"{kind}/{sweep:06d}-{digest}"
