"""What every tracker does with a study: one run, its metrics once each, its files, and its searches under it."""

from __future__ import annotations

import dataclasses
import uuid
from typing import Any

import pytest

from kfnas.tracking import MemoryTracker, SearchView, StudyView, Tracker


def view(study_id: str, **fields: Any) -> StudyView:
    return StudyView(study_id, "ablation", {"all/top1": 0.9, "all/wrong": float("nan")}, {"name": study_id, "seeds": [0, 1]}, num_finished=2, **fields)


def stored(tracker: Tracker, study_id: str) -> tuple[dict[str, list[float]], dict[str, str]]:
    """Metrics (every value written) and tags of a study's only run."""
    if isinstance(tracker, MemoryTracker):
        study = tracker.studies[study_id]
        return {name: [value] for (name, _), value in study.points.items()}, {"kfnas.searches": " ".join(study.view.searches)}
    client, runs = _runs(tracker, f"tags.`kfnas.kind` = 'study' and tags.`kfnas.study_id` = '{study_id}'")
    (run,) = runs
    return {name: [point.value for point in client.get_metric_history(run.info.run_id, name)] for name in run.data.metrics}, run.data.tags


def _runs(tracker: Tracker, condition: str) -> tuple[Any, list[Any]]:
    import mlflow

    client = mlflow.MlflowClient(tracking_uri=tracker.uri)
    experiment = client.get_experiment_by_name("contract")
    return client, list(client.search_runs([experiment.experiment_id], condition))


def test_a_study_has_one_run_however_often_it_is_written(tracker_case: Any) -> None:
    study_id, tracker = f"s-{uuid.uuid4().hex}", tracker_case.open()
    first = tracker.compare(view(study_id, searches=("a", "b")), {"report.html": b"<p>1</p>"})
    again = tracker_case.open().compare(view(study_id, searches=("a", "b"), state="finished"), {"report.html": b"<p>1</p>"})
    assert (first.num_files, again.num_files) == (1, 0)
    assert first.run_id == again.run_id
    metrics, tags = stored(tracker, study_id)
    assert metrics == {"all/top1": [0.9]}
    assert tags["kfnas.searches"] == "a b"


def test_a_search_is_nested_in_the_first_study_that_names_it(mlflow_tracker_case: Any) -> None:
    tracker, search_id = mlflow_tracker_case.open(), f"search-{uuid.uuid4().hex}"
    search = tracker.project(SearchView(search_id, search_id)).run_id
    first, second = (tracker.compare(view(f"s-{uuid.uuid4().hex}", searches=(search_id, "not-there"))).run_id for _ in range(2))
    assert first != second
    client, _ = _runs(tracker, "tags.`kfnas.kind` = 'study'")
    assert client.get_run(search).data.tags["mlflow.parentRunId"] == first
    assert tracker.project(SearchView(search_id, search_id)).run_id == search


def test_a_search_and_a_study_of_one_name_have_runs_of_their_own(tracker_case: Any) -> None:
    name, tracker = f"s-{uuid.uuid4().hex}", tracker_case.open()
    tracker.project(SearchView(name, name))
    tracker.compare(view(name))
    assert tracker_case.read(name).status == "running"
    assert stored(tracker, name)[0] == {"all/top1": [0.9]}


def test_an_injected_run_gets_the_metrics_of_a_study_and_is_neither_ended_nor_taken_for_it(mlflow_tracker_case: Any) -> None:
    study_id = f"s-{uuid.uuid4().hex}"
    mlflow_tracker_case.open().compare(view(f"s-{uuid.uuid4().hex}"))
    client, _ = _runs(mlflow_tracker_case.open(), "tags.`kfnas.kind` = 'study'")
    task = client.create_run(client.get_experiment_by_name("contract").experiment_id, run_name="the pipeline's own").info.run_id
    for _ in range(2):
        compared = mlflow_tracker_case.open(task_run_id=task).compare(view(study_id, state="finished"))
    run = client.get_run(task)
    assert compared.run_id != task
    assert run.info.status == "RUNNING"
    assert (run.data.tags["kfnas.kind"], run.data.tags["kfnas.study_id"], run.data.tags["kfnas.parent_run_id"]) == ("task", study_id, compared.run_id)
    assert [(metric.step, metric.value) for metric in client.get_metric_history(task, "all/top1")] == [(2, 0.9)]
    assert stored(mlflow_tracker_case.open(), study_id)[0] == {"all/top1": [0.9]}


@pytest.mark.parametrize(("study_id", "state"), [("a b", "running"), ("", "running"), ("ok", "sleeping")])
def test_an_id_or_a_state_that_cannot_be_shown_is_refused(study_id: str, state: str) -> None:
    with pytest.raises(ValueError, match=r"study id|state"):
        view(study_id, state=state)


def test_the_newest_metrics_of_a_study_are_those_that_are_shown(mlflow_tracker_case: Any) -> None:
    study_id, tracker = f"s-{uuid.uuid4().hex}", mlflow_tracker_case.open()
    first = StudyView(study_id, "ablation", {"all/top1": 0.9, "all/akp": 1.0}, num_finished=2)
    written = tracker.compare(first).run_id
    client, _ = _runs(tracker, "tags.`kfnas.kind` = 'study'")
    for value, done in ((0.8, 2), (0.7, 1)):  # compared again by another baseline, then with fewer rows
        tracker.compare(dataclasses.replace(first, metrics={"all/top1": value, "all/akp": 1.0}, num_finished=done))
        assert client.get_run(written).data.metrics == {"all/top1": value, "all/akp": 1.0}
    assert len(client.get_metric_history(written, "all/akp")) == 1
