"""Step: what each candidate costs, before anything is trained, and who trains it."""

from __future__ import annotations

import json
import logging
import time
from pathlib import Path
from typing import Any

from kfnas.config import digest_of
from kfnas.errors import MeasurementError, NotFound
from kfnas.measure import OperatorTable, require_measured
from kfnas.space import NetworkSpec
from kfnas.steps.context import DataPointer, Run, code_version, open_run, read_data, read_json, read_pointer, write_json
from kfnas.steps.costs import CostMeter, Costs
from kfnas.steps.latency_table import take_table
from kfnas.steps.reach import cheapest_network, unreachable

logger = logging.getLogger(__name__)
PAUSES_SECONDS = (2.0, 5.0, 10.0)
MAX_UNMEASURED = 0.25


def measure_latency(config: str, data: Path, state: Path, batch: Path, plan: Path) -> list[str]:
    """Write to `plan` each candidate's cost, ledger key and fate; return one JSON text a training shard, and never none.

    A candidate far over a hard budget is `infeasible`: it is not trained at all. One whose latency stays unstable is `unmeasured`. With a table of operators
    latencies are foretold; a table that is not in the store yet is taken here.

    Raises:
        MeasurementError: more than a quarter of the batch could not be measured.
        BudgetError: no candidate of the first batch is within a hard budget, nor is the cheapest architecture that can be found.
    """
    run = open_run(config)
    pointer, prepared = read_pointer(state), read_data(data)
    run.renew(pointer)
    meter = CostMeter(run)
    opened = read_json(batch)
    table = take_table(run, prepared, alive=lambda: run.renew(pointer)) if run.config.table is not None else None
    specs = [run.network(candidate["tokens"], prepared) for candidate in opened["candidates"]]
    costs = _costs(run, meter, specs, table)
    rows = [_row(run, candidate, measured, prepared) for candidate, measured in zip(opened["candidates"], costs, strict=True)]
    if opened["round"] == 0:
        _require_reachable(run, meter, rows, prepared, table)
    training = [row["id"] for row in rows if row["fate"] == "train"]
    num_shards = max(1, min(run.config.execution.shards, len(training)))
    shards = [json.dumps({"shard": shard, "ids": training[shard::num_shards]}) for shard in range(num_shards)]
    write_json(plan, {"pointer": pointer.model_dump(mode="json"), "round": opened["round"], "rows": rows})
    return shards


def _costs(run: Run, meter: CostMeter, specs: list[NetworkSpec], table: OperatorTable | None) -> list[Costs]:
    if run.config.cost != "latency_ms":
        return [meter.costs(spec, latency=False) for spec in specs]
    if table is None:
        return _measured_in_the_end(meter, specs)
    costs = [meter.foretold(spec, table) for spec in specs]
    missing = [found.reason for found in costs if found.foretold_ms is None]
    if len(missing) > MAX_UNMEASURED * len(costs):
        raise MeasurementError(f"the table of operators foretells no latency for {len(missing)} of {len(costs)} networks (last: {missing[-1]})")
    return costs


def _measured_in_the_end(meter: CostMeter, specs: list[NetworkSpec]) -> list[Costs]:
    """Costs of all networks; those that could not be timed are tried again after a while, since a device's other load comes and goes."""
    costs = [meter.costs(spec, latency=True) for spec in specs]
    for pause in PAUSES_SECONDS:
        unmeasured = [index for index, measured in enumerate(costs) if measured.of("latency_ms") is None]
        if not unmeasured:
            break
        logger.warning("%d of %d latencies could not be taken; again in %g s", len(unmeasured), len(specs), pause)
        time.sleep(pause)
        for index in unmeasured:
            costs[index] = meter.costs(specs[index], latency=True)
    require_measured([measured.latency for measured in costs if measured.latency is not None])
    return costs


def child_key(run: Run, tokens: list[int], seed: int, data: DataPointer, initialisation: Any = "random") -> str:
    """Ledger key of a child: everything that its weights depend on.

    Recipe, initialisation and versions are part of it; shard, order and machine are not. `initialisation` is a JSON value: `random`, or what names the pool's
    version and the weights that the child starts from.
    """
    from kfnas.train import TRAINING_CODE_VERSION

    return digest_of(
        {
            "space": run.space.digest,
            "tokens": tokens,
            "arguments": run.arguments(data).model_dump(mode="json"),
            "task": run.config.task,
            "recipe": run.config.proxy.model_dump(mode="json"),
            "data": data.digest,
            "initialisation": initialisation,
            "seed": seed,
            "training_code": TRAINING_CODE_VERSION,
        }
    )


def _row(run: Run, candidate: dict[str, Any], costs: Costs, data: DataPointer) -> dict[str, Any]:
    cost = costs.of(run.config.cost)
    row = {
        **candidate,
        "key": child_key(run, candidate["tokens"], candidate["seed"], data),
        "cost": cost,
        "mult_adds": costs.mult_adds,
        "params": costs.params,
        "code_version": code_version(),
        "fate": "train",
        "reason": None,
    }
    target = run.config.search.reward.target
    if cost is None:
        row |= {"fate": "unmeasured", "reason": costs.reason}
    elif target is not None and run.config.search.reward.kind == "hard" and cost > run.config.skip_over * target:
        row |= {"fate": "infeasible", "reason": f"{run.config.cost} {cost:.4g} is over {run.config.skip_over:g} x the target {target:g}"}
    return row


def _require_reachable(run: Run, meter: CostMeter, rows: list[dict[str, Any]], data: DataPointer, table: OperatorTable | None) -> None:
    """Refuse a budget that nothing meets, at the first batch and not after hours."""
    reward = run.config.search.reward
    if reward.target is None or reward.kind != "hard" or any(row["cost"] is not None and row["cost"] <= reward.target for row in rows):
        return
    cheapest = cheapest_network(run.config, run.space, lambda architecture: run.network(architecture.tokens, data))
    try:
        found = meter.costs(cheapest, latency=run.config.cost == "latency_ms") if table is None else meter.foretold(cheapest, table)
        cost = found.of(run.config.cost)
    except NotFound as missing:
        logger.warning("whether anything meets the target is not known: %s", missing)
        return
    if cost is not None and cost > reward.target:
        raise unreachable(run.config, cost)
