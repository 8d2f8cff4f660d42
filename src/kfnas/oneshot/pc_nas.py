"""PC-NAS, algorithms 1 and 2: train shared weights, and decide one mixed operator after another by the potential of partial models.

A partial model's potential (equation 11) is the expected validation accuracy of the whole models that begin with it, under the limit. After a warm-up of
uniformly drawn paths, each update extends every partial model of the pool by every operator of the next mixed operator and keeps the best; between
updates the weights are trained along paths completed at random from the pool. The last update leaves whole models, the best of which is the result.

Everything here is pure: weights are behind `Trainable`, accuracies behind `Evaluator`. `next_phase` says what is due, so that a pipeline can make a step of
every phase and spread the potentials of one update over processes: a candidate's draws depend on the seed and the candidate alone.

Ours: `completions: feasible` draws until S completions are feasible (at most 20 S draws) instead of S times; a candidate without a feasible completion has
no potential and is dropped with a reason; ties go to the lower tokens; the i-th feasible completion of every candidate is scored on mini-batch i.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from pydantic import Field

from kfnas.config import Config
from kfnas.errors import BudgetError, ConfigError, UserError
from kfnas.oneshot.paths import Cost, Evaluator, Path, Trainable, complete
from kfnas.oneshot.seeds import random_stream

MAX_DRAWS_FACTOR = 20
"""Draws a wanted feasible completion, at most: rejection that cannot hang."""


class PCNASConfig(Config):
    """The defaults are the paper's, section 4.1."""

    pool_size: int = Field(5, ge=1, description="P: partial models that an update keeps")
    num_evaluations: int = Field(900, ge=1, description="S: completions drawn for one potential, each scored on one validation mini-batch")
    warmup_epochs: int = Field(100, ge=0, description="Tw: epochs of uniformly drawn paths before the first update")
    interval_epochs: int = Field(5, ge=0, description="Ti: epochs between two updates")
    limit: float | None = Field(None, gt=0, description="highest cost of a model, in the unit of the cost function; None: no limit")
    training: Literal["pool", "uniform"] = Field(
        "pool", description="paths between updates: completions of the pool (algorithm 2), or uniform ones, which is one-shot training, to compare with"
    )
    completions: Literal["drawn", "feasible"] = Field(
        "drawn", description="drawn: S draws, those over the limit are dumped (algorithm 1); feasible: draws until S are within it, at most 20 S"
    )

    def num_epochs(self, num_mixops: int) -> int:
        """Epochs of the whole search: the last update is not followed by training."""
        return self.warmup_epochs + (num_mixops - 1) * self.interval_epochs


@dataclass(frozen=True)
class Potential:
    """What algorithm 1 found for one partial model.

    Attributes:
        tokens: of the partial model.
        value: mean accuracy of its feasible completions; None without any.
        num_feasible: completions scored.
        num_draws: completions drawn.
        reason: why there is no value, or the empty text.
    """

    tokens: Path
    value: float | None
    num_feasible: int
    num_draws: int
    reason: str = ""

    def to_json(self) -> dict[str, Any]:
        """JSON values of all attributes."""
        return {**vars(self), "tokens": list(self.tokens)}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Potential:
        """What `to_json` gave."""
        return cls(**{**value, "tokens": tuple(value["tokens"])})


@dataclass(frozen=True)
class PCNASState:
    """The search between two phases; the weights are kept by their trainer.

    Attributes:
        updates: for each mixed operator decided so far the potentials of all candidates, best first, those without one last.
        pool: partial models, best first; one empty partial model at the start.
    """

    updates: tuple[tuple[Potential, ...], ...] = ()
    pool: tuple[Path, ...] = ((),)

    def to_json(self) -> dict[str, Any]:
        """JSON values of the state."""
        return {"updates": [[potential.to_json() for potential in update] for update in self.updates], "pool": [list(tokens) for tokens in self.pool]}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> PCNASState:
        """What `to_json` gave."""
        updates = tuple(tuple(Potential.from_json(item) for item in update) for update in value["updates"])
        return cls(updates, tuple(tuple(tokens) for tokens in value["pool"]))


class TrainPhase(NamedTuple):
    """Train the shared weights until `until` epochs are done in all."""

    until: int


class UpdatePhase(NamedTuple):
    """Decide mixed operator `mixop` by the potentials of all candidates."""

    mixop: int


def next_phase(state: PCNASState, num_epochs: int, num_mixops: int, config: PCNASConfig) -> TrainPhase | UpdatePhase | None:
    """What algorithm 2 does next after `num_epochs` epochs of training; None: the search is over."""
    decided = len(state.updates)
    if decided == num_mixops:
        return None
    due = config.warmup_epochs + decided * config.interval_epochs
    return TrainPhase(due) if num_epochs < due else UpdatePhase(decided)


def candidates(state: PCNASState, num_choices: Sequence[int]) -> list[Path]:
    """Every partial model of the pool extended by every operator of the next mixed operator."""
    return [(*partial, token) for partial in state.pool for token in range(num_choices[len(state.updates)])]


def training_state(state: PCNASState, config: PCNASConfig) -> PCNASState:
    """The state whose pool paths are completed from while the weights are trained: the empty partial model where training is uniform."""
    return state if config.training == "pool" else PCNASState()


def sample_path(state: PCNASState, num_choices: Sequence[int], rng: np.random.Generator) -> Path:
    """Path of one training step: a partial model of the pool, completed uniformly. The limit does not bind it (the paper sets it on potentials only)."""
    return complete(state.pool[rng.integers(len(state.pool))], num_choices, rng)


def potential(partial: Path, num_choices: Sequence[int], evaluator: Evaluator, config: PCNASConfig, *, cost: Cost | None, seed: int) -> Potential:
    """Algorithm 1. The result depends on the seed, the partial model and the weights, and on no other candidate.

    Args:
        partial: a candidate.
        num_choices: of every mixed operator.
        evaluator: of whole paths.
        config: S, the limit, and how S is counted.
        cost: of whole paths; needed where there is a limit.
        seed: of the search.

    Raises:
        ConfigError: a limit without a cost.
        UserError: an accuracy that is no finite number.
    """
    if config.limit is not None and cost is None:
        raise ConfigError(f"limit {config.limit:g} is set and nothing says what a model costs; give a table of costs, or leave the limit out")
    rng = random_stream(seed, "potential", *partial)
    num_draws = config.num_evaluations * (1 if config.completions == "drawn" else MAX_DRAWS_FACTOR)
    total, num_feasible, drawn, cheapest = 0.0, 0, 0, np.inf
    while drawn < num_draws and num_feasible < config.num_evaluations:
        drawn += 1
        path = complete(partial, num_choices, rng)
        if config.limit is not None and cost is not None:
            price = cost(path)
            cheapest = min(cheapest, price)
            if price > config.limit:
                continue
        total += evaluator.accuracy(path, num_feasible)
        num_feasible += 1
    if not num_feasible:
        reason = f"none of {drawn} random completions costs {config.limit:g} or less; the cheapest costs {cheapest:g}"
        return Potential(partial, None, 0, drawn, reason)
    if not np.isfinite(total):
        raise UserError(f"the accuracy of a completion of {list(partial)} is no finite number; lower the learning rate of the shared weights")
    return Potential(partial, total / num_feasible, num_feasible, drawn)


def update_pool(state: PCNASState, potentials: Iterable[Potential], num_choices: Sequence[int], config: PCNASConfig) -> PCNASState:
    """The state after the potentials of all candidates, in any order, have decided the next mixed operator.

    Raises:
        UserError: potentials that are not those of this update's candidates, once each.
        BudgetError: no candidate has a feasible completion.
    """
    ranked = sorted(potentials, key=lambda item: (item.value is None, -(item.value or 0.0), item.tokens))
    expected = candidates(state, num_choices)
    if sorted(item.tokens for item in ranked) != sorted(expected):
        raise UserError(
            f"update {len(state.updates)} needs the potentials of its {len(expected)} candidates once each, and got {len(ranked)}; compute the missing shards"
        )
    pool = tuple(item.tokens for item in ranked if item.value is not None)[: config.pool_size]
    if not pool:
        raise BudgetError(f"mixed operator {len(state.updates)}: no candidate is left ({ranked[0].reason}); raise the limit, or the number of evaluations")
    return PCNASState((*state.updates, tuple(ranked)), pool)


def result(state: PCNASState, num_choices: Sequence[int]) -> Path:
    """The whole model of the highest potential in the final pool.

    Raises:
        UserError: the search is not over.
    """
    if len(state.updates) < len(num_choices):
        raise UserError(f"{len(state.updates)} of {len(num_choices)} mixed operators are decided; go on with the search")
    return state.pool[0]


def run(
    training: Trainable,
    evaluator: Evaluator,
    num_choices: Sequence[int],
    config: PCNASConfig,
    *,
    seed: int,
    cost: Cost | None = None,
    state: PCNASState | None = None,
    after_phase: Callable[[PCNASState], None] = lambda state: None,
) -> PCNASState:
    """Algorithm 2 in one process, from `state` (None: the beginning); `training` must be as it was when `state` was current.

    `after_phase` is called with the state after every phase: the place to save both.
    """
    state = PCNASState() if state is None else state
    while (phase := next_phase(state, training.num_epochs, len(num_choices), config)) is not None:
        if isinstance(phase, TrainPhase):
            current = training_state(state, config)
            training.train(lambda rng, current=current: sample_path(current, num_choices, rng), until=phase.until)  # type: ignore[misc]
        else:
            found = [potential(partial, num_choices, evaluator, config, cost=cost, seed=seed) for partial in candidates(state, num_choices)]
            state = update_pool(state, found, num_choices, config)
        after_phase(state)
    return state
