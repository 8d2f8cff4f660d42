"""A search's place in a blob store: immutable snapshots, one record for each finished child, and one head that moves by compare-and-swap.

    searches/<id>/HEAD                         the only blob that changes: see `kfnas.storage.head`
    searches/<id>/snapshots/<digest>.json      manifests of states, each naming its parent
    searches/<id>/blobs/<sha256>               files of states, weights of children
    searches/<id>/children/<key>.json          one for each finished child
    searches/<id>/records/<kind>/<key>.json    other records of this search
    latency/<key>.json                         latency records, shared by all searches of the store
    latency_tables/<key>.json                  operator latency tables, shared too
    latency_rounds/<key>.<round>.<part>.json   what a table was made of

A run claims the search, which gives it a fence number; its steps pass pointers along and commit states under that fence. Another run may
claim it only when the first one is known to be gone or its lease has ended, and from then on the first one's steps cannot commit. A step
that is run again on the same pointer commits nothing new and returns the same pointer. The clock is an argument: `now` is in seconds since
the epoch.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from kfnas.config import canonical_json
from kfnas.errors import ConflictError, CorruptError, NotFound, PreconditionFailed, StaleFence, UserError
from kfnas.storage import directories, records
from kfnas.storage.blobs import BlobStore, is_name
from kfnas.storage.head import Head, Pointer, parse_head
from kfnas.storage.owner import Owner

LEASE_SECONDS = 120.0
SHARED_KINDS = frozenset({"latency", "latency_tables", "latency_rounds"})

_MAX_RACES = 50
_logger = logging.getLogger(__name__)


class SearchStore:
    """One search in a blob store. It holds no state of its own, so threads may share it.

    Args:
        store: where.
        search_id: name of the search: letters, digits and `. _ = + @ -`.

    Raises:
        UserError: the name is unfit.
    """

    def __init__(self, store: BlobStore, search_id: str) -> None:
        if not is_name(search_id):
            raise UserError(f"search name {search_id!r} is not allowed; use letters, digits and . _ = + @ - and begin with a letter, digit or underscore")
        self.store = store
        self.search_id = search_id
        self._root = f"searches/{search_id}"
        self._head_key = f"{self._root}/HEAD"

    # Head and lease

    def head(self) -> Head | None:
        """The head, or None before the first claim.

        Raises:
            CorruptError: it is damaged.
            StateVersionError: a newer kfnas wrote it.
        """
        try:
            return self._read_head()[0]
        except NotFound:
            return None

    def claim(
        self,
        owner: Owner,
        config_digest: str,
        initial: Callable[[Path], None],
        *,
        now: float,
        lease_seconds: float = LEASE_SECONDS,
        take_over: bool = False,
        config: str = "",
    ) -> Pointer:
        """Hold the search for a run; the pointer to its current state under the run's fence.

        Claiming again for the same `owner.run_id` keeps the fence.

        Args:
            owner: the run.
            config_digest: digest of its configuration.
            initial: writes the initial state's files into an empty folder; called only if the search does not exist yet.
            now: the time.
            lease_seconds: how long the claim lasts without `renew`.
            take_over: take the search even from a run that seems to live.
            config: the configuration as JSON text, shown when another one is refused.

        Raises:
            SearchBusy: another run holds it.
            ConfigMismatch: it was started with another configuration.
        """
        fresh: str | None = None
        for _ in range(_MAX_RACES):
            try:
                head, version = self._read_head()
            except NotFound:
                fresh = fresh or self._initial_snapshot(initial)
                claimed = self._first_head(fresh, owner, config_digest, config, now)
                version = None
            else:
                head.check_config(config_digest, config)
                claimed = self._claimed(head, owner, now, take_over)
            claimed = _leased(claimed, now, lease_seconds)
            if self._moved(claimed, version):
                return claimed.pointer()
        raise self._too_many_races()

    def renew(self, run_id: str, *, now: float, lease_seconds: float = LEASE_SECONDS) -> None:
        """Lengthen the lease: the heartbeat of a run.

        Raises:
            StaleFence: the run does not hold the search any more.
        """

        def renewed(head: Head) -> Head:
            if head.owner is None or head.owner.run_id != run_id:
                raise StaleFence(
                    f"search {self.search_id!r} is not held by run {run_id!r} any more but by {head.owner or 'none'}; stop this run without writing"
                )
            return _leased(head, now, lease_seconds)

        self._change_head(renewed)

    def release(self, run_id: str) -> None:
        """Give the search up, so that another run need not wait for the lease; harmless if the run does not hold it."""

        def released(head: Head) -> Head:
            if head.owner is None or head.owner.run_id != run_id:
                return head
            return head.model_copy(update={"owner": None, "lease_expires": 0.0})

        self._change_head(released)

    # States

    def read_state(self, state: Pointer | str, directory: Path) -> None:
        """Write a state's files into a folder, each verified first.

        Args:
            state: a pointer, or a snapshot's digest.

        Raises:
            NotFound: there is no such snapshot.
            CorruptError: it is damaged; nothing damaged is written.
        """
        digest = state if isinstance(state, str) else self._own(state).digest
        directories.get_directory(self.store, self._root, digest, directory)

    def commit(self, previous: Pointer, directory: Path, *, round: int, finished: bool = False) -> Pointer:
        """Make the files of a folder the state that follows `previous`; its pointer.

        The same commit again, even after later ones, changes nothing and returns the same pointer.

        Args:
            previous: the state that these files were computed from.
            round: rounds that are closed in the new state.
            finished: the search came to its end with it.

        Raises:
            StaleFence: another run claimed the search since; nothing changed.
            ConflictError: another state follows `previous` already.
        """
        self._check_fence(self._own(previous), self._existing_head())
        facts = {"parent": previous.digest, "sequence": previous.sequence + 1, "round": round}
        digest = directories.put_directory(self.store, self._root, directory, facts)
        pointer = Pointer(search_id=self.search_id, fence=previous.fence, sequence=previous.sequence + 1, round=round, digest=digest)

        def committed(head: Head) -> Head:
            self._check_fence(previous, head)
            if head.sequence > previous.sequence:
                self._check_committed(pointer, head)
                return head
            if (head.sequence, head.digest) != (previous.sequence, previous.digest):
                raise ConflictError(
                    f"search {self.search_id!r} has no state {previous.sequence} ({previous.digest}); "
                    f"its head is {head.sequence} ({head.digest}): resume from there"
                )
            return head.model_copy(update={"sequence": pointer.sequence, "round": round, "digest": digest, "finished": finished})

        self._change_head(committed)
        return pointer

    # Children and other records

    def child(self, key: str) -> dict[str, Any] | None:
        """The record of a finished child, or None; its `weights` is their sha256, or None.

        Raises:
            CorruptError: the record is damaged.
        """
        return records.get_record(self.store, self._children, key)

    def put_child(self, key: str, record: Mapping[str, Any], weights: bytes | None = None) -> bool:
        """Record a finished child, weights first, unless there is a record; whether this one was written.

        Raises:
            UserError: the record is not JSON, or has a field `weights` of its own.
        """
        if "weights" in record:
            raise UserError(f"record of child {key!r} has a field `weights`; it is the store's own: pass the bytes as an argument")
        digest = None if weights is None else self.put_blob(weights)
        return records.put_record(self.store, self._children, key, {**record, "weights": digest})

    def child_weights(self, record: Mapping[str, Any]) -> bytes:
        """The weights of a child's record, verified.

        Raises:
            NotFound: the child has none, or they are gone.
            CorruptError: they differ from their digest.
        """
        if not record.get("weights"):
            raise NotFound(f"search {self.search_id!r}: this child's record has no weights; train it with weights kept")
        return self.blob(str(record["weights"]))

    def children(self) -> Iterator[str]:
        """Sorted keys of the finished children."""
        return records.list_records(self.store, self._children)

    def delete_child(self, key: str) -> None:
        """Forget a child, so that it is trained again; an absent one is fine."""
        records.delete_record(self.store, self._children, key)

    def record(self, kind: str, key: str) -> dict[str, Any] | None:
        """A record of another kind, or None. Kinds in `SHARED_KINDS` are shared by all searches of the store.

        Raises:
            CorruptError: the record is damaged.
        """
        return records.get_record(self.store, self._folder(kind), key)

    def put_record(self, kind: str, key: str, record: Mapping[str, Any]) -> bool:
        """Write a record of another kind unless there is one under the key; whether it was written.

        Raises:
            UserError: the record is not JSON.
        """
        return records.put_record(self.store, self._folder(kind), key, record)

    def records(self, kind: str) -> Iterator[str]:
        """Sorted keys of the records of a kind."""
        return records.list_records(self.store, self._folder(kind))

    def put_blob(self, data: bytes) -> str:
        """Store bytes; their sha256 (hex)."""
        return directories.put_blob(self.store, self._root, data)

    def blob(self, digest: str) -> bytes:
        """The bytes whose sha256 is `digest`, verified.

        Raises:
            NotFound: there are none.
            CorruptError: they differ from their digest.
        """
        return directories.get_blob(self.store, self._root, digest)

    # How

    @property
    def _children(self) -> str:
        return f"{self._root}/children"

    def _folder(self, kind: str) -> str:
        return kind if kind in SHARED_KINDS else f"{self._root}/records/{kind}"

    def _read_head(self) -> tuple[Head, str | None]:
        text, version = self.store.get_versioned(self._head_key)
        return parse_head(text, f"{self.store.uri}: {self._head_key}"), version

    def _existing_head(self) -> Head:
        head = self.head()
        if head is None:
            raise NotFound(f"{self.store.uri}: no search {self.search_id!r}; start it first, or mend its name or the store's address")
        return head

    def _moved(self, head: Head, version: str | None) -> bool:
        """Whether the head moved: False when another writer was faster."""
        try:
            self.store.swap(self._head_key, canonical_json(head).encode(), version)
        except PreconditionFailed:
            return False
        return True

    def _change_head(self, change: Callable[[Head], Head]) -> None:
        """Move the head to `change(head)`, again on the newer head when another writer was faster. An equal one is not written."""
        for _ in range(_MAX_RACES):
            try:
                head, version = self._read_head()
            except NotFound:
                self._existing_head()
                continue
            changed = change(head)
            if changed == head or self._moved(changed, version):
                return
        raise self._too_many_races()

    def _too_many_races(self) -> ConflictError:
        return ConflictError(
            f"{self.store.uri}: the head of search {self.search_id!r} changed under each of {_MAX_RACES} attempts; find what writes it so often"
        )

    def _initial_snapshot(self, initial: Callable[[Path], None]) -> str:
        with tempfile.TemporaryDirectory(prefix="kfnas-initial-") as folder:
            initial(Path(folder))
            return directories.put_directory(self.store, self._root, Path(folder), {"parent": None, "sequence": 0, "round": 0})

    def _first_head(self, digest: str, owner: Owner, config_digest: str, config: str, now: float) -> Head:
        return Head(
            search_id=self.search_id,
            config_digest=config_digest,
            config=config,
            fence=1,
            sequence=0,
            round=0,
            digest=digest,
            owner=owner,
            claimed_at=now,
            lease_expires=now,
        )

    def _claimed(self, head: Head, owner: Owner, now: float, take_over: bool) -> Head:
        if head.owner is not None and head.owner.run_id == owner.run_id:
            return head.model_copy(update={"owner": owner})
        if not take_over:
            head.check_free(now)
        if head.owner is not None:
            _logger.warning("search %s is taken over from %s", self.search_id, head.owner)
        return head.model_copy(update={"fence": head.fence + 1, "owner": owner, "claimed_at": now, "lease_expires": now})

    def _own(self, pointer: Pointer) -> Pointer:
        if pointer.search_id != self.search_id:
            raise UserError(f"the pointer is one of search {pointer.search_id!r}, not of {self.search_id!r}; pass this search's own state")
        return pointer

    def _check_fence(self, pointer: Pointer, head: Head) -> None:
        if pointer.fence != head.fence:
            raise StaleFence(
                f"search {self.search_id!r} was taken over by {head.owner or 'another run'} (fence {head.fence}, this step has {pointer.fence}); "
                "stop this run without writing, or resume the search"
            )

    def _check_committed(self, pointer: Pointer, head: Head) -> None:
        """Refuse a commit beside the one that the head descends from."""
        digest, sequence = head.digest, head.sequence
        while sequence > pointer.sequence:
            facts = directories.read_manifest(self.store, self._root, digest).facts
            if not isinstance(facts.get("parent"), str):
                raise CorruptError(f"{self.store.uri}: snapshot {digest} of search {self.search_id!r} names no parent; restore the store from a copy")
            digest, sequence = facts["parent"], sequence - 1
        if digest != pointer.digest:
            raise ConflictError(
                f"search {self.search_id!r}: state {pointer.sequence} is {digest} already, and this step computed {pointer.digest}; "
                "a step must give the same result when it runs again: resume from the head"
            )


def _leased(head: Head, now: float, lease_seconds: float) -> Head:
    """The head with a lease of at least that long; a lease is never shortened."""
    return head.model_copy(update={"lease_expires": max(head.lease_expires, now + lease_seconds)})
