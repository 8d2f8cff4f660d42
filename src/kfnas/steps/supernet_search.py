"""The state of a search on one supernet, as its snapshots hold it: what is decided, and which blobs hold the weights. No torch.

    supernet.json      of each snapshot: the fields of `SupernetSearch`
    blobs              shared weights with their momentum; BetaNAS's importance; what BetaNAS logged in each round
    records/...        made while a step works, so that a step that is killed goes on: see the steps themselves

A round is what closes with a commit of the head's `round`: PC-NAS decides one mixed operator, BetaNAS makes some alternations, one-shot training with
evolution has one round in all.
"""

from __future__ import annotations

import json
import math
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

from kfnas.config import canonical_json, digest_of
from kfnas.errors import SpaceError, StateVersionError
from kfnas.oneshot import EvolutionState, PCNASState
from kfnas.space import MixopSpace
from kfnas.steps.context import ROUND_KIND, Run, open_run, read_pointer, round_key, write_json
from kfnas.storage import Pointer

FORMAT = 1
FILE = "supernet.json"
TRAINED_KIND = "supernet"

Tokens = tuple[int, ...]


class RankedPath(NamedTuple):
    """A whole model that the search would choose, and its accuracy with shared weights, where the algorithm reads one."""

    tokens: Tokens
    accuracy: float | None


@dataclass(frozen=True)
class Alternations:
    """BetaNAS between two rounds.

    Attributes:
        importance: blob of `kfnas.oneshot.BetaNAS.save`.
        logged: blob of each closed round's step records, as arrays.
        results: the path that would be chosen after each closed round.
    """

    importance: str | None = None
    logged: tuple[str, ...] = ()
    results: tuple[Tokens, ...] = ()


@dataclass(frozen=True)
class SupernetSearch:
    """A search on one supernet between two steps.

    Attributes:
        algorithm: `pcnas | betanas | oneshot`.
        round: closed rounds.
        weights: blob of the shared weights (`SupernetTraining.save`); None before any training.
        num_epochs: whole epochs that they were trained (PC-NAS and oneshot).
        loss: of the last of their steps; None before any.
        pcnas, evolution, betanas: the algorithm's own state; those of the others stay empty.
    """

    algorithm: str
    round: int = 0
    weights: str | None = None
    num_epochs: int = 0
    loss: float | None = None
    pcnas: PCNASState = field(default_factory=PCNASState)
    evolution: EvolutionState = field(default_factory=EvolutionState)
    betanas: Alternations = field(default_factory=Alternations)

    def to_json(self) -> dict[str, Any]:
        """JSON values of the state."""
        return {
            "format": FORMAT,
            "algorithm": self.algorithm,
            "round": self.round,
            "weights": self.weights,
            "num_epochs": self.num_epochs,
            "loss": self.loss,
            "pcnas": self.pcnas.to_json(),
            "evolution": self.evolution.to_json(),
            "betanas": asdict(self.betanas),
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> SupernetSearch:
        """What `to_json` gave.

        Raises:
            StateVersionError: a newer kfnas wrote it.
        """
        if value["format"] > FORMAT:
            raise StateVersionError(f"the search's state is of format {value['format']}, this kfnas reads up to {FORMAT}; upgrade kfnas")
        alternations = value["betanas"]
        return cls(
            algorithm=value["algorithm"],
            round=value["round"],
            weights=value["weights"],
            num_epochs=value["num_epochs"],
            loss=value["loss"],
            pcnas=PCNASState.from_json(value["pcnas"]),
            evolution=EvolutionState.from_json(value["evolution"]),
            betanas=Alternations(alternations["importance"], tuple(alternations["logged"]), tuple(tuple(path) for path in alternations["results"])),
        )

    def digest(self) -> str:
        """Digest (hex) of the state, and with the blobs that it names of all that the search has come to."""
        return digest_of(self.to_json())

    def ranked(self, num_mixops: int) -> list[RankedPath]:
        """Whole models of `num_mixops` choices, best first: empty until PC-NAS or the evolution is over."""
        if self.algorithm == "betanas":
            return [RankedPath(path, None) for path in self.betanas.results[-1:]]
        if self.algorithm == "oneshot":
            return [RankedPath(model.path, model.accuracy) for model in self.evolution.best(len(self.evolution.models))] if self.round else []
        last = self.pcnas.updates[-1] if len(self.pcnas.updates) == num_mixops else ()
        return [RankedPath(item.tokens, item.value) for item in last if item.value is not None]


class Hold:
    """A run's hold on its search while a step computes for long: looked at, and on a cluster renewed, four times a lease."""

    def __init__(self, run: Run, pointer: Pointer) -> None:
        self._run, self._pointer = run, pointer
        self._looked_at = time.monotonic()

    def keep(self) -> None:
        """To be called often.

        Raises:
            StaleFence: a later run has taken the search over.
        """
        if (now := time.monotonic()) - self._looked_at >= self._run.config.execution.lease_seconds / 4:
            self._run.require_current(self._pointer)
            self._run.renew(self._pointer)
            self._looked_at = now


def mixop_space(run: Run) -> MixopSpace:
    """The run's space.

    Raises:
        SpaceError: it has no mixed operators.
    """
    space = run.space
    if not isinstance(space, MixopSpace):
        raise SpaceError(f"space: algorithm {run.config.algorithm} shares weights among mixed operators, and {space.name} has none; name pcnas_s_28, say")
    return space


def final_mixop_space(run: Run) -> MixopSpace:
    """The run's space, with what its configuration adds to networks before they are trained from scratch.

    Raises:
        SpaceError: it has no mixed operators.
    """
    mixop_space(run)
    space = run.final_space
    assert isinstance(space, MixopSpace)
    return space


def total_rounds(run: Run) -> int:
    """Rounds that a search has until its finalists are chosen."""
    if run.config.algorithm is None:
        return run.config.rounds
    if run.config.algorithm == "pcnas":
        return len(mixop_space(run).num_choices)
    if run.config.algorithm == "betanas":
        return math.ceil(run.config.shared.betanas.num_steps / run.config.shared.steps_per_round)
    return 1


def save_supernet(search: SupernetSearch, folder: Path) -> None:
    """Write the state as the files of a snapshot."""
    (folder / FILE).write_text(canonical_json(search.to_json()), encoding="utf-8")


def load_supernet(run: Run, pointer: Pointer) -> SupernetSearch:
    """The search as a snapshot holds it."""
    with tempfile.TemporaryDirectory(prefix="kfnas-state-") as folder:
        run.searches.read_state(pointer, Path(folder))
        return SupernetSearch.from_json(json.loads((Path(folder) / FILE).read_text(encoding="utf-8")))


class Opened(NamedTuple):
    """A search that a step goes on with: its run, the pointer that the step was given, and the state that it points to."""

    run: Run
    pointer: Pointer
    search: SupernetSearch


def open_supernet(config: str, state: Path, next_state: Path) -> Opened | None:
    """The search that `state` points to, held; None where it is over, and then `next_state` points to it too.

    Raises:
        StaleFence: a later run has taken the search over.
    """
    run, pointer = open_run(config), read_pointer(state)
    run.require_current(pointer)
    run.renew(pointer)
    search = load_supernet(run, pointer)
    if search.round >= total_rounds(run):
        write_json(next_state, pointer)
        return None
    return Opened(run, pointer, search)


def commit_supernet(run: Run, previous: Pointer, search: SupernetSearch) -> Pointer:
    """Write a snapshot and move the search's head to it. The same commit again gives the same pointer.

    Raises:
        StaleFence: a later run has taken the search over.
    """
    with tempfile.TemporaryDirectory(prefix="kfnas-state-") as folder:
        save_supernet(search, Path(folder))
        return run.searches.commit(previous, Path(folder), round=search.round)


def trained_key(pointer: Pointer, search: SupernetSearch) -> str:
    """Key of the record of what was trained from a state: its round, and the state's digest."""
    return f"{round_key(search.round)}-{pointer.digest[:32]}"


def close_round(run: Run, previous: Pointer, search: SupernetSearch, metrics: Mapping[str, float | None], *, device_seconds: float = 0.0) -> Pointer:
    """Commit `search` as the state after one more round, whose finite metrics and effort are recorded for good.

    `device_seconds` are those of scoring; those of training are added to them.
    """
    found = {name: float(value) for name, value in metrics.items() if value is not None and math.isfinite(value)}
    trained = [run.searches.record(TRAINED_KIND, key) or {} for key in run.searches.records(TRAINED_KIND) if key.startswith(f"{round_key(search.round)}-")]
    effort = {
        "device_seconds": device_seconds + sum(record["device_seconds"] for record in trained),
        "epochs": sum(record["epochs"] for record in trained),
        "finished_at": time.time(),
    }
    # Before the commit: a step that is killed in between runs again from the old state, and one that has committed does not.
    run.searches.put_record(ROUND_KIND, round_key(search.round), {"metrics": found, **effort})
    return commit_supernet(run, previous, replace(search, round=search.round + 1))
