"""A search on one supernet as trackers and reports are shown it: rows of what was scored with shared weights, and files of what the algorithm decided.

No row is a trained child. One of PC-NAS is a candidate of an update, `pcnas_s:3-0-*`, with its potential; one of the evolution is a model; one of BetaNAS is
the path that would have been chosen after a round.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from kfnas.oneshot import Potential
from kfnas.oneshot.packing import unpack
from kfnas.space.mixop_costs import OperatorCosts
from kfnas.steps.context import ROUND_KIND, Run, architecture_text
from kfnas.steps.operator_costs import pinned_costs
from kfnas.steps.supernet_search import RankedPath, SupernetSearch, Tokens
from kfnas.tracking import RoundMetrics, SearchRow

if TYPE_CHECKING:
    from kfnas.report import PathTrace

SOURCE = "supernet"
NUM_TRACED = 300


def supernet_rows(run: Run, search: SupernetSearch) -> tuple[SearchRow, ...]:
    """Everything that was scored up to the last closed round."""
    rounds = _rounds(run)
    return tuple(replace(row, **_effort(rounds.get(row.round, {}), first=row.id == row_id(row.round, 0))) for row in _scored(run, search))


def _scored(run: Run, search: SupernetSearch) -> Iterable[SearchRow]:
    costs, num_mixops = _costs(run), len(run.space.num_choices)
    if search.algorithm == "pcnas":
        return tuple(
            _row(run, costs, number, index, potential.tokens, potential.value, potential.reason, whole=len(potential.tokens) == num_mixops)
            for number, update in enumerate(search.pcnas.updates)
            for index, potential in enumerate(update)
        )
    if search.algorithm == "oneshot":
        models = search.evolution.models if search.round else ()
        return tuple(_row(run, costs, 0, index, model.path, model.accuracy) for index, model in enumerate(models))
    return tuple(_row(run, costs, number, 0, path, None) for number, path in enumerate(search.betanas.results))


def _costs(run: Run) -> OperatorCosts | None:
    pinned = pinned_costs(run)
    return None if pinned is None else pinned.costs


def supernet_rounds(run: Run, search: SupernetSearch) -> tuple[RoundMetrics, ...]:
    """What the algorithm reported of each closed round."""
    return tuple(RoundMetrics(number, record["metrics"], record["finished_at"]) for number, record in sorted(_rounds(run).items()) if number < search.round)


def _rounds(run: Run) -> dict[int, dict[str, Any]]:
    return {int(key): run.searches.record(ROUND_KIND, key) or {} for key in run.searches.records(ROUND_KIND)}


def _effort(record: dict[str, Any], *, first: bool) -> dict[str, Any]:
    """When a row's round was closed; what the round has cost stands on its first row, so that it counts once."""
    effort = {"finished_at": record.get("finished_at")}
    return {**effort, "device_seconds": record.get("device_seconds", 0.0), "epochs": record.get("epochs", 0.0)} if first else effort


def supernet_front(run: Run, search: SupernetSearch) -> list[RankedPath]:
    """Whole models that no other one beats in both accuracy and cost, best accuracy first; nothing where cost or accuracy is not known."""
    costs = _costs(run)
    front: list[RankedPath] = []
    for path in search.ranked(len(run.space.num_choices)) if costs is not None else ():
        if path.accuracy is not None and costs is not None and (not front or costs(path.tokens) < costs(front[-1].tokens)):
            front.append(path)
    return front


def path_trace(run: Run, search: SupernetSearch) -> PathTrace | None:
    """Importance and training of the paths of one block, the one whose importance differs most now; None before BetaNAS's first round, and of other searches.

    At most `NUM_TRACED` steps are kept.
    """
    from kfnas.report import PathTrace

    logged = [unpack(run.searches.blob(blob)).arrays for blob in search.betanas.logged]
    if not logged:
        return None
    steps, alpha, probability, counts = (np.concatenate([arrays[name] for arrays in logged]) for name in ("step", "alpha", "probability", "counts"))
    block = int(np.argmax(np.nanmax(alpha[-1], axis=1) - np.nanmin(alpha[-1], axis=1)))
    decision = run.space.decisions[block]
    shown = np.unique(np.linspace(0, len(steps) - 1, min(len(steps), NUM_TRACED)).astype(int))
    paths = range(len(decision.choices))
    return PathTrace(
        block=decision.name,
        choices=[str(choice) for choice in decision.choices],
        steps=steps[shown].tolist(),
        alpha=[[float(alpha[step, block, path]) if probability[step, block, path] > 0 else None for path in paths] for step in shown],
        counts=[[int(counts[step, block, path]) for path in paths] for step in shown],
    )


def supernet_files(run: Run, search: SupernetSearch) -> dict[str, bytes]:
    """Artifacts of the search by path: the pool after each of PC-NAS's intervals, alpha, p and counts of each of BetaNAS's rounds."""
    if search.algorithm == "pcnas":
        size = run.config.shared.pcnas.pool_size
        return {f"pcnas/pool-{number:02d}.json": _pool(run, number, update, size) for number, update in enumerate(search.pcnas.updates)}
    return {f"betanas/steps-{number:04d}.npz": _npz(run.searches.blob(blob)) for number, blob in enumerate(search.betanas.logged)}


def row_id(number: int, index: int) -> str:
    """Id of the row of one thing that was scored in a round."""
    return f"{number:05d}-{index:04d}"


def path_text(run: Run, tokens: Tokens) -> str:
    """A path as people see it: a whole one is an architecture, the beginning of one ends in `-*`."""
    return architecture_text(run.space, tokens) if len(tokens) == len(run.space.num_choices) else f"{run.space.name}:{'-'.join(map(str, tokens))}-*"


def _row(
    run: Run, costs: OperatorCosts | None, number: int, index: int, tokens: Tokens, accuracy: float | None, reason: str = "", *, whole: bool = True
) -> SearchRow:
    return SearchRow(
        round=number,
        id=row_id(number, index),
        architecture=path_text(run, tokens),
        accuracy=accuracy,
        cost=costs(tokens) if costs is not None and whole else None,
        reward=accuracy,
        status="infeasible" if reason else "ok",
        source=SOURCE,
        reason=reason,
    )


def _pool(run: Run, number: int, update: tuple[Potential, ...], size: int) -> bytes:
    decision = run.space.decisions[number]
    kept = [potential for potential in update if potential.value is not None][:size]
    value: dict[str, Any] = {
        "mixop": decision.name,
        "choices": [str(choice) for choice in decision.choices],
        "pool": [{"architecture": path_text(run, potential.tokens), **potential.to_json()} for potential in kept],
        "candidates": [potential.to_json() for potential in update],
    }
    return json.dumps(value, indent=2, sort_keys=True).encode() + b"\n"


def _npz(blob: bytes) -> bytes:
    """Arrays as numpy reads them. Equal arrays give equal bytes: numpy dates the members of an archive alike."""
    stream = io.BytesIO()
    arrays: dict[str, Any] = dict(unpack(blob).arrays)
    np.savez_compressed(stream, **arrays)
    return stream.getvalue()
