"""Rewards against worked values."""

import math

import pytest

from kfnas.config import parse
from kfnas.controller.reward import Outcome, RewardConfig, batch_rewards, failed_reward, is_within_budget, over_budget_reward, reward
from kfnas.errors import ConfigError, ResultError

HARD = RewardConfig(target=80.0)
SOFT = RewardConfig(kind="soft", target=80.0)
ABSOLUTE = RewardConfig(kind="absolute", target=80.0)


@pytest.mark.parametrize(
    ("config", "accuracy", "cost", "expected"),
    [
        (RewardConfig(), 0.75, None, 0.75),
        (RewardConfig(), -12.5, 3.0, -12.5),
        (HARD, 0.75, 40.0, 0.75),
        (HARD, 0.75, 80.0, 0.75),
        (HARD, 0.75, 100.0, 0.6),
        (HARD, 0.75, 160.0, 0.375),
        (SOFT, 0.75, 80.0, 0.75),
        (SOFT, 0.75, 160.0, 0.75 * 2**-0.07),  # MnasNet's footnote: twice the latency costs about 5% of accuracy
        (SOFT, 0.75, 40.0, 0.75 * 2**0.07),
        (ABSOLUTE, 0.75, 80.0, 0.75),
        (ABSOLUTE, 0.75, 120.0, 0.70),
        (ABSOLUTE, 0.75, 40.0, 0.70),
        (RewardConfig(kind="absolute", target=80.0, beta=-0.5), 0.75, 40.0, 0.5),
        (RewardConfig(target=80.0, alpha_above=-2.0), 0.75, 160.0, 0.1875),
        (RewardConfig(kind="soft", target=80.0, alpha_below=0.0), 0.75, 40.0, 0.75),
    ],
)
def test_reward_equals_the_worked_value(config: RewardConfig, accuracy: float, cost: float | None, expected: float) -> None:
    assert reward(accuracy, cost, config) == pytest.approx(expected, rel=1e-12)


def test_soft_reward_at_twice_the_target_costs_five_percent_of_accuracy() -> None:
    assert reward(0.8, 160.0, SOFT) / reward(0.8, 80.0, SOFT) == pytest.approx(0.9526, abs=1e-4)


@pytest.mark.parametrize("cost", [0.0, -1.0, math.nan, math.inf, None])
def test_non_positive_or_missing_cost_is_refused(cost: float | None) -> None:
    with pytest.raises(ResultError, match="cost is"):
        reward(0.5, cost, HARD)


@pytest.mark.parametrize("accuracy", [math.nan, math.inf, -math.inf])
def test_accuracy_that_is_not_finite_is_refused(accuracy: float) -> None:
    with pytest.raises(ResultError, match="not a finite number"):
        reward(accuracy, None, RewardConfig())


@pytest.mark.parametrize("accuracy", [-0.01, 1.01, 91.0])
def test_accuracy_that_is_no_fraction_is_refused_where_there_is_a_target(accuracy: float) -> None:
    with pytest.raises(ResultError, match="fraction"):
        reward(accuracy, 1.0, HARD)


def test_what_squares_would_not_hold_is_refused() -> None:
    with pytest.raises(ResultError, match="beyond 1e\\+30"):
        reward(1e160, None, RewardConfig())
    for config, cost in ((RewardConfig(target=1.0, alpha_below=-5.0), 1e-300), (RewardConfig(kind="absolute", target=1e-10), 1e300)):
        with pytest.raises(ResultError, match="the reward would be beyond"):
            reward(0.5, cost, config)
    assert reward(1e29, None, RewardConfig()) == 1e29


def test_over_budget_reward_is_the_worst_accuracy_times_the_penalty() -> None:
    assert over_budget_reward(0.6, 160.0, HARD) == pytest.approx(0.3)
    assert over_budget_reward(0.6, 160.0, ABSOLUTE) == pytest.approx(0.5)


@pytest.mark.parametrize("config", [HARD, SOFT, ABSOLUTE])
@pytest.mark.parametrize("worst", [None, 0.0, 0.4])
def test_over_budget_reward_falls_with_the_cost_and_never_passes_an_accuracy(config: RewardConfig, worst: float | None) -> None:
    rewards = [over_budget_reward(worst, cost, config) for cost in (100.0, 160.0, 800.0)]
    assert rewards == sorted(rewards, reverse=True)
    assert len(set(rewards)) == 3
    assert rewards[0] <= (worst or 0.0)


def test_over_budget_without_a_target_is_refused() -> None:
    with pytest.raises(ResultError, match="target"):
        over_budget_reward(0.5, 1.0, RewardConfig())


def test_failed_reward_is_the_lowest_seen_or_zero() -> None:
    assert failed_reward(None) == 0.0
    assert failed_reward(0.25) == 0.25
    assert failed_reward(-3.0) == -3.0


def test_batch_rewards_see_the_whole_batch_whatever_its_order() -> None:
    outcomes = [
        Outcome("failed", None, None),
        Outcome("infeasible", None, 160.0),
        Outcome("ok", 0.5, 40.0),
        Outcome("unmeasured", None, None),
        Outcome("abandoned", None, None),
        Outcome("ok", 0.9, 80.0),
    ]
    assert batch_rewards(outcomes, None, None, HARD) == [0.25, 0.25, 0.5, None, None, 0.9]
    assert batch_rewards(outcomes[::-1], None, None, HARD) == [0.9, None, None, 0.5, 0.25, 0.25]


def test_batch_rewards_remember_the_worst_of_the_batches_before() -> None:
    outcomes = [Outcome("ok", 0.9, 80.0), Outcome("infeasible", None, 160.0), Outcome("failed", None, None)]
    assert batch_rewards(outcomes, 0.4, 0.1, HARD) == pytest.approx([0.9, 0.2, 0.1])


def test_hard_budget_binds_and_a_soft_one_does_not() -> None:
    assert is_within_budget(80.0, HARD)
    assert not is_within_budget(80.1, HARD)
    assert not is_within_budget(None, HARD)
    assert is_within_budget(800.0, SOFT)
    assert is_within_budget(None, RewardConfig())


def test_one_exponent_on_both_sides_ranks_without_the_target() -> None:
    assert SOFT.ranks_without_target
    assert not HARD.ranks_without_target
    assert not ABSOLUTE.ranks_without_target
    assert not RewardConfig(kind="soft").ranks_without_target
    assert not RewardConfig(kind="soft", target=80.0, alpha_above=-1.0).ranks_without_target


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"target": 0}, "target"),
        ({"target": -5}, "target"),
        ({"kind": "hard", "target": 1, "beta": -0.1}, "beta belongs"),
        ({"kind": "absolute", "target": 1, "alpha_above": -1}, "alpha_below and alpha_above belong"),
        ({"alpha_above": -1}, "give a target"),
        ({"target": 1, "alpha_above": 0.5}, "alpha_above"),
        ({"kind": "linear"}, "kind"),
    ],
)
def test_reward_settings_that_do_not_belong_together_are_refused(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse(RewardConfig, fields)
