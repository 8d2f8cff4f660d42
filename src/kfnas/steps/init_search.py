"""Step: create the search, or take up an earlier run of it, and claim it for this run."""

from __future__ import annotations

import json
import time
from pathlib import Path

from kfnas.config import parse
from kfnas.controller import SearchConfig
from kfnas.errors import DataError
from kfnas.steps.context import Run, open_run, read_data, write_json
from kfnas.steps.pool_rounds import check_pool, iterations_of
from kfnas.steps.prior import knowledge_of_prior
from kfnas.steps.supernet_search import SupernetSearch, save_supernet
from kfnas.storage import Owner


def init_search(config: str, data: Path, run_id: str, state: Path) -> None:
    """Write to `state` a pointer to the search's newest snapshot, under a fence that only this run has.

    `run_id` is unique to the run and the same in each of its retries: an `Owner` as JSON (a local driver), or any text (a cluster's run id).

    Raises:
        SearchBusy: another live run holds the search.
        ConfigMismatch: the search was started with another configuration.
        DataError: the data set is not the one that the search was started on.
        PoolMismatch: the pool is of another space, or of children trained longer or shorter.
        ConfigError: the prior is no search that is there, or the agent cannot start from one.
        SpaceError: the prior is of another space.
    """
    run = open_run(config)
    pointer = read_data(data)
    if run.config.pool is not None and run.searches.head() is None:
        check_pool(run, iterations_of(run, pointer))

    def initial(folder: Path) -> None:
        if run.config.algorithm is not None:
            save_supernet(SupernetSearch(run.config.algorithm), folder)
            return
        from kfnas.controller import Search

        Search(run.space, _with_horizon(run), seed=run.config.seed, prior=knowledge_of_prior(run)).save(folder)

    claimed = run.searches.claim(
        owner_of(run_id), run.config.digest, initial, now=time.time(), lease_seconds=run.config.execution.lease_seconds, config=run.config.text
    )
    run.searches.put_record("data", "pointer", pointer.model_dump(mode="json"))
    recorded = run.searches.record("data", "pointer")
    if recorded is not None and recorded["digest"] != pointer.digest:
        raise DataError(
            f"search {run.config.name!r} was started on data {recorded['digest'][:12]}, but the data set is now {pointer.digest[:12]}; "
            "restore the data, or start a search of another name"
        )
    write_json(state, claimed)


def owner_of(run_id: str) -> Owner:
    """The run that holds the search: an `Owner` as JSON, from a local driver, or a cluster's run id."""
    if run_id.startswith("{"):
        return parse(Owner, json.loads(run_id), source="run_id")
    return Owner.of_run(run_id)


def _with_horizon(run: Run) -> SearchConfig:
    """The search's configuration; a horizon that is not given is all that the rounds will draw."""
    search = run.config.search
    return search if search.horizon is not None else search.model_copy(update={"horizon": run.config.rounds * search.batch_size})
