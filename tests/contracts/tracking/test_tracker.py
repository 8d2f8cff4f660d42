"""What every Tracker does: project a search any number of times, and register a model once for each digest."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import numpy as np
import onnx
import pytest

from kfnas.errors import TrackerUnavailable
from kfnas.tracking import Final, FinalModel, RoundMetrics, SearchRow, SearchView

START = 1_700_000_000.0


def row(index: int, **changes: Any) -> SearchRow:
    values: dict[str, Any] = {
        "round": index // 4,
        "id": f"{index // 4}-{index % 4}",
        "architecture": f"toy:{index}",
        "accuracy": 0.5 + index / 100,
        "cost": 10.0 + index,
        "reward": 0.4 + index / 100,
        "status": "ok",
        "source": "policy",
        "device_seconds": 2.0,
        "epochs": 1.0,
        "finished_at": START + 10 * index,
        "child_key": f"key{index}",
    }
    return SearchRow(**{**values, **changes})


def view(search_id: str, num_rows: int, **changes: Any) -> SearchView:
    rows = [row(index) for index in range(num_rows)]
    if num_rows > 2:
        rows[1] = row(1, status="failed", accuracy=None, reward=0.0, reason="loss became NaN at step 3")
        rows[2] = row(2, status="infeasible", accuracy=None, device_seconds=0.0, epochs=0.0, finished_at=None, child_key=None)
    rounds = tuple(RoundMetrics(number, {"ppo/entropy": 1.5}, START + 40 * number + 35) for number in range(num_rows // 4))
    return dataclasses.replace(SearchView(search_id, search_id, tuple(rows), {"seed": 0, "space": {"name": "toy"}}, rounds, pareto=("0-0",)), **changes)


def model(search_id: str, weight: float, **changes: Any) -> FinalModel:
    images = onnx.helper.make_tensor_value_info("images", onnx.TensorProto.FLOAT, ["N", 4])
    logits = onnx.helper.make_tensor_value_info("logits", onnx.TensorProto.FLOAT, ["N", 2])
    weights = onnx.helper.make_tensor("w", onnx.TensorProto.FLOAT, [4, 2], np.full(8, weight, np.float32))
    graph = onnx.helper.make_graph([onnx.helper.make_node("MatMul", ["images", "w"], ["logits"])], "g", [images], [logits], [weights])
    data = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8).SerializeToString()
    return dataclasses.replace(FinalModel(search_id, search_id, "top1", data), **changes)


def test_a_projection_writes_rows_rounds_and_files(tracker_case: Any) -> None:
    tracker = tracker_case.open()
    result = tracker.project(view("writes", 8), {"plots/reward.png": b"\x89PNG"})
    assert (result.num_rows, result.num_runs) == (8, 7)
    seen = tracker_case.read("writes")
    assert seen.children == sorted(f"{index // 4}-{index % 4}" for index in range(8) if index != 2)
    assert seen.values["sample/accuracy", 7] == [pytest.approx(0.57)]
    assert ("sample/accuracy", 1) not in seen.values
    assert seen.values["sample/latency_ms", 2] == [12.0]
    assert seen.values["round/num_activated", 0] == [3.0]
    assert seen.values["search/num_activated", 1] == [7.0]
    assert seen.values["search/best_reward", 1] == [pytest.approx(0.47)]
    assert seen.values["ppo/entropy", 1] == [1.5]
    assert seen.files["plots/reward.png"] == b"\x89PNG"
    assert seen.status == "running"


def test_projecting_the_same_view_again_writes_nothing(tracker_case: Any) -> None:
    tracker = tracker_case.open()
    tracker.project(view("again", 8), {"plots/a.png": b"a"})
    before = tracker_case.read("again")
    result = tracker_case.open().project(view("again", 8), {"plots/a.png": b"a"})
    assert (result.num_rows, result.num_runs, result.num_files) == (0, 0, 0)
    assert tracker_case.read("again") == before


def test_a_search_grows_round_by_round_and_all_at_once_alike(tracker_case: Any) -> None:
    for num_rows in (0, 4, 8, 12):
        tracker_case.open().project(view("grows", num_rows))
    tracker_case.open().project(view("at_once", 12))
    grown, at_once = tracker_case.read("grows"), tracker_case.read("at_once")
    assert grown.values == at_once.values
    assert grown.children == at_once.children
    assert all(len(values) == 1 for values in grown.values.values())


def test_an_older_view_changes_nothing(tracker_case: Any) -> None:
    tracker_case.open().project(view("older", 8), {"report.html": b"new"})
    before = tracker_case.read("older")
    tracker_case.open().project(view("older", 4, state="failed"), {"report.html": b"old"})
    assert tracker_case.read("older") == before


def test_a_finished_search_is_finished_and_may_go_on(tracker_case: Any) -> None:
    tracker_case.open().project(view("ends", 4, state="finished"))
    assert tracker_case.read("ends").status == "finished"
    tracker_case.open().project(view("ends", 8))
    assert tracker_case.read("ends").status == "running"


def test_two_searches_do_not_mix(tracker_case: Any) -> None:
    tracker = tracker_case.open()
    tracker.project(view("one", 4))
    tracker.project(view("two", 8))
    assert len(tracker_case.read("one").children) == 3
    assert len(tracker_case.read("two").children) == 7


def test_values_that_are_no_numbers_are_left_out(tracker_case: Any) -> None:
    odd = view("odd", 0, rows=(row(0, reward=float("nan")), row(1, reward=float("-inf"), accuracy=None)))
    tracker_case.open().project(odd)
    names = {name for name, _ in tracker_case.read("odd").values}
    assert "sample/reward" not in names
    assert "sample/accuracy" in names


def test_registering_is_idempotent_by_digest_and_moves_the_alias(tracker_case: Any) -> None:
    tracker_case.open().project(view("models", 4))
    first = tracker_case.open().register(model("models", 1.0))
    again = tracker_case.open().register(model("models", 1.0))
    second = tracker_case.open().register(model("models", 2.0, final="top2", alias=None))
    assert (first.version, first.created) == (1, True)
    assert (again.version, again.created) == (1, False)
    assert (second.version, second.created) == (2, True)
    assert tracker_case.versions("models") == [(1, model("models", 1.0).digest), (2, model("models", 2.0).digest)]
    assert tracker_case.alias("models", "candidate") == 1
    tracker_case.open().register(model("models", 2.0, final="top2"))
    assert tracker_case.alias("models", "candidate") == 2


def test_a_name_that_a_registry_refuses_is_mended(tracker_case: Any) -> None:
    assert tracker_case.open().register(model("slashes", 1.0, name="a/b:c 'd'")).name == "a-b-c -d-"


def test_mlflow_holds_tables_and_configuration_without_credentials(mlflow_tracker_case: Any) -> None:
    secret = {"store": "s3://AKIA:hunter2@bucket/x", "tracking": {"uri": "http://me:hunter2@host?access_token=hunter2&a=1"}}
    final = Final("top1", "searched", "toy:7", {"final/top1": 0.9, "final/latency_ms": 3.0}, START + 500)
    rows = (row(0), row(1, status="failed", accuracy=None, reason="cannot reach http://me:hunter2@host/"))
    mlflow_tracker_case.open().project(view("secrets", 0, rows=rows, config=secret, finals=(final,), pareto=("0-0",)))
    files = mlflow_tracker_case.read("secrets").files
    assert not any(b"hunter2" in data for data in files.values())
    assert json.loads(files["config.json"])["store"] == "s3://***@bucket/x"
    assert [item["id"] for item in json.loads(files["tables/pareto.json"])["rows"]] == ["0-0"]
    assert json.loads(files["tables/finals.json"])[0]["top1"] == 0.9
    assert files["tables/history.csv"].decode().splitlines()[0].startswith("round,id,architecture,accuracy")


def test_the_registered_model_loads_and_answers_with_its_signature(mlflow_tracker_case: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import mlflow

    tracker = mlflow_tracker_case.open()
    registered = tracker.register(model("loads", 3.0))
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", tracker.uri)
    loaded = mlflow.pyfunc.load_model("models:/loads@candidate")
    assert loaded.metadata.signature.inputs.input_names() == ["images"]
    assert loaded.metadata.signature.inputs.inputs[0].shape == (-1, 4)
    assert loaded.predict(np.ones((3, 4), np.float32))["logits"] == pytest.approx(np.full((3, 2), 12.0))
    assert registered.uri == "models:/loads/1"


def test_an_injected_run_gets_the_round_and_is_neither_ended_nor_taken_for_the_search(mlflow_tracker_case: Any) -> None:
    import mlflow

    mlflow_tracker_case.open().project(view("other", 4))
    client = mlflow.MlflowClient(tracking_uri=mlflow_tracker_case.open().uri)
    experiment = client.get_experiment_by_name("contract").experiment_id
    task = client.create_run(experiment, run_name="the pipeline's own").info.run_id
    tracker = mlflow_tracker_case.open(task_run_id=task)
    for _ in range(2):
        projected = tracker.project(view("injected", 8, state="finished"))
    run = client.get_run(task)
    assert projected.run_id != task
    assert run.info.status == "RUNNING"
    assert (run.data.tags["kfnas.search_id"], run.data.tags["kfnas.round"]) == ("injected", "1")
    assert run.data.tags["kfnas.parent_run_id"] == projected.run_id
    assert run.data.metrics["search/num_activated"] == 7.0
    assert [metric.step for metric in client.get_metric_history(task, "ppo/entropy")] == [1]
    assert mlflow_tracker_case.read("injected").status == "finished"


def test_beyond_the_limit_rows_are_in_the_table_and_the_metrics_only(sqlite_folder: Any) -> None:
    from kfnas.tracking.mlflow import MLflowTracker

    limited = MLflowTracker(None, experiment="limit", folder=sqlite_folder, max_children=3)
    assert limited.project(view("limit", 4)).num_runs == 3
    assert limited.project(view("limit", 8)).num_runs == 0


@pytest.mark.server
def test_what_an_outage_left_out_is_written_once_the_server_is_back(running_mlflow_server: Any, server_tracker_case: Any) -> None:
    server_tracker_case.open().project(view("outage", 4))
    running_mlflow_server.stop()
    try:
        with pytest.raises(TrackerUnavailable, match="kfnas sync"):
            server_tracker_case.open().project(view("outage", 8))
    finally:
        running_mlflow_server.start()
    assert server_tracker_case.open().project(view("outage", 12)).num_rows == 8
    assert len(server_tracker_case.read("outage").children) == 11
    assert all(len(values) == 1 for values in server_tracker_case.read("outage").values.values())
