"""Step: evolution on shared weights, the second half of the one-shot search."""

from __future__ import annotations

import logging
import time
from dataclasses import replace
from pathlib import Path

from kfnas.oneshot import EvolutionState
from kfnas.oneshot.evolution import Scored
from kfnas.oneshot.evolution import run as evolve_on
from kfnas.steps.context import Run, read_data, write_json
from kfnas.steps.operator_costs import limit_of, require_costs
from kfnas.steps.supernet_search import close_round, mixop_space, open_supernet
from kfnas.storage import Pointer

logger = logging.getLogger(__name__)
MODEL_KIND = "evolution"


def evolve(config: str, data: Path, state: Path, next_state: Path) -> None:
    """Write to `next_state` a pointer to the state after the whole evolution, which closes the search's round; the same one where it is over.

    Each model is recorded as it is scored, so a step that is run again goes on with the next one.

    Raises:
        NotFound: the costs of operators are not pinned.
        BudgetError: no random model is within it.
        StaleFence: a later run has taken the search over.
    """
    opened = open_supernet(config, state, next_state)
    if opened is None:
        return
    run, pointer, search = opened
    space = mixop_space(run)
    pinned = require_costs(run)
    settings = run.config.shared.evolution_within(limit_of(run, pinned), space)
    costs = None if pinned is None else pinned.costs
    found = _recorded(run, pointer, settings.num_models)
    if len(found.models) < settings.num_models:
        from kfnas.steps.shared_weights import SharedWeights
        from kfnas.train.loop import cpu_threads

        assert search.weights is not None, "train_supernet comes first"
        evaluator = SharedWeights(run, read_data(data)).evaluator(run.searches.blob(search.weights))

        scored_at = time.monotonic()

        def record(grown: EvolutionState) -> None:
            nonlocal scored_at
            run.require_current(pointer)
            if not grown.exhausted:
                model = grown.models[-1]
                value = {"tokens": list(model.path), "accuracy": model.accuracy, "device_seconds": time.monotonic() - scored_at}
                run.searches.put_record(MODEL_KIND, _key(pointer, len(grown.models) - 1), value)
            run.renew(pointer)
            scored_at = time.monotonic()

        with cpu_threads(run.config.shared.training.threads):
            found = evolve_on(evaluator, space.num_choices, settings, seed=run.config.seed, cost=costs, state=found, after_model=record)
    best = found.best(1)[0]
    metrics = {
        "evolution/best_accuracy": best.accuracy,
        "evolution/num_models": float(len(found.models)),
        "supernet/num_epochs": float(search.num_epochs),
        "supernet/loss": search.loss,
    }
    logger.info("evolution: %d models, the best has %.4f", len(found.models), best.accuracy)
    records = [run.searches.record(MODEL_KIND, _key(pointer, number)) or {} for number in range(len(found.models))]
    device_seconds = sum(record["device_seconds"] for record in records)
    write_json(next_state, close_round(run, pointer, replace(search, evolution=found), metrics, device_seconds=device_seconds))


def _recorded(run: Run, pointer: Pointer, most: int) -> EvolutionState:
    """The models that an earlier attempt has scored."""
    models: list[Scored] = []
    while len(models) < most and (record := run.searches.record(MODEL_KIND, _key(pointer, len(models)))) is not None:
        models.append(Scored(tuple(record["tokens"]), record["accuracy"]))
    return EvolutionState(tuple(models))


def _key(pointer: Pointer, number: int) -> str:
    return f"{pointer.digest[:32]}-{number:06d}"
