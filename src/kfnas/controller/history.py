"""The history of a search: closed rows, in order, and what is looked up in them."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from kfnas.config import canonical_json
from kfnas.controller.agents import Tokens
from kfnas.controller.candidates import ACTIVATED_SOURCES, ANSWERS, Row
from kfnas.errors import UserError

if TYPE_CHECKING:
    import pandas as pd

UNDIGESTED = ("device_seconds", "artifacts", "reason")
"""Fields that may differ between two runs of the same search: durations, places, and texts that may quote either."""

COLUMNS = (
    "round", "id", "architecture", "tokens", "accuracy", "cost", "reward", "status", "source", "kind", "seed", "log_prob", "origin", "canonical",
    "reason", "fidelity", "device_seconds", "metrics", "artifacts", "initialisation", "value", "uncertainty",
)  # fmt: skip
FLOAT_COLUMNS = ("accuracy", "cost", "reward", "log_prob", "device_seconds", "value", "uncertainty")

MINIMISED = ("cost", "device_seconds")


class History:
    """Rows in order, each with its line of JSON. Appending is O(1), so that long searches stay fast.

    `last_initialisation`: how the last child that was trained with success began; None before the first.
    """

    def __init__(self) -> None:
        self.rows: list[Row] = []
        self.lines: list[str] = []
        self.worst_accuracy: float | None = None
        self.lowest_reward: float | None = None
        self.last_initialisation: str | None = None
        self.num_activated = 0
        self.digest = hashlib.sha256(b"kfnas history").hexdigest()
        self._by_id: dict[str, int] = {}
        self._known: dict[Tokens, int] = {}

    def __len__(self) -> int:
        return len(self.rows)

    def append(self, row: Row, line: str | None = None) -> None:
        """Add a closed row; `line` is its JSON where that is at hand."""
        value = row.to_json()
        self._by_id[row.id] = len(self.rows)
        if row.source in ACTIVATED_SOURCES and row.status in ANSWERS:
            self._known.setdefault(row.canonical.tokens, len(self.rows))
        self.rows.append(row)
        self.lines.append(canonical_json(value) if line is None else line)
        digested = canonical_json({name: item for name, item in value.items() if name not in UNDIGESTED})
        self.digest = hashlib.sha256(f"{self.digest}\n{digested}".encode()).hexdigest()
        self.num_activated += row.is_activated
        if row.is_activated and row.status == "ok":
            self.last_initialisation = row.initialisation
        if row.accuracy is not None:
            self.worst_accuracy = row.accuracy if self.worst_accuracy is None else min(self.worst_accuracy, row.accuracy)
        if row.reward is not None and row.status != "failed" and row.source != "trusted":
            self.lowest_reward = row.reward if self.lowest_reward is None else min(self.lowest_reward, row.reward)

    def find(self, identity: str) -> Row | None:
        """Row of a candidate's id."""
        index = self._by_id.get(identity)
        return None if index is None else self.rows[index]

    def answer(self, canonical: Tokens) -> Row | None:
        """Row that answers an architecture, by its canonical tokens."""
        index = self._known.get(canonical)
        return None if index is None else self.rows[index]

    @property
    def num_known(self) -> int:
        """Distinct architectures with an answer."""
        return len(self._known)


def to_frame(rows: Sequence[Row]) -> pd.DataFrame:
    """Rows as a table; architectures as text, missing numbers as NaN."""
    import pandas as pd

    columns = {name: [getattr(row, name) for row in rows] for name in COLUMNS}
    for name in ("architecture", "canonical"):
        columns[name] = [str(value) for value in columns[name]]
    frame = pd.DataFrame(columns, columns=list(COLUMNS))
    return frame.astype(dict.fromkeys(FLOAT_COLUMNS, float) | {"round": int, "seed": int})


def pareto_front(rows: Iterable[Row], objectives: Sequence[str]) -> list[Row]:
    """Rows that no other row beats in one objective without losing in another, best in the first objective first.

    Args:
        rows: of which those without a value for every objective are left out.
        objectives: `accuracy` and `reward` are maximised, `cost` and `device_seconds` minimised; any other name is a key of `metrics`
            and is maximised, or minimised where it is written with a leading "-".

    Raises:
        UserError: no objective is given.
    """
    if isinstance(objectives, str) or not objectives:
        raise UserError(f'objectives are {objectives!r}; give a sequence of names, such as ("accuracy", "cost")')
    scored = [(tuple(_to_minimise(row, name) for name in objectives), row) for row in rows]
    scored = [pair for pair in scored if not any(math.isnan(value) for value in pair[0])]
    scored.sort(key=lambda pair: pair[0])
    # After sorting, a row can be beaten by an earlier one only, and then by one of the front.
    front: list[tuple[tuple[float, ...], Row]] = []
    for values, row in scored:
        if not any(all(a <= b for a, b in zip(other, values, strict=True)) and other != values for other, _ in front):
            front.append((values, row))
    return [row for _, row in front]


def _to_minimise(row: Row, name: str) -> float:
    if name in MINIMISED or name in ("accuracy", "reward"):
        value, sign = getattr(row, name), 1.0 if name in MINIMISED else -1.0
    else:
        value, sign = row.metrics.get(name.removeprefix("-")), 1.0 if name.startswith("-") else -1.0
    return math.nan if value is None else sign * value


def activated_ok(rows: Iterable[Row]) -> Iterator[Row]:
    """Rows of children that were really trained, with success."""
    return (row for row in rows if row.is_activated and row.status == "ok")
