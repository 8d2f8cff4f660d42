"""Prepared data out of the store, and outcomes into its records: what the steps that train or evaluate share."""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kfnas.steps.context import DATA_PREFIX, DataPointer, Run, code_version
from kfnas.storage import get_directory, read_manifest

if TYPE_CHECKING:
    from kfnas.train import ChildOutcome, PreparedData


def finite(metrics: Mapping[str, float]) -> dict[str, float]:
    """The metrics that a record can hold: a task may give NaN for one that it could not compute."""
    return {name: float(value) for name, value in metrics.items() if math.isfinite(value)}


def outcome_record(run: Run, data: DataPointer, outcome: ChildOutcome) -> dict[str, Any]:
    """What the record of any child says of how its training ended, when, and by which code on which data."""
    return {
        "status": outcome.status,
        "accuracy": outcome.accuracy,
        "metrics": finite(outcome.metrics),
        "reason": outcome.reason,
        "device_seconds": outcome.device_seconds,
        "finished_at": time.time(),
        "provenance": {"code_version": code_version(), "data": data.digest, "config": run.config.digest, "space": run.space.digest},
    }


@contextmanager
def data_folder(run: Run, data: DataPointer, splits: tuple[str, ...]) -> Iterator[Path]:
    """A temporary folder with those of the named splits that the prepared data have, hashes checked."""
    files = set(read_manifest(run.store, DATA_PREFIX, data.snapshot).files)
    wanted = {"meta.json"} | {f"{split}.safetensors" for split in splits} & files
    with tempfile.TemporaryDirectory(prefix="kfnas-data-") as folder:
        get_directory(run.store, DATA_PREFIX, data.snapshot, Path(folder), only=wanted, link=True)
        yield Path(folder)


def load_data(run: Run, data: DataPointer, splits: tuple[str, ...]) -> PreparedData:
    """The named splits of the prepared data."""
    from kfnas.train import PreparedData

    with data_folder(run, data, splits) as folder:
        return PreparedData.from_files(folder, only=splits)
