"""The seam between a search and whatever proposes its architectures.

An agent proposes draws and learns from rewarded ones; it knows nothing of results, caches, batches or files. Random search, evolution,
local search and the PPO policy stand behind the same two verbs. Everything that an agent must remember is in its `AgentState`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

if TYPE_CHECKING:
    from kfnas.space import Space

Tokens = tuple[int, ...]
IsKnown = Callable[[Tokens], bool]
"""Whether an architecture, by its canonical tokens, has an answer already."""


@dataclass(frozen=True)
class Draw:
    """A proposed architecture, and the natural logarithm of the probability with which a policy drew it (None: the agent has no
    policy)."""

    tokens: Tokens
    log_prob: float | None = None


@dataclass(frozen=True)
class Scored:
    """A draw and its reward. `cached`: the architecture was known before, so the reward is no news about it."""

    draw: Draw
    reward: float
    cached: bool = False


@dataclass(frozen=True)
class AgentState:
    """All that an agent remembers: a JSON value and named arrays."""

    values: Mapping[str, Any] = field(default_factory=dict)
    arrays: Mapping[str, np.ndarray] = field(default_factory=dict)


class Agent(Protocol):
    """Proposes architectures and learns from their rewards. Equal states and equal calls give equal draws."""

    def propose(self, count: int, is_known: IsKnown) -> list[Draw]:
        """Up to `count` valid draws, at least one."""
        ...

    def learn(self, batch: Sequence[Scored], progress: float) -> dict[str, float]:
        """Learn from one batch, in candidate order; return metrics.

        Args:
            batch: draws of the last `propose` that have a reward; may be empty.
            progress: share of the horizon that is over, in [0, 1]; 0 where there is no horizon.
        """
        ...

    def state(self) -> AgentState:
        """What `restore` needs to go on exactly from here."""
        ...

    def restore(self, state: AgentState) -> None:
        """Go on from a state that an agent of the same configuration and space returned."""
        ...


def canonical_tokens(space: Space, tokens: Tokens) -> Tokens:
    """Tokens of the canonical form."""
    return space.canonical(space.architecture(tokens)).tokens
