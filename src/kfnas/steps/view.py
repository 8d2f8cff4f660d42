"""A search as trackers and reports are shown it, put together from its snapshot, its ledger and its records."""

from __future__ import annotations

import logging
import math
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kfnas.errors import AccessDenied, RetryableError
from kfnas.steps.context import ROUND_KIND, Run, code_version
from kfnas.steps.pool_rounds import pool_rounds
from kfnas.steps.supernet_search import SupernetSearch, load_supernet
from kfnas.steps.supernet_view import path_text, supernet_front, supernet_rounds, supernet_rows
from kfnas.storage import Pointer
from kfnas.tracking import Final, RoundMetrics, SearchRow, SearchView, Tracker, open_tracker

if TYPE_CHECKING:
    from kfnas.controller import Row, Search

logger = logging.getLogger(__name__)


def load_state(run: Run, pointer: Pointer) -> Search | SupernetSearch:
    """The search as a snapshot holds it, whatever its algorithm."""
    return run.load_search(pointer) if run.config.algorithm is None else load_supernet(run, pointer)


def search_view(run: Run, search: Search | SupernetSearch) -> SearchView:
    """What is known of the search up to its last closed round, and of its finalists."""
    if isinstance(search, SupernetSearch):
        rows, rounds = supernet_rows(run, search), supernet_rounds(run, search)
        front = {path_text(run, path.tokens) for path in supernet_front(run, search)}
        pareto = tuple(row.id for row in rows if row.architecture in front)
    else:
        children = {record["id"]: {**record, "key": key} for key in run.searches.children() if (record := run.searches.child(key)) is not None}
        rows, rounds = tuple(_row(row, children.get(row.id)) for row in search.rows if row.round < search.round), _rounds(run, search)
        best = {row.id for row in search.pareto(("accuracy", "cost"))}
        pareto = tuple(row.id for row in rows if row.id in best)
    finished = run.searches.record("final", "summary") is not None
    return SearchView(
        search_id=run.config.name,
        name=run.config.name,
        rows=rows,
        config=run.config.model_dump(mode="json"),
        rounds=rounds,
        finals=tuple(_final(finalist) for finalist in finalists(run) if finalist["status"] != "missing"),
        pareto=pareto,
        cost=run.config.cost,
        target=run.config.search.reward.target,
        state="finished" if finished else "running",
        code_version=code_version(),
    )


def finalists(run: Run) -> list[dict[str, Any]]:
    """The chosen networks, each with what is recorded of it: `metrics` is empty until it is evaluated, `onnx` None until it is exported."""
    plan = run.searches.record("final", "plan")
    if plan is None:
        return []
    found = []
    for finalist in plan["finalists"]:
        trained = run.searches.record("trained", finalist["key"]) or {}
        evaluated = run.searches.record("evaluated", finalist["key"]) or {}
        exported = run.searches.record("exported", finalist["key"]) or {}
        found.append({"status": "missing", "reason": None, **finalist, **trained, "metrics": evaluated.get("metrics", {}), "onnx": exported.get("onnx")})
    return found


def tracker_of(run: Run) -> Tracker | None:
    """The tracker that the configuration or the environment names: a server, else sqlite beside a local store.

    None where tracking is off or has nowhere to go.
    """
    settings = run.config.tracking
    if not settings.enabled:
        return None
    uri = settings.uri or os.environ.get("MLFLOW_TRACKING_URI")
    local = "://" not in run.config.store
    if uri is None and not local:
        logger.warning("nothing is tracked: the store is remote and neither tracking.uri nor MLFLOW_TRACKING_URI is set; set one and run `kfnas sync`")
        return None
    folder = Path(run.config.store) / "tracking" if local else Path.home() / ".kfnas" / "tracking"
    return open_tracker(uri, experiment=settings.experiment, folder=folder, task_run_id=os.environ.get("MLFLOW_RUN_ID"))


def project(run: Run, view: SearchView, files: dict[str, bytes] | None = None) -> bool:
    """Show the search to the tracker. One that does not answer neither fails nor loses a search: what is missing is written by the next call.

    Returns:
        Whether the tracker now holds all of `view`.
    """
    try:
        tracker = tracker_of(run)
        if tracker is None:
            return False
        tracker.project(view, files)
        return True
    except (RetryableError, AccessDenied) as error:
        logger.warning("not tracked for now: %s; the search goes on, and the next step or `kfnas sync` writes what is missing", error)
        return False


def _row(row: Row, child: dict[str, Any] | None) -> SearchRow:
    return SearchRow(
        round=row.round,
        id=row.id,
        architecture=str(row.architecture),
        accuracy=_number(row.accuracy),
        cost=_number(row.cost),
        reward=_number(row.reward),
        status=row.status,
        source=row.source,
        reason=row.reason or "",
        device_seconds=float(child["device_seconds"] or 0.0) if child else 0.0,
        epochs=float(child["epochs"] or 0.0) if child else 0.0,
        finished_at=child["finished_at"] if child else None,
        child_key=child["key"] if child else None,
        value=_number(row.value),
        uncertainty=_number(row.uncertainty),
        initialisation=row.initialisation,
    )


def _rounds(run: Run, search: Search) -> tuple[RoundMetrics, ...]:
    """What the agent and the pool reported of each closed round."""
    values: dict[int, dict[str, float]] = {search.round - 1: dict(search.metrics)} if search.round else {}
    for key in run.searches.records(ROUND_KIND):
        values[int(key)] = dict((run.searches.record(ROUND_KIND, key) or {"metrics": {}})["metrics"])
    for number, used in pool_rounds(run).items():
        values.setdefault(number, {}).update(used.metrics)
    return tuple(RoundMetrics(number, metrics) for number, metrics in sorted(values.items()) if number < search.round and metrics)


def _final(finalist: dict[str, Any]) -> Final:
    metrics = {f"final/{name}": float(value) for name, value in finalist["metrics"].items()}
    columns = ("mult_adds", "params", "latency_ms", "cost_over_target", "device_seconds", "epochs", "proxy_accuracy", "width")
    metrics |= {f"final/{name}": float(finalist[name]) for name in columns if finalist.get(name) is not None}
    return Final(
        name=finalist["name"],
        kind=finalist["kind"],
        architecture=finalist["architecture"],
        metrics=metrics,
        finished_at=finalist.get("finished_at"),
        status=finalist["status"],
        reason=finalist["reason"] or "",
    )


def _number(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else float(value)
