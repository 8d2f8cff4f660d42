"""Step: give the pool of one store and its copy in another what each lacks."""

from __future__ import annotations

import logging
from pathlib import Path

from kfnas.errors import NotFound, UserError
from kfnas.pool import EMPTY, Pool, mirror
from kfnas.steps.context import open_run, write_json
from kfnas.steps.pool_rounds import open_pool
from kfnas.storage import open_store

logger = logging.getLogger(__name__)
DIRECTIONS = ("to", "from", "both")


def sync_pool(config: str, other: str, direction: str, metrics: Path) -> None:
    """Bring the configuration's pool and the one of the same name in the store `other` together; write to `metrics` how much was new to which,
    and how many entries could not be copied.

    Args:
        config: a run's configuration, with a pool.
        other: address of the other store.
        direction: `to`: the other store is given what it lacks; `from`: the configuration's pool is; or `both`.
        metrics: the artifact to write.

    Raises:
        UserError: there is no such direction.
        NotFound: there is nothing to copy.
        PoolMismatch: the two are of another space or number of iterations.
    """
    if direction not in DIRECTIONS:
        raise UserError(f"direction {direction!r} is none; give {', '.join(DIRECTIONS)}")
    own = open_pool(open_run(config))
    theirs = Pool(open_store(other), own.name)
    ways = [way for way in (("sent", own, theirs, "to"), ("fetched", theirs, own, "from")) if direction in (way[3], "both")]
    if all(source.head() == EMPTY for _, source, _, _ in ways):
        raise NotFound(f"pool {own.name!r} holds nothing to copy; mend its name or the store's address")
    reports = {name: mirror(source, target) for name, source, target, _ in ways}
    problems = [problem for report in reports.values() for problem in report.problems]
    for problem in problems:
        logger.warning("not copied: %s", problem)
    write_json(metrics, {**{name: report.added + report.replaced for name, report in reports.items()}, "problems": len(problems)})
