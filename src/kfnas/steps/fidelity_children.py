"""What the steps of a fidelity study share: the opened study, its plan, and its ledger of children.

A study is a search's folder in the store without a head: its children and records are written once each and never change, so nothing need be held. Two
runs of one study at once do some work twice and harm nothing; a run that was killed is run again.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

from kfnas.config import Config, canonical_json, digest_of, parse
from kfnas.errors import ConfigMismatch, NotFound
from kfnas.steps.context import DataPointer, Run, read_json
from kfnas.steps.fidelity_config import FidelityConfig, fidelity_config
from kfnas.storage import BlobStore, SearchStore, open_store

Role = Literal["truth", "random", "pool", "donor"]
KIND = "fidelity"
RANDOM = "random"


class PlannedChild(Config):
    """One training.

    Attributes:
        id: unique in the study.
        role: `truth` (long), `random` or `pool` (short, by how the weights begin), `donor` (fills the pool).
        index: of the architecture among the study's, or among the donors'.
        replicate: of the truth's seeds; 0 elsewhere.
        epochs: its length.
        tokens: the architecture.
        seed: its own.
        key: in the ledger.
        initial_weights: sha256 of a blob of the study's store; None: random.
    """

    id: str
    role: Role
    index: int
    replicate: int = 0
    epochs: int
    tokens: tuple[int, ...]
    seed: int
    key: str
    initial_weights: str | None = None


class FidelityPlan(Config):
    """Everything that a study trains, and on what: `donor_data` shares no training image with `data`."""

    data: DataPointer
    donor_data: DataPointer
    children: tuple[PlannedChild, ...]

    def of(self, role: Role) -> list[PlannedChild]:
        """Children of one role."""
        return [child for child in self.children if child.role == role]

    def data_of(self, child: PlannedChild) -> DataPointer:
        """What a child is trained and scored on."""
        return self.donor_data if child.role == "donor" else self.data


@dataclass(frozen=True)
class Study:
    """A study with its store opened."""

    config: FidelityConfig
    store: BlobStore

    @property
    def searches(self) -> SearchStore:
        """Its children and records."""
        return SearchStore(self.store, self.config.name)

    def run(self, epochs: int) -> Run:
        """A run whose children are trained for so many epochs."""
        return Run(_run_config(self.config.text, epochs), self.store)

    @property
    def any_run(self) -> Run:
        """A run, where the length of a training does not matter."""
        return self.run(self.config.truth.epochs)

    def require_own(self) -> None:
        """Settle which configuration the study has; from then on it has no other.

        Raises:
            ConfigMismatch: it was started with another, or a search has its name: both would use one folder.
        """
        if self.searches.head() is not None:
            raise ConfigMismatch(
                f"study {self.config.name!r}: {self.store.uri} has a search of that name, and both would use one folder; give the study another name"
            )
        self.searches.put_record(KIND, "config", {"digest": self.config.digest, "config": self.config.text})
        recorded = self.searches.record(KIND, "config") or {}
        if recorded["digest"] != self.config.digest:
            changes = _difference(json.loads(recorded["config"]), self.config)
            raise ConfigMismatch(
                f"study {self.config.name!r} in {self.store.uri} was started with another configuration: {changes}; restore it, or give the study another name"
            )

    def record_of(self, child: PlannedChild) -> dict[str, Any]:
        """What became of a child.

        Raises:
            NotFound: it was not trained.
        """
        record = self.searches.child(child.key)
        if record is None:
            raise NotFound(f"study {self.config.name!r}: child {child.id} was not trained ({child.key[:12]}); its shard did not end: run the study again")
        return record


@cache
def _run_config(text: str, epochs: int) -> Any:
    return fidelity_config(text).run(epochs)


def open_study(config: str) -> Study:
    """Open the store that a study names.

    Raises:
        ConfigError, StoreUnavailable, AccessDenied, UnsupportedStore
    """
    study = fidelity_config(config)
    return Study(study, open_store(study.run(study.truth.epochs).store))


def read_plan(path: Path) -> FidelityPlan:
    """Read a plan's artifact."""
    return parse(FidelityPlan, read_json(path), source=str(path))


def seed_of(study_seed: int, *what: str | int) -> int:
    """A seed of 31 bits for one use, independent for every other use."""
    return int(digest_of([study_seed, *what])[:8], 16) >> 1


def shards_of(children: Iterable[PlannedChild], num_shards: int) -> list[str]:
    """Children divided so that shards take about as long, as one JSON text each, and never none: a loop must have an item.

    The longest come first, each to the shard with the least to do.
    """
    ordered = sorted(children, key=lambda child: (-child.epochs, child.id))
    shards: list[list[str]] = [[] for _ in range(max(1, min(num_shards, len(ordered))))]
    loads = [0.0] * len(shards)
    for child in ordered:
        shard = loads.index(min(loads))
        shards[shard].append(child.id)
        loads[shard] += child.epochs
    return [canonical_json({"shard": number, "ids": ids}) for number, ids in enumerate(shards)]


def missing_of(study: Study, children: Sequence[PlannedChild]) -> list[PlannedChild]:
    """Those that the ledger lacks."""
    known = set(study.searches.children())
    return [child for child in children if child.key not in known]


def _difference(recorded: dict[str, Any], given: FidelityConfig) -> str:
    now = given.model_dump(mode="json")
    changed = sorted(name for name in now if recorded.get(name) != now[name])
    return ", ".join(f"{name} was {canonical_json(recorded.get(name))}, is {canonical_json(now[name])}" for name in changed)[:1000] or "its defaults changed"
