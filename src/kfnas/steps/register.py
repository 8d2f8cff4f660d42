"""Step: the end of a search: its summary in the store, its models in the registry, its report beside them."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import Any

from kfnas.errors import AccessDenied, NotFound, RetryableError
from kfnas.steps.config import task_of
from kfnas.steps.context import Run, code_version, open_run, read_pointer, write_json
from kfnas.steps.pool_rounds import let_go
from kfnas.steps.report import report_files
from kfnas.steps.view import finalists, load_state, project, search_view, tracker_of
from kfnas.tracking import CANDIDATE, FinalModel

logger = logging.getLogger(__name__)


def register(config: str, state: Path, summary: Path, page: Path) -> None:
    """Close the search: write its summary to `summary` and its report to `page`, register its models, give the best the alias `candidate`.

    A tracker that does not answer leaves the registering to `kfnas sync`; the models themselves are in the store.

    Raises:
        NotFound: a finalist was not trained, evaluated and exported, or the training of every searched one failed.
        StaleFence: a later run has taken the search over.
    """
    run = open_run(config)
    pointer = read_pointer(state)
    run.require_current(pointer)
    finals = finalists(run)
    waiting = [finalist["name"] for finalist in finals if finalist["status"] != "failed" and (finalist["onnx"] is None or not finalist["metrics"])]
    if waiting or not any(finalist["kind"] == "searched" and finalist["status"] == "ok" for finalist in finals):
        which = ", ".join(waiting) or "of the search"
        raise NotFound(f"search {run.config.name!r}: finalists {which} are not trained, evaluated and exported; see the run's log, and resume the search")
    best = best_of(run, finals)
    run.searches.put_record(
        "final",
        "summary",
        {
            "best": best["name"],
            "finalists": [{key: value for key, value in finalist.items() if key != "train_metrics"} for finalist in finals],
            "finished_at": time.time(),
            "config": run.config.digest,
            "code_version": code_version(),
        },
    )
    search = load_state(run, pointer)
    files = report_files(run, search)
    page = Path(page)
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_bytes(files["report.html"])
    tracked = project(run, search_view(run, search), files)
    registered = tracked and register_models(run, finals, best["name"])
    let_go(run)
    run.release(pointer)
    write_json(summary, {**(run.searches.record("final", "summary") or {}), "tracked": tracked, "registered": registered})


def best_of(run: Run, finals: list[dict[str, Any]]) -> dict[str, Any]:
    """The searched finalist with the best final metric among those within the target; among all, where none is."""
    task, _ = task_of(run.config)
    sign = 1.0 if task.higher_is_better else -1.0
    searched = [finalist for finalist in finals if finalist["kind"] == "searched" and finalist["status"] == "ok"]
    limit = 1.0 if run.config.search.reward.kind == "hard" else 1.1
    if run.config.algorithm == "betanas":
        limit = 1.0 + run.config.shared.betanas.target_tolerance
    within = [finalist for finalist in searched if finalist["cost_over_target"] is None or finalist["cost_over_target"] <= limit]
    return max(within or searched, key=lambda finalist: sign * finalist["metrics"][task.metric])


def register_models(run: Run, finals: list[dict[str, Any]], best: str) -> bool:
    """Register every searched finalist under the search's name, the best one last, with the alias. Again is harmless."""
    try:
        tracker = tracker_of(run)
        if tracker is None:
            return False
        searched = [finalist for finalist in finals if finalist["kind"] == "searched" and finalist["onnx"] is not None]
        for finalist in sorted(searched, key=lambda finalist: finalist["name"] == best):
            version = tracker.register(
                FinalModel(
                    search_id=run.config.name,
                    name=run.config.name,
                    final=finalist["name"],
                    onnx=run.searches.blob(finalist["onnx"]),
                    tags={"kfnas.architecture": finalist["architecture"], "kfnas.child_key": finalist["key"]},
                    alias=CANDIDATE if finalist["name"] == best else None,
                )
            )
            logger.info("%s is %s", finalist["name"], version.uri)
        return True
    except (RetryableError, AccessDenied) as error:
        logger.warning("not registered for now: %s; `kfnas sync` registers the models when the tracker answers", error)
        return False
