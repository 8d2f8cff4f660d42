"""What a critic is fitted on: the search's own trained draws, and those of the earlier searches that it starts from.

Rewards of unlike tasks do not compare, so each task's are standardised by themselves: less their mean, over their deviation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from kfnas.controller.agents import Tokens
from kfnas.controller.candidates import RANDOM
from kfnas.controller.knowledge import KnownSample
from kfnas.controller.reward import RewardConfig, reward
from kfnas.errors import ConfigError, ResultError

Floats = npt.NDArray[np.float64]


class Scale(NamedTuple):
    """Mean and deviation of a task's rewards. `to_reward(z)` undoes `standard(r)`."""

    mean: float
    deviation: float

    def standard(self, rewards: npt.ArrayLike) -> Floats:
        """Rewards in standard deviations from the mean."""
        return (np.asarray(rewards, dtype=np.float64) - self.mean) / self.deviation

    def to_reward(self, values: npt.ArrayLike) -> Floats:
        """The rewards that standardised values stand for."""
        return np.asarray(values, dtype=np.float64) * self.deviation + self.mean


def scale_of(rewards: npt.ArrayLike) -> Scale:
    """Mean and deviation (of the population) of rewards [N]; a deviation of 1 where they are all alike."""
    values = np.asarray(rewards, dtype=np.float64)
    deviation = float(values.std())
    return Scale(float(values.mean()), deviation if deviation > 1e-8 * max(1e-8, float(np.abs(values).max())) else 1.0)


@dataclass
class OwnSamples:
    """Trained draws of this search, in order: canonical tokens, reward, whether initialised from a pool, and the standardised reward that
    the critic predicted before it was fitted on it (NaN: none)."""

    tokens: list[Tokens] = field(default_factory=list)
    rewards: list[float] = field(default_factory=list)
    warm: list[bool] = field(default_factory=list)
    predicted: list[float] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.tokens)

    def add(self, tokens: Tokens, reward_: float, warm: bool, predicted: float) -> None:
        """One more."""
        self.tokens.append(tokens)
        self.rewards.append(reward_)
        self.warm.append(warm)
        self.predicted.append(predicted)

    def arrays(self) -> dict[str, np.ndarray]:
        """The samples as arrays that `restore` reads; none where there are none."""
        if not self.tokens:
            return {}
        tokens = np.asarray(self.tokens, dtype=np.int32)
        return {"tokens": tokens, "rewards": np.asarray(self.rewards), "warm": np.asarray(self.warm, dtype=np.uint8), "predicted": np.asarray(self.predicted)}

    @classmethod
    def restore(cls, arrays: dict[str, np.ndarray]) -> OwnSamples:
        """The samples that `arrays` gave."""
        if not arrays:
            return cls()
        tokens = [tuple(row) for row in arrays["tokens"].tolist()]
        return cls(tokens, arrays["rewards"].tolist(), [bool(item) for item in arrays["warm"]], arrays["predicted"].tolist())


class PriorSamples(NamedTuple):
    """Samples of earlier searches: tokens [N, D], standardised rewards [N], and whether initialised from a pool [N]."""

    tokens: npt.NDArray[np.int64]
    standard: Floats
    warm: npt.NDArray[np.bool_]


def prior_samples(samples: Sequence[KnownSample], config: RewardConfig) -> PriorSamples:
    """Score an earlier search's samples by this search's reward, and standardise them by task and training budget.

    Samples without a cost are left out where the reward needs one.

    Raises:
        ConfigError: none can be scored.
    """
    usable = [sample for sample in samples if config.target is None or sample.cost is not None]
    if not usable:
        lack = "holds no sample" if not samples else f"has {len(samples)} samples and not one has a cost, which this search's target needs"
        raise ConfigError(f"prior: {lack}; give the knowledge of a search that trained children and took their costs")
    try:
        rewards = np.array([reward(sample.accuracy, sample.cost, config) for sample in usable])
    except ResultError as error:
        raise ConfigError(f"prior: its samples cannot be scored by this search's reward: {error}") from None
    groups: dict[tuple[str, str | float | None], list[int]] = {}
    for index, sample in enumerate(usable):
        groups.setdefault((sample.task, sample.fidelity), []).append(index)
    standard = np.zeros(len(usable))
    for members in groups.values():
        standard[members] = scale_of(rewards[members]).standard(rewards[members])
    tokens = np.array([sample.tokens for sample in usable], dtype=np.int64)
    return PriorSamples(tokens, standard, np.array([sample.initialisation != RANDOM for sample in usable]))


def agreement(predicted: npt.ArrayLike, rewards: npt.ArrayLike) -> float:
    """Spearman's rank correlation of predictions with rewards, in standard errors of unrelated ones: rho * sqrt(N - 1). 0 for fewer than
    three, and where either is all alike."""
    left, right = _ranks(np.asarray(predicted, dtype=np.float64)), _ranks(np.asarray(rewards, dtype=np.float64))
    if len(left) < 3 or left.std() == 0 or right.std() == 0:
        return 0.0
    rho = float(((left - left.mean()) * (right - right.mean())).mean() / (left.std() * right.std()))
    return rho * float(np.sqrt(len(left) - 1))


def _ranks(values: Floats) -> Floats:
    """Ranks, those of equals being their mean."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    return np.asarray((np.cumsum(counts) - (counts - 1) / 2)[inverse])
