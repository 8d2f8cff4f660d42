"""Prepared data out of the store, and numbers into its records: what the steps that train or evaluate share."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from kfnas.steps.context import DATA_PREFIX, DataPointer, Run
from kfnas.storage import get_directory, read_manifest

if TYPE_CHECKING:
    from kfnas.train import PreparedData


def finite(metrics: Mapping[str, float]) -> dict[str, float]:
    """The metrics that a record can hold: a task may give NaN for one that it could not compute."""
    return {name: float(value) for name, value in metrics.items() if math.isfinite(value)}


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
