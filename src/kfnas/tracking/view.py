"""What a tracker is shown: one search as plain values, with nothing left to look up.

Metric names are `group/name_unit`: `sample/*` has one step for each row of the history, `round/*`, `search/*` and what the agent and the pool report of a
round (`ppo/*`, `critic/*`, `pool/*`, ...) one for each round, `final/*` stands on the run of a finalist.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

_SEARCH_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,249}")
_TRAINED_SOURCES = frozenset({"policy", "audit"})


@dataclass(frozen=True)
class SearchRow:
    """One sample of the history, of a closed round: it never changes again.

    `status` is `ok | failed | infeasible | unmeasured`, `source` is `policy | cached | trusted | exploited | audit`, or `supernet` for what was scored with
    shared weights. `accuracy` is a fraction, None where none was measured; `finished_at` is in seconds since 1970, None for a row that nothing was run for;
    `child_key` names the child's record in the store. `value` and `uncertainty` are the critic's V and U of the row as it was drawn, in units of reward, None
    without a critic; `initialisation` is `random`, or `pool:<version>` for a child that started from a pool's blocks.
    """

    round: int
    id: str
    architecture: str
    accuracy: float | None
    cost: float | None
    reward: float | None
    status: str
    source: str
    reason: str = ""
    device_seconds: float = 0.0
    epochs: float = 0.0
    finished_at: float | None = None
    child_key: str | None = None
    value: float | None = None
    uncertainty: float | None = None
    initialisation: str = "random"

    @property
    def activated(self) -> bool:
        """Whether a child was really trained for this row, successfully or not."""
        return self.status in ("ok", "failed") and self.source in _TRAINED_SOURCES


@dataclass(frozen=True)
class RoundMetrics:
    """What a round says beyond its rows, such as `ppo/entropy`. `finished_at` is in seconds since 1970."""

    round: int
    values: Mapping[str, float]
    finished_at: float | None = None


@dataclass(frozen=True)
class Final:
    """One network trained from scratch: `kind` is `searched | reference | random`, metrics are named `final/name_unit`."""

    name: str
    kind: str
    architecture: str
    metrics: Mapping[str, float]
    finished_at: float | None = None
    status: str = "ok"
    reason: str = ""


@dataclass(frozen=True)
class SearchView:
    """A search as far as it has come.

    `rows` are in the order of the history and hold closed rounds only; `pareto` lists the ids of the rows on the front; `cost` names what `SearchRow.cost` is
    (`latency_ms | mult_adds | params`), `target` is its budget. `state` is `running | finished | failed`.
    """

    search_id: str
    name: str
    rows: tuple[SearchRow, ...] = ()
    config: Mapping[str, Any] = field(default_factory=dict)
    rounds: tuple[RoundMetrics, ...] = ()
    finals: tuple[Final, ...] = ()
    pareto: tuple[str, ...] = ()
    cost: str = "latency_ms"
    target: float | None = None
    state: str = "running"
    code_version: str = ""

    def __post_init__(self) -> None:
        check_identity("search", self.search_id, self.state)

    @property
    def num_activated(self) -> int:
        """Children really trained, failed ones included."""
        return sum(row.activated for row in self.rows)


def check_identity(what: str, identity: str, state: str) -> None:
    """Refuse an id or a state that no tracker can show.

    Raises:
        ValueError: which, and what is allowed.
    """
    if not _SEARCH_ID.fullmatch(identity):
        raise ValueError(f"{what} id {identity!r} cannot be tracked; use up to 250 letters, digits, '.', '_' and '-', the first a letter or a digit")
    if state not in ("running", "finished", "failed"):
        raise ValueError(f"state {state!r} is unknown; it is running, finished or failed")


@dataclass(frozen=True)
class Point:
    """One value of a metric: `timestamp_ms` is None where the row says no time."""

    name: str
    value: float
    step: int
    timestamp_ms: int | None


def row_values(row: SearchRow, cost: str) -> dict[str, float]:
    """Finite numbers of a row by metric name."""
    values = {
        "sample/accuracy": row.accuracy,
        f"sample/{cost}": row.cost,
        "sample/reward": row.reward,
        "sample/value": row.value,
        "sample/uncertainty": row.uncertainty,
        "sample/device_seconds": row.device_seconds if row.activated else None,
        "sample/num_epochs": row.epochs if row.activated else None,
    }
    return finite(values)


def search_points(view: SearchView, *, first_row: int = 0) -> Iterator[Point]:
    """Every value of the search's own run, row by row, then round by round, leaving out the rows before `first_row` and the rounds that they close."""
    moment: int | None = None
    for index, row in enumerate(view.rows):
        moment = milliseconds(row.finished_at, moment)
        if index >= first_row:
            yield from (Point(name, value, index, moment) for name, value in row_values(row, view.cost).items())
    extra = {metrics.round: metrics for metrics in view.rounds}
    for number, last, values in _rounds(view):
        if last >= first_row:
            own = extra.get(number)
            moment = _moment(view, last, own)
            merged = finite({**values, **(own.values if own else {})})
            yield from (Point(name, value, number, moment) for name, value in merged.items())


def tail_values(view: SearchView) -> tuple[int, dict[str, float], int | None]:
    """Number, values and time (ms) of the latest round; (-1, {}, None) before the first one."""
    for number, last, values in reversed(list(_rounds(view))):
        own = next((metrics for metrics in view.rounds if metrics.round == number), None)
        return number, finite({**values, **(own.values if own else {})}), _moment(view, last, own)
    return -1, {}, None


def milliseconds(seconds: float | None, otherwise: int | None = None) -> int | None:
    """Whole milliseconds since 1970."""
    return otherwise if seconds is None else round(seconds * 1000)


def finite(values: Mapping[str, float | None]) -> dict[str, float]:
    """The entries that are finite numbers."""
    return {name: float(value) for name, value in values.items() if value is not None and math.isfinite(value)}


def _rounds(view: SearchView) -> Iterator[tuple[int, int, dict[str, float | None]]]:
    """(round, index of its last row, values) in the order of the history."""
    activated, epochs, device_seconds = 0, 0.0, 0.0
    best_reward: float | None = None
    best_accuracy: float | None = None
    rewards: list[float] = []
    trained = 0
    for index, row in enumerate(view.rows):
        if row.reward is not None and math.isfinite(row.reward):
            rewards.append(row.reward)
            if row.activated and row.status == "ok" and (best_reward is None or row.reward > best_reward):
                best_reward, best_accuracy = row.reward, row.accuracy
        trained += row.activated
        device_seconds += row.device_seconds
        epochs += row.epochs
        if index + 1 == len(view.rows) or view.rows[index + 1].round != row.round:
            activated += trained
            yield (
                row.round,
                index,
                {
                    "round/mean_reward": sum(rewards) / len(rewards) if rewards else None,
                    "round/num_activated": float(trained),
                    "search/best_reward": best_reward,
                    "search/best_accuracy": best_accuracy,
                    "search/num_activated": float(activated),
                    "search/num_epochs": epochs,
                    "search/device_seconds": device_seconds,
                },
            )
            rewards, trained = [], 0


def _moment(view: SearchView, last: int, own: RoundMetrics | None) -> int | None:
    if own is not None and own.finished_at is not None:
        return milliseconds(own.finished_at)
    times = [row.finished_at for row in view.rows[: last + 1] if row.finished_at is not None]
    return milliseconds(max(times, default=None))
