"""The other side of a packed shard: a process that trains children as they are sent to it. It imports torch only after its thread count is set."""

from __future__ import annotations

import dataclasses
import os
import threading
from multiprocessing.connection import Connection
from typing import Any


def main(connection: Connection) -> None:
    """Answer jobs until the parent closes the connection or ends.

    Messages from the parent: first (folder, task, config), then for each child (`ChildJob` without weights, initial weights or None). Messages to it:
    "ready", then for each child ("outcome", `ChildOutcome` without weights, trained weights or None) or ("error", an exception). Weights travel as
    safetensors.
    """
    threading.Thread(target=_end_with_parent, daemon=True).start()
    os.environ["OMP_NUM_THREADS"] = "1"
    try:
        _serve(connection)
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return


def _serve(connection: Connection) -> None:
    folder, task, config = connection.recv()
    import safetensors.torch

    from kfnas.train.data import PreparedData
    from kfnas.train.shard import CHILD_SPLITS, packed_weights, train_job

    data = PreparedData.from_files(folder, CHILD_SPLITS)
    connection.send("ready")
    while True:
        job, weights = connection.recv()
        message: tuple[Any, ...]
        try:
            job = dataclasses.replace(job, initial_weights=None if weights is None else safetensors.torch.load(weights))
            message = ("outcome", *packed_weights(train_job(job, data, task, config)))
        except Exception as error:  # noqa: BLE001 - the process's outermost boundary: the parent raises it again
            message = ("error", error)
        connection.send(message)


def _end_with_parent() -> None:
    """A worker whose parent was killed ends at once, in the middle of a child."""
    import multiprocessing

    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
