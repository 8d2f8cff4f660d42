"""Step: train one shard of a fidelity study, each child once."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kfnas.steps.context import DataPointer, Run
from kfnas.steps.fidelity_children import RANDOM, PlannedChild, Study, missing_of, open_study, read_plan
from kfnas.steps.prepared import data_folder, outcome_record

if TYPE_CHECKING:
    import torch

    from kfnas.train import ChildOutcome

logger = logging.getLogger(__name__)


def fidelity_train(config: str, plan: Path, shard: str) -> None:
    """Train those of the shard's children that the ledger lacks. Each is written as it ends, so a step that is run again trains what is missing and no more.

    Raises:
        CorruptError: initial weights are damaged.
    """
    study, planned = open_study(config), read_plan(plan)
    wanted = set(json.loads(shard)["ids"])
    children = [child for child in planned.children if child.id in wanted]
    missing = missing_of(study, children)
    logger.info("shard: %d children, %d to train", len(children), len(missing))

    def alike(child: PlannedChild) -> tuple[bool, int]:
        return child.role == "donor", child.epochs

    for (_, epochs), group in groupby(sorted(missing, key=lambda child: (*alike(child), child.id)), key=alike):
        same = list(group)
        _train(study, study.run(epochs), planned.data_of(same[0]), same)


def _train(study: Study, run: Run, data: DataPointer, children: list[PlannedChild]) -> None:
    """Children of one recipe on one data set."""
    from kfnas.train import CHILD_SPLITS, ChildJob, train_shard

    by_id = {child.id: child for child in children}
    jobs = [ChildJob(child.id, run.network(child.tokens, data), child.seed, _initial_weights(study, child)) for child in children]

    def finished(job: ChildJob, outcome: ChildOutcome) -> None:
        child = by_id[job.id]
        study.searches.put_child(child.key, _record(run, data, child, outcome), _weights(outcome) if child.role == "donor" else None)
        logger.info("child %s finished: %s %s", child.id, outcome.status, outcome.accuracy if outcome.status == "ok" else outcome.reason)

    with data_folder(run, data, CHILD_SPLITS) as folder:
        train_shard(jobs, folder, run.task, run.config.proxy, workers=run.config.execution.workers, on_finished=finished)


def _record(run: Run, data: DataPointer, child: PlannedChild, outcome: ChildOutcome) -> dict[str, Any]:
    return {
        "id": child.id,
        "role": child.role,
        "tokens": list(child.tokens),
        "seed": child.seed,
        "epochs": child.epochs,
        "initialisation": child.initial_weights or RANDOM,
        **outcome_record(run, data, outcome),
    }


def _weights(outcome: ChildOutcome) -> bytes | None:
    import safetensors.torch

    return None if outcome.weights is None else safetensors.torch.save(dict(outcome.weights))


def _initial_weights(study: Study, child: PlannedChild) -> Mapping[str, torch.Tensor] | None:
    import safetensors.torch

    return None if child.initial_weights is None else safetensors.torch.load(study.searches.blob(child.initial_weights))
