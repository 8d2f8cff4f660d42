"""What a search starts from: the knowledge of an earlier one in the same space, taken once and for all when the search is made."""

from __future__ import annotations

import logging
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from kfnas.config import Config, parse
from kfnas.errors import ConfigError, NotFound
from kfnas.steps.config import run_config
from kfnas.steps.context import Run
from kfnas.storage import SearchStore, open_store

if TYPE_CHECKING:
    from kfnas.controller import Knowledge

logger = logging.getLogger(__name__)
KIND, KEY = "search", "prior"


class Prior(Config):
    """Which state of which search was taken: immutable, so that a search that is made again after a crash starts from the same, whatever the earlier one has
    learnt since."""

    search: str
    store: str
    snapshot: str
    round: int
    task: str


def check_prior(run: Run) -> None:
    """Refuse a prior that is not there.

    Raises:
        ConfigError: there is no such search, or it is this one.
    """
    earlier = _earlier(run)
    if earlier is not None and earlier.head() is None:
        raise ConfigError(
            f"prior: no search {earlier.search_id!r} in {earlier.store.uri}; give the name, and with {{search, store}} the store, of one that is there"
        )


def knowledge_of_prior(run: Run) -> Knowledge | None:
    """What the configured earlier search had learnt when this one was first made; None where none is configured.

    Raises:
        ConfigError: there is no such search, or it is this one.
        NotFound: the recorded state is gone.
    """
    from kfnas.controller import Search

    earlier = _earlier(run)
    if earlier is None:
        return None
    known = run.searches.record(KIND, KEY)
    if known is None:
        run.searches.put_record(KIND, KEY, _now(run, earlier).model_dump(mode="json"))
        known = run.searches.record(KIND, KEY)
    prior = parse(Prior, known, source="record of the prior")
    with tempfile.TemporaryDirectory(prefix="kfnas-prior-") as folder:
        try:
            earlier.read_state(prior.snapshot, Path(folder))
        except NotFound as error:
            raise NotFound(f"prior: state {prior.snapshot[:12]} of search {prior.search!r} is gone ({error}); restore it, or start under a new name") from None
        search = Search.load(Path(folder), space=run.space)
    logger.info("starting from search %s: %d rounds, %d activated samples", prior.search, search.round, search.num_activated)
    return search.knowledge(task=prior.task)


def _earlier(run: Run) -> SearchStore | None:
    settings = run.config.prior
    if settings is None:
        return None
    store = run.store if settings.store is None else open_store(settings.store)
    if settings.search == run.config.name and store.uri == run.store.uri:
        raise ConfigError(f"prior: {settings.search!r} is this search itself; name an earlier one")
    return SearchStore(store, settings.search)


def _now(run: Run, earlier: SearchStore) -> Prior:
    check_prior(run)
    head = earlier.head()
    assert head is not None
    assert run.config.prior is not None
    label = run.config.prior.task
    if label is None:
        label = run_config(head.config).task_label
    return Prior(search=earlier.search_id, store=earlier.store.uri, snapshot=head.digest, round=head.round, task=label)
