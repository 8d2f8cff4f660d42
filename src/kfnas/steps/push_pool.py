"""Step: put the blocks of a batch's trained children into the pool."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from kfnas.errors import NotFound, PoolMismatch
from kfnas.pool import PoolEntry, blocks_of
from kfnas.steps.context import DataPointer, Run, open_run, read_data, read_json, read_pointer, round_key, write_json
from kfnas.steps.pool_rounds import RANDOM, iterations_of, open_pool, settings_of, task_of_pool

logger = logging.getLogger(__name__)
KIND = "pushed"


def push_pool(config: str, data: Path, state: Path, plan: Path, metrics: Path) -> None:
    """Store the blocks of those of the batch's children that started from random weights and were trained with success; write to `metrics` what became of them.

    Children that started from the pool are not stored: their parts have been trained longer than others. The step comes before the update that closes the
    round, so that a run which takes up a killed one finds the pool as an undisturbed one would. Pushing again adds nothing.

    Raises:
        NotFound: a child that the plan says to train is not in the ledger: its shard did not run.
        StaleFence: a later run has taken the search over.
    """
    run = open_run(config)
    pointer, prepared, planned = read_pointer(state), read_data(data), read_json(plan)
    run.require_current(pointer)
    run.renew(pointer)
    rows = [row for row in planned["rows"] if row["fate"] == "train" and row.get("initialisation", RANDOM) == RANDOM]
    told: dict[str, Any] = {"added": 0, "replaced": 0, "known": 0, "version": None}
    if rows and settings_of(run).push:
        key = round_key(int(planned["round"]))
        if run.searches.record(KIND, key) is None:
            run.searches.put_record(KIND, key, _pushed(run, rows, prepared))
        told = run.searches.record(KIND, key) or told
    write_json(metrics, told)


def _pushed(run: Run, rows: list[dict[str, Any]], data: DataPointer) -> dict[str, Any]:
    pool = open_pool(run)
    try:
        report = pool.push(_entries(run, rows, data), space=run.space.digest, iterations=iterations_of(run, data))
    except PoolMismatch as mismatch:
        # It was right when the search began, so another search has made an empty pool its own since. A search does not stop for that.
        logger.warning("nothing was put into the pool: %s", mismatch)
        return {"added": 0, "replaced": 0, "known": 0, "version": None, "reason": str(mismatch)}
    logger.info("pool %s, version %d: %d entries added, %d replaced, %d known", pool.name, report.version.number, report.added, report.replaced, report.known)
    return {"added": report.added, "replaced": report.replaced, "known": report.known, "version": report.version.number}


def _entries(run: Run, rows: list[dict[str, Any]], data: DataPointer) -> Iterator[PoolEntry]:
    """Blocks of the children that are whole, in the order of the plan."""
    import safetensors.numpy

    settings, iterations = settings_of(run), iterations_of(run, data)
    for row in rows:
        record = run.searches.child(row["key"])
        if record is None:
            raise NotFound(f"child {row['id']} has no record ({row['key'][:12]}) in search {run.config.name!r}; its shard did not end: resume the search")
        if record["status"] != "ok":
            continue
        yield from blocks_of(
            run.space,
            run.space.architecture(tuple(row["tokens"])),
            run.network(row["tokens"], data),
            safetensors.numpy.load(run.searches.child_weights(record)),
            source=row["key"],
            iterations=iterations,
            score=record["accuracy"],
            task=task_of_pool(run),
            fixed_parts=settings.fixed_parts,
        )
