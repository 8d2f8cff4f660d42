"""One round's batch: what was drawn, what has been answered, and the rows that it becomes."""

from __future__ import annotations

import math
import numbers
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from kfnas.controller.agents import Draw, DrawSource, Scored
from kfnas.controller.candidates import ACTIVATED_SOURCES, RANDOM, RESULT_STATUSES, Candidate, Kind, Result, Row, Source, Status, candidate_id, candidate_seed
from kfnas.controller.history import UNDIGESTED, History
from kfnas.controller.reward import Outcome, RewardConfig, batch_rewards, check_accuracy, check_cost, reward
from kfnas.errors import ResultError
from kfnas.space import Architecture, Space

DECISIVE = ("status", "accuracy", "cost", "metrics", "fidelity", "initialisation")
"""Fields in which a second result for a candidate must equal the first; durations, places and texts may differ."""


@dataclass(frozen=True)
class Slot:
    """One draw of a batch. `origin`: id of the candidate whose answer is also this draw's; None where there is none such."""

    candidate: Candidate
    canonical: Architecture
    log_prob: float | None
    origin: str | None
    source: Source = "policy"
    value: float | None = None
    uncertainty: float | None = None

    @property
    def needs_result(self) -> bool:
        """Whether it must be evaluated."""
        return self.source in ACTIVATED_SOURCES


@dataclass(frozen=True)
class Answer:
    """A candidate's result, or that it was abandoned."""

    status: Status
    result: Result


@dataclass
class Batch:
    """Slots in candidate order, and the answers that have come, in any order."""

    round: int
    slots: tuple[Slot, ...]
    answers: dict[str, Answer] = field(default_factory=dict)

    @classmethod
    def of_draws(cls, round_number: int, draws: list[Draw], space: Space, history: History, search_seed: int) -> Batch:
        """Number the draws, and find those whose architecture has an answer or stands earlier in the batch."""
        slots: list[Slot] = []
        first: dict[tuple[int, ...], str] = {}
        for index, draw in enumerate(draws):
            identity = candidate_id(round_number, index)
            architecture = space.architecture(draw.tokens)
            canonical = space.canonical(architecture)
            origin: str | None = draw.origin
            source: Source = draw.source
            if source in ACTIVATED_SOURCES:
                known = history.answer(canonical.tokens)
                found = known.id if known is not None else first.setdefault(canonical.tokens, identity)
                origin, source = (None, source) if found == identity else (found, "cached")
            kind: Kind = "audit" if source == "audit" else "new"
            candidate = Candidate(identity, architecture, candidate_seed(search_seed, identity), round_number, kind)
            slots.append(Slot(candidate, canonical, draw.log_prob, origin, source, draw.value, draw.uncertainty))
        return cls(round_number, tuple(slots))

    @property
    def waiting(self) -> tuple[Candidate, ...]:
        """Candidates without an answer."""
        return tuple(slot.candidate for slot in self.slots if slot.needs_result and slot.candidate.id not in self.answers)

    def slot(self, identity: str) -> Slot | None:
        """The slot of a candidate's id."""
        return next((slot for slot in self.slots if slot.candidate.id == identity), None)

    def answered_rows(self, config: RewardConfig) -> list[Row]:
        """Rows of what has been answered so far. Only `ok` ones have a reward yet: the others' depend on the whole batch."""
        rows = []
        for slot in self.slots:
            answer = self.answers.get(slot.candidate.id)
            if answer is not None:
                value = reward(check_accuracy(answer.result.accuracy, config), answer.result.cost, config) if answer.status == "ok" else None
                rows.append(_row(slot, answer, value))
        return rows

    def closed_rows(self, history: History, config: RewardConfig) -> list[Row]:
        """Rows of all slots with their rewards, in candidate order, once nothing is waiting."""
        answers = {slot.candidate.id: self._answer(slot, history) for slot in self.slots if slot.source != "trusted"}
        outcomes = [Outcome(answer.status, answer.result.accuracy, answer.result.cost) for answer in answers.values()]
        rewards = dict(zip(answers, batch_rewards(outcomes, history.worst_accuracy, history.lowest_reward, config), strict=True))
        rows = []
        for slot in self.slots:
            identity = slot.candidate.id
            if slot.source == "trusted":
                rows.append(_row(slot, Answer("ok", Result(identity)), slot.value))
            else:
                rows.append(_row(slot, answers[identity], rewards[identity]))
        return rows

    def to_json(self, *, digested: bool = False) -> dict[str, Any]:
        """JSON value that `from_json` reads; with `digested`, without the fields that may differ between two runs of the same search."""
        slots = []
        for slot in self.slots:
            fields = {"id": slot.candidate.id, "tokens": list(slot.candidate.tokens), "kind": slot.candidate.kind}
            # What only agents with a critic or a buffer have is left out of the others' states, and of their digests.
            judged = {name: getattr(slot, name) for name in ("value", "uncertainty") if getattr(slot, name) is not None}
            reused = {"source": slot.source} if slot.source in ("trusted", "exploited") else {}
            slots.append({**fields, "log_prob": slot.log_prob, "origin": slot.origin, **judged, **reused})
        answers: dict[str, Any] = {}
        for identity, answer in self.answers.items():
            fields = answer.result.to_json()
            kept = {name: value for name, value in fields.items() if not (digested and name in UNDIGESTED)}
            answers[identity] = {"status": answer.status, "result": kept}
        return {"round": self.round, "slots": slots, "answers": answers}

    @classmethod
    def from_json(cls, value: Mapping[str, Any], space: Space, search_seed: int) -> Batch:
        """The batch that `to_json` wrote."""
        slots = []
        for item in value["slots"]:
            architecture = space.architecture(item["tokens"])
            candidate = Candidate(item["id"], architecture, candidate_seed(search_seed, item["id"]), value["round"], item["kind"])
            evaluated: Source = "audit" if candidate.kind == "audit" else "policy"
            source: Source = item.get("source", "cached" if item["origin"] is not None else evaluated)
            slot = Slot(candidate, space.canonical(architecture), item["log_prob"], item["origin"], source, item.get("value"), item.get("uncertainty"))
            slots.append(slot)
        answers = {identity: Answer(item["status"], Result.from_json(item["result"])) for identity, item in value["answers"].items()}
        return cls(value["round"], tuple(slots), answers)

    def _answer(self, slot: Slot, history: History) -> Answer:
        """A slot's own answer, or that of its origin, in this batch or before it."""
        if slot.origin is None or slot.origin in self.answers:
            return self.answers[slot.origin or slot.candidate.id]
        row = history.find(slot.origin)
        assert row is not None
        result = Result(row.id, accuracy=row.accuracy, cost=row.cost, reason=row.reason, metrics=row.metrics, fidelity=row.fidelity)
        return Answer(row.status, replace(result, initialisation=row.initialisation))


def scored(rows: list[Row], earlier: str | None = None) -> list[Scored]:
    """What an agent learns from: rows that have a reward.

    Known architectures whose children began otherwise than the batch's own are left out: rewards of the two do not compare.

    Args:
        rows: of a batch.
        earlier: how the last child before it began; it stands for the batch's own where none of them was trained with success.
    """
    began = {row.initialisation for row in rows if row.is_activated and row.status == "ok"} or ({earlier} if earlier is not None else set())
    rows = [row for row in rows if not (began and row.source == "cached" and row.status == "ok" and row.initialisation not in began)]
    items = []
    for row in rows:
        if row.reward is not None:
            source: DrawSource = "policy" if row.source == "cached" else row.source
            draw = Draw(row.tokens, row.log_prob, source, row.origin if source == "exploited" else None, row.value, row.uncertainty)
            items.append(Scored(draw, row.reward, row.source == "cached", row.id, row.status, row.initialisation))
    return items


def checked(result: Result, config: RewardConfig) -> Result:
    """The result with plain Python numbers.

    Raises:
        ResultError: a number is not finite or does not fit the status, or the reward cannot be computed.
    """
    if not isinstance(result, Result):
        raise ResultError(f"{result!r} is {type(result).__name__}, not a Result: write Result(id=..., accuracy=..., cost=...)")
    try:
        return _checked(result, config)
    except ResultError as error:
        raise ResultError(f"result of candidate {result.id!r}: {error}") from None


def same(first: Answer | Row, status: Status, second: Result) -> bool:
    """Whether a second result says what the first did, durations, places and texts apart."""
    fields = first.result if isinstance(first, Answer) else first
    return first.status == status and all(getattr(fields, name) == getattr(second, name) for name in DECISIVE if name != "status")


def _checked(result: Result, config: RewardConfig) -> Result:
    if result.status not in RESULT_STATUSES:
        raise ResultError(f"status is {result.status!r}: give one of {', '.join(RESULT_STATUSES)}")
    accuracy, cost = _number("accuracy", result.accuracy), _number("cost", result.cost)
    if result.status == "ok":
        check_accuracy(accuracy, config)
    elif accuracy is not None:
        raise ResultError(f"accuracy is {accuracy} and status {result.status!r}: only an ok result has an accuracy; leave it out, or report status ok")
    needs_cost = config.target is not None and result.status in ("ok", "infeasible")
    if needs_cost or cost is not None:
        check_cost(cost)
    if needs_cost:
        # An absurd cost is refused here, and not when the batch closes.
        reward(1.0, cost, config)
    if result.status == "infeasible" and config.target is None:
        raise ResultError("status infeasible means over the target cost, and this search has none: give `reward.target`, or report status failed")
    device_seconds = _number("device_seconds", result.device_seconds)
    if device_seconds is not None and not (math.isfinite(device_seconds) and device_seconds >= 0):
        raise ResultError(f"device_seconds is {device_seconds}: give a duration of 0 or more, or leave it out")
    metrics = {str(name): _finite(f"metrics[{name!r}]", value) for name, value in result.metrics.items()}
    artifacts = {str(name): str(value) for name, value in result.artifacts.items()}
    fidelity = result.fidelity if result.fidelity is None or isinstance(result.fidelity, str) else _finite("fidelity", result.fidelity)
    return replace(
        result,
        accuracy=accuracy,
        cost=cost,
        device_seconds=device_seconds,
        metrics=metrics,
        artifacts=artifacts,
        fidelity=fidelity,
        reason=str(result.reason),
        initialisation=_initialisation(result.initialisation),
    )


def _number(name: str, value: Any) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise ResultError(f"{name} is {value!r} ({type(value).__name__}): give a number")
    return float(value)


def _initialisation(value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise ResultError(f"initialisation is {value!r}: give {RANDOM!r}, or the name of what the child started from")
    return value


def _finite(name: str, value: Any) -> float:
    number = _number(name, value)
    if number is None or not math.isfinite(number):
        raise ResultError(f"{name} is {value}: give a finite number, or leave it out")
    return number


def _row(slot: Slot, answer: Answer, value: float | None) -> Row:
    result = answer.result
    own = slot.needs_result
    return Row(
        id=slot.candidate.id,
        round=slot.candidate.round,
        architecture=slot.candidate.architecture,
        canonical=slot.canonical,
        seed=slot.candidate.seed,
        kind=slot.candidate.kind,
        source=slot.source,
        status=answer.status,
        accuracy=result.accuracy,
        cost=result.cost,
        reward=value,
        log_prob=slot.log_prob,
        origin=slot.origin,
        reason=result.reason,
        metrics=result.metrics,
        fidelity=result.fidelity,
        device_seconds=result.device_seconds if own else None,
        artifacts=result.artifacts if own else {},
        initialisation=result.initialisation,
        value=slot.value,
        uncertainty=slot.uncertainty,
    )
