"""Step: read a data set, check it, split it, and put it into the store under its digest."""

from __future__ import annotations

import logging
import os
import tempfile
from pathlib import Path

from kfnas.config import parse
from kfnas.errors import ConfigMismatch
from kfnas.steps.config import task_of
from kfnas.steps.context import DATA_PREFIX, DataPointer, Run, open_run, write_json
from kfnas.storage import put_directory

logger = logging.getLogger(__name__)


def prepare_data(config: str, data: Path) -> None:
    """Write to `data` a pointer to the prepared data set; a search that has prepared its data once goes on with the same.

    Raises:
        DataError: the data set is missing, unreadable or unfit for the task.
        ConfigMismatch: a fidelity study of the store has the search's name.
    """
    run = open_run(config)
    if run.searches.record("fidelity", "config") is not None:
        raise ConfigMismatch(f"name: {run.store.uri} has a fidelity study {run.config.name!r}, and both would use one folder; give the search another name")
    known = run.searches.record("data", "pointer")
    write_json(data, known if known is not None else prepare(run))


def data_of(run: Run) -> DataPointer:
    """The data that the run's search has prepared; what it would prepare, where it has not begun."""
    known = run.searches.record("data", "pointer")
    return prepare(run) if known is None else parse(DataPointer, known, source="data")


def prepare(run: Run) -> DataPointer:
    """Read, split and store the data set that the run names."""
    task, settings = task_of(run.config)
    prepared = task.prepare(settings, seed=run.config.seed, cache_dir=_cache_dir())
    with tempfile.TemporaryDirectory(prefix="kfnas-data-") as folder:
        digest = prepared.to_files(Path(folder))
        snapshot = put_directory(run.store, DATA_PREFIX, Path(folder))
    logger.info("data %s: %s", digest[:12], ", ".join(f"{name} {len(split)}" for name, split in prepared.splits.items()))
    return DataPointer(digest=digest, snapshot=snapshot, meta=dict(prepared.meta))


def _cache_dir() -> Path | None:
    """Where downloads are kept: $XDG_CACHE_HOME/kfnas; None is the task's own default."""
    home = os.environ.get("XDG_CACHE_HOME")
    return Path(home) / "kfnas" if home else None
