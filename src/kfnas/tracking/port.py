"""The Tracker port and what goes through it."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from kfnas.errors import ConfigError
from kfnas.tracking.redaction import redacted
from kfnas.tracking.study import StudyView
from kfnas.tracking.view import SearchView

CANDIDATE = "candidate"
SERVERS = ("http://", "https://")
DATABASES = ("sqlite", "postgresql", "mysql", "mssql")


@dataclass(frozen=True)
class Projection:
    """What a projection found lacking and wrote: `run_id` is the search's own run."""

    run_id: str
    num_rows: int
    num_runs: int
    num_files: int


@dataclass(frozen=True)
class FinalModel:
    """A trained network to register: `name` is the registered model's (the search's name), `final` the finalist that it is.

    `onnx` is the serialised graph with its weights. With `alias` None the version is registered without one; otherwise the alias moves to it.
    """

    search_id: str
    name: str
    final: str
    onnx: bytes
    tags: Mapping[str, str] = field(default_factory=dict)
    alias: str | None = CANDIDATE

    @property
    def digest(self) -> str:
        """Sha256 (hex) of the serialised graph: what makes registering idempotent."""
        return hashlib.sha256(self.onnx).hexdigest()


@dataclass(frozen=True)
class RegisteredModel:
    """A version in the registry; `created` is False where its digest was registered before."""

    name: str
    version: int
    digest: str
    created: bool

    @property
    def uri(self) -> str:
        """Address for MLflow's loaders."""
        return f"models:/{self.name}/{self.version}"


class Tracker(Protocol):
    """Shows searches to people. Each verb may be called again at any time: what is there already is not written twice."""

    @property
    def uri(self) -> str:
        """Where this tracker writes, without credentials."""

    def project(self, view: SearchView, files: Mapping[str, bytes] | None = None) -> Projection:
        """Write what the view holds and the tracker lacks.

        Args:
            view: the search; a view older than what was projected before changes nothing.
            files: further artifacts of the search's run, by relative path (plots, the report).

        Raises:
            TrackerUnavailable: nobody answers, or the answer is a server error; call again later.
            AccessDenied: the credentials do not allow this.
        """

    def compare(self, view: StudyView, files: Mapping[str, bytes] | None = None) -> Projection:
        """Write a study's run: its metrics, its files, and which searches it compares; their runs are nested in it where they are in no other.

        Args:
            view: the study.
            files: artifacts of the study's run, by relative path (tables, plots, the report).

        Raises:
            TrackerUnavailable, AccessDenied: as for `project`.
        """

    def register(self, model: FinalModel) -> RegisteredModel:
        """Put a model into the registry, once for each digest, and move its alias.

        Raises:
            TrackerUnavailable, AccessDenied: as for `project`.
        """


def open_tracker(uri: str | None, *, experiment: str, folder: Path, task_run_id: str | None = None) -> Tracker:
    """The tracker at `uri`: an MLflow server (`http://`, `https://`) or database (`sqlite:///...`); None is sqlite in `folder`.

    Args:
        experiment: name of the experiment that the search's run is found or created in.
        folder: a local folder for the sqlite file and its artifacts; unused with a server.
        task_run_id: run that the platform opened for this very task (an injected MLFLOW_RUN_ID): the latest round's metrics go there too.

    Raises:
        ConfigError: the address is of no kind that MLflow serves.
    """
    if uri is not None:
        check_address(uri)
    from kfnas.tracking.mlflow import MLflowTracker

    return MLflowTracker(uri, experiment=experiment, folder=folder, task_run_id=task_run_id)


def check_address(uri: str) -> None:
    """Refuse a tracking address that MLflow does not serve, without importing MLflow.

    Raises:
        ConfigError: neither a server nor a database.
    """
    if not uri.startswith((*SERVERS, *DATABASES)):
        raise ConfigError(f"tracking address {redacted(uri)!r} is none that MLflow serves; give http(s)://host:port or sqlite:///path/mlflow.db")


def registry_name(name: str) -> str:
    """`name` with what a registry refuses in a model's name replaced by '-'."""
    return re.sub(r"[^A-Za-z0-9._ -]", "-", name).strip() or "model"
