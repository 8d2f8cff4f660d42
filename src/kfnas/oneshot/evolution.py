"""Evolution on a trained supernet, the baseline of PC-NAS's table 3: population 5, a mutation changes the operator of one mixed operator.

It may see as many validation mini-batches as PC-NAS's potentials did (`pc_nas_evaluations`).

Ours, where the paper is silent: the population is the best of all models seen; each new model mutates a uniformly drawn one of them, at a uniformly drawn
mixed operator; every model is scored on the same first mini-batches; models over the limit, and known ones, are drawn again, at most 1,000 times.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from pydantic import Field

from kfnas.config import Config
from kfnas.errors import BudgetError, ConfigError
from kfnas.oneshot.paths import Cost, Evaluator, Path, complete
from kfnas.oneshot.pc_nas import PCNASConfig
from kfnas.oneshot.seeds import random_stream

MAX_DRAWS = 1000


class EvolutionConfig(Config):
    """Budget and population."""

    num_evaluations: int = Field(ge=1, description="validation mini-batches in all")
    batches_per_model: int = Field(10, ge=1, description="validation mini-batches that score one model")
    population_size: int = Field(5, ge=1, description="models that may be mutated")
    limit: float | None = Field(None, gt=0, description="highest cost of a model, in the unit of the cost function; None: no limit")

    @property
    def num_models(self) -> int:
        """Models that the budget pays for."""
        return max(1, self.num_evaluations // self.batches_per_model)


@dataclass(frozen=True)
class Scored:
    """A model and its mean accuracy with shared weights."""

    path: Path
    accuracy: float


@dataclass(frozen=True)
class EvolutionState:
    """Every model seen, in order; and whether nothing new can be reached any more."""

    models: tuple[Scored, ...] = ()
    exhausted: bool = False

    def best(self, count: int) -> tuple[Scored, ...]:
        """The best models so far, best first; ties go to the lower tokens."""
        return tuple(sorted(self.models, key=lambda model: (-model.accuracy, model.path))[:count])

    def to_json(self) -> dict[str, Any]:
        """JSON values of the state."""
        return {"models": [[list(model.path), model.accuracy] for model in self.models], "exhausted": self.exhausted}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> EvolutionState:
        """What `to_json` gave."""
        return cls(tuple(Scored(tuple(path), accuracy) for path, accuracy in value["models"]), value["exhausted"])


def pc_nas_evaluations(config: PCNASConfig, num_choices: Sequence[int]) -> int:
    """Validation mini-batches that PC-NAS sees at most: S for each candidate of each update."""
    total, pool = 0, 1
    for count in num_choices:
        total += pool * count * config.num_evaluations
        pool = min(config.pool_size, pool * count)
    return total


def step(
    state: EvolutionState, evaluator: Evaluator, num_choices: Sequence[int], config: EvolutionConfig, *, seed: int, cost: Cost | None = None
) -> EvolutionState:
    """The state after one more model: a random one until the population is full, then a mutant.

    Raises:
        ConfigError: a limit without a cost.
        BudgetError: no random model is within the limit.
    """
    if config.limit is not None and cost is None:
        raise ConfigError(f"limit {config.limit:g} is set and nothing says what a model costs; give a table of costs, or leave the limit out")
    rng = random_stream(seed, "evolution", len(state.models))
    population = state.best(config.population_size)
    known = {model.path for model in state.models}
    growing = len(state.models) < config.population_size
    for draw in range(MAX_DRAWS):
        # The second half of the draws: mutants where random models within the limit are too rare, random models where all mutants are known.
        if not population or growing == (draw < MAX_DRAWS // 2):
            path = complete((), num_choices, rng)
        else:
            path = mutate(population[rng.integers(len(population))].path, num_choices, rng)
        if path not in known and (config.limit is None or cost is None or cost(path) <= config.limit):
            scores = [evaluator.accuracy(path, batch) for batch in range(config.batches_per_model)]
            return EvolutionState((*state.models, Scored(path, sum(scores) / len(scores))))
    if not state.models:
        raise BudgetError(f"none of {MAX_DRAWS} random models costs {config.limit} or less; raise the limit")
    return EvolutionState(state.models, exhausted=True)


def mutate(path: Path, num_choices: Sequence[int], rng: np.random.Generator) -> Path:
    """`path` with the operator of one mixed operator replaced by another, both drawn uniformly; unchanged where nothing can be chosen."""
    open_places = [place for place, count in enumerate(num_choices) if count > 1]
    if not open_places:
        return path
    place = open_places[rng.integers(len(open_places))]
    token = int(rng.integers(num_choices[place] - 1))
    return (*path[:place], token + (token >= path[place]), *path[place + 1 :])


def run(
    evaluator: Evaluator,
    num_choices: Sequence[int],
    config: EvolutionConfig,
    *,
    seed: int,
    cost: Cost | None = None,
    state: EvolutionState | None = None,
    after_model: Callable[[EvolutionState], None] = lambda state: None,
) -> EvolutionState:
    """Evolve until the budget is spent or nothing new is in reach; the result is `state.best(1)`. `after_model` is called after every model."""
    state = EvolutionState() if state is None else state
    while len(state.models) < config.num_models and not state.exhausted:
        state = step(state, evaluator, num_choices, config, seed=seed, cost=cost)
        after_model(state)
    return state
