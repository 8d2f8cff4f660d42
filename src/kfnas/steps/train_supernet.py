"""Step: train the shared weights up to the epoch that is due: the warm-up of a search first, later the interval between two decisions."""

from __future__ import annotations

import logging
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from kfnas.errors import ConfigError, NotFound, UserError
from kfnas.oneshot import Sampler
from kfnas.oneshot.paths import complete
from kfnas.oneshot.pc_nas import sample_path, training_state
from kfnas.steps.context import DataPointer, Run, code_version, open_run, read_data, read_pointer, write_json
from kfnas.steps.retrain import StoredCheckpoint
from kfnas.steps.supernet_search import TRAINED_KIND, Hold, SupernetSearch, commit_supernet, load_supernet, mixop_space, trained_key
from kfnas.storage import Pointer

logger = logging.getLogger(__name__)


def train_supernet(config: str, data: Path, state: Path, next_state: Path) -> None:
    """Write to `next_state` a pointer to the state whose weights are trained as far as the search wants them; the same one where they are already.

    A training that was killed goes on from its last checkpoint. One that ended is recorded under the state that it began from, and is not made again.

    Raises:
        UserError: the training diverged.
        NotFound, ConfigError: the search whose weights are to be taken is not there, not at its end, or on other data.
        StaleFence: a later run has taken the search over.
    """
    run = open_run(config)
    pointer = read_pointer(state)
    run.require_current(pointer)
    run.renew(pointer)
    search = load_supernet(run, pointer)
    due, donor = epochs_due(run, search), _donor(run)
    if search.weights is not None and (search.num_epochs >= due or donor is not None):
        write_json(next_state, pointer)
        return
    record = run.searches.record(TRAINED_KIND, trained_key(pointer, search))
    if record is None:
        record = _train(run, pointer, read_data(data), search, due) if donor is None else _taken_over(run, pointer, read_data(data), search, donor)
    trained = replace(search, weights=record["weights"], num_epochs=record.get("num_epochs", due), loss=record["loss"])
    write_json(next_state, commit_supernet(run, pointer, trained))


def epochs_due(run: Run, search: SupernetSearch) -> int:
    """Epochs that the weights are to have before the search decides again; after the last decision none are added."""
    config = run.config.shared
    if search.algorithm != "pcnas":
        return config.epochs
    intervals = min(len(search.pcnas.updates), len(mixop_space(run).num_choices) - 1)
    return config.pcnas.warmup_epochs + intervals * config.pcnas.interval_epochs


def _train(run: Run, pointer: Pointer, data: Any, search: SupernetSearch, due: int) -> dict[str, Any]:
    from kfnas.steps.shared_weights import SharedWeights
    from kfnas.train.loop import cpu_threads

    checkpoint = StoredCheckpoint(run, f"supernet-{pointer.digest}", pointer)
    saved = checkpoint.load() or (run.searches.blob(search.weights) if search.weights is not None else None)
    shared = SharedWeights(run, data)
    training, started, loss = shared.training(saved), time.monotonic(), search.loss
    num_steps, hold = due * shared.steps_per_epoch, Hold(run, pointer)
    logger.info("supernet: %d of %d steps are trained, %d are due", training.num_steps_done, shared.num_steps, num_steps)
    with cpu_threads(run.config.shared.training.threads):
        while training.num_steps_done < num_steps:
            hold.keep()
            try:
                loss = training.step(_sampler(run, search)).loss
            except FloatingPointError as error:
                raise UserError(f"oneshot.training: {error}") from None
            # Not behind the last step: whoever goes on from a checkpoint has a step to make, and so its loss.
            if training.num_steps_done % run.config.shared.training.checkpoint_steps == 0 and training.num_steps_done < num_steps:
                checkpoint.save(training.save())
                logger.info("supernet: step %d, loss %.4f", training.num_steps_done, loss)
    run.require_current(pointer)
    record = {
        "weights": run.searches.put_blob(training.save()),
        "num_steps": training.num_steps_done,
        "loss": loss,
        "epochs": float(due - search.num_epochs),
        "device_seconds": time.monotonic() - started,
        "finished_at": time.time(),
        "code_version": code_version(),
    }
    run.searches.put_record(TRAINED_KIND, trained_key(pointer, search), record)
    checkpoint.delete()
    return run.searches.record(TRAINED_KIND, trained_key(pointer, search)) or record


def _donor(run: Run) -> Run | None:
    """The finished search whose shared weights are taken instead of a training."""
    name = run.config.shared.weights_of if run.config.algorithm == "oneshot" else None
    return None if name is None else replace(run, config=run.config.model_copy(update={"name": name}))


def _taken_over(run: Run, pointer: Pointer, data: DataPointer, search: SupernetSearch, donor: Run) -> dict[str, Any]:
    """The record of weights that another search has trained. It costs this one nothing.

    Raises:
        NotFound: there is no such search, or it is not at its end.
        ConfigError: it is on other data.
    """
    head = donor.searches.head()
    if head is None:
        raise NotFound(f"oneshot.weights_of: no search {donor.config.name!r} in {run.store.uri}; run it first, or mend its name")
    found = load_supernet(donor, head.pointer())
    if found.weights is None or not found.ranked(len(mixop_space(run).num_choices)):
        raise NotFound(f"oneshot.weights_of: search {donor.config.name!r} is not at its end; `kfnas resume` it first")
    theirs = donor.searches.record("data", "pointer") or {}
    if theirs.get("digest") != data.digest:
        raise ConfigError(f"oneshot.weights_of: search {donor.config.name!r} was on data {theirs.get('digest')}, and this is {data.digest}; search on the same")
    record = {
        "weights": run.searches.put_blob(donor.searches.blob(found.weights)),
        "num_epochs": found.num_epochs,
        "loss": found.loss,
        "taken_from": found.digest(),
        "epochs": 0.0,
        "device_seconds": 0.0,
        "finished_at": time.time(),
        "code_version": code_version(),
    }
    run.searches.put_record(TRAINED_KIND, trained_key(pointer, search), record)
    return run.searches.record(TRAINED_KIND, trained_key(pointer, search)) or record


def _sampler(run: Run, search: SupernetSearch) -> Sampler:
    num_choices = mixop_space(run).num_choices
    pool = training_state(search.pcnas, run.config.shared.pcnas)

    def sample(rng: np.random.Generator) -> tuple[int, ...]:
        return sample_path(pool, num_choices, rng) if search.algorithm == "pcnas" else complete((), num_choices, rng)

    return sample
