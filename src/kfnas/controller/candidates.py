"""What a search hands out, what it takes back, and what it remembers of both."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from kfnas.space import Architecture

Kind = Literal["new", "audit"]
ResultStatus = Literal["ok", "failed", "infeasible", "unmeasured"]
Status = Literal["ok", "failed", "infeasible", "unmeasured", "abandoned"]
Source = Literal["policy", "cached", "trusted", "exploited", "audit"]

RANDOM = "random"
"""Initialisation of a child that starts from random weights."""

RESULT_STATUSES: tuple[ResultStatus, ...] = ("ok", "failed", "infeasible", "unmeasured")
ACTIVATED_SOURCES: tuple[Source, ...] = ("policy", "audit")
ANSWERS: tuple[Status, ...] = ("ok", "failed", "infeasible")
"""Statuses that answer every later draw of the same architecture. One that could not be measured, or was abandoned, is evaluated anew."""


@dataclass(frozen=True)
class Candidate:
    """An architecture to evaluate.

    Attributes:
        id: names the candidate in results; unique in its search.
        architecture: as it was drawn. `Space.canonical` of it is what caches and ledgers go by.
        seed: for the child's training; follows from the search's seed and the id, never from shard or order.
        round: number of the batch, from 0.
        kind: `new`, or `audit` for one that is trained to check a critic.
    """

    id: str
    architecture: Architecture
    seed: int
    round: int
    kind: Kind = "new"

    @property
    def tokens(self) -> tuple[int, ...]:
        """Index of the choice of each decision."""
        return self.architecture.tokens

    def to_json(self) -> dict[str, Any]:
        """JSON value that `from_json` reads."""
        return {"id": self.id, "architecture": str(self.architecture), "seed": self.seed, "round": self.round, "kind": self.kind}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Candidate:
        """The candidate that `to_json` wrote."""
        return cls(value["id"], Architecture.parse(value["architecture"]), value["seed"], value["round"], value["kind"])


@dataclass(frozen=True)
class Result:
    """What became of a candidate.

    Attributes:
        id: the candidate's.
        status: `ok`: trained; `failed`: training failed, which counts as activated; `infeasible`: over the budget and not trained;
            `unmeasured`: its cost could not be measured, so nothing is learnt of it.
        accuracy: a fraction in [0, 1]; any number up to 1e30 in size where the search has no target cost. Of an `ok` result only.
        cost: a positive number, in the unit of the target; may be None where there is no target.
        reason: why the status is not `ok`.
        metrics: other numbers that follow from the candidate and its seed alone; no durations.
        fidelity: the training budget, such as 1 (epochs) or "5 epochs of 10k images".
        device_seconds: time that the training took; not part of the search's digest.
        artifacts: where the child's files are, by name; not part of the search's digest.
        initialisation: what the child's training started from: `random`, or a name of the pool version that gave its weights.
    """

    id: str
    status: ResultStatus = "ok"
    accuracy: float | None = None
    cost: float | None = None
    reason: str = ""
    metrics: Mapping[str, float] = field(default_factory=dict)
    fidelity: str | float | None = None
    device_seconds: float | None = None
    artifacts: Mapping[str, str] = field(default_factory=dict)
    initialisation: str = RANDOM

    def to_json(self) -> dict[str, Any]:
        """JSON value that `from_json` reads; a random initialisation is left out."""
        value = {**asdict(self), "metrics": dict(self.metrics), "artifacts": dict(self.artifacts)}
        if self.initialisation == RANDOM:
            del value["initialisation"]
        return value

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Result:
        """The result that `to_json` wrote."""
        return cls(**value)


@dataclass(frozen=True)
class Row:
    """One draw in the history: a candidate, its result and its reward.

    Attributes:
        canonical: the canonical form of `architecture`.
        reward: what the agent learnt from; None while the batch is open (but for `ok`), and where nothing could be learnt.
        source: `policy`: evaluated; `cached`: its architecture was known, so that the answer is that of the candidate `origin`;
            `trusted`: the critic's word stands for its reward, and it was not evaluated; `audit`: the critic would have been trusted, and it
            was evaluated all the same; `exploited`: taken from the experience buffer, the draw being that of the candidate `origin`.
        log_prob: natural logarithm of the probability with which the policy drew it (an exploited one: back then); None for agents without
            a policy.
        initialisation: what the child's training started from.
        value: reward that the critic predicted when it was drawn; None without a critic, or before it had learnt anything.
        uncertainty: error that the critic expected of `value`, in the reward's unit; None where `value` is.
    """

    id: str
    round: int
    architecture: Architecture
    canonical: Architecture
    seed: int
    kind: Kind
    source: Source
    status: Status
    accuracy: float | None = None
    cost: float | None = None
    reward: float | None = None
    log_prob: float | None = None
    origin: str | None = None
    reason: str = ""
    metrics: Mapping[str, float] = field(default_factory=dict)
    fidelity: str | float | None = None
    device_seconds: float | None = None
    artifacts: Mapping[str, str] = field(default_factory=dict)
    initialisation: str = RANDOM
    value: float | None = None
    uncertainty: float | None = None

    @property
    def tokens(self) -> tuple[int, ...]:
        """Tokens as drawn."""
        return self.architecture.tokens

    @property
    def is_activated(self) -> bool:
        """Whether a child was really trained for this row, successfully or not."""
        return self.source in ACTIVATED_SOURCES and self.status in ("ok", "failed")

    def to_json(self) -> dict[str, Any]:
        """JSON value that `from_json` reads; fields that hold their default are left out."""
        value: dict[str, Any] = {
            "id": self.id,
            "round": self.round,
            "tokens": list(self.architecture.tokens),
            "seed": self.seed,
            "source": self.source,
            "status": self.status,
        }
        if self.canonical != self.architecture:
            value["canonical"] = list(self.canonical.tokens)
        if self.kind != "new":
            value["kind"] = self.kind
        for name in ("accuracy", "cost", "reward", "log_prob", "origin", "fidelity", "device_seconds", "value", "uncertainty"):
            if getattr(self, name) is not None:
                value[name] = getattr(self, name)
        for name in ("reason", "metrics", "artifacts"):
            if getattr(self, name):
                value[name] = getattr(self, name)
        if self.initialisation != RANDOM:
            value["initialisation"] = self.initialisation
        return value

    @classmethod
    def from_json(cls, value: Mapping[str, Any], space: str) -> Row:
        """The row that `to_json` wrote, in the space of that name."""
        fields = dict(value)
        architecture = Architecture(space, tuple(fields.pop("tokens")))
        canonical = fields.pop("canonical", None)
        form = architecture if canonical is None else Architecture(space, tuple(canonical))
        return cls(architecture=architecture, canonical=form, kind=fields.pop("kind", "new"), **fields)


def candidate_id(round_number: int, index: int) -> str:
    """Id of a candidate: its round and its place in the batch, sortable as text."""
    return f"{round_number:05d}-{index:04d}"


def candidate_seed(search_seed: int, identity: str) -> int:
    """Seed of a candidate's training, in [0, 2**48): exact as a JSON number."""
    return int.from_bytes(hashlib.sha256(f"{search_seed}:{identity}".encode()).digest()[:6], "big")
