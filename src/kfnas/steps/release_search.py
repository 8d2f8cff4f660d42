"""Step: the run is over; the next one need not wait for its lease."""

from __future__ import annotations

from pathlib import Path

from kfnas.steps.context import open_run, read_pointer


def release_search(config: str, state: Path) -> None:
    """Give the search up, where no driver does so: on a cluster. A local driver holds it over several runs and releases it itself."""
    run = open_run(config)
    run.release(read_pointer(state))
