"""Whether anything can meet the budget: a search for the cheapest architecture, by counting alone."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from kfnas.errors import BudgetError
from kfnas.space import Architecture, NetworkSpec, Space, mult_adds, num_params
from kfnas.steps.config import RunConfig

NUM_DRAWS = 200
_SEED = 0xB0D6E7


def cheapest_network(config: RunConfig, space: Space, build: Callable[[Architecture], NetworkSpec]) -> NetworkSpec:
    """The network with the fewest mult-adds (parameters, where these are the cost) that is found by going down from the best of some random ones."""
    generator = np.random.default_rng([config.seed, _SEED])

    def count(architecture: Architecture) -> int:
        return _count(config, build(architecture))

    best = min((space.random(generator) for _ in range(NUM_DRAWS)), key=count)
    lowest = count(best)
    going = True
    while going:
        going = False
        for place, num_choices in enumerate(space.num_choices):
            for choice in range(num_choices):
                tokens = (*best.tokens[:place], choice, *best.tokens[place + 1 :])
                if tokens != best.tokens and space.is_valid(tokens) and (found := count(space.architecture(tokens))) < lowest:
                    best, lowest, going = space.architecture(tokens), found, True
    return build(best)


def require_counted_reach(config: RunConfig, space: Space, build: Callable[[Architecture], NetworkSpec]) -> None:
    """Refuse a hard budget of mult-adds or parameters that nothing meets; other budgets pass.

    Raises:
        BudgetError: names the target and the cheapest cost that was found.
    """
    reward = config.search.reward
    if config.cost != "latency_ms" and reward.kind == "hard" and reward.target is not None:
        lowest = _count(config, cheapest_network(config, space, build))
        if lowest > reward.target:
            raise unreachable(config, float(lowest))


def unreachable(config: RunConfig, lowest: float) -> BudgetError:
    """What to say when the cheapest architecture that was found costs `lowest`, more than the target."""
    return BudgetError(
        f"search.reward.target: no architecture meets {config.cost} {config.search.reward.target:g}; the cheapest that was found has {lowest:.4g}: "
        "raise the target, or lower space.width or the resolution"
    )


def _count(config: RunConfig, spec: NetworkSpec) -> int:
    return num_params(spec) if config.cost == "params" else mult_adds(spec)
