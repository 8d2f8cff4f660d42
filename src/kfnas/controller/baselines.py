"""Agents that learn no policy: random search, regularized evolution, local search.

Each tries to propose what has no answer yet; one that keeps meeting known architectures gives a known one, which costs nothing.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from kfnas.controller.agents import AgentState, Draw, IsKnown, Scored, Tokens, canonical_tokens
from kfnas.controller.config import EvolutionConfig

if TYPE_CHECKING:
    from kfnas.space import Space

MAX_TRIES = 100
"""Draws made for one proposal before a known architecture is proposed."""


class RandomAgent:
    """Uniform over the valid architectures."""

    def __init__(self, space: Space, rng: np.random.Generator) -> None:
        self._space, self._rng = space, rng

    def propose(self, count: int, is_known: IsKnown) -> list[Draw]:
        """Independent draws."""
        fresh = _Fresh(self._space, is_known)
        return [Draw(fresh.first(lambda: self._space.random(self._rng).tokens)) for _ in range(count)]

    def learn(self, batch: Sequence[Scored], progress: float) -> dict[str, float]:
        """Nothing."""
        return {}

    def state(self) -> AgentState:
        """The generator."""
        return AgentState(values={"rng": self._rng.bit_generator.state})

    def restore(self, state: AgentState) -> None:
        """Go on from `state`."""
        self._rng.bit_generator.state = state.values["rng"]


class EvolutionAgent:
    """Regularized evolution (Real et al., arXiv:1802.01548, algorithm 1), a batch of children at a time."""

    def __init__(self, space: Space, config: EvolutionConfig, rng: np.random.Generator) -> None:
        self._space, self._config, self._rng = space, config, rng
        self._population: deque[tuple[Tokens, float]] = deque(maxlen=config.population)

    def propose(self, count: int, is_known: IsKnown) -> list[Draw]:
        """Random architectures until the population is full, then children."""
        fresh = _Fresh(self._space, is_known)
        first = max(0, min(count, self._config.population - len(self._population)))
        makers: list[Callable[[], Tokens]] = [lambda: self._space.random(self._rng).tokens] * first + [self._child] * (count - first)
        return [Draw(fresh.first(make)) for make in makers]

    def learn(self, batch: Sequence[Scored], progress: float) -> dict[str, float]:
        """The batch joins the population, and as many of the oldest leave."""
        self._population.extend((item.draw.tokens, item.reward) for item in batch)
        return {}

    def state(self) -> AgentState:
        """The generator and the population, oldest first."""
        return AgentState(values={"rng": self._rng.bit_generator.state, "population": [[list(tokens), reward] for tokens, reward in self._population]})

    def restore(self, state: AgentState) -> None:
        """Go on from `state`."""
        self._rng.bit_generator.state = state.values["rng"]
        self._population.clear()
        self._population.extend((tuple(tokens), float(reward)) for tokens, reward in state.values["population"])

    def _child(self) -> Tokens:
        members = self._rng.choice(len(self._population), size=min(self._config.sample, len(self._population)), replace=False)
        parent = max((self._population[index] for index in members), key=lambda member: member[1])[0]
        return self._mutate(parent)

    def _mutate(self, parent: Tokens) -> Tokens:
        """Another choice for one decision; the parent itself where no valid one was found."""
        open_decisions = [index for index, count in enumerate(self._space.num_choices) if count > 1]
        for _ in range(MAX_TRIES if open_decisions else 0):
            index = int(self._rng.choice(open_decisions))
            token = int(self._rng.integers(self._space.num_choices[index] - 1))
            child = (*parent[:index], token + (token >= parent[index]), *parent[index + 1 :])
            if self._space.is_valid(child):
                return child
        return parent


class LocalSearchAgent:
    """First-improvement local search with restarts.

    The neighbours of the current architecture (one decision changed) are tried in random order. It moves to the best neighbour of a
    batch that is better than where it stands: with batches of one, to the first. When no untried neighbour is left it starts again from a
    random architecture.
    """

    def __init__(self, space: Space, rng: np.random.Generator) -> None:
        self._space, self._rng = space, rng
        self._current: tuple[Tokens, float] | None = None
        self._restart: list[Tokens] = []

    def propose(self, count: int, is_known: IsKnown) -> list[Draw]:
        """Untried neighbours of the current architecture; where they do not fill the batch, a new start and its neighbours follow."""
        fresh = _Fresh(self._space, is_known)
        near = [] if self._current is None else self._neighbors(self._current[0], count, fresh)
        self._restart = []
        if len(near) < count:
            start = fresh.first(lambda: self._space.random(self._rng).tokens)
            self._restart = [start, *self._neighbors(start, count - len(near) - 1, fresh)]
        return [Draw(tokens) for tokens in near + self._restart]

    def learn(self, batch: Sequence[Scored], progress: float) -> dict[str, float]:
        """Move to the batch's best neighbour if it is better; if none is and the neighbourhood is used up, to the best of the new start
        and its neighbours."""
        restart = set(self._restart)
        near = [(item.draw.tokens, item.reward) for item in batch if item.draw.tokens not in restart]
        far = [(item.draw.tokens, item.reward) for item in batch if item.draw.tokens in restart]
        best = max(near, key=lambda member: member[1], default=None)
        if best is not None and self._current is not None and best[1] > self._current[1]:
            self._current = best
        elif restart:
            self._current = max(far, key=lambda member: member[1], default=None)
        return {}

    def state(self) -> AgentState:
        """The generator, where the search stands, and the new start that the open batch tries, with its neighbours."""
        current = None if self._current is None else [list(self._current[0]), self._current[1]]
        restart = [list(tokens) for tokens in self._restart]
        return AgentState(values={"rng": self._rng.bit_generator.state, "current": current, "restart": restart})

    def restore(self, state: AgentState) -> None:
        """Go on from `state`."""
        self._rng.bit_generator.state = state.values["rng"]
        current = state.values["current"]
        self._current = None if current is None else (tuple(current[0]), float(current[1]))
        self._restart = [tuple(tokens) for tokens in state.values["restart"]]

    def _neighbors(self, tokens: Tokens, count: int, fresh: _Fresh) -> list[Tokens]:
        if count <= 0:
            return []
        near = [neighbor.tokens for neighbor in self._space.neighbors(self._space.architecture(tokens))]
        found: list[Tokens] = []
        for index in self._rng.permutation(len(near)):
            if len(found) == count:
                break
            if fresh.take(near[index]):
                found.append(near[index])
        return found


class _Fresh:
    """Tells the architectures that neither have an answer nor stand in the batch already."""

    def __init__(self, space: Space, is_known: IsKnown) -> None:
        self._space, self._is_known = space, is_known
        self._taken: set[Tokens] = set()

    def take(self, tokens: Tokens) -> bool:
        """Whether the architecture is fresh; it is no longer, then."""
        key = canonical_tokens(self._space, tokens)
        if key in self._taken or self._is_known(key):
            return False
        self._taken.add(key)
        return True

    def first(self, make: Callable[[], Tokens]) -> Tokens:
        """The first fresh one of `MAX_TRIES`, or else the last."""
        for _ in range(MAX_TRIES):
            tokens = make()
            if self.take(tokens):
                break
        return tokens
