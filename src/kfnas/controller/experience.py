"""The architecture experience buffer: trained draws that the policy learns from again (FNAS, section 5).

Maths is on arrays of N rewards or priorities. The buffer is small and holds draws of unlike rewards, good and bad: when it is full, of the
two entries that are nearest in reward the older leaves, and the best never.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from kfnas.controller.agents import Tokens
from kfnas.controller.config import ExperienceConfig

Floats = npt.NDArray[np.float64]

MAX_SPREAD = 30.0
"""Largest difference of two (standardised or raw) rewards that priorities tell apart."""


def priorities(rewards: npt.ArrayLike, *, standardised: bool) -> Floats:
    """P_i = exp(r_i) / sum_j exp(r_j) (eq. 5), float64 [N], summing to 1.

    Args:
        rewards: [N].
        standardised: take (r_i - mean) / deviation (of the population) in the place of r_i. Rewards in [0, 1] hardly differ in exp(r_i).
    """
    values = np.asarray(rewards, dtype=np.float64)
    if standardised:
        deviation = values.std()
        values = (values - values.mean()) / (deviation if deviation > 1e-12 * max(1.0, float(np.abs(values).max())) else 1.0)
    # A chance of zero could not be drawn without repeats, and its importance weight would be infinite.
    scores = np.exp(np.maximum(values - values.max(), -MAX_SPREAD))
    return np.asarray(scores / scores.sum())


def importance_weights(chances: Floats, beta: float, *, size: int, normalised: bool) -> Floats:
    """S_i = (N * P_i) ** -beta (section 5; prioritised experience replay, arXiv:1511.05952, section 3.4), float64.

    Args:
        chances: P_i of the samples that were drawn.
        beta: 0 (no correction) to 1 (full).
        size: N, entries of the buffer.
        normalised: divide by the largest of them, so that no sample weighs more than a new one.
    """
    weights = (size * chances) ** -beta
    return np.asarray(weights / weights.max() if normalised and len(weights) else weights)


def inclusion_chances(chances: Floats, count: int) -> Floats:
    """Chance of each of N entries to be among `count` that are drawn one after the other without repeats, over `count`: float64 [N], summing to 1.

    Drawing so is a race of clocks that ring at rates P_i, ended by the ring of number `count`. The chances are those of a race of a fixed length at
    which `count` rings are expected, 1 - exp(-P_i t) (order sampling: Rosen, J. Stat. Plan. Inference 62, 1997), near the exact ones also for few.
    They are P_i where one is drawn of many, and all alike where all are.

    Args:
        chances: P_i, positive, [N].
        count: 1 to N.
    """
    if count >= len(chances):
        return np.full(len(chances), 1.0 / len(chances))
    low, high = 0.0, 1.0
    while -np.expm1(-chances * high).sum() < count:
        low, high = high, 2 * high
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if -np.expm1(-chances * middle).sum() < count else (low, middle)
    included = -np.expm1(-chances * high)
    return np.asarray(included / included.sum())


@dataclass(frozen=True)
class Experience:
    """A trained draw: its candidate's id, tokens as drawn, the log-probability (nats) with which the policy drew it then, and its reward."""

    id: str
    tokens: Tokens
    log_prob: float
    reward: float


class ExperienceBuffer:
    """At most `config.size` trained draws, all of children with the same initialisation."""

    def __init__(self, config: ExperienceConfig) -> None:
        self._config = config
        self.entries: list[Experience] = []
        self.initialisation: str | None = None

    def __len__(self) -> int:
        return len(self.entries)

    def share_of(self, count: int) -> int:
        """How many of a batch of `count` draws come from the buffer: at most `max_share` of them, and never more than it holds."""
        return min(int(count * self._config.max_share), len(self.entries))

    def draw(self, count: int, rng: np.random.Generator) -> list[Experience]:
        """`count` entries without repeats, by their priorities."""
        if count == 0:
            return []
        chances = priorities([entry.reward for entry in self.entries], standardised=self._config.standardised)
        return [self.entries[index] for index in rng.choice(len(self.entries), size=count, replace=False, p=chances)]

    def weights(self, identities: Iterable[str], progress: float) -> list[float]:
        """Importance weights of drawn entries, by their ids, at this share of the horizon."""
        chances = priorities([entry.reward for entry in self.entries], standardised=self._config.standardised) if self.entries else np.zeros(0)
        names = list(identities)
        if self._config.correction == "inclusion" and names:
            chances = inclusion_chances(chances, len(names))
        chance = dict(zip((entry.id for entry in self.entries), chances, strict=True))
        drawn = np.array([chance[name] for name in names])
        return importance_weights(drawn, self.beta(progress), size=len(self), normalised=self._config.normalised).tolist() if len(drawn) else []

    def beta(self, progress: float) -> float:
        """Exponent of the importance weights at this share of the horizon."""
        return self._config.beta_start + (self._config.beta_end - self._config.beta_start) * progress

    def begin(self, initialisation: str) -> None:
        """Samples that arrive from now on are of this initialisation: those of another leave, since rewards of the two do not compare."""
        if self.initialisation not in (None, initialisation):
            self.entries = []
        self.initialisation = initialisation

    def add(self, entry: Experience) -> None:
        """Take an entry in; where that is one too many, of the two nearest in reward the older leaves, but never the best."""
        self.entries.append(entry)
        while len(self.entries) > self._config.size:
            self._drop_one()

    def state(self) -> dict[str, Any]:
        """JSON value that `restore` reads."""
        return {"initialisation": self.initialisation, "entries": [{**asdict(entry), "tokens": list(entry.tokens)} for entry in self.entries]}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from `state`."""
        self.initialisation = state["initialisation"]
        self.entries = [Experience(item["id"], tuple(item["tokens"]), item["log_prob"], item["reward"]) for item in state["entries"]]

    def _drop_one(self) -> None:
        rewards = np.array([entry.reward for entry in self.entries])
        best = int(rewards.argmax())
        order = np.argsort(rewards, kind="stable")
        gaps = np.diff(rewards[order])
        nearest = int(gaps.argmin())
        pair = sorted((int(order[nearest]), int(order[nearest + 1])))
        del self.entries[pair[1] if pair[0] == best else pair[0]]
