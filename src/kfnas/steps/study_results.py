"""What the searches of a study have come to, read from their store: finished or not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kfnas.errors import NotFound
from kfnas.report.data import foretold
from kfnas.steps.context import Run, open_run
from kfnas.steps.study import StudyPlan, Variant
from kfnas.steps.supernet_search import total_rounds
from kfnas.steps.supernet_view import SOURCE
from kfnas.steps.view import finalists, load_state, search_view
from kfnas.studies.curves import Steps, best_so_far
from kfnas.studies.variants import Row
from kfnas.tracking import SearchRow, SearchView


@dataclass(frozen=True)
class SearchResult:
    """One search, as far as it has come.

    Attributes:
        name: the search's id.
        view: its history; None while it does not exist.
        finals: its networks trained from scratch: name, kind, mult_adds, params, latency_ms, cost, metrics, as the step `register` summarises them.
        chosen: the one of them that the search delivers; None before its end.
        rounds_done, rounds_total: closed and planned rounds.
        metric: name of the task's metric.
        fruitless: its end found no architecture within the budget.
    """

    name: str
    view: SearchView | None = None
    finals: tuple[Mapping[str, Any], ...] = ()
    chosen: Mapping[str, Any] | None = None
    rounds_done: int = 0
    rounds_total: int = 0
    metric: str = "top1"
    fruitless: bool = False

    @property
    def state(self) -> str:
        """`missing | searching | searched | finished | fruitless`: not begun, rounds to go, networks still to be trained from scratch, all done, or ended
        without a network within the budget.
        """
        if self.view is None:
            return "missing"
        if self.chosen is not None:
            return "finished"
        if self.rounds_done < self.rounds_total:
            return "searching"
        return "fruitless" if self.fruitless else "searched"

    @property
    def has_searched(self) -> bool:
        """Whether its rounds are done."""
        return self.state == "searched" or self.ended

    @property
    def ended(self) -> bool:
        """Whether nothing of it is left to do."""
        return self.state in ("finished", "fruitless")

    @property
    def activated(self) -> list[SearchRow]:
        """Samples that were really trained, in order."""
        return [row for row in self.view.rows if row.activated] if self.view is not None else []

    @property
    def device_seconds(self) -> float:
        """Seconds that children, or shared weights, were in training."""
        return sum(row.device_seconds for row in self._paid_for)

    @property
    def num_epochs(self) -> float:
        """Epochs of all children together, or of shared weights."""
        return sum(row.epochs for row in self._paid_for)

    @property
    def rewards(self) -> list[float]:
        """Rewards of the activated samples that a search may choose; NaN for the others."""
        return [row.reward if row.status == "ok" and row.reward is not None and self._fits(row) else float("nan") for row in self.activated]

    def best_reward(self, over: str) -> Steps:
        """Highest reward so far over `samples` or `device_seconds`."""
        rows = self.activated
        return best_so_far(self.rewards, [1.0] * len(rows) if over == "samples" else [row.device_seconds for row in rows])

    def critic_errors(self) -> list[float]:
        """|V - R| of the activated samples that the critic had scored before they were trained, in order."""
        rows = foretold(self.view.rows) if self.view is not None else []
        return [abs(row.value - row.reward) for row in rows if row.value is not None and row.reward is not None]

    def last_metrics(self, prefix: str) -> dict[str, float]:
        """The latest value of each metric of the rounds whose name begins so."""
        found: dict[str, float] = {}
        for metrics in self.view.rounds if self.view is not None else ():
            found |= {name: value for name, value in metrics.values.items() if name.startswith(prefix)}
        return found

    @property
    def _paid_for(self) -> list[SearchRow]:
        return self.activated + [row for row in self.view.rows if row.source == SOURCE] if self.view is not None else []

    def _fits(self, row: SearchRow) -> bool:
        assert self.view is not None
        target = self.view.target
        hard = self.view.config["search"]["reward"]["kind"] == "hard"
        return target is None or not hard or (row.cost is not None and row.cost <= target)


@dataclass(frozen=True)
class RowResult:
    """A row of the table: its searches, one for each seed, begun or not, in the order of the seeds."""

    row: Row
    agent: str
    has_pool: bool
    num_seeds: int
    searches: tuple[SearchResult, ...]

    @property
    def finished(self) -> list[SearchResult]:
        """Searches that are done, networks trained from scratch and all."""
        return [search for search in self.searches if search.state == "finished"]

    @property
    def searched(self) -> list[SearchResult]:
        """Searches whose rounds are done."""
        return [search for search in self.searches if search.has_searched]

    def curves(self, over: str) -> list[Steps]:
        """Highest reward so far of each search that has trained something."""
        return [steps for search in self.searches if len((steps := search.best_reward(over)).x)]


def row_results(plan: StudyPlan) -> list[RowResult]:
    """Every row with what its searches have come to, in the order of the table.

    Raises:
        ConfigMismatch: a search of a planned name was started with another configuration.
    """
    rows: dict[str, list[Variant]] = {}
    for variant in plan.variants:
        rows.setdefault(variant.row.name, []).append(variant)
    return [_row_result(variants) for variants in rows.values()]


def search_result(run: Run) -> SearchResult:
    """What one search has come to."""
    name, rounds, metric = run.config.name, total_rounds(run), run.task.metric
    head = run.searches.head()
    if head is None:
        return SearchResult(name, rounds_total=rounds, metric=metric)
    search = load_state(run, head.pointer())
    exhausted = run.searches.record("search", "exhausted") is not None
    finals = finalists(run)
    summary = run.searches.record("final", "summary")
    chosen = next((final for final in finals if final["name"] == summary["best"]), None) if summary is not None else None
    return SearchResult(
        name,
        search_view(run, search),
        tuple(final for final in finals if final["status"] != "missing"),
        chosen,
        rounds if exhausted else search.round,
        rounds,
        metric,
        run.searches.record("search", "fruitless") is not None,
    )


def require_search(run: Run) -> SearchResult:
    """What a search that must exist has come to.

    Raises:
        NotFound: it does not.
    """
    result = search_result(run)
    if result.view is None:
        raise NotFound(f"no search {run.config.name!r} in {run.store.uri}; run it first, or name another under `donor`")
    return result


def _own_result(run: Run) -> SearchResult:
    """What a search of the study has come to, if it is the one that the study plans."""
    head = run.searches.head()
    if head is not None:
        head.check_config(run.config.digest, run.config.text)
    return search_result(run)


def _row_result(variants: Sequence[Variant]) -> RowResult:
    found = [_own_result(open_run(variant.config.text)) for variant in variants]
    first = variants[0].config
    return RowResult(variants[0].row, first.method, first.pool is not None, len(variants), tuple(found))
