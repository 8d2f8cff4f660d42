"""Trackers that the contract suite runs over, each with a way to read back what it holds."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from kfnas.testing.mlflow_server import MLflowServer, mlflow_server
from kfnas.tracking import MemoryTracker, Tracker, open_tracker


@dataclass
class Tracked:
    """One search as a tracker holds it: how often each value of a metric was written, and the runs nested in the search's run."""

    status: str
    values: dict[tuple[str, int], list[float]]
    children: list[str]
    files: Mapping[str, bytes] = field(default_factory=dict)


@dataclass
class TrackerCase:
    """A kind of tracker under test: `open` gives a tracker on the same store each time."""

    name: str
    open: Callable[..., Tracker]
    read: Callable[[str], Tracked]
    versions: Callable[[str], list[tuple[int, str]]]
    alias: Callable[[str, str], int]


@pytest.fixture(scope="session")
def running_mlflow_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MLflowServer]:
    """One MLflow server for the whole session."""
    with mlflow_server(tmp_path_factory.mktemp("mlflow_server")) as server:
        yield server


@pytest.fixture(scope="session")
def sqlite_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder for the sqlite tracker: creating its tables takes seconds."""
    return tmp_path_factory.mktemp("mlflow sqlite")


@pytest.fixture(params=["memory", "sqlite", pytest.param("server", marks=pytest.mark.server)])
def tracker_case(request: pytest.FixtureRequest) -> TrackerCase:
    """Every adapter of the Tracker port."""
    return memory_case() if request.param == "memory" else _mlflow(request)


@pytest.fixture(params=["sqlite", pytest.param("server", marks=pytest.mark.server)])
def mlflow_tracker_case(request: pytest.FixtureRequest) -> TrackerCase:
    """The MLflow adapter, on both kinds of store."""
    return _mlflow(request)


@pytest.fixture
def server_tracker_case(running_mlflow_server: MLflowServer) -> TrackerCase:
    """The MLflow adapter on the real server."""
    return mlflow_case("server", running_mlflow_server.uri, running_mlflow_server.folder)


def _mlflow(request: pytest.FixtureRequest) -> TrackerCase:
    if request.param == "sqlite":
        return mlflow_case("sqlite", None, request.getfixturevalue("sqlite_folder"))
    server = request.getfixturevalue("running_mlflow_server")
    return mlflow_case("server", server.uri, server.folder)


def memory_case() -> TrackerCase:
    """The in-memory double."""
    tracker = MemoryTracker()

    def read(search_id: str) -> Tracked:
        run = tracker.runs[search_id]
        return Tracked(run.view.state, {key: [point.value] for key, point in run.points.items()}, sorted(run.children), dict(run.files))

    def versions(name: str) -> list[tuple[int, str]]:
        return [(number + 1, model.digest) for number, model in enumerate(tracker.models.get(name, []))]

    return TrackerCase("memory", lambda **_: tracker, read, versions, lambda name, alias: tracker.aliases[name, alias])


def mlflow_case(name: str, uri: str | None, folder: Path, experiment: str = "contract") -> TrackerCase:
    """MLflow at `uri`, or on sqlite in `folder`."""

    def opened(**arguments: Any) -> Tracker:
        return open_tracker(uri, experiment=experiment, folder=folder, **arguments)

    def client() -> Any:
        import mlflow

        address = uri or f"sqlite:///{folder / 'mlflow.db'}"
        return mlflow.MlflowClient(tracking_uri=address, registry_uri=address)

    def read(search_id: str) -> Tracked:
        found = client()
        number = found.get_experiment_by_name(experiment).experiment_id
        runs = found.search_runs([number], f"tags.`kfnas.search_id` = '{search_id}'", max_results=1000)
        (parent,) = [run for run in runs if run.data.tags["kfnas.kind"] == "search"]
        children = [run for run in runs if run.data.tags["kfnas.kind"] == "child"]
        for run in children:
            assert run.data.tags["mlflow.parentRunId"] == parent.info.run_id
            assert run.info.status in ("FINISHED", "FAILED")
            assert all(len(found.get_metric_history(run.info.run_id, key)) == 1 for key in list(run.data.metrics)[:1])
        values: dict[tuple[str, int], list[float]] = {}
        for key in parent.data.metrics:
            for metric in found.get_metric_history(parent.info.run_id, key):
                values.setdefault((key, metric.step), []).append(metric.value)
        status = {"RUNNING": "running", "FINISHED": "finished", "FAILED": "failed"}[parent.info.status]
        files = _files(found, parent.info.run_id, folder / "downloads" / search_id)
        return Tracked(status, values, sorted(run.data.tags["kfnas.sample"] for run in children), files)

    def versions(model: str) -> list[tuple[int, str]]:
        return sorted((int(version.version), version.tags["kfnas.digest"]) for version in client().search_model_versions(f"name = '{model}'"))

    def alias(model: str, key: str) -> int:
        return int(client().get_model_version_by_alias(model, key).version)

    return TrackerCase(name, opened, read, versions, alias)


def _files(client: Any, run_id: str, folder: Path) -> Mapping[str, bytes]:
    folder.mkdir(parents=True, exist_ok=True)
    root = Path(client.download_artifacts(run_id, "", dst_path=str(folder)))
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}
