"""What the best architectures of two searches have in common: the expectation of each operator, as in FNAS's Fig. 2.

An architecture's expand embedding is one-hot for each decision, so its mean over some architectures is the share of them that chose each operator. Two
searches agree on an operator where the shares are near, and differ on it where the difference is large beside what so few architectures leave to chance.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from kfnas.errors import SpaceError, UserError
from kfnas.space import Space

Tokens = tuple[int, ...]


@dataclass(frozen=True)
class Operator:
    """One choice of one decision.

    Attributes:
        decision: such as `block3/op`.
        choice: the choice as text.
        first, second: share of the architectures of either search that have it, in [0, 1].
        difference: second - first.
        z: the difference in standard errors of two binomial shares with the pooled share, positive where the second search has it more often; 0 where
            both shares are 0 or 1.
    """

    decision: str
    choice: str
    first: float
    second: float
    difference: float
    z: float


def expectation(space: Space, architectures: Sequence[Tokens]) -> npt.NDArray[np.float64]:
    """Mean expand embedding of some architectures: the share that has each choice of each decision, [sum of numbers of choices].

    Raises:
        UserError: there is none.
        SpaceError: one is not of the space.
    """
    if not architectures:
        raise UserError("operators of no architecture have no expectation; give the architectures of a search that has trained some")
    tokens = np.asarray(architectures, dtype=np.int64)
    sizes = np.asarray(space.num_choices)
    if tokens.ndim != 2 or tokens.shape[1] != len(sizes) or (tokens < 0).any() or (tokens >= sizes).any():
        raise SpaceError(f"tokens do not fit space {space.name!r} of {len(sizes)} decisions; give architectures of this space")
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    counts = np.bincount((tokens + starts).ravel(), minlength=int(sizes.sum()))
    return counts / len(tokens)


def compare_operators(space: Space, first: Sequence[Tokens], second: Sequence[Tokens]) -> list[Operator]:
    """Every operator of the space with its share among either search's architectures, the largest absolute difference first, then in the space's order.

    Args:
        space: both searches' own.
        first, second: canonical tokens of the best architectures of either search.

    Raises:
        UserError: one of the two is empty.
        SpaceError: an architecture is not of the space.
    """
    left, right = expectation(space, first), expectation(space, second)
    operators = []
    index = 0
    for decision in space.decisions:
        for choice in decision.choices:
            a, b = float(left[index]), float(right[index])
            operators.append(Operator(decision.name, str(choice), a, b, b - a, _standardised(a, b, len(first), len(second))))
            index += 1
    return sorted(operators, key=lambda operator: -round(abs(operator.difference), 12))


def _standardised(first: float, second: float, num_first: int, num_second: int) -> float:
    pooled = (first * num_first + second * num_second) / (num_first + num_second)
    variance = pooled * (1 - pooled) * (1 / num_first + 1 / num_second)
    return (second - first) / math.sqrt(variance) if variance > 0 else 0.0
