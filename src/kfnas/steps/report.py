"""The report of a search, from its store: at any time, by anyone who may read it."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kfnas.errors import NotFound
from kfnas.report import DataSummary, Drawing, Finalist, PoolUse, ReportData, plot_files, render_report
from kfnas.steps.config import task_of
from kfnas.steps.context import Run, code_version, open_run
from kfnas.steps.operator_costs import pinned_costs
from kfnas.steps.pool_rounds import pool_rounds
from kfnas.steps.supernet_search import RankedPath, SupernetSearch, total_rounds
from kfnas.steps.supernet_view import path_text, path_trace, supernet_files
from kfnas.steps.view import finalists, load_state, search_view

if TYPE_CHECKING:
    from kfnas.controller import Search

NUM_DRAWN = 3


def write_report(config: str, path: Path) -> Path:
    """Write the report of a search, finished or not, as one HTML page; its path.

    Raises:
        NotFound: there is no such search.
    """
    run = open_run(config)
    head = run.searches.head()
    if head is None:
        raise NotFound(f"no search {run.config.name!r} in {run.store.uri}; start it with `kfnas run`, or check `name` and `store`")
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(render(run, load_state(run, head.pointer())), encoding="utf-8")
    return path


def render(run: Run, search: Search | SupernetSearch) -> str:
    """The report as HTML."""
    return render_report(_report_data(run, search))


def report_files(run: Run, search: Search | SupernetSearch) -> dict[str, bytes]:
    """The report and its plots, by the names under which a tracker shows them."""
    data = _report_data(run, search)
    more = supernet_files(run, search) if isinstance(search, SupernetSearch) else {}
    return {"report.html": render_report(data).encode(), **plot_files(data), **more}


def _report_data(run: Run, search: Search | SupernetSearch) -> ReportData:
    view = search_view(run, search)
    task, _ = task_of(run.config)
    return ReportData(
        name=run.config.name,
        state=view.state,
        agent=run.config.method,
        seed=run.config.seed,
        reward=run.config.search.reward.kind,
        data=_data_summary(run),
        metric=task.metric,
        higher_is_better=task.higher_is_better,
        cost=run.config.cost,
        target=run.config.search.reward.target,
        rounds=total_rounds(run),
        samples=view.rows,
        pareto=view.pareto,
        finals=[_finalist(run, finalist, task.metric) for finalist in finalists(run)],
        best=_best(run, search),
        pool=[PoolUse(number, used.match_ratio, used.hit_ratio, used.similarity, used.warm) for number, used in pool_rounds(run).items()],
        min_match=run.config.pool.min_match if run.config.pool is not None else None,
        trace=path_trace(run, search) if isinstance(search, SupernetSearch) else None,
        config=run.config.model_dump(mode="json"),
        config_digest=run.config.digest,
        code_version=code_version(),
        device=_device(run),
        generated_at=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    )


def _data_summary(run: Run) -> DataSummary:
    pointer = run.searches.record("data", "pointer")
    if pointer is None:
        return DataSummary(name=str(run.config.task.get("source", run.config.task["name"])))
    meta, sizes = pointer["meta"], pointer["meta"].get("sizes", {})
    inputs = task_of(run.config)[0].network_inputs(meta)
    return DataSummary(
        name=str(run.config.task.get("source", run.config.task["name"])),
        num_train=sizes.get("mini_train"),
        num_val=sizes.get("mini_val"),
        num_test=sizes.get("test"),
        shape=(inputs.in_channels, inputs.resolution, inputs.resolution),
        classes=tuple(str(name) for name in meta.get("classes", ())),
        digest=pointer["digest"],
    )


def _finalist(run: Run, finalist: dict[str, Any], metric: str) -> Finalist:
    notes = {"reference": f"the skeleton's own network at width x{finalist['width']:g}", "random": "a random architecture within budget", "searched": ""}
    metrics = finalist["metrics"]
    return Finalist(
        name=finalist["name"],
        kind=finalist["kind"],
        architecture=finalist["architecture"],
        choices=_choices(run, finalist["tokens"]),
        mult_adds=finalist["mult_adds"],
        params=finalist["params"],
        top1=metrics.get(metric),
        top5=metrics.get("top5"),
        latency_ms=finalist["latency_ms"],
        cost=finalist["cost"],
        status=finalist["status"],
        reason=finalist["reason"] or "",
        note=notes.get(finalist["kind"], ""),
    )


def _best(run: Run, search: Search | SupernetSearch) -> list[Drawing]:
    if isinstance(search, SupernetSearch):
        return [_drawing(run, number, path) for number, path in enumerate(search.ranked(len(run.space.num_choices))[:NUM_DRAWN], start=1)]
    target = run.config.search.reward.target
    rows = [row for row in search.rows if row.is_activated and row.accuracy is not None and row.reward is not None]
    within = [row for row in rows if target is None or (row.cost is not None and row.cost <= target)]
    best = sorted(within, key=lambda row: -(row.reward or 0.0))[:NUM_DRAWN]
    return [Drawing(row.id, str(row.architecture), run.space.choices_of(row.architecture), f"accuracy {row.accuracy:.4f}") for row in best]


def _drawing(run: Run, number: int, path: RankedPath) -> Drawing:
    note = f"accuracy with shared weights {path.accuracy:.4f}" if path.accuracy is not None else "the likeliest path"
    return Drawing(f"path {number}", path_text(run, path.tokens), _choices(run, list(path.tokens)), note)


def _choices(run: Run, tokens: list[int]) -> dict[str, Any]:
    return dict(run.space.choices_of(run.space.architecture(tuple(tokens))))


def _device(run: Run) -> dict[str, Any]:
    """How latency was taken, from one of the finalists' records or any record of the store."""
    key = next(iter(run.searches.records("latency")), None)
    record = run.searches.record("latency", key) if key is not None else None
    if record is None:
        return {}
    provenance = record["provenance"]
    foretold = {} if run.config.table is None else {"candidates": f"latency foretold by a table of operators{_error(run)}; finalists measured whole"}
    return foretold | {name: provenance.get(name) for name in ("device", "runtime", "provider", "threads", "batch", "precision", "cpu_quota_cores")}


def _error(run: Run) -> str:
    """How far off the table of a search on one supernet is, in words."""
    pinned = pinned_costs(run)
    if pinned is None or "error_95" not in pinned.metrics:
        return ""
    off = f"{pinned.metrics['mean_absolute']:.1%} off on {pinned.metrics['num_networks']:.0f} held-out networks"
    return f" ({off}, 95% error {pinned.metrics['error_95']:.1%}; limit tightened by {pinned.margin:.1%})"
