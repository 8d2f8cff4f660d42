"""Step: rewards of a batch, then the policy update."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from kfnas.controller import Result
from kfnas.errors import NotFound
from kfnas.steps.context import Run, open_run, read_json, read_pointer, write_json

logger = logging.getLogger(__name__)


def update(config: str, state: Path, plan: Path, next_state: Path) -> None:
    """Tell the search what became of its open batch, and write to `next_state` the pointer to what it learnt.

    Raises:
        NotFound: a child that the plan says to train is not in the ledger: its shard did not run.
        StaleFence: a later run has taken the search over.
    """
    run = open_run(config)
    pointer = read_pointer(state)
    run.renew(pointer)
    search = run.load_search(pointer)
    rows = read_json(plan)["rows"]
    if rows:
        search.update([_result(run, row) for row in rows])
        pointer = run.commit_search(pointer, search)
    logger.info("%d rounds closed, %d activated samples", search.round, search.num_activated)
    write_json(next_state, pointer)


def _result(run: Run, row: dict[str, Any]) -> Result:
    if row["fate"] != "train":
        return Result(id=row["id"], status=row["fate"], cost=row["cost"], reason=row["reason"])
    record = run.searches.child(row["key"])
    if record is None:
        raise NotFound(f"child {row['id']} has no record ({row['key'][:12]}) in search {run.config.name!r}; its shard did not end: resume the search")
    return Result(
        id=row["id"],
        status=record["status"],
        accuracy=record["accuracy"],
        cost=row["cost"],
        reason=record["reason"],
        metrics=record["metrics"],
        fidelity=f"{record['epochs']:g} epochs" if record["epochs"] is not None else None,
        device_seconds=record["device_seconds"],
        artifacts={"child": row["key"]},
        initialisation=row.get("initialisation", "random"),
    )
