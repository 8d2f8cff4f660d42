"""Step: which networks are trained from scratch: the best that the search found, and what they are compared with."""

from __future__ import annotations

import json
import logging
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from kfnas.config import digest_of
from kfnas.errors import BudgetError
from kfnas.steps.alternate import importance_of
from kfnas.steps.context import DataPointer, Run, architecture_text, open_run, read_data, read_pointer, write_json
from kfnas.steps.costs import CostMeter, Costs
from kfnas.steps.oneshot_config import RetrainedAs
from kfnas.steps.operator_costs import require_costs
from kfnas.steps.supernet_search import load_supernet
from kfnas.storage import Pointer

logger = logging.getLogger(__name__)
NEAR_TARGET = 0.1
NUM_RANDOM_DRAWS = 500
NUM_WIDTHS = 8
NUM_TRIES = 5
"""Architectures that are measured for each finalist wanted, at most, where the search went by foretold latencies."""


def choose_finalists(config: str, data: Path, state: Path, plan: Path) -> list[str]:
    """Write the finalists to `plan` and return one JSON text for each.

    They are the `top_k` by reward near the target (|cost / T - 1| <= 0.1, or below T with the hard reward; of a search on one supernet the best models that
    keep to T as they are trained from scratch) and, to compare with, the space's own reference network scaled by width to the same budget, and a random
    architecture within budget. Latencies are taken here, before anything trains again: where the search went by foretold ones, an architecture that turns out
    too slow gives way to the next best. A choice once made is kept.

    Raises:
        BudgetError: the search found no architecture within the budget; recorded, so that a study counts it as ended.
        StaleFence: a later run has taken the search over.
    """
    run = open_run(config)
    pointer, prepared = read_pointer(state), read_data(data)
    run.require_current(pointer)
    run.renew(pointer)
    chosen = run.searches.record("final", "plan")
    if chosen is None:
        try:
            finalists_chosen = _choose(run, pointer, prepared)
        except BudgetError as error:
            run.searches.put_record("search", "fruitless", {"reason": str(error)})
            raise
        run.searches.put_record("final", "plan", {"finalists": finalists_chosen})
        chosen = run.searches.record("final", "plan") or {"finalists": []}
    finalists = [{**finalist, "pointer": pointer.model_dump(mode="json")} for finalist in chosen["finalists"]]
    write_json(plan, {"finalists": finalists})
    return [json.dumps(finalist) for finalist in finalists]


def near_target(rows: pd.DataFrame, target: float | None, kind: str) -> pd.DataFrame:
    """Those of the activated rows that may be chosen: near the target, or below it with the hard reward."""
    if target is None:
        return rows
    share = rows["cost"] / target
    near = (share - 1).abs() <= NEAR_TARGET
    return rows[(share <= 1) if kind == "hard" else near]


def _choose(run: Run, pointer: Pointer, data: DataPointer) -> list[dict[str, Any]]:
    meter = CostMeter(run)
    choose = {None: _best_children, "betanas": _likeliest_path}.get(run.config.algorithm, _best_paths)
    best = choose(run, meter, pointer, data)
    return [*best, *(_comparisons(run, meter, data) if run.config.comparisons else [])]


def _best_paths(run: Run, meter: CostMeter, pointer: Pointer, data: DataPointer) -> list[dict[str, Any]]:
    """The best whole models of PC-NAS or the evolution, each as the network that is trained from scratch; over the limit the next best is taken."""
    target = run.config.search.reward.target
    found: dict[str, dict[str, Any]] = {}
    nearest: float | None = None
    num_unmeasured = 0
    for path in load_supernet(run, pointer).ranked(len(run.space.num_choices)):
        tokens = list(run.space.canonical(run.space.architecture(path.tokens)).tokens)
        if architecture_text(run.space, tokens) in found:
            continue
        finalist = _finalist(run, meter, data, f"searched-{len(found) + 1}", "searched", tokens, run.final_width, proxy_accuracy=path.accuracy)
        if target is None or (finalist["cost"] is not None and finalist["cost"] <= target):
            found[finalist["architecture"]] = finalist
        elif finalist["cost"] is not None:
            logger.warning("%s has %.4g of %s, over the limit: the next best is taken", finalist["architecture"], finalist["cost"], run.config.cost)
            nearest = min(finalist["cost"], nearest or finalist["cost"])
        else:
            num_unmeasured += 1
        if len(found) == run.config.top_k:
            break
    if not found:
        said = f"; the cheapest has {nearest:.4g}" if nearest is not None else ""
        said += f"; {num_unmeasured} could not be measured" if num_unmeasured else ""
        raise BudgetError(
            f"none of the search's models keeps to {run.config.cost} {target} as it is trained from scratch{said}: "
            "search under a tighter limit (oneshot.margin) in a search of another name, or raise the target"
        )
    return list(found.values())


def _likeliest_path(run: Run, meter: CostMeter, pointer: Pointer, data: DataPointer) -> list[dict[str, Any]]:
    """BetaNAS's one result. Its target is no limit, but is to be met within the tolerance: where a path costs so many times what was foretold, the likeliest
    path is taken for which so many times what is foretold meets it. Of those that were measured the nearest to the target."""
    betanas, pinned = importance_of(run, load_supernet(run, pointer)), require_costs(run)
    target, factor = run.config.search.reward.target, 1.0
    found: dict[str, dict[str, Any]] = {}
    while len(found) < NUM_TRIES:
        path = betanas.result(factor)
        finalist = _finalist(run, meter, data, "searched-1", "searched", list(run.space.canonical(run.space.architecture(path)).tokens), run.final_width)
        known = finalist["architecture"] in found
        found[finalist["architecture"]] = finalist
        if known or target is None or pinned is None or finalist["cost"] is None or _off(finalist) <= betanas.config.target_tolerance:
            break
        factor = finalist["cost"] / pinned.costs(path)
        logger.warning("%s has %.4g of %s, %.1f %% off the target", finalist["architecture"], finalist["cost"], run.config.cost, 100 * _off(finalist))
    return [min(found.values(), key=_off)]


def _off(finalist: dict[str, Any]) -> float:
    """|cost / T - 1|; infinite where the cost is not known."""
    return math.inf if finalist["cost_over_target"] is None else abs(finalist["cost_over_target"] - 1)


def _best_children(run: Run, meter: CostMeter, pointer: Pointer, data: DataPointer) -> list[dict[str, Any]]:
    reward = run.config.search.reward
    history: Any = run.load_search(pointer).history
    rows = history[(history["status"] == "ok") & history["accuracy"].notna() & ~history["source"].isin(("trusted", "cached"))]
    fit = near_target(rows, reward.target, reward.kind)
    if fit.empty:
        found = f"; the nearest has {rows.loc[(rows['cost'] - reward.target).abs().idxmin(), 'cost']:.4g}" if len(rows) and reward.target else ""
        raise BudgetError(
            f"no trained architecture is near the target {reward.target} of {run.config.cost}{found}: "
            "search for more rounds, or set a target that the space reaches"
        )
    best = most_promising(fit, run.config.top_k * (1 if run.config.table is None else NUM_TRIES))
    return _searched(run, meter, data, best)


def _comparisons(run: Run, meter: CostMeter, data: DataPointer) -> list[dict[str, Any]]:
    """The space's own network scaled to the budget, and a random one within it."""
    finalists, width = [], run.final_width
    if run.space.reference is not None:
        tokens = list(run.space.reference.tokens)
        finalists.append(_finalist(run, meter, data, "reference", "reference", tokens, _reference_width(run, meter, tokens, data)))
    drawn = _random_within_budget(run, meter, data)
    if drawn is not None:
        finalists.append(_finalist(run, meter, data, "random", "random", drawn, width))
    return finalists


def most_promising(rows: pd.DataFrame, count: int) -> pd.DataFrame:
    """The rows of highest reward, one an architecture. Rewards of children that began otherwise (at random, from a pool) do not compare, so where there are
    both, the best of each kind in turn: training from scratch decides."""
    place = rows.groupby("initialisation")["reward"].rank(ascending=False, method="first")
    ordered = rows.assign(place=place).sort_values(["place", "reward"], ascending=[True, False], kind="stable")
    return ordered.drop_duplicates("architecture").head(count)


def _searched(run: Run, meter: CostMeter, data: DataPointer, best: pd.DataFrame) -> list[dict[str, Any]]:
    """The first `top_k` of these rows, best first; with a table of operators, of those that are near the target when they are measured whole."""
    chosen: list[dict[str, Any]] = []
    slower: list[dict[str, Any]] = []
    reward = run.config.search.reward
    for _, row in best.iterrows():
        tokens = [int(token) for token in row["tokens"]]
        name = f"searched-{len(chosen) + 1}"
        found = _finalist(run, meter, data, name, "searched", tokens, run.final_width, proxy_accuracy=float(row["accuracy"]))
        if run.config.table is not None and not _keeps(found["cost"], reward.target, reward.kind):
            logger.info("%s was foretold %.4g ms and takes %s: passed over", found["architecture"], row["cost"], found["cost"])
            slower.append(found)
            continue
        chosen.append(found)
        if len(chosen) == run.config.top_k:
            break
    if not chosen:
        raise BudgetError(
            f"none of the {len(slower)} best architectures is near the target {reward.target} ms when it is measured whole (the first: {slower[0]['cost']}); "
            "see the error of the table with `kfnas table`, and set a target lower by that, or search without `table`"
        )
    return chosen


def _keeps(cost: float | None, target: float | None, kind: str) -> bool:
    """Whether one cost is near the target, as `near_target` has it."""
    return target is None or (cost is not None and not near_target(pd.DataFrame({"cost": [cost]}), target, kind).empty)


def _finalist(
    run: Run, meter: CostMeter, data: DataPointer, name: str, kind: str, tokens: list[int], width: float, proxy_accuracy: float | None = None
) -> dict[str, Any]:
    from kfnas.train import TRAINING_CODE_VERSION

    costs = meter.costs(run.final_network(tokens, data, width=width), latency=True)
    key = digest_of(
        {
            "space": run.space.digest,
            "tokens": tokens,
            "arguments": run.arguments(data, width=width).model_dump(mode="json"),
            "task": run.config.task,
            "recipe": run.config.retrain.model_dump(mode="json"),
            "data": data.digest,
            "seed": run.config.seed,
            "training_code": TRAINING_CODE_VERSION,
            **_retrained_as(run),
        }
    )
    return {
        "name": name,
        "kind": kind,
        "tokens": tokens,
        "architecture": architecture_text(run.space, tokens),
        "width": width,
        "key": key,
        "seed": run.config.seed,
        "proxy_accuracy": proxy_accuracy,
        **_cost_columns(run, costs),
    }


def _retrained_as(run: Run) -> dict[str, Any]:
    """What is done to networks before they are trained; nothing where nothing is, so that the keys of such trainings stay."""
    added = run.config.shared.retrained_as
    return {"retrained_as": added.model_dump(mode="json")} if added != RetrainedAs() else {}


def _cost_columns(run: Run, costs: Costs) -> dict[str, Any]:
    target, cost = run.config.search.reward.target, costs.of(run.config.cost)
    return {
        "mult_adds": costs.mult_adds,
        "params": costs.params,
        "latency_ms": costs.latency.latency_ms if costs.latency is not None else None,
        "cost": cost,
        "cost_over_target": cost / target if cost is not None and target else None,
    }


def _reference_width(run: Run, meter: CostMeter, tokens: list[int], data: DataPointer) -> float:
    """The widest multiplier at which the hand-made network keeps to the budget, by bisection; the search's own width without a budget."""
    target = run.config.search.reward.target
    own = run.final_width
    if target is None:
        return own

    def within(width: float) -> bool:
        costs = meter.costs(run.final_network(tokens, data, width=width), latency=run.config.cost == "latency_ms")
        cost = costs.of(run.config.cost)
        return cost is not None and cost <= target

    low, high = own, own
    while not within(low) and low > own / 16:
        low /= 2
    while within(high) and high < min(16.0, own * 16):
        high = min(16.0, high * 2)
    for _ in range(NUM_WIDTHS):
        middle = (low + high) / 2
        low, high = (middle, high) if within(middle) else (low, middle)
    return round(low, 4)


def _random_within_budget(run: Run, meter: CostMeter, data: DataPointer) -> list[int] | None:
    """The first random architecture whose cost is between half the target and the target; failing that, the first below it."""
    generator = np.random.default_rng([run.config.seed, 0x7A2D03])
    target = run.config.search.reward.target
    below: list[int] | None = None
    measured = run.config.cost == "latency_ms"
    for _ in range(NUM_RANDOM_DRAWS // 10 if measured else NUM_RANDOM_DRAWS):
        tokens = list(run.space.canonical(run.space.random(generator)).tokens)
        if target is None:
            return tokens
        cost = meter.costs(run.final_network(tokens, data), latency=measured).of(run.config.cost)
        if cost is not None and cost <= target:
            if cost >= target / 2:
                return tokens
            below = below or tokens
    return below
