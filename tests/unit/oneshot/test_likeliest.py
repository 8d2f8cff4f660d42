from __future__ import annotations

import numpy as np
import pytest

from kfnas.oneshot.likeliest import likeliest_within
from kfnas.space import OperatorCosts


@pytest.mark.parametrize("seed", range(6))
def test_it_is_the_best_of_all_paths_in_the_band(seed: int) -> None:
    rng = np.random.default_rng(seed)
    counts = (3, 4, 2, 3)
    costs = OperatorCosts(0.5, tuple(tuple(rng.uniform(0, 2, count).tolist()) for count in counts))
    probability = rng.dirichlet(np.ones(4), size=4)
    probability[0, 1] = 0.0
    low, high = 3.0, 4.0
    best = max(
        (path for path in np.ndindex(*counts) if path[0] != 1 and low * 1.001 <= costs(path) <= high * 0.999),
        key=lambda path: float(np.log(probability[np.arange(4), path]).sum()),
    )
    found = likeliest_within(probability, costs, low, high)
    assert found is not None
    assert low <= costs(found) <= high
    assert np.log(probability[np.arange(4), found]).sum() >= np.log(probability[np.arange(4), best]).sum() - 1e-12


@pytest.mark.parametrize(("low", "high"), [(0.0, 0.4), (0.0, 0.9), (8.0, 9.0), (2.1, 2.2)])
def test_there_is_none_where_no_path_costs_that(low: float, high: float) -> None:
    costs = OperatorCosts(0.5, ((1.0, 2.0), (0.0, 2.0)))
    assert likeliest_within(np.full((2, 2), 0.5), costs, low, high) is None
