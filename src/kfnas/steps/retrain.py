"""Step: train one finalist from scratch, from its last checkpoint on."""

from __future__ import annotations

import json
import logging
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kfnas.config import parse
from kfnas.errors import NotFound
from kfnas.steps.config import task_of
from kfnas.steps.context import Run, code_version, open_run, read_data, write_json
from kfnas.steps.prepared import load_data
from kfnas.storage import Pointer

if TYPE_CHECKING:
    from kfnas.train import PreparedData

logger = logging.getLogger(__name__)


class StoredCheckpoint:
    """The newest checkpoint of one retraining, in the store."""

    def __init__(self, run: Run, key: str, pointer: Pointer) -> None:
        self._run, self._pointer = run, pointer
        self._key = f"searches/{run.config.name}/checkpoints/{key}"

    def load(self) -> bytes | None:
        """The newest checkpoint, or None."""
        try:
            return self._run.store.get(self._key)
        except NotFound:
            return None

    def save(self, data: bytes) -> None:
        """Replace the newest checkpoint, unless a later run has taken over."""
        self._run.require_current(self._pointer)
        self._run.renew(self._pointer)
        self._run.store.put(self._key, data)

    def delete(self) -> None:
        """The retraining is recorded: its checkpoint has no more use."""
        self._run.store.delete(self._key)


def retrain(config: str, data: Path, finalist: str, model: Path) -> None:
    """Write to `model` a pointer to the finalist's trained weights; one that is trained already is not trained again, one that
    diverges is a result with a reason.

    Raises:
        StaleFence: a later run has taken the search over.
    """
    run = open_run(config)
    chosen = json.loads(finalist)
    pointer = parse(Pointer, chosen.pop("pointer"), source="finalist")
    run.require_current(pointer)
    record = run.searches.record("trained", chosen["key"])
    if record is None:
        record = _retrain(run, pointer, read_data(data), chosen)
    write_json(model, {**chosen, **record, "pointer": pointer.model_dump(mode="json")})


def _retrain(run: Run, pointer: Pointer, data: Any, chosen: dict[str, Any]) -> dict[str, Any]:
    import safetensors.torch

    from kfnas.train import TRAINING_SPLITS
    from kfnas.train import retrain as train_from_scratch

    task, _ = task_of(run.config)
    spec = run.final_network(chosen["tokens"], data, width=chosen["width"])
    checkpoint = StoredCheckpoint(run, chosen["key"], pointer)
    logger.info("finalist %s: training from scratch", chosen["name"])
    outcome = train_from_scratch(spec, _augmented(run, load_data(run, data, TRAINING_SPLITS)), task, run.config.retrain, chosen["seed"], checkpoint)
    record = {
        "status": outcome.status,
        "reason": outcome.reason,
        "weights": run.searches.put_blob(safetensors.torch.save(dict(outcome.weights))) if outcome.weights is not None else None,
        "device_seconds": outcome.device_seconds,
        "epochs": outcome.epochs,
        "train_metrics": dict(outcome.metrics),
        "finished_at": time.time(),
        "provenance": {"code_version": code_version(), "data": data.digest, "config": run.config.digest, "space": run.space.digest, "seed": chosen["seed"]},
    }
    run.searches.put_record("trained", chosen["key"], record)
    checkpoint.delete()
    return run.searches.record("trained", chosen["key"]) or record


def _augmented(run: Run, data: PreparedData) -> PreparedData:
    """The data, whose images are augmented by AutoAugment too where the configuration says so."""
    policy = run.config.shared.retrained_as.auto_augment
    if policy is None:
        return data
    return replace(data, meta={**data.meta, "augmentation": {**data.meta.get("augmentation", {}), "auto_augment": policy}})
