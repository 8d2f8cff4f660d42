"""Rewards: how accuracy and cost become the number that an agent maximises.

`hard` and `soft` are MnasNet's R(m) = ACC(m) * (LAT(m) / T) ** alpha (arXiv:1807.11626, eq. 2 and 3): alpha is 0 up to T and -1 above it
(hard), or -0.07 on both sides (soft). `absolute` is TuNAS's R(m) = ACC(m) + beta * |LAT(m) / T - 1| with beta = -0.10 (arXiv:2008.06120,
eq. 1). Without a target the reward is the accuracy. The cost is whatever positive number the search is configured with: measured
latency, mult-adds, parameters.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

from pydantic import Field, model_validator

from kfnas.config import Config
from kfnas.errors import ResultError

HARD_ALPHAS = (0.0, -1.0)
SOFT_ALPHAS = (-0.07, -0.07)
ABSOLUTE_BETA = -0.10
LARGEST = 1e30
"""Largest size of an accuracy or a reward: what squares and single precision hold with room to spare."""


class RewardConfig(Config):
    """Which reward, and the cost that it aims at."""

    kind: Literal["hard", "soft", "absolute"] = Field(
        default="hard", description="hard: a budget; soft: a trade-off; absolute: as near to the target as possible"
    )
    target: float | None = Field(default=None, gt=0, description="cost T that the reward aims at, in the cost's own unit; None: the reward is the accuracy")
    alpha_below: float | None = Field(
        default=None, le=0, description="exponent of cost / target where cost <= target; None: the kind's own (hard 0, soft -0.07)"
    )
    alpha_above: float | None = Field(
        default=None, le=0, description="exponent of cost / target where cost > target; None: the kind's own (hard -1, soft -0.07)"
    )
    beta: float | None = Field(default=None, lt=0, description="weight of |cost / target - 1| in the absolute reward; None: -0.10")

    @model_validator(mode="after")
    def _belong_together(self) -> RewardConfig:
        if self.kind == "absolute" and (self.alpha_below is not None or self.alpha_above is not None):
            raise ValueError("alpha_below and alpha_above belong to the hard and soft rewards: remove them, or choose one of those")
        if self.kind != "absolute" and self.beta is not None:
            raise ValueError("beta belongs to the absolute reward: remove it, or write `kind: absolute`")
        if self.target is None and (self.alpha_below is not None or self.alpha_above is not None or self.beta is not None):
            raise ValueError("alpha_below, alpha_above and beta act on cost / target: give a target, or remove them")
        return self

    @property
    def alphas(self) -> tuple[float, float]:
        """Exponents (up to the target, above it) of a hard or soft reward."""
        below, above = SOFT_ALPHAS if self.kind == "soft" else HARD_ALPHAS
        return (below if self.alpha_below is None else self.alpha_below, above if self.alpha_above is None else self.alpha_above)

    @property
    def ranks_without_target(self) -> bool:
        """Whether the target is a constant factor of every reward, so that another target would rank every pair of architectures
        alike."""
        return self.target is not None and self.kind != "absolute" and self.alphas[0] == self.alphas[1]


def reward(accuracy: float, cost: float | None, config: RewardConfig) -> float:
    """Reward of a child that was trained.

    Args:
        accuracy: a fraction in [0, 1]; any number up to `LARGEST` in size where there is no target.
        cost: a positive number in the target's unit; may be None where there is no target.
        config: which reward.

    Raises:
        ResultError: the accuracy is not a finite number, or too large, or no fraction where there is a target; the cost is missing or not
            positive, or makes the reward too large.
    """
    check_accuracy(accuracy, config)
    if config.target is None:
        return accuracy
    cost = check_cost(cost)
    if config.kind == "absolute":
        return accuracy + absolute_penalty(cost, config)
    return accuracy * cost_factor(cost, config)


def over_budget_reward(worst_accuracy: float | None, cost: float | None, config: RewardConfig) -> float:
    """Reward of a child whose cost was known to be too high, so that it was not trained: the worst accuracy seen, times (or plus) its
    cost penalty.

    It falls as the cost rises, so that the agent still sees which of two such children is nearer to the budget. Until a positive
    accuracy has been seen a product would not be graded: there it is the factor minus one, which lies at or below 0 and so at or below
    any accuracy.

    Args:
        worst_accuracy: lowest accuracy of the search so far; None before the first.
        cost: a positive number in the target's unit.
        config: which reward; it must have a target.

    Raises:
        ResultError: the search has no target, or the cost is missing or not positive.
    """
    if config.target is None:
        raise ResultError("status infeasible means over the target cost, and this search has none: give `reward.target`, or report the child as failed")
    cost = check_cost(cost)
    if config.kind == "absolute":
        return (worst_accuracy or 0.0) + absolute_penalty(cost, config)
    factor = cost_factor(cost, config)
    return worst_accuracy * factor if worst_accuracy else factor - 1.0


def failed_reward(lowest_reward: float | None) -> float:
    """Reward of a child whose training failed: the floor, the lowest reward of the search so far; 0 before the first.

    The floor moves with the search rather than being a constant, because a constant far below the others would be all that a batch's
    normalised advantages show.
    """
    return 0.0 if lowest_reward is None else lowest_reward


def is_within_budget(cost: float | None, config: RewardConfig) -> bool:
    """Whether a trained child may be chosen: always, except above the target of a hard reward."""
    if config.target is None or config.kind != "hard":
        return True
    return cost is not None and cost <= config.target


def cost_factor(cost: float, config: RewardConfig) -> float:
    """(cost / target) ** alpha, the hard and soft rewards' factor."""
    assert config.target is not None
    ratio = cost / config.target
    below, above = config.alphas
    try:
        factor = ratio ** (below if ratio <= 1.0 else above)
    except (OverflowError, ZeroDivisionError):
        factor = math.inf
    return _sized(factor, cost, config.target)


def absolute_penalty(cost: float, config: RewardConfig) -> float:
    """beta * |cost / target - 1|, the absolute reward's summand; 0 or less."""
    assert config.target is not None
    beta = ABSOLUTE_BETA if config.beta is None else config.beta
    return _sized(beta * abs(cost / config.target - 1.0), cost, config.target)


def check_accuracy(accuracy: float | None, config: RewardConfig) -> float:
    """The accuracy, where a reward can be computed from it.

    Raises:
        ResultError: it is missing, NaN or infinite, or no fraction where there is a target.
    """
    if accuracy is None or not math.isfinite(accuracy):
        raise ResultError(f"accuracy is {accuracy}, not a finite number: report a child that diverged with status failed and a reason")
    if abs(accuracy) > LARGEST:
        raise ResultError(f"accuracy is {accuracy:g}, beyond {LARGEST:g}: report a child that diverged with status failed and a reason")
    if config.target is not None and not 0.0 <= accuracy <= 1.0:
        raise ResultError(f"accuracy is {accuracy}, not a fraction in [0, 1]: divide a percentage by 100, or search without a target")
    return accuracy


def check_cost(cost: float | None) -> float:
    """The cost, where a reward can be computed from it.

    Raises:
        ResultError: it is missing, not finite, or not positive.
    """
    if cost is None:
        raise ResultError("cost is missing and the reward has a target: measure it, or report status unmeasured")
    if not math.isfinite(cost) or cost <= 0:
        raise ResultError(f"cost is {cost}, not a positive finite number: measure it again, or report status unmeasured")
    return cost


def _sized(value: float, cost: float, target: float) -> float:
    if not abs(value) <= LARGEST:
        raise ResultError(f"cost is {cost:g} and the target {target:g}: the reward would be beyond {LARGEST:g}; give both in one unit")
    return value


class Outcome(NamedTuple):
    """What a reward follows from. The status is a result's, or `abandoned`."""

    status: str
    accuracy: float | None
    cost: float | None


def batch_rewards(outcomes: Sequence[Outcome], worst_accuracy: float | None, lowest_reward: float | None, config: RewardConfig) -> list[float | None]:
    """Rewards of a whole batch, whatever the order in which its results came.

    Args:
        outcomes: of every draw of the batch, known ones included.
        worst_accuracy: the lowest of the batches before; None before the first.
        lowest_reward: the lowest of the batches before, failed children apart; None before the first.
        config: which reward.

    Returns:
        A reward for each outcome; None where nothing is learnt (`unmeasured`, `abandoned`).
    """
    accuracies = [item.accuracy for item in outcomes if item.status == "ok" and item.accuracy is not None]
    worst = min([*accuracies, *([] if worst_accuracy is None else [worst_accuracy])], default=None)
    rewards: list[float | None] = []
    for item in outcomes:
        if item.status == "ok":
            rewards.append(reward(check_accuracy(item.accuracy, config), item.cost, config))
        else:
            rewards.append(over_budget_reward(worst, item.cost, config) if item.status == "infeasible" else None)
    given = [value for value in rewards if value is not None]
    floor = failed_reward(min([*given, *([] if lowest_reward is None else [lowest_reward])], default=None))
    return [floor if item.status == "failed" else value for item, value in zip(outcomes, rewards, strict=True)]
