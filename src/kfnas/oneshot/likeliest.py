"""The most likely path whose cost lies in a band: a knapsack, solved by dynamic programming over costs on a grid."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from kfnas.oneshot.paths import Path
from kfnas.space.mixop_costs import OperatorCosts

CELLS = 4000
"""Cells of the grid, up to the band's upper end."""


def likeliest_within(probability: npt.NDArray[np.float64], costs: OperatorCosts, low: float, high: float) -> Path | None:
    """The path of the highest product of probabilities with low <= cost <= high.

    Costs are rounded to cells of 1/4,000 of the upper end, and the band is taken narrower by what that can add up to: a path that is given lies within
    the band; one within half a cell a block of its ends may be passed over.

    Args:
        probability: [blocks, choices], 0 for what must not be chosen.
        costs: of the choices.
        low: lowest cost.
        high: highest cost.

    Returns:
        The path; None where there is none.
    """
    cell = max(high - costs.fixed, 0.0) / CELLS
    if cell == 0:
        return None
    slack = len(costs.entries) / 2
    first, last = int(np.ceil((low - costs.fixed) / cell + slack)), int(np.floor((high - costs.fixed) / cell - slack))
    best = np.full(CELLS + 1, -np.inf)
    best[0] = 0.0
    taken = np.zeros((len(costs.entries), CELLS + 1), dtype=np.int64)
    steps = [[round(entry / cell) for entry in row] for row in costs.entries]
    for block, row in enumerate(steps):
        reached = np.full(CELLS + 1, -np.inf)
        for choice, step in enumerate(row):
            if probability[block, choice] > 0 and step <= CELLS:
                score = np.full(CELLS + 1, -np.inf)
                score[step:] = best[: CELLS + 1 - step] + np.log(probability[block, choice])
                better = score > reached
                reached[better], taken[block, better] = score[better], choice
        best = reached
    first = max(first, 0)
    if last < first or not np.isfinite(best[first : last + 1]).any():
        return None
    at = first + int(best[first : last + 1].argmax())
    path = []
    for block in reversed(range(len(steps))):
        path.append(int(taken[block, at]))
        at -= steps[block][path[-1]]
    return tuple(reversed(path))
