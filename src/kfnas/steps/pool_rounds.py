"""What a search remembers of its pool: for each round which version it read, what that version held, and whether children started from it.

A round's record is written before any of its children is trained and never changes, so that a step that runs again, or a run that takes over, does the same
although another search has added to the pool meanwhile.
"""

from __future__ import annotations

import logging
import secrets
import time
from typing import Any

from pydantic import Field

from kfnas.config import Config, parse
from kfnas.errors import ConfigError, DataError, KfnasError, NotFound, PoolMismatch
from kfnas.pool import Pool, PoolSnapshot, PoolVersion
from kfnas.steps.config import PoolConfig
from kfnas.steps.context import DataPointer, Run, round_key
from kfnas.storage import open_store

logger = logging.getLogger(__name__)
KIND = "pool"
RANDOM = "random"


class PoolRound(Config):
    """One round's use of the pool.

    Attributes:
        version: the version that was read.
        warm: whether the round's children start from the pool's blocks; otherwise all start from random weights.
        queried, matched, hits: blocks that were asked for, those whose best match is similar enough and has something to give, and those of which the very
            same block was there.
        similarity: mean cosine similarity of the best matches; None where nothing was asked for or found.
        entries: entries of the version; 0 where they are not for this search.
        problems: damaged entries that were passed over, in words.
        weights: sha256 of each child's initial weights among the search's blobs, by candidate; empty unless warm.
        filled: mean share of the parameters of a child's blocks and fixed parts that come from the pool; None unless warm, and in older records.
        reason: why the pool is not for this search; None where it is.
    """

    version: PoolVersion
    warm: bool
    queried: int
    matched: int
    hits: int
    similarity: float | None
    entries: int
    problems: tuple[str, ...] = ()
    weights: dict[str, str] = Field(default_factory=dict)
    filled: float | None = None
    reason: str | None = None

    @property
    def match_ratio(self) -> float | None:
        """Matched blocks over queried ones; None where none was queried."""
        return self.matched / self.queried if self.queried else None

    @property
    def hit_ratio(self) -> float | None:
        """Exact hits over queried blocks; None where none was queried."""
        return self.hits / self.queried if self.queried else None

    @property
    def initialisation(self) -> str:
        """How the round's children start: `random`, or `pool:` and the version's first twelve digits."""
        return f"{KIND}:{self.version.digest[:12]}" if self.warm else RANDOM

    @property
    def metrics(self) -> dict[str, float]:
        """The round's metrics by `group/name`."""
        ratios = {"pool/match_ratio": self.match_ratio, "pool/hit_ratio": self.hit_ratio, "pool/similarity": self.similarity, "pool/filled": self.filled}
        counts = {"pool/warm": float(self.warm), "pool/entries": float(self.entries), "pool/problems": float(len(self.problems))}
        counts["pool/unfit"] = float(self.reason is not None)
        return {name: value for name, value in ratios.items() if value is not None} | counts


def pool_round(run: Run, number: int) -> PoolRound | None:
    """What is recorded of a round; None before it has asked the pool."""
    record = run.searches.record(KIND, round_key(number))
    return None if record is None else parse(PoolRound, record, source=f"pool record of round {number}")


def pool_rounds(run: Run) -> dict[int, PoolRound]:
    """What is recorded of every round that has asked the pool, by its number."""
    if run.config.pool is None:
        return {}
    found = ((int(key), pool_round(run, int(key))) for key in run.searches.records(KIND))
    return {number: used for number, used in found if used is not None}


def latest_before(run: Run, number: int) -> PoolRound | None:
    """The last earlier round that asked the pool: rounds that trained nothing have not."""
    earlier = [key for key in run.searches.records(KIND) if int(key) < number]
    return pool_round(run, int(earlier[-1])) if earlier else None


def is_warm(match_ratio: float, earlier: PoolRound | None, min_match: float) -> bool:
    """Whether a batch starts from the pool: all of its children or none, from the first batch on that is matched well enough, and then to the end.

    A search that went back and forth would compare children that were not trained alike.
    """
    return (earlier is not None and earlier.warm) or match_ratio >= min_match


def settings_of(run: Run) -> PoolConfig:
    """The run's own pool.

    Raises:
        ConfigError: it has none.
    """
    if run.config.pool is None:
        raise ConfigError("pool: not configured, and this step needs one; give `pool: {name: ...}`, or run the pipeline without a pool")
    return run.config.pool


def open_pool(run: Run) -> Pool:
    """The pool that the run names, in its own store or the run's."""
    settings = settings_of(run)
    return Pool(run.store if settings.store is None else open_store(settings.store), settings.name)


def task_of_pool(run: Run) -> str:
    """Label of the run's task on entries of the pool."""
    own = settings_of(run).task
    return run.config.task_label if own is None else own


def iterations_of(run: Run, data: DataPointer) -> int:
    """Optimiser steps that a child's recipe comes to on this data: a pool holds children of one such number only.

    Raises:
        DataError: the recipe is in epochs, and the task does not say how many images mini-train has.
    """
    proxy = run.config.proxy
    if proxy.steps is not None:
        return proxy.steps
    size = data.meta.get("sizes", {}).get("mini_train")
    if size is None:
        raise DataError("task: its data do not say how many images mini-train has, and a pool goes by optimiser steps; give proxy.steps instead of epochs")
    return proxy.num_steps(int(size))


def check_pool(run: Run, iterations: int | None = None) -> None:
    """Refuse a pool that is not one for this search: of its space, and of children trained as long. An empty one is for anybody.

    Args:
        iterations: optimiser steps of a child; None where they are not known yet.

    Raises:
        PoolMismatch: it is not.
        ConfigError: it lacks the version that the configuration names, or it is empty and nothing is to fill it.
    """
    settings, pool = settings_of(run), open_pool(run)
    try:
        held = pool.at(settings.version)
    except NotFound as missing:
        raise ConfigError(f"pool.version: {missing}") from None
    if (reason := unfit(run, held, iterations)) is not None:
        raise PoolMismatch(reason)
    if not held.version.number and not settings.push:
        raise ConfigError(
            f"pool.name: pool {settings.name!r} in {pool.access.store.uri} is empty and pool.push is off, so that no child would ever start from it; "
            "mend the name or pool.store, or fill the pool first"
        )


def unfit(run: Run, held: PoolSnapshot, iterations: int | None) -> str | None:
    """Why a version's entries are not for this search; None where they are."""
    settings = settings_of(run)
    if not held.version.number:
        return None
    if held.space != run.space.digest:
        return (
            f"pool.name: pool {settings.name!r} is of another space ({held.space[:12]}) than {run.config.space.name!r} ({run.space.digest[:12]}); "
            "name another pool, or search its space"
        )
    if iterations is not None and held.iterations != iterations:
        return (
            f"pool.name: pool {settings.name!r} holds children trained for {held.iterations} steps, and `proxy` comes to {iterations}; "
            "train equally long, or name another pool"
        )
    return None


def hold(run: Run, pool: Pool, version: PoolVersion) -> None:
    """Keep a version in the pool for as long as the search lives, and some time more."""
    pool.pin(version, holder_of(run), now=time.time(), seconds=settings_of(run).pin_hours * 3600)


def let_go(run: Run) -> None:
    """The search is over: its version may leave the pool, now or when the pin expires."""
    if run.config.pool is None:
        return
    try:
        open_pool(run).unpin(holder_of(run))
    except KfnasError as error:  # the search is done: nothing of the pool's may undo that
        logger.warning("the pool's version stays pinned until the pin expires: %s", error)


def holder_of(run: Run) -> str:
    """The search's name in the pool's list of pins. A store's address may be another folder's on another machine, so a number of its own tells them apart."""
    known = run.searches.record("holder", KIND)
    if known is None:
        run.searches.put_record("holder", KIND, {"id": secrets.token_hex(8)})
        known = run.searches.record("holder", KIND)
    assert known is not None
    return f"{run.config.name}-{known['id']}"


def child_initialisation(used: PoolRound, candidate: str) -> Any:
    """What stands for a child's initial weights in its ledger key: `random`, or the pool's version and the weights themselves.

    The weights too, because a damaged entry that was passed over changes them while the version stays.
    """
    return {"pool": used.version.digest, "weights": used.weights[candidate]} if used.warm else RANDOM
