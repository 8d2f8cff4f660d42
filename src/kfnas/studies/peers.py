"""Outside peers of kfnas's own agents: a linear predictor with Thompson sampling, and Optuna's TPE.

Both are asked for one architecture at a time and told what one training run of it showed. Neither is asked for an architecture twice: what is known
already is answered from a cache and is no new sample, as for kfnas's own agents.
"""

from __future__ import annotations

import heapq
import math
import warnings
from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from pydantic import Field

from kfnas.config import Config
from kfnas.errors import PluginError, SearchExhausted
from kfnas.space import Space

Tokens = tuple[int, ...]
Floats = npt.NDArray[np.float64]

NOISES = tuple(0.01 * 2.0**power for power in range(8))
"""Shares of noise among which the most likely one is chosen, 0.01 to 1.28."""
MAX_RANKED = 50_000
"""Architectures that the ridge predictor ranks for one suggestion, before it draws an unknown one at random."""
MAX_REPEATS = 3
"""Known or invalid architectures in a row that TPE may suggest, before a neighbour of the last takes its place."""
MAX_STEPS = 200
MAX_TRIES = 20_000


class RidgeConfig(Config):
    """Bayesian ridge regression on one-hots with Thompson sampling."""

    start: int = Field(default=10, ge=1, description="architectures drawn at random at first")
    noise: float | None = Field(
        default=None,
        gt=0,
        description="variance of the noise of one observation, as a share of the variance of all so far; None: the most likely of some, found anew each time",
    )


class TPEConfig(Config):
    """Optuna's tree-structured Parzen estimator over categorical parameters."""

    start: int = Field(default=10, ge=1, description="trials drawn at random at first (Optuna's n_startup_trials)")
    multivariate: bool = Field(default=False, description="model the decisions jointly rather than one by one (Optuna's multivariate)")


class Peer(Protocol):
    """Suggests architectures one at a time. Equal seeds and equal answers give equal suggestions."""

    draws: list[Tokens]
    """Canonical tokens of everything that was suggested, repeats included."""

    def ask(self) -> Tokens:
        """A valid architecture that was not asked for before.

        Raises:
            SearchExhausted: none is found.
        """
        ...

    def tell(self, tokens: Tokens, value: float) -> None:
        """What one training run showed, higher is better; NaN if it failed."""
        ...


class RidgePeer:
    """Thompson sampling with a linear model: draw the weights of all choices from their posterior, suggest the best unknown architecture under them.

    The value of an architecture is modelled as the sum of one weight for each of its choices, weights a priori normal with variance 1 / decisions, noise
    normal; values are standardised. Under drawn weights architectures are ranked exactly, best first, since the sum has no interactions.
    """

    def __init__(self, space: Space, config: RidgeConfig, seed: int) -> None:
        self._space, self._config, self._rng = space, config, np.random.default_rng(seed)
        self._known: dict[Tokens, float] = {}
        self.draws: list[Tokens] = []

    def ask(self) -> Tokens:
        """The best unknown architecture under one draw of the weights; random ones at first."""
        tokens = None if len(self._known) < self._config.start else self._best_unknown(self._sample_weights())
        tokens = random_unknown(self._space, self._known, self._rng) if tokens is None else tokens
        self.draws.append(tokens)
        return tokens

    def tell(self, tokens: Tokens, value: float) -> None:
        """Remember the value."""
        self._known[tokens] = value

    def _sample_weights(self) -> Floats:
        known = {tokens: value for tokens, value in self._known.items() if not math.isnan(value)}
        size, variance = sum(self._space.num_choices), 1 / len(self._space.decisions)
        if not known:
            return self._rng.standard_normal(size)
        features = np.array([self._space.embed(self._space.architecture(tokens)) for tokens in known], dtype=np.float64)
        values = np.array(list(known.values()))
        values = (values - values.mean()) / (values.std() or 1.0)
        gram, axes = np.linalg.eigh(features.T @ features)
        gram, projected = np.maximum(gram, 0.0), axes.T @ (features.T @ values)
        noise = self._config.noise
        if noise is None:
            noise = max(NOISES, key=lambda share: log_evidence(share, variance, gram, projected, values))
        precision = gram / noise + 1 / variance
        return axes @ (projected / noise / precision + self._rng.standard_normal(size) / np.sqrt(precision))

    def _best_unknown(self, weights: Floats) -> Tokens | None:
        for rank, tokens in enumerate(ranked(np.split(weights, np.cumsum(self._space.num_choices)[:-1]))):
            if rank == MAX_RANKED:
                break
            if self._space.is_valid(tokens) and (found := canonical_tokens(self._space, tokens)) not in self._known:
                return found
        return None


class TPEPeer:
    """Optuna's `TPESampler`, told every value.

    What breaks the space's rule, and what is known already, is told as failed, which leaves it out of the sampler's model, and another is asked for: TPE
    repeats itself, and a repeat is no news. After `MAX_REPEATS` of them in a row, decisions of the last one are redrawn until it is new.

    Raises:
        PluginError: Optuna is not installed.
    """

    def __init__(self, space: Space, config: TPEConfig, seed: int) -> None:
        self._optuna = _optuna()
        self._space, self._rng = space, np.random.default_rng(seed)
        self._study = _study(self._optuna, config, seed)
        self._choices = {item.name: self._optuna.distributions.CategoricalDistribution(range(len(item.choices))) for item in space.decisions}
        self._known: dict[Tokens, float] = {}
        self._open: dict[Tokens, Any] = {}
        self.draws: list[Tokens] = []

    def ask(self) -> Tokens:
        """TPE's next suggestion that is not known."""
        tokens = None
        for _ in range(MAX_REPEATS):
            trial = self._study.ask(self._choices)
            raw = tuple(int(trial.params[name]) for name in self._choices)
            if self._space.is_valid(raw):
                tokens = canonical_tokens(self._space, raw)
                self.draws.append(tokens)
                if tokens not in self._known:
                    self._open[tokens] = trial
                    return tokens
            self._study.tell(trial, state=self._optuna.trial.TrialState.FAIL)
        tokens = self._redrawn(tokens)
        self.draws.append(tokens)
        return tokens

    def tell(self, tokens: Tokens, value: float) -> None:
        """Tell Optuna."""
        self._known[tokens] = value
        trial = self._open.pop(tokens, None)
        failed = self._optuna.trial.TrialState.FAIL
        if trial is None and not math.isnan(value):
            params = dict(zip(self._choices, tokens, strict=True))
            self._study.add_trial(self._optuna.trial.create_trial(params=params, distributions=self._choices, value=value))
        elif trial is not None and math.isnan(value):
            self._study.tell(trial, state=failed)
        elif trial is not None:
            self._study.tell(trial, value)

    def _redrawn(self, tokens: Tokens | None) -> Tokens:
        """A new architecture near `tokens`: one decision after another is redrawn."""
        for _ in range(MAX_STEPS if tokens is not None else 0):
            assert tokens is not None
            index = int(self._rng.integers(len(tokens)))
            token = int(self._rng.integers(self._space.num_choices[index]))
            changed = (*tokens[:index], token, *tokens[index + 1 :])
            if self._space.is_valid(changed):
                tokens = canonical_tokens(self._space, changed)
                if tokens not in self._known:
                    return tokens
        return random_unknown(self._space, self._known, self._rng)


def log_evidence(noise: float, variance: float, gram: Floats, projected: Floats, values: Floats) -> float:
    """Log likelihood, but for a constant, of values under a linear model whose weights are integrated out.

    Args:
        noise: variance of the noise.
        variance: prior variance of each weight.
        gram: eigenvalues of F'F, F the features [samples, weights].
        projected: F'values along the eigenvectors.
        values: [samples].
    """
    spread = variance * gram + noise
    determinant = np.log(spread).sum() + (len(values) - len(gram)) * math.log(noise)
    residual = (values @ values - (projected**2 * variance / spread).sum()) / noise
    return float(-0.5 * (determinant + residual))


def ranked(weights: list[Floats]) -> Iterator[Tokens]:
    """All architectures in the order of the sum of their choices' weights, highest first.

    Args:
        weights: weights of each decision's choices.
    """
    order = [np.argsort(-values, kind="stable") for values in weights]
    losses = [values[places[0]] - values[places] for values, places in zip(weights, order, strict=True)]
    # Places are explored so that each is reached once: a place's successors move one decision on, none before the last one that was moved.
    heap: list[tuple[float, Tokens, int]] = [(0.0, (0,) * len(weights), 0)]
    while heap:
        loss, places, first = heapq.heappop(heap)
        yield tuple(int(order[index][place]) for index, place in enumerate(places))
        for index in range(first, len(weights)):
            if places[index] + 1 < len(losses[index]):
                step = losses[index][places[index] + 1] - losses[index][places[index]]
                heapq.heappush(heap, (loss + step, (*places[:index], places[index] + 1, *places[index + 1 :]), index))


def canonical_tokens(space: Space, tokens: Tokens) -> Tokens:
    """Tokens of the architecture that stands for all of the same network."""
    return space.canonical(space.architecture(tokens)).tokens


def random_unknown(space: Space, known: dict[Tokens, float], rng: np.random.Generator) -> Tokens:
    """A random valid architecture that is not known.

    Raises:
        SearchExhausted: none in `MAX_TRIES` draws.
    """
    for _ in range(MAX_TRIES):
        tokens = canonical_tokens(space, space.random(rng).tokens)
        if tokens not in known:
            return tokens
    raise SearchExhausted(f"{MAX_TRIES} random architectures of space {space.name!r} were all known ({len(known)} are): the search is over")


def _optuna() -> Any:
    try:
        import optuna
    except ImportError:
        raise PluginError("agent tpe needs Optuna, which is not installed; pip install 'kfnas[bench]', or leave tpe out") from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


def _study(optuna: Any, config: TPEConfig, seed: int) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=config.start, multivariate=config.multivariate)
    return optuna.create_study(direction="maximize", sampler=sampler)
