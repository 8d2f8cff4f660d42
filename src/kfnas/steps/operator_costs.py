"""Step: what each operator of a mixed-operator space costs, in the unit of the run's budget: what the searches on one supernet are limited by.

Costs are those of the networks that are trained from scratch in the end, with all that the configuration adds to them, since these have to keep to the budget.
Mult-adds and parameters are counted and add up exactly; latencies come from a table of operators, and what a network takes may be more than the table
foretells. So the limit is tightened beforehand by the table's 95% error (`margin`). Costs and margin are pinned: all rounds, all shards, and a run that
goes on another day, see the same.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from pydantic import Field

from kfnas.config import Config, parse
from kfnas.errors import BudgetError, ConfigError, NotFound
from kfnas.space.mixop_costs import OperatorCosts, mult_add_costs, param_costs
from kfnas.steps.context import DataPointer, Run, open_run, read_data, read_pointer, write_json
from kfnas.steps.latency_table import metrics_of, take_table
from kfnas.steps.supernet_search import final_mixop_space

KIND = "operator_costs"
KEY = "pinned"
MIN_HELD_OUT = 19
"""Networks that a 95% error needs at least."""


class PinnedCosts(Config):
    """What a search on one supernet goes by.

    Attributes:
        fixed: cost of what is not decided.
        entries: cost of each choice of each mixed operator.
        unit: of both, `mult_adds | params | latency_ms`.
        margin: share by which a limit is tightened.
        table: key of the operator table, where the costs come from one.
        metrics: how good that table is.
    """

    fixed: float
    entries: tuple[tuple[float, ...], ...]
    unit: str
    margin: float = Field(ge=0, lt=1)
    table: str | None = None
    metrics: dict[str, float] = Field(default_factory=dict)

    @property
    def costs(self) -> OperatorCosts:
        """The costs as the searches take them."""
        return OperatorCosts(self.fixed, self.entries)


def operator_costs(config: str, data: Path, state: Path, costs: Path) -> None:
    """Pin the costs that this search goes by and write them to `costs`; a latency table that is not in the store yet is taken here.

    Where the run has no budget and its cost adds up over no operators, nothing is pinned, and `costs` says so.

    Raises:
        ConfigError: there is a budget, and nothing says what operators cost in its unit.
        MeasurementError: too much of the table could not be measured.
        BudgetError: no network keeps to the budget, or BetaNAS's target is beyond all of them.
        StaleFence: a later run has taken the search over.
    """
    run = open_run(config)
    pointer = read_pointer(state)
    run.require_current(pointer)
    run.renew(pointer)
    pinned = pin_costs(run, read_data(data), alive=lambda: run.renew(pointer))
    if pinned is None:
        write_json(costs, {"unit": None})
        return
    _require_reach(run, pinned)
    lowest, highest = pinned.costs.range
    metrics = {"lowest": lowest, "highest": highest, "mean": pinned.costs.mean, "margin": pinned.margin, **pinned.metrics}
    write_json(costs, {**pinned.model_dump(mode="json"), "metrics": metrics})


def pin_costs(run: Run, data: DataPointer, *, alive: Callable[[], None] | None = None) -> PinnedCosts | None:
    """The costs that this search goes by; None where it has no budget and its cost does not add up over operators.

    Args:
        run: of an algorithm on one supernet.
        data: prepared.
        alive: called now and then while a table is measured.

    Raises:
        ConfigError, MeasurementError: as `operator_costs`.
    """
    if run.searches.record(KIND, KEY) is None:
        check_costs(run)
        found = _costs(run, data, alive)
        run.searches.put_record(KIND, KEY, {} if found is None else found.model_dump(mode="json"))
    return pinned_costs(run)


def pinned_costs(run: Run) -> PinnedCosts | None:
    """What was pinned; None where nothing was, yet or for want of a cost that adds up."""
    record = run.searches.record(KIND, KEY)
    return parse(PinnedCosts, record, source="operator costs") if record else None


def require_costs(run: Run) -> PinnedCosts | None:
    """What was pinned, for a step that is to go by it; None only where there is nothing to go by.

    Raises:
        NotFound: the step that pins it has not run.
    """
    if run.searches.record(KIND, KEY) is None:
        raise NotFound(f"search {run.config.name!r} has no costs of operators yet; run the step operator_costs before its rounds, on what takes latencies")
    return pinned_costs(run)


def limit_of(run: Run, pinned: PinnedCosts | None) -> float | None:
    """What predicted costs are held to, so that measured ones keep to the run's budget; None without one."""
    target = run.config.search.reward.target
    return None if target is None or pinned is None else target * (1 - pinned.margin)


def check_costs(run: Run) -> None:
    """Refuse a budget in a unit that operators have no costs in, and a table whose error will not be known.

    Raises:
        ConfigError: names the unit, or the field.
    """
    config = run.config
    if config.cost != "latency_ms" or config.search.reward.target is None:
        return
    if config.table is None:
        raise ConfigError(
            f"cost: nothing says what single operators take, and {config.method} keeps to search.reward.target by their sum; "
            "add `table: {}`, which measures them once, or set cost: mult_adds"
        )
    if _is_limit(run) and config.shared.margin is None and config.table.held_out < MIN_HELD_OUT:
        raise ConfigError(
            f"table.held_out: the limit is tightened by the table's 95% error, which {config.table.held_out} networks do not show; "
            f"set it to {MIN_HELD_OUT} or more, or oneshot.margin to the share to tighten by"
        )


def _require_reach(run: Run, pinned: PinnedCosts) -> None:
    """Refuse a budget that nothing meets before anything is trained."""
    target, unit = run.config.search.reward.target, run.config.cost
    lowest, highest = pinned.costs.range
    if target is None:
        return
    if run.config.algorithm == "betanas" and not lowest <= target <= highest:
        raise BudgetError(f"search.reward.target: {target:g} is out of reach, networks have {unit} of {lowest:.4g} to {highest:.4g}; set one between")
    limit = limit_of(run, pinned)
    if _is_limit(run) and limit is not None and lowest > limit:
        tightened = f" ({limit:.4g} after its tightening by {pinned.margin:.1%})" if pinned.margin else ""
        raise BudgetError(
            f"search.reward.target: no network keeps to {target:g}{tightened}, the cheapest has {unit} of {lowest:.4g}; "
            "raise it, or choose a narrower space (space.width)"
        )


def _is_limit(run: Run) -> bool:
    """Whether the run's budget is a limit; BetaNAS's is a target, which nothing tightens."""
    return run.config.search.reward.target is not None and run.config.algorithm != "betanas"


def _costs(run: Run, data: DataPointer, alive: Callable[[], None] | None) -> PinnedCosts | None:
    config, space, arguments = run.config, final_mixop_space(run), run.final_arguments(data)
    given = config.shared.margin
    if config.cost != "latency_ms":
        count = mult_add_costs if config.cost == "mult_adds" else param_costs
        counted = count(space.layers(arguments))
        return PinnedCosts(fixed=counted.fixed, entries=counted.entries, unit=config.cost, margin=given or 0.0)
    if config.table is None:
        return None
    table = take_table(run, data, space=space, arguments=arguments, alive=alive)
    costs = table.costs(space.layers(arguments))
    if given is None:
        given = 1 - table.tightened(1.0) if _is_limit(run) else 0.0
    return PinnedCosts(
        fixed=costs.fixed,
        entries=costs.entries,
        unit=config.cost,
        margin=given,
        table=table.question.key,
        metrics=metrics_of(table),
    )
