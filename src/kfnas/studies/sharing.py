"""How well accuracies read from shared weights rank networks that were trained alone: PC-NAS's figure 2b, with intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from kfnas.studies.statistics import Correlation, Interval, Kind, paired_correlation_difference, rank_correlation

KINDS: tuple[Kind, ...] = ("pearson", "spearman", "kendall")
_SEED = 0x5A12


@dataclass(frozen=True)
class RankedNetwork:
    """One network.

    Attributes:
        architecture: as printed.
        alone: accuracy of its own weights, the mean over seeds.
        shared: accuracy with each search's shared weights, by the search's name.
    """

    architecture: str
    alone: float
    shared: Mapping[str, float]


@dataclass(frozen=True)
class Sharing:
    """What comes of it.

    Attributes:
        networks: all that were compared.
        searches: names; the first is compared with the others.
        correlations: by search, one for each of `KINDS`.
        differences: first search less another, by that other's name, one for each of `KINDS`; both over the same resampled networks.
    """

    networks: tuple[RankedNetwork, ...]
    searches: tuple[str, ...]
    correlations: Mapping[str, Mapping[Kind, Correlation]]
    differences: Mapping[str, Mapping[Kind, Interval]]


def compare_sharing(networks: Sequence[RankedNetwork], searches: Sequence[str]) -> Sharing:
    """Correlations of shared with stand-alone accuracies, with 95% intervals over resampled networks.

    Raises:
        UserError: there are fewer than 3 networks, or accuracies are all alike.
    """
    alone = [network.alone for network in networks]
    shared = {name: [network.shared[name] for network in networks] for name in searches}
    first, *others = searches
    return Sharing(
        tuple(networks),
        tuple(searches),
        {name: {kind: rank_correlation(alone, values, rng=_rng(), kind=kind) for kind in KINDS} for name, values in shared.items()},
        {name: {kind: paired_correlation_difference(alone, shared[first], shared[name], rng=_rng(), kind=kind) for kind in KINDS} for name in others},
    )


def _rng() -> np.random.Generator:
    return np.random.default_rng(_SEED)
