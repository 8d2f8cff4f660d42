"""What sharing weights among more branches does to networks: accuracy, and rank beside networks that share nothing (BetaNAS's figure 6)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from kfnas.errors import UserError
from kfnas.studies.statistics import Interval, paired_bootstrap

Floats = npt.NDArray[np.float64]
_SEED = 0xB2A7


@dataclass(frozen=True)
class Branches:
    """What comes of it. S seeds, N networks.

    Attributes:
        networks: as printed.
        accuracies: [S, N] by the number of branches in each block; 1: nothing is shared.
        taus: [S] by the number of branches, above 1: Kendall's tau of a seed's accuracies with the mean accuracies of the networks that share nothing.
        accuracy_gaps: fewer branches less more of them, in mean accuracy, paired by seed; by the two numbers. Empty for one seed.
        tau_gaps: the same in tau.
    """

    networks: tuple[str, ...]
    accuracies: Mapping[int, Floats]
    taus: Mapping[int, Floats]
    accuracy_gaps: Mapping[tuple[int, int], Interval]
    tau_gaps: Mapping[tuple[int, int], Interval]


def compare_branches(networks: Sequence[str], accuracies: Mapping[int, Sequence[Sequence[float]]]) -> Branches:
    """Accuracies [S][N] by the number of branches, compared.

    Raises:
        UserError: nothing without sharing, or fewer than 2 networks.
    """
    found = {count: np.asarray(values, dtype=np.float64) for count, values in sorted(accuracies.items())}
    if 1 not in found or len(networks) < 2:
        raise UserError(f"{len(networks)} networks with {sorted(found)} branches cannot be ranked; give 2 networks or more, and 1 branch among the numbers")
    truth = found[1].mean(axis=0)
    taus = {count: np.array([kendall(truth, row) for row in values]) for count, values in found.items() if count > 1}
    shared = sorted(taus)
    pairs = list(pairwise(shared)) if len(found[1]) > 1 else []
    return Branches(
        tuple(networks),
        found,
        taus,
        {pair: _gap(found[pair[0]].mean(axis=1), found[pair[1]].mean(axis=1)) for pair in pairs},
        {pair: _gap(taus[pair[0]], taus[pair[1]]) for pair in pairs},
    )


def kendall(x: Floats, y: Floats) -> float:
    """Tau-a of two rankings [N]: the mean over pairs of networks of 1 where both order them alike, -1 where otherwise, 0 where one has them equal."""
    first, second = np.triu_indices(len(x), k=1)
    return float(np.mean(np.sign(x[first] - x[second]) * np.sign(y[first] - y[second])))


def _gap(fewer: Floats, more: Floats) -> Interval:
    return paired_bootstrap(fewer, more, rng=np.random.default_rng(_SEED))
