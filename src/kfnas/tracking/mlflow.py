"""The Tracker on MLflow 3: a run for the search, runs nested in it for its children and finalists, and the model registry.

Everything is found again by tags, since MLflow gives out its own run ids:

    kfnas.kind        search | child | final | task | study
    kfnas.search_id   on every run; the search's own run is the one of kind `search`
    kfnas.sample      id of a child's row
    kfnas.final       name of a finalist
    kfnas.study_id    on a study's own run, in which the runs of its searches are nested
    kfnas.step        on a study's own run: the last step that its metrics were written with
    kfnas.rows        on the search's run: how many rows have been written whole

A child's run is created running, given its values, then ended; values carry the time that the child finished, so that writing them twice is writing
them once. A crash in between leaves a running child after the `kfnas.rows` mark, where the next projection finds it and goes on.
"""

from __future__ import annotations

import hashlib
import json
import logging
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from kfnas.config import canonical_json
from kfnas.errors import AccessDenied, ConfigError, KfnasError, TrackerUnavailable
from kfnas.tracking.files import flat, table_files
from kfnas.tracking.port import SERVERS, FinalModel, Projection, RegisteredModel, check_address, registry_name
from kfnas.tracking.redaction import redacted
from kfnas.tracking.settings import MANNERS, PATIENCE, PROBE, environment, hushed
from kfnas.tracking.study import StudyView
from kfnas.tracking.view import Final, Point, SearchRow, SearchView, finite, milliseconds, row_values, search_points, tail_values

with environment(MANNERS), hushed():
    import mlflow
    import mlflow.store.db.utils
    import mlflow.telemetry
    import sqlalchemy
    from mlflow.entities import LoggedModel, LoggedModelOutput, Metric, Param, Run, RunTag
    from mlflow.exceptions import MlflowException

    mlflow.telemetry.set_telemetry_client()  # where someone imported MLflow before us, this ends what that import began

logger = logging.getLogger(__name__)

MAX_CHILDREN = 500
_BATCH = 1000  # MLflow's own limit on the metrics of one request
_PARAM_LENGTH = 6000  # MLflow cuts longer ones silently
_TAG_LENGTH = 4000
_DENIED = frozenset({"PERMISSION_DENIED", "UNAUTHENTICATED", "CUSTOMER_UNAUTHORIZED"})


class MLflowTracker:
    """A Tracker on an MLflow server, or on a database with a folder of artifacts. Nothing is asked of it before the first call of a verb."""

    def __init__(self, uri: str | None, *, experiment: str, folder: Path, task_run_id: str | None = None, max_children: int = MAX_CHILDREN) -> None:
        self._folder = Path(folder).absolute()
        self._uri = uri or sqlalchemy.URL.create("sqlite", database=str(self._folder / "mlflow.db")).render_as_string()
        self._local = self._uri.startswith("sqlite:")
        check_address(self._uri)
        self._experiment_name = experiment
        self._task_run_id = task_run_id
        self._max_children = max_children
        self._experiment_id = ""

    @property
    def uri(self) -> str:
        """Where this tracker writes, without credentials."""
        return str(redacted(self._uri))

    def project(self, view: SearchView, files: Mapping[str, bytes] | None = None) -> Projection:
        """See `Tracker.project`."""
        with self._connected() as client:
            parent = self._search_run(client, view.search_id, view.name, _start(view))
            first = int(parent.data.tags.get("kfnas.rows", 0))
            if len(view.rows) < first:
                logger.info("search %s is tracked up to sample %d already; an older view of %d changes nothing", view.search_id, first, len(view.rows))
                return Projection(parent.info.run_id, 0, 0, 0)
            _write_params(client, parent, redacted(view.config))
            num_runs = self._write_children(client, parent, view, first)
            _write_points(client, parent.info.run_id, search_points(view, first_row=first), parent.info.start_time)
            client.set_tag(parent.info.run_id, "kfnas.rows", str(len(view.rows)))
            num_runs += self._write_finals(client, parent, view)
            num_files = _write_files(client, parent, table_files(view) | dict(files or {}))
            number, values, moment = tail_values(view)
            self._write_task(client, parent, {"kfnas.search_id": view.search_id, "kfnas.round": str(number)}, values, max(number, 0), moment)
            _write_state(client, parent, view.state)
            return Projection(parent.info.run_id, len(view.rows) - first, num_runs, num_files)

    def compare(self, view: StudyView, files: Mapping[str, bytes] | None = None) -> Projection:
        """See `Tracker.compare`."""
        with self._connected() as client:
            run = self._own_run(client, "study", view.study_id, view.study_id, None)
            _write_params(client, run, redacted(view.config))
            values = finite(view.metrics)
            # MLflow shows the value of the largest step, then of the latest time, then the largest; so a newer value may not have an earlier step.
            step, now = max(view.num_finished, int(run.data.tags.get("kfnas.step", 0))), milliseconds(time.time())
            client.set_tag(run.info.run_id, "kfnas.step", str(step))
            changed = {name: value for name, value in values.items() if run.data.metrics.get(name) != value}
            _write_points(client, run.info.run_id, [Point(name, value, step, now) for name, value in changed.items()], run.info.start_time)
            tags = {"kfnas.study_kind": view.kind, "kfnas.searches": " ".join(view.searches), "kfnas.code_version": view.code_version}
            client.log_batch(run.info.run_id, tags=[RunTag(key, value[:_TAG_LENGTH]) for key, value in tags.items()])
            for search in view.searches:
                own = self._oldest(client, "search", search)
                if own is not None and "mlflow.parentRunId" not in own.data.tags:
                    client.set_tag(own.info.run_id, "mlflow.parentRunId", run.info.run_id)
            num_files = _write_files(client, run, dict(files or {}))
            self._write_task(client, run, {"kfnas.study_id": view.study_id}, values, view.num_finished, None)
            _write_state(client, run, view.state)
            return Projection(run.info.run_id, 0, 0, num_files)

    def register(self, model: FinalModel) -> RegisteredModel:
        """See `Tracker.register`."""
        name = registry_name(model.name)
        with self._connected() as client:
            version = _registered(client, name, model.digest)
            created = version is None
            if version is None:
                parent = self._search_run(client, model.search_id, model.name, None)
                run = self._final_runs(client, parent).get(model.final) or self._create_final(client, parent, model.final)
                logged = _logged_model(client, run, model)
                # a database resolves models:/ with the process's tracking address, which is not ours to set
                source = f"models:/{logged.model_id}" if self._uri.startswith(SERVERS) else logged.artifact_location
                _ensure_registered_model(client, name)
                tags = {key: str(value)[:_TAG_LENGTH] for key, value in redacted(model.tags).items()}
                tags |= {"kfnas.digest": model.digest, "kfnas.search_id": model.search_id, "kfnas.final": model.final}
                version = client.create_model_version(name, source=source, run_id=run.info.run_id, tags=tags, model_id=logged.model_id)
            if model.alias is not None:
                client.set_registered_model_alias(name, model.alias, str(version.version))
            return RegisteredModel(name, int(version.version), model.digest, created)

    # ---- finding and creating runs

    @contextmanager
    def _connected(self) -> Iterator[mlflow.MlflowClient]:
        """A client whose experiment exists; what other libraries raise inside the block leaves it as one of our errors, without credentials."""
        retries = mlflow.store.db.utils.MAX_RETRY_COUNT
        with environment(MANNERS, PATIENCE), hushed():
            try:
                mlflow.store.db.utils.MAX_RETRY_COUNT = 2  # its own ten attempts at a database that is away take 100 s
                if self._local:
                    self._folder.mkdir(parents=True, exist_ok=True)
                with environment(PROBE):
                    client = mlflow.MlflowClient(tracking_uri=self._uri, registry_uri=self._uri)
                    self._experiment_id = self._find_experiment(client)
                yield client
            except Exception as error:
                if not _is_foreign(error):
                    raise
                raise self._translated(error) from None
            finally:
                mlflow.store.db.utils.MAX_RETRY_COUNT = retries

    def _find_experiment(self, client: mlflow.MlflowClient) -> str:
        experiment = client.get_experiment_by_name(self._experiment_name)
        if experiment is None:
            location = (self._folder / "artifacts").as_uri() if self._local else None
            try:
                return str(client.create_experiment(self._experiment_name, artifact_location=location))
            except MlflowException as error:
                if error.error_code != "RESOURCE_ALREADY_EXISTS":
                    raise
                experiment = client.get_experiment_by_name(self._experiment_name)
        if experiment.lifecycle_stage != "active":
            raise ConfigError(f"experiment {self._experiment_name!r} was deleted in MLflow; restore it there, or set tracking.experiment to another name")
        return str(experiment.experiment_id)

    def _search_run(self, client: mlflow.MlflowClient, search_id: str, name: str, start_ms: int | None) -> Run:
        """The search's own run."""
        return self._own_run(client, "search", search_id, name, start_ms)

    def _own_run(self, client: mlflow.MlflowClient, kind: str, identity: str, name: str, start_ms: int | None) -> Run:
        """The run of a search or a study itself. Of several, which only two writers at once can leave, the oldest is it."""
        found = self._oldest(client, kind, identity)
        if found is not None:
            return found
        tags = {"kfnas.kind": kind, f"kfnas.{kind}_id": identity}
        created = client.create_run(self._experiment_id, start_time=start_ms, tags=tags, run_name=name)
        oldest = self._oldest(client, kind, identity) or created
        if oldest.info.run_id != created.info.run_id:
            client.delete_run(created.info.run_id)
        return oldest

    def _oldest(self, client: mlflow.MlflowClient, kind: str, identity: str) -> Run | None:
        runs = self._search(client, f"tags.`kfnas.{kind}_id` = '{identity}' and tags.`kfnas.kind` = '{kind}'")
        return min(runs, key=lambda run: (run.info.start_time, run.info.run_id), default=None)

    def _search(self, client: mlflow.MlflowClient, condition: str) -> list[Run]:
        runs: list[Run] = []
        token: str | None = None
        while True:
            page = client.search_runs([self._experiment_id], condition, max_results=1000, page_token=token)
            runs.extend(page)
            token = page.token
            if not token:
                return runs

    def _nested(self, client: mlflow.MlflowClient, parent: Run, condition: str, key: str) -> dict[str, Run]:
        runs = self._search(client, f"tags.`mlflow.parentRunId` = '{parent.info.run_id}' and {condition}")
        return {run.data.tags.get(key, ""): run for run in runs}

    # ---- children and finalists

    def _write_children(self, client: mlflow.MlflowClient, parent: Run, view: SearchView, first: int) -> int:
        """Runs of the activated rows from `first` on, among the first `max_children` of the search."""
        ordinals = [index for index, row in enumerate(view.rows) if row.activated][: self._max_children]
        wanted = [index for index in ordinals if index >= first]
        known: dict[str, Run] = {}
        for number in sorted({view.rows[index].round for index in wanted}):
            known |= self._nested(client, parent, f"tags.`kfnas.kind` = 'child' and tags.`kfnas.round` = '{number}'", "kfnas.sample")
        return sum(self._write_child(client, parent, view, index, known.get(view.rows[index].id)) for index in wanted)

    def _write_child(self, client: mlflow.MlflowClient, parent: Run, view: SearchView, index: int, run: Run | None) -> bool:
        row = view.rows[index]
        end_ms = milliseconds(row.finished_at, parent.info.start_time)
        if run is None:
            start_ms = (end_ms or 0) - round(row.device_seconds * 1000)
            name = f"{row.id} {row.architecture}"[:250]
            run = client.create_run(self._experiment_id, start_time=start_ms, tags=_child_tags(parent, view, row), run_name=name)
        elif run.info.status != "RUNNING":
            return False
        points = [Point(name, value, index, end_ms) for name, value in row_values(row, view.cost).items()]
        _write_points(client, run.info.run_id, points, parent.info.start_time)
        client.set_terminated(run.info.run_id, status="FINISHED" if row.status == "ok" else "FAILED", end_time=end_ms)
        return True

    def _final_runs(self, client: mlflow.MlflowClient, parent: Run) -> dict[str, Run]:
        return self._nested(client, parent, "tags.`kfnas.kind` = 'final'", "kfnas.final")

    def _create_final(self, client: mlflow.MlflowClient, parent: Run, name: str) -> Run:
        tags = {
            "mlflow.parentRunId": parent.info.run_id,
            "kfnas.kind": "final",
            "kfnas.search_id": parent.data.tags["kfnas.search_id"],
            "kfnas.final": name[:_TAG_LENGTH],
        }
        return client.create_run(self._experiment_id, tags=tags, run_name=name[:250])

    def _write_finals(self, client: mlflow.MlflowClient, parent: Run, view: SearchView) -> int:
        if not view.finals:
            return 0
        known = self._final_runs(client, parent)
        return sum(self._write_final(client, parent, final, known.get(final.name)) for final in view.finals)

    def _write_final(self, client: mlflow.MlflowClient, parent: Run, final: Final, known: Run | None) -> bool:
        values = finite(final.metrics)
        digest = hashlib.sha256(canonical_json([values, final.status, final.reason]).encode()).hexdigest()
        if known is not None and known.data.tags.get("kfnas.final_digest") == digest:
            return False
        run = known or self._create_final(client, parent, final.name)
        end_ms = milliseconds(final.finished_at, parent.info.start_time)
        _write_points(client, run.info.run_id, [Point(name, value, 0, end_ms) for name, value in values.items()], parent.info.start_time)
        tags = {"kfnas.final_kind": final.kind, "kfnas.architecture": final.architecture, "kfnas.status": final.status, "kfnas.reason": redacted(final.reason)}
        client.log_batch(run.info.run_id, tags=[RunTag(key, value[:_TAG_LENGTH]) for key, value in tags.items()])
        client.set_terminated(run.info.run_id, status="FINISHED" if final.status == "ok" else "FAILED", end_time=milliseconds(final.finished_at))
        client.set_tag(run.info.run_id, "kfnas.final_digest", digest)  # last: it says that the rest is there
        return known is None

    def _write_task(
        self, client: mlflow.MlflowClient, parent: Run, about: Mapping[str, str], values: Mapping[str, float], step: int, moment: int | None
    ) -> None:
        """The newest values on the run that the platform opened for this task: tagged and pointed at the search's or study's run, never ended."""
        if self._task_run_id is None:
            return
        tags = {"kfnas.kind": "task", **about, "kfnas.parent_run_id": parent.info.run_id}
        try:
            client.log_batch(self._task_run_id, tags=[RunTag(key, value) for key, value in tags.items()])
            _write_points(client, self._task_run_id, [Point(name, value, step, moment) for name, value in values.items()], parent.info.start_time)
        except MlflowException as error:
            if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                raise
            logger.warning("the task's own run %s takes no metrics (%s); run %s has them", self._task_run_id, error.error_code, parent.info.run_id)

    # ---- errors

    def _translated(self, error: Exception) -> KfnasError:
        said = " ".join(str(error).replace(self._uri, self.uri).split()) or type(error).__name__
        said = str(redacted(said))[:300]
        if isinstance(error, MlflowException) and error.error_code in _DENIED:
            remedy = "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN"
            return AccessDenied(f"tracking at {self.uri} refuses these credentials ({said}); {remedy}")
        remedy = "nothing is lost: mend the server or the address, then `kfnas sync` writes what is missing"
        return TrackerUnavailable(f"tracking at {self.uri} does not work ({said}); {remedy}")


def _is_foreign(error: Exception) -> bool:
    """Whether another library, or the system, raised it: MLflow passes on what its stores' own libraries raise."""
    return isinstance(error, OSError) or type(error).__module__.partition(".")[0] not in ("kfnas", "builtins")


def _start(view: SearchView) -> int | None:
    """When the first child began, in ms; None (now) while none has ended."""
    starts = [row.finished_at - row.device_seconds for row in view.rows if row.finished_at is not None]
    return milliseconds(min(starts, default=None))


def _child_tags(parent: Run, view: SearchView, row: SearchRow) -> dict[str, str]:
    tags = {
        "mlflow.parentRunId": parent.info.run_id,
        "kfnas.kind": "child",
        "kfnas.search_id": view.search_id,
        "kfnas.sample": row.id,
        "kfnas.round": str(row.round),
        "kfnas.architecture": row.architecture,
        "kfnas.status": row.status,
        "kfnas.source": row.source,
        "kfnas.reason": redacted(row.reason),
        "kfnas.child_key": row.child_key or "",
        "kfnas.initialisation": row.initialisation,
    }
    return {key: value[:_TAG_LENGTH] for key, value in tags.items() if value}


def _write_points(client: mlflow.MlflowClient, run_id: str, points: Iterator[Point] | Sequence[Point], default_ms: int) -> None:
    metrics = [Metric(point.name, point.value, default_ms if point.timestamp_ms is None else point.timestamp_ms, point.step) for point in points]
    for start in range(0, len(metrics), _BATCH):
        client.log_batch(run_id, metrics=metrics[start : start + _BATCH])


def _write_params(client: mlflow.MlflowClient, parent: Run, config: Mapping[str, Any]) -> None:
    """Configuration values that the run lacks: MLflow refuses to change one, and where a search is kept may change between two runs of it."""
    missing = {key[:250]: value[:_PARAM_LENGTH] for key, value in flat(config) if key[:250] not in parent.data.params}
    params = [Param(key, value) for key, value in missing.items()]
    for start in range(0, len(params), 100):
        client.log_batch(parent.info.run_id, params=params[start : start + 100])


def _write_files(client: mlflow.MlflowClient, parent: Run, files: Mapping[str, bytes]) -> int:
    """Upload the files whose bytes changed since the last time; a tag remembers their digests."""
    known = json.loads(parent.data.tags.get("kfnas.files", "{}"))
    digests = {path: hashlib.sha256(data).hexdigest()[:16] for path, data in files.items() if data}
    changed = [path for path, digest in digests.items() if known.get(path) != digest]
    if not changed:
        return 0
    with tempfile.TemporaryDirectory() as folder:
        for path in changed:
            target = Path(folder, path)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(files[path])
        client.log_artifacts(parent.info.run_id, folder)
    client.set_tag(parent.info.run_id, "kfnas.files", json.dumps(known | digests, sort_keys=True))
    return len(changed)


def _write_state(client: mlflow.MlflowClient, parent: Run, state: str) -> None:
    wanted = {"running": "RUNNING", "finished": "FINISHED", "failed": "FAILED"}[state]
    if parent.info.status == wanted:
        return
    if wanted == "RUNNING":
        client.update_run(parent.info.run_id, status=wanted)
    else:
        client.set_terminated(parent.info.run_id, status=wanted)


# ---- the registry


def _registered(client: mlflow.MlflowClient, name: str, digest: str) -> Any:
    versions = client.search_model_versions(f"name = '{name}' and tags.`kfnas.digest` = '{digest}'")
    return min(versions, key=lambda version: int(version.version), default=None)


def _ensure_registered_model(client: mlflow.MlflowClient, name: str) -> None:
    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def _logged_model(client: mlflow.MlflowClient, run: Run, model: FinalModel) -> LoggedModel:
    """The logged model that holds these bytes; one that was uploaded whole before is used again."""
    experiment_id = run.info.experiment_id
    earlier = client.search_logged_models([experiment_id], f"tags.`kfnas.digest` = '{model.digest}'")
    for candidate in earlier:
        if candidate.source_run_id == run.info.run_id and str(candidate.status) == "READY":
            return candidate
    logged = client.create_logged_model(experiment_id, name=registry_name(model.final), source_run_id=run.info.run_id, tags={"kfnas.digest": model.digest})
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model")
        _save(path, model, logged.model_id, logged.artifact_location, run.info.run_id)
        client.log_model_artifacts(logged.model_id, str(path))
    client.log_outputs(run.info.run_id, [LoggedModelOutput(logged.model_id, step=0)])
    return client.finalize_logged_model(logged.model_id, "READY")


def _save(path: Path, model: FinalModel, model_id: str, location: str, run_id: str) -> None:
    """MLflow's onnx flavour in one file with weights, its signature read off the graph."""
    import mlflow.models
    import mlflow.onnx
    import onnx

    graph = onnx.load_from_string(model.onnx)
    description = mlflow.models.Model(artifact_path=location, model_uuid=model_id, run_id=run_id, model_id=model_id)
    mlflow.onnx.save_model(
        graph,
        str(path),
        mlflow_model=description,
        signature=mlflow.models.ModelSignature(inputs=_schema(graph.graph.input), outputs=_schema(graph.graph.output)),
        pip_requirements=[f"onnx=={onnx.__version__}", "onnxruntime", "numpy"],
        save_as_external_data=False,
        metadata={"kfnas.digest": model.digest, "kfnas.search_id": model.search_id, "kfnas.final": model.final},
    )


def _schema(values: Any) -> Any:
    import onnx
    from mlflow.types import Schema, TensorSpec

    def spec(value: Any) -> Any:
        tensor = value.type.tensor_type
        shape = tuple(size.dim_value if size.HasField("dim_value") else -1 for size in tensor.shape.dim)
        return TensorSpec(onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type), shape, value.name)

    return Schema([spec(value) for value in values])
