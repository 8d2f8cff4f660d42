"""How well a short training ranks architectures, from random weights and from a pool's (FNAS, Fig. 3b and 3c).

The truth is each architecture's accuracy after a long training, averaged over seeds. A proxy is one shorter training of each architecture. Both are given as
numbers: nothing here trains or reads a store.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from kfnas.errors import UserError
from kfnas.studies.statistics import Correlation, Interval, paired_correlation_difference, rank_correlation

Floats = npt.NDArray[np.float64]
Initialisation = Literal["random", "pool"]
INITIALISATIONS: tuple[Initialisation, ...] = ("random", "pool")


class Proxy(NamedTuple):
    """A way to train shortly: how the weights begin, and for how many epochs, over which the learning rate runs through its whole schedule."""

    initialisation: Initialisation
    epochs: int


@dataclass(frozen=True)
class Accuracies:
    """What was measured; NaN where a training failed.

    Attributes:
        truth: [architectures, seeds] after the long training.
        proxies: [architectures] after each short one.
    """

    truth: Floats
    proxies: Mapping[Proxy, Floats]

    def complete(self) -> Accuracies:
        """Those architectures of which every training succeeded: all figures are of the same ones."""
        whole = np.isfinite(self.truth).all(1)
        for values in self.proxies.values():
            whole &= np.isfinite(values)
        return Accuracies(self.truth[whole], {proxy: values[whole] for proxy, values in self.proxies.items()})


@dataclass(frozen=True)
class Criterion:
    """What is asked of the pool: after `pool_epoch` epochs it shall rank as well as random weights after `random_epoch`, or not worse by more than `tolerance`.

    `min_agreement` is the mean Spearman correlation between two seeds of the truth below which the truth itself is too uncertain to judge by.
    """

    pool_epoch: int = 1
    random_epoch: int = 2
    tolerance: float = 0.1
    min_agreement: float = 0.7


@dataclass(frozen=True)
class RankedProxy:
    """A proxy and how it ranks: correlations with the truth, and its mean accuracy."""

    proxy: Proxy
    spearman: Correlation
    kendall: Correlation
    accuracy: float


@dataclass(frozen=True)
class Fidelity:
    """The figures of a study.

    Attributes:
        num_architectures: whose trainings all succeeded.
        num_dropped: the others.
        agreement: Spearman's correlation between each two seeds of the truth.
        spread: standard deviation of the truth between architectures, seed noise taken off, and of one seed's noise; fractions.
        proxies: by initialisation, then epochs.
        difference: Spearman(pool, criterion.pool_epoch) - Spearman(random, criterion.random_epoch), paired by architecture.
        equivalent_epoch: epochs from random weights that rank as well as `pool_epoch` from the pool, by straight lines between those measured; None: more.
        criterion: what was asked.
    """

    num_architectures: int
    num_dropped: int
    agreement: tuple[Correlation, ...]
    spread: tuple[float, float]
    proxies: tuple[RankedProxy, ...]
    difference: Interval
    equivalent_epoch: float | None
    criterion: Criterion

    @property
    def mean_agreement(self) -> float:
        """Mean Spearman correlation between two seeds of the truth."""
        return float(np.mean([pair.value for pair in self.agreement]))

    @property
    def reliability(self) -> float:
        """Correlation to expect between the truth, a mean over seeds, and another mean of as many: Spearman and Brown's formula."""
        seeds = (1 + math.isqrt(1 + 8 * len(self.agreement))) // 2
        one = self.mean_agreement
        return seeds * one / (1 + (seeds - 1) * one) if one > 0 else 0.0

    @property
    def failings(self) -> list[str]:
        """What the criterion misses, in words; empty where it is met."""
        asked = self.criterion
        found = []
        if self.mean_agreement < asked.min_agreement:
            found.append(
                f"two seeds of the long training agree at rho {self.mean_agreement:.2f} only, under {asked.min_agreement:g}: the truth is too uncertain"
            )
        if self.difference.low <= -asked.tolerance:
            found.append(
                f"rho(pool, epoch {asked.pool_epoch}) - rho(random, epoch {asked.random_epoch}) is {self.difference.mid:+.3f}, "
                f"and its lower bound {self.difference.low:+.3f} is not above {-asked.tolerance:g}"
            )
        return found

    @property
    def passes(self) -> bool:
        """Whether the criterion is met."""
        return not self.failings

    def curve(self, initialisation: Initialisation) -> list[RankedProxy]:
        """Proxies of one initialisation by epochs."""
        return [ranked for ranked in self.proxies if ranked.proxy.initialisation == initialisation]


def fidelity_of(accuracies: Accuracies, criterion: Criterion, *, rng: np.random.Generator) -> Fidelity:
    """Correlations of every proxy with the truth, and whether the criterion is met.

    Raises:
        UserError: fewer than 3 architectures of which every training succeeded, fewer than 2 seeds of the truth, the criterion's proxies were not trained,
            or a proxy gives all architectures one accuracy.
    """
    whole = accuracies.complete()
    if whole.truth.shape[1] < 2:
        raise UserError(f"the truth has {whole.truth.shape[1]} seed; give 2 or more, or nobody knows how certain it is")
    pool, random = Proxy("pool", criterion.pool_epoch), Proxy("random", criterion.random_epoch)
    if missing := [proxy for proxy in (pool, random) if proxy not in whole.proxies]:
        raise UserError(f"nothing was trained for {missing[0].epochs} epochs from {missing[0].initialisation} weights; add {missing[0].epochs} to `epochs`")
    for proxy, values in whole.proxies.items():
        if len(values) and (values == values[0]).all():
            raise UserError(
                f"after {proxy.epochs} epochs from {proxy.initialisation} weights each architecture has accuracy {values[0]:g}, so nothing is ranked; "
                "give base.task more images, base.proxy smaller batches, or more epochs"
            )
    truth = whole.truth.mean(1)
    ranked = tuple(
        RankedProxy(
            proxy,
            rank_correlation(truth, values, rng=rng),
            rank_correlation(truth, values, kind="kendall", rng=rng),
            float(values.mean()),
        )
        for proxy, values in sorted(whole.proxies.items(), key=lambda item: (INITIALISATIONS.index(item[0].initialisation), item[0].epochs))
    )
    return Fidelity(
        num_architectures=len(truth),
        num_dropped=len(accuracies.truth) - len(truth),
        agreement=tuple(rank_correlation(whole.truth[:, a], whole.truth[:, b], rng=rng) for a, b in combinations(range(whole.truth.shape[1]), 2)),
        spread=spread_of(whole.truth),
        proxies=ranked,
        difference=paired_correlation_difference(truth, whole.proxies[pool], whole.proxies[random], rng=rng),
        equivalent_epoch=_equivalent(ranked, pool),
        criterion=criterion,
    )


def spread_of(truth: Floats) -> tuple[float, float]:
    """Standard deviations between architectures (without seed noise) and between seeds, by a one-way analysis of variance of [architectures, seeds]."""
    within = float(truth.var(axis=1, ddof=1).mean())
    between = float(truth.mean(axis=1).var(ddof=1)) - within / truth.shape[1]
    return max(0.0, between) ** 0.5, within**0.5


def _equivalent(ranked: Sequence[RankedProxy], pool: Proxy) -> float | None:
    """First point of the random curve, drawn with straight lines, at the pool's correlation; the curve's first epoch where it begins higher."""
    wanted = next(each.spearman.value for each in ranked if each.proxy == pool)
    curve = [(each.proxy.epochs, each.spearman.value) for each in ranked if each.proxy.initialisation == "random"]
    if curve[0][1] >= wanted:
        return float(curve[0][0])
    for (start, low), (stop, high) in pairwise(curve):
        if high >= wanted:
            return start + (stop - start) * (wanted - low) / (high - low)
    return None
