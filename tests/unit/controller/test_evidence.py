"""Standardised rewards, an earlier search's samples re-scored, and how far predictions agree with rewards."""

import math

import numpy as np
import pytest

from kfnas.controller.evidence import agreement, prior_samples, scale_of
from kfnas.controller.knowledge import KnownSample
from kfnas.controller.reward import RewardConfig
from kfnas.errors import ConfigError


def test_a_scale_undoes_itself() -> None:
    scale = scale_of([1.0, 2.0, 3.0])
    assert scale == pytest.approx((2.0, math.sqrt(2 / 3)))
    assert scale.standard([2.0, 3.0]).tolist() == pytest.approx([0.0, math.sqrt(3 / 2)])
    assert scale.to_reward(scale.standard([0.4, 7.0])).tolist() == pytest.approx([0.4, 7.0])
    assert scale_of([5.0, 5.0]) == (5.0, 1.0)


def test_each_task_is_standardised_by_itself() -> None:
    samples = [KnownSample((index % 2,), accuracy, None, 1.0, task) for index, (task, accuracy) in enumerate([("a", 0.1), ("a", 0.3), ("b", 50), ("b", 90)])]
    assert prior_samples(samples, RewardConfig()).standard.tolist() == pytest.approx([-1, 1, -1, 1])


def test_another_target_scores_the_same_samples_anew() -> None:
    samples = [KnownSample((0,), 0.8, 20.0, None), KnownSample((1,), 0.6, 10.0, None), KnownSample((0,), 0.7, None, None)]
    # Hard reward: at target 10 the first is worth 0.8 * 10 / 20 = 0.4 and the second 0.6; at target 20, 0.8 and 0.6. The third has no cost.
    assert prior_samples(samples, RewardConfig(target=10.0)).standard.tolist() == pytest.approx([-1, 1])
    assert prior_samples(samples, RewardConfig(target=20.0)).standard.tolist() == pytest.approx([1, -1])
    assert len(prior_samples(samples, RewardConfig()).standard) == 3


@pytest.mark.parametrize(
    ("samples", "message"),
    [([], "holds no sample"), ([KnownSample((0,), 0.5, None, None)], "not one has a cost"), ([KnownSample((0,), 91.0, 1.0, None)], "cannot be scored")],
)
def test_a_prior_that_cannot_be_scored_is_refused(samples: list[KnownSample], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        prior_samples(samples, RewardConfig(target=10.0))


def test_agreement_is_the_rank_correlation_in_standard_errors() -> None:
    assert agreement([1.0, 2.0, 3.0, 4.0, 5.0], [10.0, 20.0, 30.0, 400.0, 5000.0]) == pytest.approx(2.0)
    assert agreement([5.0, 4.0, 3.0, 2.0, 1.0], [1.0, 2.0, 3.0, 4.0, 5.0]) == pytest.approx(-2.0)
    # Ranks 1.5 1.5 3 4 against 1 2 3 4: covariance 4.5 / 4, deviations sqrt(4.5 / 4) and sqrt(5 / 4).
    assert agreement([0.0, 0.0, 1.0, 2.0], [1.0, 2.0, 3.0, 4.0]) == pytest.approx(math.sqrt(4.5 / 5) * math.sqrt(3))


def test_agreement_of_what_does_not_vary_is_none() -> None:
    assert agreement([1.0, 1.0, 1.0], [1.0, 2.0, 3.0]) == 0.0
    assert agreement([1.0, 2.0], [1.0, 2.0]) == 0.0
    assert agreement(np.zeros(0), np.zeros(0)) == 0.0
