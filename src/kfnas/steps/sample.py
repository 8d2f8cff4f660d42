"""Step: the controller draws a batch of candidates."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from kfnas.errors import SearchExhausted
from kfnas.steps.context import Run, open_run, read_pointer, write_json

if TYPE_CHECKING:
    from kfnas.controller import Candidate, Search

logger = logging.getLogger(__name__)


def sample(config: str, state: Path, batch: Path, next_state: Path) -> None:
    """Write to `batch` the open candidates, and to `next_state` the pointer to the search that knows them.

    Run again on the same state it writes the same; when a batch is open, that batch. A search that has had all its rounds, or has seen all
    that it can reach, opens no further batch: the round goes through green with nothing to do.

    Raises:
        StaleFence: a later run has taken the search over.
    """
    run = open_run(config)
    pointer = read_pointer(state)
    run.renew(pointer)
    search = run.load_search(pointer)
    candidates = _candidates(run, search)
    pointer = run.commit_search(pointer, search)
    logger.info("round %d: %d candidates", search.round, len(candidates))
    write_json(
        batch,
        {
            "round": search.round,
            "candidates": [
                {"id": candidate.id, "tokens": list(run.space.canonical(candidate.architecture).tokens), "seed": candidate.seed, "kind": candidate.kind}
                for candidate in candidates
            ],
        },
    )
    write_json(next_state, pointer)


def _candidates(run: Run, search: Search) -> Sequence[Candidate]:
    if search.round >= run.config.rounds:
        return ()
    try:
        return search.suggest()
    except SearchExhausted as exhausted:
        logger.warning("%s", exhausted)
        run.searches.put_record("search", "exhausted", {"round": search.round, "reason": str(exhausted)})
        return ()
