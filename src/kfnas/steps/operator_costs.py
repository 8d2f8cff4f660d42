"""What each operator of a mixed-operator space costs, in the unit of the run's budget: what the searches on one supernet are limited by.

The costs are pinned by the first step that asks: all shards of all rounds, and a run that goes on another day, see the same.
"""

from __future__ import annotations

from kfnas.errors import ConfigError
from kfnas.space.mixop_costs import OperatorCosts, mult_add_costs
from kfnas.steps.context import DataPointer, Run
from kfnas.steps.supernet_search import mixop_space

KIND = "operator_costs"
KEY = "pinned"


def operator_costs(run: Run, data: DataPointer) -> OperatorCosts | None:
    """The costs that this search goes by, pinned; None where it has no budget and its cost does not add up over operators.

    Raises:
        ConfigError: there is a budget, and nothing says what operators cost in its unit.
    """
    if pinned_costs(run) is None:
        check_costs(run)
        found = mult_add_costs(mixop_space(run).layers(run.arguments(data))) if run.config.cost == "mult_adds" else None
        run.searches.put_record(KIND, KEY, {"fixed": found.fixed, "entries": [list(row) for row in found.entries]} if found is not None else {})
    return pinned_costs(run)


def pinned_costs(run: Run) -> OperatorCosts | None:
    """What was pinned; None where nothing was, yet or for want of a cost that adds up."""
    record = run.searches.record(KIND, KEY)
    return OperatorCosts(record["fixed"], tuple(tuple(row) for row in record["entries"])) if record else None


def check_costs(run: Run) -> None:
    """Refuse a budget in a unit that operators have no costs in.

    Raises:
        ConfigError: names the unit.
    """
    if run.config.cost != "mult_adds" and run.config.search.reward.target is not None:
        raise ConfigError(
            f"cost: nothing says what single operators cost in {run.config.cost}, and {run.config.method} keeps to search.reward.target by their sum; "
            "set cost: mult_adds"
        )
