"""The experience buffer: priorities and weights against closed forms, what stays, and what is drawn."""

import math
from itertools import permutations

import numpy as np
import pytest

from kfnas.controller.config import ExperienceConfig
from kfnas.controller.experience import Experience, ExperienceBuffer, importance_weights, inclusion_chances, priorities


def _buffer(rewards: list[float], **fields: object) -> ExperienceBuffer:
    buffer = ExperienceBuffer(ExperienceConfig(**fields))  # type: ignore[arg-type]
    for index, reward in enumerate(rewards):
        buffer.add(Experience(str(index), (index,), -float(index), reward))
    return buffer


def _rewards(buffer: ExperienceBuffer) -> list[float]:
    return [entry.reward for entry in buffer.entries]


def test_raw_priorities_are_the_softmax_of_the_rewards() -> None:
    total = math.exp(0.2) + math.exp(0.9) + math.exp(0.5)
    expected = [math.exp(0.2) / total, math.exp(0.9) / total, math.exp(0.5) / total]
    assert priorities([0.2, 0.9, 0.5], standardised=False).tolist() == pytest.approx(expected)


def test_standardised_priorities_do_not_depend_on_the_rewards_unit() -> None:
    # Mean 3, deviation sqrt(2 / 3) * 1 for 2, 3, 4.
    deviation = math.sqrt(2 / 3)
    scores = [math.exp(-1 / deviation), 1.0, math.exp(1 / deviation)]
    expected = [score / sum(scores) for score in scores]
    assert priorities([2.0, 3.0, 4.0], standardised=True).tolist() == pytest.approx(expected)
    assert priorities([0.72, 0.73, 0.74], standardised=True).tolist() == pytest.approx(expected)


@pytest.mark.parametrize("standardised", [False, True])
def test_equal_rewards_have_equal_priorities(standardised: bool) -> None:
    assert priorities([0.7] * 4, standardised=standardised).tolist() == pytest.approx([0.25] * 4)


def test_large_rewards_do_not_overflow() -> None:
    low, high = priorities([0.0, 1e4], standardised=False)
    assert 0 < low < 1e-12
    assert high == pytest.approx(1.0)


def test_entries_far_below_the_best_can_still_be_drawn_together() -> None:
    chances = priorities([0.5, -1000.0, -2000.0], standardised=False)
    assert sorted(np.random.default_rng(0).choice(3, size=3, replace=False, p=chances)) == [0, 1, 2]
    assert np.isfinite(importance_weights(chances, 1.0, size=3, normalised=False).astype(np.float32)).all()


@pytest.mark.parametrize(("beta", "expected"), [(0.0, [1.0, 1.0]), (0.5, [0.4**-0.5, 1.6**-0.5]), (1.0, [1 / 0.4, 1 / 1.6])])
def test_importance_weights_equal_their_hand_values(beta: float, expected: list[float]) -> None:
    chances = np.array([0.1, 0.4])
    assert importance_weights(chances, beta, size=4, normalised=False).tolist() == pytest.approx(expected)
    assert importance_weights(chances, beta, size=4, normalised=True).tolist() == pytest.approx([item / max(expected) for item in expected])


def test_weights_follow_the_priorities_of_the_whole_buffer_and_the_annealed_beta() -> None:
    buffer = _buffer([1.0, 2.0, 4.0], standardised=False, normalised=False, correction="priority")
    total = math.exp(1) + math.exp(2) + math.exp(4)
    expected = [(3 * math.exp(4) / total) ** -0.25, (3 * math.exp(1) / total) ** -0.25]
    assert buffer.weights(["2", "0"], 0.25) == pytest.approx(expected)
    assert buffer.weights([], 0.25) == []


def _exact_inclusion(chances: list[float], count: int) -> list[float]:
    """By all orders in which `count` entries may be drawn without repeats."""
    included = [0.0] * len(chances)
    for order in permutations(range(len(chances)), count):
        chance, left = 1.0, 1.0
        for index in order:
            chance *= chances[index] / left
            left -= chances[index]
        for index in order:
            included[index] += chance / count
    return included


@pytest.mark.parametrize("count", [1, 2, 4, 6])
def test_inclusion_chances_are_those_of_draws_without_repeats(count: int) -> None:
    chances = priorities([0.1, 0.2, 0.5, 0.6, 0.7, 0.9], standardised=True)
    found = inclusion_chances(chances, count)
    assert found.sum() == pytest.approx(1.0)
    # A race of fixed length stands for one that ends with a ring: some per cent off for few entries, against up to 20 times of the priorities.
    assert found.tolist() == pytest.approx(_exact_inclusion(chances.tolist(), count), rel=0.2)
    assert inclusion_chances(np.full(5, 0.2), min(count, 5)).tolist() == pytest.approx([0.2] * 5)


def test_one_of_many_is_drawn_by_its_priority() -> None:
    chances = priorities(np.linspace(0, 1, 200), standardised=True)
    assert inclusion_chances(chances, 1) == pytest.approx(chances, rel=0.05)


def test_priorities_without_a_chance_to_speak_of_have_finite_weights() -> None:
    chances = priorities([0.5, -1000.0, -2000.0], standardised=False)
    assert (inclusion_chances(chances, 2) > 0).all()
    assert np.isfinite(importance_weights(inclusion_chances(chances, 2), 1.0, size=3, normalised=False)).all()


def test_weighted_draws_have_the_mean_of_the_whole_buffer() -> None:
    # What importance weights are for, at full strength: the mean over what is drawn, weighted, is that over all, whatever the priorities.
    rewards = [float(index) for index in range(10)]
    shown = {}
    for correction in ("inclusion", "priority"):
        buffer, rng = _buffer(rewards, normalised=False, correction=correction, beta_end=1.0), np.random.default_rng(0)
        sums = []
        for _ in range(2000):
            drawn = buffer.draw(8, rng)
            weights = buffer.weights([entry.id for entry in drawn], 1.0)
            sums.append(sum(weight * entry.reward for weight, entry in zip(weights, drawn, strict=True)) / 8)
        shown[correction] = float(np.mean(sums))
    assert shown["inclusion"] == pytest.approx(4.5, rel=0.02)
    assert shown["priority"] > 5.0


def test_beta_runs_from_its_start_to_its_end() -> None:
    buffer = ExperienceBuffer(ExperienceConfig(beta_start=0.2, beta_end=0.8))
    assert [buffer.beta(progress) for progress in (0.0, 0.5, 1.0)] == pytest.approx([0.2, 0.5, 0.8])


def test_the_entry_nearest_in_reward_to_another_leaves() -> None:
    buffer = _buffer([0.1, 0.9, 0.5], size=3)
    buffer.add(Experience("new", (9,), -9.0, 0.45))
    assert _rewards(buffer) == [0.1, 0.9, 0.45]  # of the two nearest, 0.5 and 0.45, the older


def test_the_best_never_leaves() -> None:
    buffer = _buffer([0.1, 0.9, 0.5], size=3)
    buffer.add(Experience("new", (9,), -9.0, 0.89))
    assert _rewards(buffer) == [0.1, 0.9, 0.5]
    buffer.add(Experience("better", (9,), -9.0, 0.91))
    assert _rewards(buffer) == [0.1, 0.5, 0.91]
    alone = _buffer([0.3, 0.2, 0.4, 0.1], size=1)
    assert _rewards(alone) == [0.4]


def test_the_buffer_keeps_unlike_rewards_over_a_long_run() -> None:
    rewards = np.random.default_rng(0).normal(0.7, 0.05, size=300).tolist()
    buffer = _buffer(rewards, size=10)
    kept = sorted(_rewards(buffer))
    assert kept[-1] == max(rewards)
    assert kept[0] < np.quantile(rewards, 0.05)
    assert max(np.diff(kept)) < 0.5 * (kept[-1] - kept[0])


@pytest.mark.parametrize(("held", "count", "expected"), [(10, 16, 8), (3, 16, 3), (10, 5, 2), (0, 16, 0), (10, 1, 0)])
def test_exploited_draws_are_at_most_half_of_the_batch_and_no_more_than_are_held(held: int, count: int, expected: int) -> None:
    assert _buffer([float(index) for index in range(held)]).share_of(count) == expected


def test_draws_do_not_repeat_and_follow_the_priorities() -> None:
    buffer, rng = _buffer([0.0, 1.0, 2.0], standardised=False), np.random.default_rng(0)
    assert {entry.id for entry in buffer.draw(3, rng)} == {"0", "1", "2"}
    assert buffer.draw(0, rng) == []
    drawn = [buffer.draw(1, rng)[0].id for _ in range(2000)]
    expected = priorities([0.0, 1.0, 2.0], standardised=False)
    for index in range(3):
        # Four standard errors: odds of a false alarm below 2e-4 for the three together.
        assert abs(drawn.count(str(index)) / 2000 - expected[index]) < 4 * math.sqrt(0.25 / 2000)


def test_samples_of_an_older_initialisation_leave() -> None:
    buffer = ExperienceBuffer(ExperienceConfig())
    buffer.begin("random")
    buffer.add(Experience("a", (0,), -1.0, 0.5))
    buffer.begin("random")
    assert len(buffer) == 1
    buffer.begin("pool:abc")
    assert len(buffer) == 0


def test_a_restored_buffer_is_the_same() -> None:
    buffer, again = _buffer([0.5, 0.6]), ExperienceBuffer(ExperienceConfig())
    buffer.begin("random")
    again.restore(buffer.state())
    assert again.entries == buffer.entries
    assert again.initialisation == "random"
