"""The seam between a search and whatever proposes its architectures.

An agent proposes draws and learns from rewarded ones; it knows nothing of results, caches, batches or files. Random search, evolution,
local search and the PPO policy stand behind the same two verbs. Everything that an agent must remember is in its `AgentState`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np

from kfnas.controller.candidates import ACTIVATED_SOURCES, RANDOM, Status

if TYPE_CHECKING:
    from kfnas.space import Space

Tokens = tuple[int, ...]
DrawSource = Literal["policy", "trusted", "exploited", "audit"]
IsKnown = Callable[[Tokens], bool]
"""Whether an architecture, by its canonical tokens, has an answer already."""


@dataclass(frozen=True)
class Draw:
    """A proposed architecture.

    Attributes:
        tokens: as drawn.
        log_prob: natural logarithm of the probability with which a policy drew it; None: the agent has no policy.
        source: `policy`: to be evaluated, unless it is known; `audit`: so too, to check the critic; `trusted`: `value` is its reward;
            `exploited`: the draw of the candidate `origin`, again.
        origin: of an exploited draw, the candidate's id.
        value: reward that a critic predicts; None without one.
        uncertainty: error that it expects of `value`, in the reward's unit.
    """

    tokens: Tokens
    log_prob: float | None = None
    source: DrawSource = "policy"
    origin: str | None = None
    value: float | None = None
    uncertainty: float | None = None


@dataclass(frozen=True)
class Scored:
    """A draw and its reward.

    Attributes:
        draw: as the agent proposed it.
        reward: what is to be learnt from.
        cached: the architecture was known before, so the reward is no news about it.
        id: the candidate's.
        status: what became of it.
        initialisation: what its child's training started from.
    """

    draw: Draw
    reward: float
    cached: bool = False
    id: str = ""
    status: Status = "ok"
    initialisation: str = RANDOM

    @property
    def is_evidence(self) -> bool:
        """Whether a child was trained with success for this draw: what a critic is fitted on, and what an experience buffer takes."""
        return not self.cached and self.draw.source in ACTIVATED_SOURCES and self.status == "ok"


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
