"""Several writers on the same keys of a blob store at once, in processes where the store has an address and in threads where it has none."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from functools import partial
from typing import TypeVar

from kfnas.errors import PreconditionFailed
from kfnas.storage import BlobStore, open_store

NUM_RACERS = 4
NUM_INCREASES = 12
COUNTER = "counter"
CREATED = [f"{method}/{number}" for number in range(8) for method in ("put_if_absent", "swap")]

Place = BlobStore | str
ResultT = TypeVar("ResultT")


def race(run: Callable[[Place, int], ResultT], place: Place) -> list[ResultT]:
    """Results of `run(place, 0)`, `run(place, 1)`, ... at the same time."""
    pool: Executor
    if isinstance(place, str):
        pool = ProcessPoolExecutor(NUM_RACERS, mp_context=multiprocessing.get_context("spawn"))
    else:
        pool = ThreadPoolExecutor(NUM_RACERS)
    with pool:
        return list(pool.map(partial(run, place), range(NUM_RACERS)))


def create(place: Place, racer: int) -> list[str]:
    """Try to create each of `CREATED`; those that this racer created."""
    store = _opened(place)
    return [key for key in CREATED if _created(store, key, b"%d" % racer)]


def increase(place: Place, racer: int) -> int:
    """Add one to `COUNTER`, again and again, by compare-and-swap; how many tries that took."""
    store = _opened(place)
    num_tries = 0
    for _ in range(NUM_INCREASES):
        while True:
            num_tries += 1
            current = store.get_versioned(COUNTER)
            try:
                store.swap(COUNTER, b"%d" % (int(current.data) + 1), current.version)
                break
            except PreconditionFailed:
                continue
    return num_tries


def _opened(place: Place) -> BlobStore:
    return open_store(place) if isinstance(place, str) else place


def _created(store: BlobStore, key: str, data: bytes) -> bool:
    if key.startswith("put_if_absent"):
        return store.put_if_absent(key, data)
    try:
        store.swap(key, data, None)
    except PreconditionFailed:
        return False
    return True
