from __future__ import annotations

import numpy as np
import pytest

from kfnas.errors import UserError
from kfnas.studies.branches import compare_branches, kendall

NAMES = ["a", "b", "c", "d"]
ALONE = [[0.5, 0.6, 0.7, 0.8], [0.52, 0.6, 0.68, 0.82], [0.48, 0.61, 0.7, 0.79]]
TWO = [[0.45, 0.5, 0.6, 0.7], [0.4, 0.5, 0.6, 0.7], [0.5, 0.45, 0.6, 0.7]]
FOUR = [[0.4, 0.3, 0.2, 0.1], [0.3, 0.4, 0.2, 0.1], [0.4, 0.3, 0.1, 0.2]]


def test_ranks_are_judged_by_the_networks_that_share_nothing() -> None:
    figures = compare_branches(NAMES, {4: FOUR, 1: ALONE, 2: TWO})
    assert list(figures.accuracies) == [1, 2, 4]
    assert figures.taus[2].tolist() == pytest.approx([1, 1, 2 / 3])
    assert figures.taus[4].tolist() == pytest.approx([-1, -2 / 3, -2 / 3])
    assert list(figures.accuracy_gaps) == list(figures.tau_gaps) == [(2, 4)]
    assert figures.accuracy_gaps[2, 4].mid == pytest.approx(np.mean(TWO) - np.mean(FOUR))
    assert figures.tau_gaps[2, 4].low > 0


def test_one_seed_has_no_intervals() -> None:
    assert compare_branches(NAMES, {1: ALONE[:1], 2: TWO[:1], 4: FOUR[:1]}).accuracy_gaps == {}


def test_equal_accuracies_agree_with_neither_order() -> None:
    assert kendall(np.array([1.0, 2.0, 3.0]), np.array([1.0, 1.0, 1.0])) == 0
    assert kendall(np.array([1.0, 2.0, 3.0]), np.array([1.0, 1.0, 2.0])) == pytest.approx(2 / 3)


def test_what_has_nothing_to_be_compared_with_is_refused() -> None:
    with pytest.raises(UserError, match="1 branch among the numbers"):
        compare_branches(NAMES, {2: TWO})
