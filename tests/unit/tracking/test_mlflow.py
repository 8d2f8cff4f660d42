"""The MLflow adapter on sqlite, under crashes and outages."""

from __future__ import annotations

import http.server
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from kfnas.errors import AccessDenied, ConfigError, TrackerUnavailable
from kfnas.testing.mlflow_server import free_port
from kfnas.tracking import Final, FinalModel, SearchRow, SearchView, open_tracker

START = 1_700_000_000.0


def view(search_id: str, num_rows: int = 2, **changes: Any) -> SearchView:
    rows = tuple(
        SearchRow(0, f"0-{index}", f"toy:{index}", 0.5, 10.0, 0.4, "failed" if index else "ok", "policy", "", 2.0, 1.0, START + index)
        for index in range(num_rows)
    )
    final = Final("top1", "searched", "toy:0", {"final/top1": 0.9}, START + 9)
    return SearchView(search_id, search_id, rows, finals=(final,), **changes)


def tiny_model(search_id: str) -> FinalModel:
    import onnx

    images = onnx.helper.make_tensor_value_info("images", onnx.TensorProto.FLOAT, ["N", 4])
    logits = onnx.helper.make_tensor_value_info("logits", onnx.TensorProto.FLOAT, ["N", 4])
    graph = onnx.helper.make_graph([onnx.helper.make_node("Relu", ["images"], ["logits"])], "g", [images], [logits])
    data = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8).SerializeToString()
    return FinalModel(search_id, search_id, "top1", data)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("sqlite")


@contextmanager
def answering(status: int) -> Iterator[str]:
    """A loopback server that answers every request with `status`."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self.send_response(status)
            self.send_header("Content-Length", "4")
            self.end_headers()
            self.wfile.write(b"oops")

        do_POST = do_GET  # noqa: N815

        def log_message(self, *_: object) -> None:
            """Keep quiet."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://me:hunter2@127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def silent() -> Iterator[str]:
    """A loopback port that takes connections and never answers."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield f"http://me:hunter2@127.0.0.1:{listener.getsockname()[1]}"


@contextmanager
def closed() -> Iterator[str]:
    yield f"http://me:hunter2@127.0.0.1:{free_port()}"


@pytest.mark.parametrize("server", [closed, silent, lambda: answering(500), lambda: answering(503)], ids=["closed", "silent", "500", "503"])
def test_a_server_that_does_not_work_is_unavailable_within_seconds(server: Callable[[], Any], folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    with server() as uri:
        tracker = open_tracker(uri, experiment="e", folder=folder)
        begun = time.monotonic()
        with pytest.raises(TrackerUnavailable) as caught:
            tracker.project(view("dead"))
        assert time.monotonic() - begun < 10
    assert "hunter2" not in str(caught.value) + caplog.text + tracker.uri
    assert caught.value.__suppress_context__


@pytest.mark.parametrize("status", [401, 403])
def test_refused_credentials_are_told_apart(status: int, folder: Path) -> None:
    with answering(status) as uri, pytest.raises(AccessDenied, match="MLFLOW_TRACKING_USERNAME"):
        open_tracker(uri, experiment="e", folder=folder).project(view("denied"))


def test_a_folder_that_cannot_be_written_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(TrackerUnavailable, match="kfnas sync"):
        open_tracker(None, experiment="e", folder=tmp_path / "file" / "below").project(view("full"))


@pytest.mark.parametrize("uri", ["./mlruns", "file:///tmp/mlruns", "ftp://host"])
def test_an_address_of_no_kind_that_mlflow_serves_is_refused(uri: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="sqlite:///"):
        open_tracker(uri, experiment="e", folder=tmp_path)


def test_a_deleted_experiment_is_named(folder: Path) -> None:
    import mlflow

    tracker = open_tracker(None, experiment="deleted", folder=folder)
    tracker.project(view("gone"))
    client = mlflow.MlflowClient(tracking_uri=tracker.uri)
    client.delete_experiment(client.get_experiment_by_name("deleted").experiment_id)
    with pytest.raises(ConfigError, match="was deleted"):
        tracker.project(view("gone"))


def test_an_injected_run_that_is_gone_does_no_harm(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    projected = open_tracker(None, experiment="e", folder=folder, task_run_id="0" * 32).project(view("orphan"))
    assert projected.num_rows == 2
    assert "takes no metrics" in caplog.text


def test_nothing_of_the_process_is_changed(folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("MLFLOW_RUN_ID", "1" * 32)
    before = dict(os.environ)
    open_tracker(None, experiment="e", folder=folder).project(view("clean"))
    assert dict(os.environ) == before
    assert capfd.readouterr() == ("", "")


def test_importing_the_package_imports_no_mlflow_and_opening_sends_no_telemetry(tmp_path: Path) -> None:
    code = f"""
import sys, pathlib, threading
import kfnas.tracking
assert not {{"mlflow", "torch", "boto3"}} & set(sys.modules)
kfnas.tracking.open_tracker(None, experiment="e", folder=pathlib.Path({str(tmp_path)!r}))
import mlflow.telemetry
assert mlflow.telemetry.get_telemetry_client() is None
assert threading.active_count() == 1
assert "torch" not in sys.modules
"""
    environment = {key: value for key, value in os.environ.items() if key not in ("CI", "PYTEST_CURRENT_TEST", "DO_NOT_TRACK")}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


class Killed(BaseException):
    """The process ends here."""


def contents(folder: Path, search_id: str) -> dict[str, Any]:
    """Runs of a search by kind and name, with every value that was ever written to them."""
    import mlflow

    client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{folder / 'mlflow.db'}")
    runs = client.search_runs([client.get_experiment_by_name("crash").experiment_id], f"tags.`kfnas.search_id` = '{search_id}'")
    found: dict[str, Any] = {}
    for run in runs:
        tags = run.data.tags
        name = f"{tags['kfnas.kind']} {tags.get('kfnas.sample', tags.get('kfnas.final', ''))}"
        assert name not in found, f"{name} is there twice"
        history = [metric for key in run.data.metrics for metric in client.get_metric_history(run.info.run_id, key)]
        values = sorted((metric.key, metric.step, metric.value, metric.timestamp) for metric in history)
        found[name] = (run.info.status, values, {key: value for key, value in tags.items() if key.startswith("kfnas.") and key != "kfnas.search_id"})
    return found


class Killer:
    """Counts the writes of every MLflow client, and kills at the `limit`-th, once it is done."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, names: tuple[str, ...]) -> None:
        import mlflow

        self.calls, self.limit = 0, 10**6
        for name in names:
            monkeypatch.setattr(mlflow.MlflowClient, name, self._counted(getattr(mlflow.MlflowClient, name)))

    def arm(self, limit: int) -> None:
        self.calls, self.limit = 0, limit

    def _counted(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def write(client: Any, *args: Any, **kwargs: Any) -> Any:
            result = original(client, *args, **kwargs)
            self.calls += 1
            if self.calls == self.limit:
                raise Killed
            return result

        return write


def test_a_projection_killed_at_any_write_is_finished_by_the_next_one(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    killer = Killer(monkeypatch, ("create_run", "log_batch", "set_terminated", "set_tag", "log_artifacts"))
    tracker = open_tracker(None, experiment="crash", folder=folder)
    tracker.project(view("whole", state="finished"))
    whole, num_writes = contents(folder, "whole"), killer.calls
    assert set(whole) == {"search ", "child 0-0", "child 0-1", "final top1"}
    assert num_writes > 12
    for limit in range(1, num_writes + 1):
        killer.arm(limit)
        with pytest.raises(Killed):
            tracker.project(view(f"killed{limit}", state="finished"))
        tracker.project(view(f"killed{limit}", state="finished"))
        assert contents(folder, f"killed{limit}") == whole, f"after a kill at write {limit}"


def test_a_registration_killed_at_any_write_is_finished_by_the_next_one(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import mlflow

    writes = ("create_run", "create_logged_model", "log_model_artifacts", "log_outputs", "finalize_logged_model")
    killer = Killer(monkeypatch, (*writes, "create_registered_model", "create_model_version", "set_registered_model_alias"))
    tracker = open_tracker(None, experiment="crash", folder=folder)
    client = mlflow.MlflowClient(tracking_uri=tracker.uri, registry_uri=tracker.uri)
    tracker.register(tiny_model("registered"))
    for limit in range(1, killer.calls + 1):
        killer.arm(limit)
        with pytest.raises(Killed):
            tracker.register(tiny_model(f"registered{limit}"))
        assert tracker.register(tiny_model(f"registered{limit}")).version == 1
        assert len(client.search_model_versions(f"name = 'registered{limit}'")) == 1
        assert client.get_model_version_by_alias(f"registered{limit}", "candidate").version in (1, "1")
        assert set(contents(folder, f"registered{limit}")) == {"search ", "final top1"}


def test_of_two_runs_of_one_search_the_oldest_is_it(folder: Path) -> None:
    import mlflow

    tracker = open_tracker(None, experiment="e", folder=folder)
    first = tracker.project(view("twice")).run_id
    client = mlflow.MlflowClient(tracking_uri=tracker.uri)
    number = client.get_run(first).info.experiment_id
    client.create_run(number, tags={"kfnas.kind": "search", "kfnas.search_id": "twice"})
    assert tracker.project(view("twice", 3)).run_id == first


def test_changed_values_of_a_finalist_are_written_to_its_one_run(folder: Path) -> None:
    tracker = open_tracker(None, experiment="crash", folder=folder)
    tracker.project(view("final"))
    changed = Final("top1", "searched", "toy:0", {"final/top1": 0.9, "final/latency_ms": 3.0}, START + 9)
    later = SearchView("final", "final", view("final").rows, finals=(changed,))
    assert tracker.project(later).num_runs == 0
    assert [key for key, *_ in contents(folder, "final")["final top1"][1]] == ["final/latency_ms", "final/top1"]
