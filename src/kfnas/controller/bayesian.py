"""The default critic: V and U from a Bayesian regression on choices and pairs of choices (`pairwise`), which also gives whole functions
that are likely after what was seen.

It has the verbs of the critic of networks (`critic`), which the paper describes, and one more: `member` draws one such function. Between
rounds the policy learns from its own draws, scored by a member, and of its draws the members choose which are trained (Thompson sampling;
arXiv:1707.02038). The spaces are nearly additive, so that a regression knows much after tens of samples, where a network knows little;
and its posterior is exact, so that U is not another network's guess.

Rewards are seen through z = -log(1 + 2 (best - r) / median(best - r)): what is far below the best hardly differs, what is near it does.
The scale follows the search as it gets better. U is the expected error under the posterior, times a factor that follows from the errors
the critic has made on draws before it was fitted on them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from kfnas.controller.agents import AgentState, Scored, Tokens
from kfnas.controller.candidates import RANDOM
from kfnas.controller.config import CriticConfig
from kfnas.controller.evidence import Floats, OwnSamples, PriorSamples, scale_of
from kfnas.controller.pairwise import Function, OneHot, Posterior, Samples, fit, start
from kfnas.controller.standing import Standing

if TYPE_CHECKING:
    from kfnas.space import Space

REFIT = 1.15
"""Variances are fitted anew when there are this many times as many samples."""
OWN_LIMIT, GRADED_LIMIT, PRIOR_LIMIT = 1024, 512, 512
"""Samples of this search, the best and the latest, and of a prior, of all qualities, beyond which the others are left out: the posterior
takes the cube of their number."""
RATIOS = 64
"""Latest errors that the factor of U follows from."""
DOUBT = 8.0
"""Errors that a factor of 1 counts as."""
MEAN_OF_ABSOLUTE = math.sqrt(2 / math.pi)
HYPERPARAMETERS = "pairwise.theta"


class BayesianScores(NamedTuple):
    """V(m) and U(m) [N], in the reward's unit."""

    value: Floats
    uncertainty: Floats


class Lens(NamedTuple):
    """How rewards are seen: z = -log(1 + 2 (best - r) / spread) up to `best`, a straight line above; then less `mean`, over `deviation`."""

    best: float
    spread: float
    mean: float
    deviation: float

    @classmethod
    def of(cls, rewards: Sequence[float] | Floats) -> Lens:
        """The lens for these rewards [N], at least one."""
        values = np.asarray(rewards, dtype=np.float64)
        best = float(values.max())
        spread = float(np.median(best - values))
        if spread <= 1e-9 * max(1e-9, float(np.abs(values).max())):
            spread = float((best - values).mean()) or 1.0
        scale = scale_of(cls(best, spread, 0.0, 1.0)(values))
        return cls(best, spread, scale.mean, scale.deviation)

    def __call__(self, rewards: Sequence[float] | Floats) -> Floats:
        """Rewards [N] as they are seen."""
        below = 2 * (self.best - np.asarray(rewards, dtype=np.float64)) / self.spread
        bent = np.where(below > 0, -np.log1p(np.maximum(below, 0.0)), -below)
        return np.asarray((bent - self.mean) / self.deviation)

    def to_reward(self, seen: Floats) -> Floats:
        """The rewards [N] that are seen so."""
        bent = seen * self.deviation + self.mean
        return np.asarray(self.best - self.spread / 2 * np.where(bent < 0, np.expm1(-np.minimum(bent, 0.0)), -bent))

    @property
    def slope(self) -> float:
        """Change of the reward by change of what is seen, at the median reward."""
        return 1.5 * self.spread * self.deviation


class Member:
    """One function that is likely after what was seen."""

    def __init__(self, function: Function, code: OneHot, initialisation: str) -> None:
        self._function, self._code, self._initialisation = function, code, initialisation

    def __call__(self, tokens: Sequence[Tokens]) -> Floats:
        """Its values [N] for architectures by their canonical tokens [N], as `BayesianCritic.seen` shows rewards."""
        return self._function(_features(self._code, np.asarray(tokens), np.full(len(tokens), self._initialisation != RANDOM)))


class BayesianCritic(Standing):
    """V and U, what they were fitted on, whether they may be trusted, and members of the posterior.

    Without a prior it is trusted once it has seen `min_samples` trained draws. Where it starts from a prior, what it predicted of this
    search's draws, before it learnt their rewards, must go with them: where it does not by `min_samples`, the prior is given up. How far the
    prior's task resembles this one follows from the data besides.
    """

    def __init__(
        self, space: Space, config: CriticConfig, seed: int, prior: PriorSamples | None = None, weights: Mapping[str, np.ndarray] | None = None
    ) -> None:
        """Start knowing nothing, or what a prior says.

        Args:
            space: what is searched.
            config: trust and temperature.
            seed: of the members.
            prior: an earlier search's samples.
            weights: its critic's; the hyperparameters among them are where the fit of this one's starts.
        """
        super().__init__(config, None if prior is None else _thinned(prior))
        # How a child's training was initialised is one more decision, of two choices.
        self._code = OneHot([*space.num_choices, 2])
        self._rng = np.random.default_rng(seed)
        self._graded = OwnSamples()
        self._theta = start(self._code.num_decisions)
        given = None if weights is None else weights.get(HYPERPARAMETERS)
        if given is not None and given.shape == self._theta.shape:
            self._theta = np.asarray(given, dtype=np.float64)
        self._fitted_on = 0
        self._ratios: list[float] = []
        self._known: Posterior | None = None
        self._promising: Posterior | None = None

    @property
    def num_known(self) -> int:
        """Architectures that have an answer: trained ones, and those that were over the budget or failed."""
        return len(self._own) + len(self._graded)

    @property
    def is_calibrated(self) -> bool:
        """Whether its word may be taken."""
        return self._judged and len(self._own) >= (2 if self.has_prior else self._config.min_samples)

    def score(self, tokens: Sequence[Tokens], initialisation: str = RANDOM) -> BayesianScores | None:
        """V and U of architectures by their canonical tokens [N]; None before the search has two rewards."""
        if len(self._own) < 2:
            return None
        posterior, lens = self._posterior(), self._lens()
        features = _features(self._code, np.asarray(tokens), np.full(len(tokens), initialisation != RANDOM))
        error = MEAN_OF_ABSOLUTE * np.sqrt(posterior.variance(features) + posterior.noise) * lens.slope * self._factor()
        return BayesianScores(lens.to_reward(posterior.mean(features)), error)

    def seen(self, rewards: Sequence[float]) -> Floats:
        """Rewards [N] as the critic sees them, in its standard deviations; as they are before it has seen two."""
        return np.asarray(rewards, dtype=np.float64) if len(self._own) < 2 else self._lens()(rewards)

    def member(self, initialisation: str = RANDOM) -> Member | None:
        """A function drawn from the posterior; None before the search has two rewards."""
        if len(self._own) < 2:
            return None
        if self._promising is None:
            self._promising = self._posterior(graded=True) if len(self._graded) else self._posterior()
        return Member(self._promising.draw(self._rng, self._config.temperature), self._code, initialisation)

    def learn(self, evidence: Sequence[tuple[Tokens, Scored]], graded: Sequence[tuple[Tokens, Scored]] = ()) -> None:
        """Take in trained draws with their canonical tokens, in candidate order.

        Args:
            evidence: trained draws.
            graded: draws that have a reward without having been trained (over the budget), or whose training failed. V and U learn nothing
                of them; the members do, or they would find them promising for ever.
        """
        factor = self._factor()
        predicted = self._predicted(evidence)
        for (tokens, item), value in zip(evidence, predicted, strict=True):
            self._own.add(tokens, item.reward, item.initialisation != RANDOM, value)
            if item.draw.value is not None and item.draw.uncertainty:
                self._ratios = [*self._ratios, abs(item.draw.value - item.reward) / (item.draw.uncertainty / factor)][-RATIOS:]
        for tokens, item in graded:
            self._graded.add(tokens, item.reward, item.initialisation != RANDOM, np.nan)
        if not evidence and not graded:
            return
        self._known = self._promising = None
        self._judge()
        if len(self._own) >= max(2.0, REFIT * self._fitted_on):
            self._fit()

    def state(self) -> AgentState:
        """Hyperparameters, samples and the generator. The prior's samples are the search's to keep."""
        arrays = {HYPERPARAMETERS: self._theta.copy(), "ratios": np.asarray(self._ratios)}
        arrays |= {f"own.{name}": value for name, value in self._own.arrays().items()}
        arrays |= {f"graded.{name}": value for name, value in self._graded.arrays().items()}
        values = {
            "has_prior": self.has_prior,
            "judged": self._judged,
            "num_fits": self._num_fits,
            "fitted_on": self._fitted_on,
            "rng": self._rng.bit_generator.state,
        }
        return AgentState(values, arrays)

    def restore(self, state: AgentState) -> None:
        """Go on from `state`."""
        groups: dict[str, dict[str, np.ndarray]] = {"own": {}, "graded": {}}
        for name, value in state.arrays.items():
            group, _, rest = name.partition(".")
            if group in groups:
                groups[group][rest] = value
        self._own, self._graded = OwnSamples.restore(groups["own"]), OwnSamples.restore(groups["graded"])
        self._theta, self._ratios = np.array(state.arrays[HYPERPARAMETERS]), np.asarray(state.arrays["ratios"]).tolist()
        self._judged, self._num_fits, self._fitted_on = bool(state.values["judged"]), int(state.values["num_fits"]), int(state.values["fitted_on"])
        self._rng.bit_generator.state = state.values["rng"]
        if not state.values["has_prior"]:
            self._prior = None
        self._known = self._promising = None

    def _fit(self) -> None:
        self._theta = fit(self._samples(), self._code, self._theta)
        self._fitted_on = len(self._own)
        self._num_fits += 1

    def _predicted(self, evidence: Sequence[tuple[Tokens, Scored]]) -> list[float]:
        """What a critic that is to be judged says of draws before it learns their rewards, as rewards are seen; else NaN."""
        if self._judged or not evidence:
            return [math.nan] * len(evidence)
        tokens = np.asarray([item for item, _ in evidence])
        warm = np.asarray([item.initialisation != RANDOM for _, item in evidence])
        return list(self._posterior().mean(_features(self._code, tokens, warm)).tolist())

    def _begin_again(self) -> None:
        self._fitted_on, self._ratios = 0, []
        self._theta = start(self._code.num_decisions)

    def _factor(self) -> float:
        return (DOUBT + sum(self._ratios)) / (DOUBT + len(self._ratios))

    def _lens(self) -> Lens:
        return Lens.of(self._own.rewards)

    def _posterior(self, *, graded: bool = False) -> Posterior:
        if graded:
            return Posterior(self._samples(graded=True), self._code, self._theta)
        if self._known is None:
            self._known = Posterior(self._samples(), self._code, self._theta)
        return self._known

    def _samples(self, *, graded: bool = False) -> Samples:
        parts = [self._own, self._graded] if graded else [self._own]
        tokens = [item for part in parts for item in part.tokens]
        rewards = np.array([item for part in parts for item in part.rewards])
        warm = np.array([item for part in parts for item in part.warm])
        features, targets = np.zeros((0, self._code.num_features)), np.zeros(0)
        if tokens:
            kept = _best_and_latest(rewards[: len(self._own)])
            if graded:
                kept = np.concatenate([kept, (len(self._own) + np.arange(len(self._graded)))[-GRADED_LIMIT:]])
            features, targets = _features(self._code, np.asarray(tokens)[kept], warm[kept]), self._lens()(rewards[kept])
        if self._prior is None:
            return Samples(features, targets, np.zeros(len(targets), dtype=bool))
        prior = self._prior
        foreign = np.arange(len(targets) + len(prior.standard)) >= len(targets)
        seen = Lens.of(prior.standard)(prior.standard)
        return Samples(np.concatenate([features, _features(self._code, prior.tokens, prior.warm)]), np.concatenate([targets, seen]), foreign)


def _features(code: OneHot, tokens: np.ndarray, warm: np.ndarray) -> Floats:
    return code(np.concatenate([tokens, np.asarray(warm, dtype=np.int64)[:, None]], axis=1))


def _best_and_latest(rewards: Floats) -> np.ndarray:
    """Places of the samples that are kept, in order."""
    if len(rewards) <= OWN_LIMIT:
        return np.arange(len(rewards))
    best = np.argsort(-rewards, kind="stable")[: OWN_LIMIT // 2]
    others = np.setdiff1d(np.arange(len(rewards)), best)
    return np.sort(np.concatenate([best, others[-(OWN_LIMIT - len(best)) :]]))


def _thinned(prior: PriorSamples) -> PriorSamples:
    """At most `PRIOR_LIMIT` samples, evenly spaced in reward."""
    count = len(prior.standard)
    if count <= PRIOR_LIMIT:
        return prior
    order = np.argsort(prior.standard, kind="stable")
    kept = np.sort(order[np.linspace(0, count - 1, PRIOR_LIMIT).round().astype(int)])
    return PriorSamples(prior.tokens[kept], prior.standard[kept], prior.warm[kept])
