"""Step: what the pool has for a batch: the decision how its children start, and the weights that they start from."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy

from kfnas.errors import NotFound
from kfnas.pool import Coverage, Initialisation, Pool, PoolSnapshot, PoolVersion, coverage, initialise_all
from kfnas.space import Architecture, NetworkSpec
from kfnas.steps.context import DataPointer, Run, open_run, read_data, read_json, read_pointer, round_key, write_json
from kfnas.steps.measure_latency import child_key
from kfnas.steps.pool_rounds import (
    KIND,
    PoolRound,
    child_initialisation,
    hold,
    is_warm,
    iterations_of,
    latest_before,
    open_pool,
    pool_round,
    settings_of,
    task_of_pool,
    unfit,
)

logger = logging.getLogger(__name__)
DRAWN_CHANNELS = 0x600D


def pull_pool(config: str, data: Path, state: Path, plan: Path, pooled: Path) -> None:
    """Write to `pooled` the batch's plan with each child's initialisation, and the ledger key that follows from it.

    All children of a batch start from the pool, or none. The decision and the version of the pool are recorded before anything is trained, the weights are in
    the search's own store: run again, this step asks no pool.

    Raises:
        StaleFence: a later run has taken the search over.
        NotFound: the version that the search has started from is gone from the pool.
    """
    run = open_run(config)
    pointer, prepared, planned = read_pointer(state), read_data(data), read_json(plan)
    run.require_current(pointer)
    run.renew(pointer)
    # Those that could not be measured too: a later run may measure them, and finds this round's record made.
    asking = [row for row in planned["rows"] if row["fate"] != "infeasible"]
    if asking:
        number = int(planned["round"])
        used = pool_round(run, number) or _decided(run, number, asking, planned["rows"], prepared)
        if used.warm:
            planned["rows"] = [_initialised(run, row, used, prepared) if row["fate"] == "train" else row for row in planned["rows"]]
        logger.info("round %d starts from %s: %d of %d blocks matched, %d hits", number, used.initialisation, used.matched, used.queried, used.hits)
    write_json(pooled, {**planned, "pool": run.config.pool is not None})


def _decided(run: Run, number: int, asking: list[dict[str, Any]], rows: list[dict[str, Any]], data: DataPointer) -> PoolRound:
    """Ask the pool, and record for good what follows for this round: decided by the rows `asking`, with initial weights for all `rows`."""
    settings, earlier = settings_of(run), latest_before(run, number)
    snapshot = _opened(run, earlier)
    reason = unfit(run, snapshot, iterations_of(run, data))
    if reason is not None:
        # It was right when the search began, so another search has made an empty pool its own since. A search does not stop for that.
        return _recorded(run, number, PoolRound(version=snapshot.version, warm=False, queried=0, matched=0, hits=0, similarity=None, entries=0, reason=reason))
    known = coverage(snapshot, run.space, _networks(run, asking, data), floor=settings.floor, task=task_of_pool(run))
    if not settings.read or not is_warm(known.matched / known.queried if known.queried else 0.0, earlier, settings.min_match):
        return _recorded(run, number, _answer(snapshot, known))
    starts = _started(run, snapshot, asking, data)
    known = _summed(starts)
    share = known.matched / known.queried if known.queried else 0.0
    if not is_warm(share, earlier, settings.min_match):
        return _recorded(run, number, _answer(snapshot, known))
    if share < settings.min_match:
        logger.warning(
            "round %d: %.1f %% of the blocks matched, fewer than pool.min_match (%g %%); the search has changed to the pool once and stays with it",
            number,
            100 * share,
            100 * settings.min_match,
        )
    # On another device a later run may find within the budget what is over it here, and finds this round's record made.
    ids = {row["id"] for row in asking}
    others = [row for row in rows if row["id"] not in ids]
    started = zip([*asking, *others], [*starts, *_started(run, snapshot, others, data)], strict=True)
    weights = {row["id"]: run.searches.put_blob(safetensors.numpy.save(start.weights)) for row, start in started}
    filled = sum(start.filled for start in starts) / len(starts)
    return _recorded(run, number, _answer(snapshot, known).model_copy(update={"warm": True, "weights": weights, "filled": filled}))


def _networks(run: Run, rows: Sequence[dict[str, Any]], data: DataPointer) -> list[tuple[Architecture, NetworkSpec]]:
    return [(run.space.architecture(tuple(row["tokens"])), run.network(row["tokens"], data)) for row in rows]


def _started(run: Run, snapshot: PoolSnapshot, rows: Sequence[dict[str, Any]], data: DataPointer) -> list[Initialisation]:
    """What the children of some rows start from; the same for a row whatever other rows are asked for."""
    settings = settings_of(run)
    return initialise_all(
        snapshot,
        run.space,
        _networks(run, rows, data),
        floor=settings.floor,
        task=task_of_pool(run),
        fixed_parts=settings.fixed_parts,
        rngs=[np.random.default_rng([row["seed"], DRAWN_CHANNELS]) for row in rows],
    )


def _opened(run: Run, earlier: PoolRound | None) -> PoolSnapshot:
    """The version that this round reads, pinned: the one that children have started from before, else the configured one, else the newest.

    Raises:
        NotFound: it is gone from the pool.
    """
    pool, configured = open_pool(run), settings_of(run).version
    if earlier is not None and earlier.warm:
        return _held_still(run, pool, earlier.version)
    version = pool.head() if configured is None else pool.at(configured).version
    hold(run, pool, version)
    return pool.at(version)


def _held_still(run: Run, pool: Pool, version: PoolVersion) -> PoolSnapshot:
    try:
        hold(run, pool, version)
        return pool.at(version)
    except NotFound as gone:
        raise NotFound(
            f"version {version.number} ({version.digest[:12]}) is gone from {pool.access.where}, and children of {run.config.name!r} have started from it; "
            "restore the pool's folder from a backup, or begin a search of another name; for long pauses raise pool.pin_hours"
        ) from gone


def _answer(snapshot: PoolSnapshot, known: Coverage) -> PoolRound:
    """The record of a round that starts from random weights."""
    return PoolRound(
        version=snapshot.version,
        warm=False,
        queried=known.queried,
        matched=known.matched,
        hits=known.hits,
        similarity=sum(known.similarities) / len(known.similarities) if known.similarities else None,
        entries=len(snapshot),
        problems=tuple(snapshot.problems),
    )


def _recorded(run: Run, number: int, answer: PoolRound) -> PoolRound:
    """The round's record: this answer, or that of whoever was faster."""
    run.searches.put_record(KIND, round_key(number), answer.model_dump(mode="json"))
    recorded = pool_round(run, number)
    assert recorded is not None
    for problem in recorded.problems:
        logger.warning("passed over: %s", problem)
    if recorded.reason is not None:
        logger.warning("round %d starts from random weights: %s", number, recorded.reason)
    return recorded


def _summed(starts: Sequence[Initialisation]) -> Coverage:
    return Coverage(
        sum(start.queried for start in starts),
        sum(start.matched for start in starts),
        sum(start.hits for start in starts),
        tuple(similarity for start in starts for similarity in start.similarities),
    )


def _initialised(run: Run, row: dict[str, Any], used: PoolRound, data: DataPointer) -> dict[str, Any]:
    """A plan's row with what its child starts from."""
    key = child_key(run, row["tokens"], row["seed"], data, child_initialisation(used, row["id"]))
    return {**row, "key": key, "initialisation": used.initialisation, "initial_weights": used.weights[row["id"]]}
