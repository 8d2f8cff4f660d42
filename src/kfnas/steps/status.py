"""Where a search stands, read from its store alone: no torch, no tracking server."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import Any

from kfnas.errors import NotFound
from kfnas.steps.config import task_of
from kfnas.steps.context import ROUND_KIND, Run, open_run, round_key
from kfnas.steps.pool_rounds import pool_rounds
from kfnas.steps.supernet_search import total_rounds
from kfnas.storage import Head

BEST_READ = ("pcnas/best_potential", "evolution/best_accuracy")


@dataclass(frozen=True)
class Progress:
    """Where a search stands.

    `best_accuracy` and `best_cost` are of the most accurate child within the target (any child, without a target); `best_metric` is its value of the
    task's own metric, of the name `metric`. A search on one supernet, whose `algorithm` is named, trains no children: `best_accuracy` is the best that it read
    with shared weights in its last closed round.
    """

    exists: bool
    rounds_done: int
    rounds_total: int
    children_done: int
    children_failed: int
    finalists_done: int
    finalists_total: int
    best_accuracy: float | None
    best_cost: float | None
    exhausted: bool
    finished: bool
    held_by: str | None
    fence: int | None = None
    metric: str = "accuracy"
    best_metric: float | None = None
    algorithm: str | None = None

    @property
    def searching_done(self) -> bool:
        """No further round will be opened."""
        return self.exhausted or self.rounds_done >= self.rounds_total


class ProgressReader:
    """Polls a search's store; records are read once."""

    def __init__(self, config: str) -> None:
        self._run = open_run(config)
        self._metric = task_of(self._run.config)[0].metric
        self._rounds = total_rounds(self._run)
        self._children: dict[str, dict[str, Any]] = {}

    def poll(self) -> Progress:
        """Where the search stands now."""
        searches, config = self._run.searches, self._run.config
        head = searches.head()
        if head is None:
            return Progress(False, 0, self._rounds, 0, 0, 0, 0, None, None, False, False, None, algorithm=config.algorithm)
        for key in searches.children():
            if key not in self._children:
                record = searches.child(key)
                if record is not None:
                    self._children[key] = record
        if config.algorithm is not None:
            return self._on_one_supernet(head)
        done = [child for child in self._children.values() if child["status"] == "ok"]
        target = config.search.reward.target
        within = [child for child in done if target is None or (child["cost"] is not None and child["cost"] <= target)]
        best = max(within, key=lambda child: child["accuracy"], default=None)
        return replace(
            self._whatever_the_algorithm(head),
            children_done=len(self._children),
            children_failed=len(self._children) - len(done),
            best_accuracy=best["accuracy"] if best else None,
            best_cost=best["cost"] if best else None,
            best_metric=best["metrics"].get(self._metric) if best else None,
        )

    def _on_one_supernet(self, head: Head) -> Progress:
        last = self._run.searches.record(ROUND_KIND, round_key(head.round - 1)) if head.round else None
        read = [last["metrics"].get(name) for name in BEST_READ] if last is not None else []
        best = next((value for value in read if value is not None), None)
        return replace(self._whatever_the_algorithm(head), algorithm=self._run.config.algorithm, best_accuracy=best)

    def _whatever_the_algorithm(self, head: Head) -> Progress:
        searches = self._run.searches
        plan = searches.record("final", "plan")
        finalists = plan["finalists"] if plan is not None else []
        live = head.owner is not None and head.lease_expires > time.time()
        return Progress(
            exists=True,
            rounds_done=head.round,
            rounds_total=self._rounds,
            children_done=0,
            children_failed=0,
            finalists_done=sum(searches.record("exported", finalist["key"]) is not None for finalist in finalists),
            finalists_total=len(finalists),
            best_accuracy=None,
            best_cost=None,
            exhausted=searches.record("search", "exhausted") is not None,
            finished=searches.record("final", "summary") is not None,
            held_by=f"{head.owner.host} (pid {head.owner.pid})" if live and head.owner is not None else None,
            fence=head.fence,
            metric=self._metric,
        )


def progress(config: str) -> Progress:
    """Where the search that a configuration names stands."""
    return ProgressReader(config).poll()


def renew_lease(config: str, run_id: str) -> None:
    """Heartbeat of a driver: keep the hold on the search.

    Raises:
        StaleFence: a later run has taken the search over.
    """
    run = open_run(config)
    if run.searches.head() is not None:
        run.searches.renew(run_id, now=time.time(), lease_seconds=run.config.execution.lease_seconds)


def release_lease(config: str, run_id: str) -> None:
    """Give the search up, so that the next run need not wait; nothing when there is no such search or another run holds it."""
    run = open_run(config)
    if run.searches.head() is not None:
        run.searches.release(run_id)


def describe(config: str) -> str:
    """Where the search stands, in a few lines for a terminal.

    Raises:
        NotFound: there is no such search in the store.
    """
    run = open_run(config)
    now = progress(config)
    if not now.exists:
        raise NotFound(f"no search {run.config.name!r} in {run.store.uri}; start it with `kfnas run`, or check `name` and `store`")
    cost = run.config.cost
    best = "none yet" if now.best_metric is None else f"{now.metric} {now.best_metric:.4f}"
    if now.algorithm is not None and now.best_accuracy is not None:
        best = f"{now.best_accuracy:.4f} with shared weights"
    if now.best_cost is not None:
        best += f" at {cost} {now.best_cost:.4g}"
    state = "finished" if now.finished else f"running on {now.held_by}" if now.held_by else "stopped; `kfnas resume` goes on"
    return "\n".join(
        [
            f"search     {run.config.name} in {run.store.uri}",
            f"state      {state}",
            f"rounds     {now.rounds_done} of {now.rounds_total}{' (the space is exhausted)' if now.exhausted else ''}",
            *([] if now.algorithm else [f"children   {now.children_done} trained, {now.children_failed} of them failed"]),
            f"best       {best}",
            *_pooled(run),
            f"finalists  {now.finalists_done} of {now.finalists_total or '?'} trained, evaluated and exported",
            *_chosen(run, now.metric),
        ]
    )


def _pooled(run: Run) -> list[str]:
    """What the search has of its pool: the last round that asked it."""
    if run.config.pool is None:
        return []
    used = pool_rounds(run)
    if not used:
        return [f"pool       {run.config.pool.name}: not asked yet"]
    number, last = max(used.items())
    if last.reason is not None:
        return [f"pool       {run.config.pool.name}: not used in round {number}, children start from random weights: {last.reason}"]
    ratio = "" if last.match_ratio is None else f", {last.match_ratio:.0%} of blocks matched"
    begin = "children start from it" if last.warm else "children start from random weights"
    damaged = f"; {len(last.problems)} damaged entries passed over" if last.problems else ""
    return [f"pool       {run.config.pool.name}: {last.entries} entries in round {number}{ratio}; {begin}{damaged}"]


def _chosen(run: Run, metric: str) -> list[str]:
    """The end of a finished search: its best network."""
    summary = run.searches.record("final", "summary")
    if summary is None:
        return []
    best = next(finalist for finalist in summary["finalists"] if finalist["name"] == summary["best"])
    latency = f", {best['latency_ms']:.3g} ms" if best["latency_ms"] is not None else ""
    where = f"; models:/{run.config.name}@candidate once it is tracked" if run.config.tracking.enabled else ""
    return [f"chosen     {best['name']}: {metric} {best['metrics'][metric]:.4f}{latency}{where}"]
