"""Write to the tracker whatever the store holds and the tracker lacks."""

from __future__ import annotations

from kfnas.errors import NotFound
from kfnas.steps.context import open_run
from kfnas.steps.register import best_of, register_models
from kfnas.steps.report import report_files
from kfnas.steps.view import finalists, load_state, search_view, tracker_of


def sync(config: str) -> str:
    """Bring the tracker up to date, models included; return a line that says what is there now.

    Raises:
        NotFound: there is no such search.
        TrackerUnavailable: the tracking server does not answer.
    """
    run = open_run(config)
    head = run.searches.head()
    if head is None:
        raise NotFound(f"no search {run.config.name!r} in {run.store.uri}; start it with `kfnas run`, or check `name` and `store`")
    tracker = tracker_of(run)
    if tracker is None:
        return "tracking is off (tracking.enabled, or no address to write to): nothing was written"
    search = load_state(run, head.pointer())
    view = search_view(run, search)
    written = tracker.project(view, report_files(run, search))
    registered = ""
    if run.searches.record("final", "summary") is not None:
        finals = finalists(run)
        registered = "; models registered" if register_models(run, finals, best_of(run, finals)["name"]) else "; models NOT registered"
    return f"{tracker.uri}: {written.num_rows} rows and {written.num_runs} runs written, {len(view.rows)} rows in all{registered}"
