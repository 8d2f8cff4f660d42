"""Step: one round of BetaNAS: alternations of weight steps and importance steps."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from kfnas.errors import NotFound, UserError
from kfnas.oneshot import BetaNAS, BetaNASConfig, StepRecord, records_as_arrays
from kfnas.oneshot import alternate as alternations
from kfnas.oneshot.packing import Packed, pack, unpack
from kfnas.space.mixop_costs import OperatorCosts
from kfnas.steps.context import DataPointer, Run, code_version, read_data, write_json
from kfnas.steps.operator_costs import require_costs
from kfnas.steps.retrain import StoredCheckpoint
from kfnas.steps.supernet_search import (
    TRAINED_KIND,
    Alternations,
    Hold,
    SupernetSearch,
    close_round,
    mixop_space,
    open_supernet,
    trained_key,
)
from kfnas.storage import Pointer

logger = logging.getLogger(__name__)
Arrays = Mapping[str, npt.NDArray[Any]]


def alternate(config: str, data: Path, state: Path, next_state: Path) -> None:
    """Write to `next_state` a pointer to the state after one more round; the same one where the search is over.

    A round that was killed goes on from its last checkpoint, in which weights and importance stand together. Alpha, p and the training counts of each
    importance step go to a blob of the search.

    Raises:
        UserError: the training diverged.
        NotFound: the costs of operators are not pinned.
        ConfigError: no path meets the target.
        StaleFence: a later run has taken the search over.
    """
    opened = open_supernet(config, state, next_state)
    if opened is None:
        return
    run, pointer, search = opened
    record = run.searches.record(TRAINED_KIND, trained_key(pointer, search))
    if record is None:
        record = _alternate(run, pointer, read_data(data), search)
    done = search.betanas
    betanas = Alternations(record["importance"], (*done.logged, record["logged"]), (*done.results, tuple(record["result"])))
    write_json(next_state, close_round(run, pointer, replace(search, weights=record["weights"], betanas=betanas), record["metrics"]))


def _alternate(run: Run, pointer: Pointer, data: DataPointer, search: SupernetSearch) -> dict[str, Any]:
    from kfnas.steps.shared_weights import SharedWeights
    from kfnas.train.loop import cpu_threads

    settings = _settings(run)
    until = min(settings.num_steps, (search.round + 1) * run.config.shared.steps_per_round) * settings.importance_steps
    checkpoint = StoredCheckpoint(run, f"supernet-{pointer.digest}", pointer)
    weights, importance, logged = _begun(run, search, checkpoint.load())
    shared = SharedWeights(run, data)
    training, started = shared.training(weights), time.monotonic()
    betanas, costs = _betanas(run, importance), _costs(run)
    records: list[StepRecord] = []
    hold = Hold(run, pointer)
    with cpu_threads(run.config.shared.training.threads):
        try:
            going = alternations(betanas, training, shared.gates(), seed=run.config.seed)
            while betanas.num_steps_done < until:
                hold.keep()
                records += next(going)
                if len(records) >= run.config.shared.training.checkpoint_steps and betanas.num_steps_done < until:
                    logged, records = _together(logged, records), []
                    checkpoint.save(_packed(training.save(), betanas.save(), logged))
        except FloatingPointError as error:
            raise UserError(f"oneshot.training: {error}") from None
    logged = _together(logged, records)
    run.require_current(pointer)
    record = {
        "weights": run.searches.put_blob(training.save()),
        "importance": run.searches.put_blob(betanas.save()),
        "logged": run.searches.put_blob(pack(Packed({}, logged))),
        "result": list(betanas.result()),
        "epochs": len(logged["step"]) / settings.importance_steps * settings.weight_steps / shared.steps_per_epoch,
        "metrics": _metrics(betanas, logged, costs),
        "device_seconds": time.monotonic() - started,
        "finished_at": time.time(),
        "code_version": code_version(),
    }
    run.searches.put_record(TRAINED_KIND, trained_key(pointer, search), record)
    checkpoint.delete()
    logger.info("alternations: %d of %d, likeliest path %s", betanas.num_steps_done, betanas.num_importance_steps, record["result"])
    return run.searches.record(TRAINED_KIND, trained_key(pointer, search)) or record


def importance_of(run: Run, search: SupernetSearch) -> BetaNAS:
    """Alpha, p and the remaining paths as the last closed round left them.

    Raises:
        NotFound: no round is closed, or the costs of operators are not pinned.
    """
    if search.betanas.importance is None:
        raise NotFound(f"search {run.config.name!r} has made no alternations yet; resume it")
    return _betanas(run, run.searches.blob(search.betanas.importance))


def _betanas(run: Run, importance: bytes | None) -> BetaNAS:
    betanas = BetaNAS(mixop_space(run).num_choices, _settings(run), costs=_costs(run))
    if importance is not None:
        betanas.restore(importance)
    return betanas


def _settings(run: Run) -> BetaNASConfig:
    return run.config.shared.betanas_towards(run.config.search.reward.target)


def _costs(run: Run) -> OperatorCosts | None:
    pinned = require_costs(run)
    return None if pinned is None else pinned.costs


def _begun(run: Run, search: SupernetSearch, checkpoint: bytes | None) -> tuple[bytes | None, bytes | None, Arrays]:
    """Weights, importance and what was logged, where the round's last attempt or the round before left them."""
    if checkpoint is not None:
        arrays = dict(unpack(checkpoint).arrays)
        return arrays.pop("training").tobytes(), arrays.pop("importance").tobytes(), arrays
    if search.weights is None or search.betanas.importance is None:
        return None, None, {}
    return run.searches.blob(search.weights), run.searches.blob(search.betanas.importance), {}


def _packed(training: bytes, importance: bytes, logged: Arrays) -> bytes:
    return pack(Packed({}, {**logged, "training": np.frombuffer(training, np.uint8), "importance": np.frombuffer(importance, np.uint8)}))


def _together(logged: Arrays, records: list[StepRecord]) -> Arrays:
    """What was logged before, and after it the arrays of further steps."""
    if not records:
        return logged
    added = records_as_arrays(records)
    return {name: np.concatenate([logged[name], array]) if name in logged else array for name, array in added.items()}


def _metrics(betanas: BetaNAS, logged: Arrays, costs: OperatorCosts | None) -> dict[str, float]:
    entropy = -float((betanas.probability * np.log(np.where(betanas.probability > 0, betanas.probability, 1.0))).sum(axis=1).mean())
    metrics = {
        "betanas/loss": float(logged["loss"].mean()),
        "betanas/beta": float(logged["beta"][-1]),
        "betanas/remaining_share": float(betanas.remaining.sum() / sum(betanas.num_choices)),
        "betanas/entropy": entropy,
    }
    if costs is not None and betanas.expected_cost is not None:
        metrics |= {"betanas/expected_cost": float(betanas.expected_cost), "betanas/result_cost": float(costs(betanas.result()))}
    return metrics
