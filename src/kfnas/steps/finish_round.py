"""Step: show the closed round to the tracker, and say where the search stands."""

from __future__ import annotations

from pathlib import Path

from kfnas.steps.context import open_run, read_pointer, write_json
from kfnas.steps.supernet_search import SupernetSearch
from kfnas.steps.supernet_view import supernet_files
from kfnas.steps.view import load_state, project, search_view


def finish_round(config: str, state: Path, metrics: Path) -> None:
    """Write the round's metrics to `metrics`, a JSON mapping of names to numbers, and to the tracker. Never fails for the tracker's sake.

    Under the key `metrics` stands what the agent and the pool reported of the round.
    """
    run = open_run(config)
    pointer = read_pointer(state)
    run.renew(pointer)
    search = load_state(run, pointer)
    view = search_view(run, search)
    tracked = project(run, view, supernet_files(run, search) if isinstance(search, SupernetSearch) else None)
    scored = [row for row in view.rows if row.activated and row.reward is not None and row.accuracy is not None]
    best = max(scored, key=lambda row: row.reward or 0.0, default=None)
    write_json(
        metrics,
        {
            "rounds": search.round,
            "num_activated": view.num_activated,
            "best_accuracy": best.accuracy if best else None,
            "best_cost": best.cost if best else None,
            "best_reward": best.reward if best else None,
            "tracked": tracked,
            "metrics": dict(view.rounds[-1].values) if view.rounds else {},
        },
    )
