"""Several writers on one pool at once, one of them killed, while another process compacts and prunes without mercy.

    python -m kfnas.testing.pool_races write URI NAME WRITER LOG
    python -m kfnas.testing.pool_races keep URI NAME ROUNDS

Every push of a writer is three entries that are its own and one for a slot that all pushes contest. A push that returned is a line of the
log. `check` says what must then be true of the pool.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from kfnas.errors import KfnasError, NotFound
from kfnas.pool import Pool, PoolEntry
from kfnas.storage import BlobStore, open_store

SPACE = "5" * 64
ITERATIONS = 100
NUM_WRITERS = 3
NUM_PUSHES = 4

Push = tuple[int, int]
"""Writer and number of the push."""

ALL_PUSHES = [(writer, number) for writer in range(NUM_WRITERS) for number in range(NUM_PUSHES)]


def entries_of(push: Push) -> list[PoolEntry]:
    """What a push brings."""
    writer, number = push
    source = f"child-{writer}-{number}"
    own = [_entry(block, (writer, number), source, 0.5) for block in range(3)]
    return [*own, _entry(3, (0, 0), source, score_of(push))]


def score_of(push: Push) -> float:
    """Score of the contested entry: the winner is neither the first nor the last to come."""
    return ((7 * push[0] + 5 * push[1]) % 11) / 11


def write(store: BlobStore, name: str, writer: int, log: Path) -> None:
    """Push everything of a writer, and note each push that returned."""
    pool = Pool(store, name, pack_bytes=2_000)
    for number in range(NUM_PUSHES):
        pool.push(entries_of((writer, number)), space=SPACE, iterations=ITERATIONS)
        with log.open("a") as file:
            file.write(f"{writer} {number}\n")


def keep(store: BlobStore, name: str, rounds: int) -> None:
    """Compact and prune without any grace, again and again."""
    pool = Pool(store, name, pack_bytes=2_000)
    for _ in range(rounds):
        with contextlib.suppress(NotFound):
            pool.compact(now=0.0)
            pool.prune(now=0.0, grace_seconds=0.0)


def returned(log: Path) -> list[Push]:
    """The pushes that returned."""
    lines = log.read_text().splitlines() if log.exists() else []
    return [(int(writer), int(number)) for writer, number in map(str.split, lines)]


def check(store: BlobStore, name: str, pushes: Iterable[Push]) -> set[Push]:
    """Check a pool after the race; the pushes that are visible.

    Args:
        pushes: those that returned: all of them must be visible. Of any other push all or nothing is.
    """
    pool = Pool(store, name)
    snapshot = pool.at()
    assert snapshot.problems == []
    assert pool.verify().problems == ()
    places = [(row.key, row.task) for row in snapshot.rows]
    assert len(set(places)) == len(places)
    visible: set[Push] = set()
    for push in ALL_PUSHES:
        whole = [_is_there(pool, entry) for entry in entries_of(push)[:3]]
        assert len(set(whole)) == 1, f"push {push} is visible in part"
        visible |= {push} if whole[0] else set()
    assert visible >= set(pushes)
    contested = snapshot.query(3, (0, 0))
    if visible:
        best = min(visible, key=lambda push: (-score_of(push), f"child-{push[0]}-{push[1]}"))
        assert contested is not None
        assert contested.source == f"child-{best[0]}-{best[1]}"
    return visible


def _is_there(pool: Pool, entry: PoolEntry) -> bool:
    snapshot = pool.at()
    match = snapshot.query(entry.block, entry.tokens)
    if match is None or match.source != entry.source:
        return False
    fetched = snapshot.fetch([match])[match]
    assert all(np.array_equal(fetched[name], array) for name, array in entry.tensors.items())
    return True


def _entry(block: int, tokens: tuple[int, int], source: str, score: float) -> PoolEntry:
    rng = np.random.default_rng([block, *map(ord, source)])
    tensors = {"0.conv.weight": rng.standard_normal((4, 3, 3, 3), dtype=np.float32), "0.conv.bias": rng.standard_normal(4, dtype=np.float32)}
    embedding = np.zeros(32, dtype=np.float32)
    embedding[[tokens[0], 16 + tokens[1]]] = 1
    return PoolEntry(block, tokens, embedding, tensors, source, ITERATIONS, score=score)


def main(arguments: list[str]) -> int:
    """Play one part in a race; 1 where kfnas raised."""
    role, uri, name, *rest = arguments
    try:
        if role == "write":
            write(open_store(uri), name, int(rest[0]), Path(rest[1]))
        else:
            keep(open_store(uri), name, int(rest[0]))
    except KfnasError as error:
        os.write(2, f"{type(error).__name__}: {error}\n".encode())
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
