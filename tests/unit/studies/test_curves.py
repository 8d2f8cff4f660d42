"""Step curves against what one reads off a drawing."""

from __future__ import annotations

import math

import numpy as np
import pytest

from kfnas.studies.curves import Steps, best_so_far, mean_curve, reaches, running_mean, saving, saving_interval

NAN = float("nan")


def curve(*points: tuple[float, float]) -> Steps:
    x, y = zip(*points, strict=True)
    return Steps(np.array(x, float), np.array(y, float))


def test_the_best_so_far_steps_up_at_what_had_been_spent():
    found = best_so_far([NAN, 0.2, 0.1, 0.5], [1.0, 2.0, 3.0, 4.0])
    assert list(found.x) == [3.0, 6.0, 10.0]
    assert list(found.y) == [0.2, 0.2, 0.5]


def test_nothing_has_no_curve():
    assert len(best_so_far([], []).x) == len(best_so_far([NAN], [1.0]).x) == 0
    assert len(mean_curve([]).x) == len(mean_curve([best_so_far([], [])]).x) == 0
    assert reaches([], 1.0) is None
    assert saving([], []) is None


def test_a_step_keeps_its_value_until_the_next_and_for_ever():
    values = curve((1, 0.1), (3, 0.4)).at(np.array([0.5, 1.0, 2.9, 3.0, 99.0]))
    assert math.isnan(values[0])
    assert list(values[1:]) == [0.1, 0.1, 0.4, 0.4]


def test_the_mean_begins_where_every_run_has_a_value_and_ends_with_the_longest():
    found = mean_curve([curve((1, 0.0), (2, 1.0)), curve((2, 0.0), (4, 1.0))], num=3)
    assert list(found.x) == [2.0, 3.0, 4.0]
    assert list(found.mean) == [0.5, 0.5, 1.0]
    assert list(found.high - found.mean) == pytest.approx([0.5, 0.5, 0.0])
    assert list(found.mean - found.low) == pytest.approx([0.5, 0.5, 0.0])


def test_a_level_is_reached_where_the_mean_stays_above_it():
    runs = [curve((1, 0.0), (3, 1.0)), curve((1, 0.2), (7, 1.0))]
    assert reaches(runs, 0.1) == 1.0
    assert reaches(runs, 0.6) == 3.0
    assert reaches(runs, 1.0) == 7.0
    assert reaches(runs, 1.1) is None
    assert reaches([curve((1, 1.0), (2, 0.0), (5, 1.0))], 0.5) == 5.0


def test_a_saving_compares_what_is_spent_to_the_baseline_s_final_mean():
    slow, fast = [curve((1, 0.1), (20, 0.5))], [curve((1, 0.1), (5, 0.6))]
    assert saving(slow, fast) == 4.0
    assert saving(slow, slow) == 1.0
    assert saving(fast, slow) is None


def test_bounds_of_a_saving_hold_it_and_are_reproducible():
    rng = np.random.default_rng(0)
    slow = [curve((1, 0.1), (20 + seed, 0.5)) for seed in range(4)]
    fast = [curve((1, 0.1), (5 + seed % 2, 0.6)) for seed in range(4)]
    low, high = saving_interval(slow, fast, rng, resamples=200)
    assert low <= saving(slow, fast) <= high
    assert 3 < low < high < 5
    assert saving_interval(slow, fast, np.random.default_rng(0), resamples=200) == (low, high)


def test_two_seeds_have_no_bounds_and_a_row_that_never_arrives_saves_nothing():
    slow = [curve((1, 0.1), (20, 0.5))] * 3
    assert saving_interval(slow[:2], slow[:2], np.random.default_rng(0)) is None
    assert saving_interval(slow, [curve((1, 0.1))] * 3, np.random.default_rng(0), resamples=50) == (0.0, 0.0)


def test_a_running_mean_begins_with_the_first_full_window():
    found = running_mean([1.0, 2.0, 3.0, 6.0], 2)
    assert list(found.x) == [2.0, 3.0, 4.0]
    assert list(found.y) == [1.5, 2.5, 4.5]
    assert list(running_mean([1.0, 3.0], 9).y) == [2.0]
