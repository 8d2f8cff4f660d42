"""What every step of a run shares: the opened store, the search's snapshots, its space and networks.

Only steps open stores and trackers and read environment variables and the clock; this is where they do.
"""

from __future__ import annotations

import json
import math
import os
import tempfile
import time
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kfnas.config import Config, canonical_json, parse
from kfnas.errors import NotFound, StaleFence
from kfnas.space import Architecture, MixopSpace, NetworkArguments, NetworkSpec, Space, load_space
from kfnas.steps.config import RunConfig, run_config, task_of
from kfnas.storage import BlobStore, Pointer, SearchStore, open_store

if TYPE_CHECKING:
    from kfnas.controller import Search

DATA_PREFIX = "data"
CODE_VERSION_VARIABLE = "KFNAS_CODE_VERSION"
ROUND_KIND = "round"


class DataPointer(Config):
    """Prepared data in the store: `digest` of the content, `snapshot` of the files, and the task's `meta`."""

    digest: str
    snapshot: str
    meta: dict[str, Any]


@dataclass(frozen=True)
class Run:
    """A configuration with its store opened."""

    config: RunConfig
    store: BlobStore

    @cached_property
    def searches(self) -> SearchStore:
        """Snapshots, ledger and records of this run's search."""
        return SearchStore(self.store, self.config.name)

    @cached_property
    def space(self) -> Space:
        """The space of the search."""
        return load_space(self.config.space.name)

    @cached_property
    def task(self) -> Any:
        """The task (kfnas.train.Task) of the search."""
        return task_of(self.config)[0]

    def arguments(self, data: DataPointer, *, width: float | None = None) -> NetworkArguments:
        """What the network builder is given for this data set. `width` None: the search's own."""
        inputs = self.task.network_inputs(data.meta)
        return NetworkArguments(
            width=self.config.space.width if width is None else width,
            resolution=inputs.resolution,
            in_channels=inputs.in_channels,
            num_outputs=inputs.num_outputs,
        )

    @cached_property
    def final_space(self) -> Space:
        """The space as its networks are trained from scratch: as searched, but for what the configuration adds to them then."""
        added = self.config.shared.retrained_as
        return self.space.changed(added.change) if isinstance(self.space, MixopSpace) and added.changes_layers else self.space

    @property
    def final_width(self) -> float:
        """Width multiplier of what is trained from scratch."""
        return self.config.space.width * self.config.shared.retrained_as.width

    def final_arguments(self, data: DataPointer) -> NetworkArguments:
        """What the network builder is given for what is trained from scratch."""
        return self.arguments(data, width=self.final_width)

    def network(self, tokens: tuple[int, ...] | list[int], data: DataPointer, *, width: float | None = None) -> NetworkSpec:
        """The network that an architecture stands for on this data set."""
        return self.space.network(self.space.architecture(tuple(tokens)), self.arguments(data, width=width))

    def final_network(self, tokens: tuple[int, ...] | list[int], data: DataPointer, *, width: float | None = None) -> NetworkSpec:
        """The network that is trained from scratch for an architecture: as searched, but for what the configuration adds to it then."""
        arguments = self.arguments(data, width=self.final_width if width is None else width)
        return self.final_space.network(self.space.architecture(tuple(tokens)), arguments)

    def load_search(self, pointer: Pointer) -> Search:
        """The search as a snapshot holds it."""
        from kfnas.controller import Search

        with tempfile.TemporaryDirectory(prefix="kfnas-state-") as folder:
            self.searches.read_state(pointer, Path(folder))
            return Search.load(Path(folder), space=self.space)

    def commit_search(self, previous: Pointer, search: Search) -> Pointer:
        """Write a snapshot and move the search's head to it; what the agent reported of a round that was closed is recorded for good.

        Raises:
            StaleFence: a later run has taken the search over.
        """
        # Before the commit: a step that is killed in between runs again from the old state, and one that has committed does not.
        if search.round > previous.round and search.metrics:
            metrics = {name: value for name, value in search.metrics.items() if math.isfinite(value)}
            self.searches.put_record(ROUND_KIND, round_key(search.round - 1), {"metrics": metrics})
        with tempfile.TemporaryDirectory(prefix="kfnas-state-") as folder:
            search.save(Path(folder))
            return self.searches.commit(previous, Path(folder), round=search.round)

    def require_current(self, pointer: Pointer) -> None:
        """Stop a step whose run has been superseded.

        Raises:
            StaleFence: a later run has taken the search over.
        """
        head = self.searches.head()
        if head is None:
            raise NotFound(f"search {pointer.search_id!r} is no longer in {self.store.uri}; it was deleted while a run used it: start it again")
        if head.fence != pointer.fence:
            raise StaleFence(f"search {pointer.search_id!r} was taken over by a later run (fence {head.fence}, this step has {pointer.fence}); this step stops")

    def renew(self, pointer: Pointer) -> None:
        """Say that the run is alive. On a cluster no driver does."""
        head = self.searches.head()
        if head is not None and head.fence == pointer.fence and head.owner is not None and head.owner.pid is None:
            self.searches.renew(head.owner.run_id, now=time.time(), lease_seconds=self.config.execution.lease_seconds)

    def release(self, pointer: Pointer) -> None:
        """Let the next run have the search at once. On a cluster no driver does."""
        head = self.searches.head()
        if head is not None and head.fence == pointer.fence and head.owner is not None and head.owner.pid is None:
            self.searches.release(head.owner.run_id)


def round_key(number: int) -> str:
    """Key of a round's record: keys sort as rounds do."""
    return f"{number:05d}"


def open_run(config: str) -> Run:
    """Open the store that a configuration names.

    Raises:
        ConfigError, StoreUnavailable, AccessDenied, UnsupportedStore
    """
    parsed = run_config(config)
    return Run(parsed, open_store(parsed.store))


def read_json(path: Path) -> Any:
    """Read a JSON artifact."""
    return json.loads(Path(path).read_text(encoding="utf-8"))


def write_json(path: Path, value: Any) -> None:
    """Write a JSON artifact, canonically."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(canonical_json(value), encoding="utf-8")


def read_pointer(path: Path) -> Pointer:
    """Read a state artifact."""
    return parse(Pointer, read_json(path), source=str(path))


def read_data(path: Path) -> DataPointer:
    """Read a data artifact."""
    return parse(DataPointer, read_json(path), source=str(path))


def code_version() -> str:
    """Version of kfnas that runs: the package's, or what the image was built from."""
    from kfnas import __version__

    return os.environ.get(CODE_VERSION_VARIABLE) or __version__


def architecture_text(space: Space, tokens: tuple[int, ...] | list[int]) -> str:
    """An architecture as people and logs see it."""
    return str(Architecture(space.name, tuple(tokens)))
