"""Step: train one shard of a batch, each child once."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kfnas.config import parse
from kfnas.errors import ConfigError
from kfnas.steps.config import task_of
from kfnas.steps.context import DataPointer, Run, open_run, read_data, read_json, write_json
from kfnas.steps.prepared import data_folder, outcome_record
from kfnas.storage import Pointer

if TYPE_CHECKING:
    import torch

logger = logging.getLogger(__name__)


def train_children(config: str, data: Path, plan: Path, shard: str, results: Path) -> None:
    """Train those of the shard's children that the ledger lacks, and write to `results` what became of all of them.

    Each child is written to the ledger as it ends, so a step that is run again trains what is missing and no more. A child that diverges or runs out of memory
    is a result with a reason. A child whose plan names initial weights starts from them.

    Raises:
        ConfigError: the configuration has a pool, and the plan was not shown to it.
        CorruptError: initial weights are damaged.
        StaleFence: a later run has taken the search over.
    """
    run = open_run(config)
    prepared = read_data(data)
    planned = read_json(plan)
    if run.config.pool is not None and planned["rows"] and "pool" not in planned:
        raise ConfigError("pool: configured, and this pipeline has no step that asks it; run search_rounds_pooled, or remove `pool`")
    pointer = parse(Pointer, planned["pointer"], source="plan")
    wanted = set(json.loads(shard)["ids"])
    rows = [row for row in planned["rows"] if row["id"] in wanted]
    missing = [row for row in rows if run.searches.child(row["key"]) is None]
    logger.info("shard: %d children, %d to train", len(rows), len(missing))
    run.require_current(pointer)
    run.renew(pointer)
    if missing:
        _train(run, pointer, prepared, missing)
    write_json(results, {row["id"]: run.searches.child(row["key"]) for row in rows})


def _train(run: Run, pointer: Pointer, data: DataPointer, rows: list[dict[str, Any]]) -> None:
    import safetensors.torch

    from kfnas.train import CHILD_SPLITS, ChildJob, ChildOutcome, train_shard

    task, _ = task_of(run.config)
    jobs = [ChildJob(id=row["id"], spec=run.network(row["tokens"], data), seed=row["seed"], initial_weights=_initial_weights(run, row)) for row in rows]
    by_id = {row["id"]: row for row in rows}

    def finished(job: ChildJob, outcome: ChildOutcome) -> None:
        row = by_id[job.id]
        run.require_current(pointer)
        record = {
            "id": row["id"],
            "tokens": row["tokens"],
            "seed": row["seed"],
            "cost": row["cost"],
            "mult_adds": row["mult_adds"],
            "params": row["params"],
            "epochs": epochs_of(run, data),
            **_initialisation(row),
            **outcome_record(run, data, outcome),
        }
        record["provenance"]["run"] = pointer.fence
        weights = safetensors.torch.save(dict(outcome.weights)) if outcome.weights is not None else None
        run.searches.put_child(row["key"], record, weights)
        run.renew(pointer)
        logger.info("child %s finished: %s %s", row["id"], outcome.status, outcome.accuracy if outcome.status == "ok" else outcome.reason)

    for row in rows:
        logger.info("child %s starts: %s", row["id"], row["key"])
    with data_folder(run, data, CHILD_SPLITS) as folder:
        train_shard(jobs, folder, task, run.config.proxy, workers=run.config.execution.workers, on_finished=finished)


def _initial_weights(run: Run, row: dict[str, Any]) -> Mapping[str, torch.Tensor] | None:
    import safetensors.torch

    digest = row.get("initial_weights")
    return None if digest is None else safetensors.torch.load(run.searches.blob(digest))


def _initialisation(row: dict[str, Any]) -> dict[str, Any]:
    """How a child of a pool's blocks started; nothing of one that started from random weights, as all do without a pool."""
    return {name: row[name] for name in ("initialisation", "initial_weights") if name in row}


def epochs_of(run: Run, data: DataPointer) -> float:
    """Passes over mini-train that a child's recipe asks for."""
    proxy = run.config.proxy
    if proxy.epochs is not None:
        return proxy.epochs
    return round((proxy.steps or 0) * proxy.batch_size / max(1, data.meta["sizes"]["mini_train"]), 4)
