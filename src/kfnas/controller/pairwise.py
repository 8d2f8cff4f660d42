"""Bayesian regression on an architecture's choices and on pairs of choices: what the default critic knows.

    f(x) = sum_i w_i x_i + sum_(i<j) w_ij x_i x_j,   y = f(x) + noise

x is the one-hot encoding of the tokens. The weights are normal, those of a choice with variance a1 s_d / D, those of a pair of choices with
2 a2 s_d s_e / (D (D - 1)), d and e being the decisions that the choices belong to and s_d the scale of decision d (automatic relevance
determination; C. E. Rasmussen and C. K. I. Williams, Gaussian Processes for Machine Learning, 2006, chapters 2 and 5). All variances
follow from the data, by the largest posterior density under weak log-normal priors. The posterior is exact, and so are draws of whole
functions from it, by correcting a draw of the prior (Matheron's rule; arXiv:2002.09309, eq. 5).

Samples of another task have a function of their own, which correlates with this task's by a share that follows from the data too, and
a noise of their own: where the tasks are unrelated they count for nothing.

Shapes: N samples, D decisions, F one-hot features.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

NUM_SHARED = 5
"""Variance of choices, variance of pairs, noise of this task, noise of the others (logarithms), and the tasks' correlation (logit); then
a scale (logarithm) for each decision."""
PRIOR_MEAN = np.array([0.0, -1.5, -3.0, -3.0, 1.0])
PRIOR_DEVIATION = 1.5
SCALE_DEVIATION = 1.0
BOUNDS = ((-6.0, 4.0), (-8.0, 4.0), (-7.0, 1.0), (-7.0, 3.0), (-6.0, 5.0))
SCALE_BOUND = (-4.0, 4.0)
ITERATIONS = 12
"""Of the search for the variances, each time; it goes on from where it was."""
JITTER = 1e-6


class OneHot:
    """One-hot encoding of tokens."""

    def __init__(self, num_choices: Sequence[int]) -> None:
        sizes = np.asarray(num_choices)
        self.num_decisions, self.num_features = len(sizes), int(sizes.sum())
        self.decision_of = np.repeat(np.arange(len(sizes)), sizes)
        self._offsets = np.cumsum(sizes) - sizes

    def __call__(self, tokens: npt.ArrayLike) -> Floats:
        """Features [N, F] of tokens [N, D]."""
        rows = np.asarray(tokens, dtype=np.int64)
        features = np.zeros((len(rows), self.num_features))
        features[np.arange(len(rows))[:, None], rows + self._offsets] = 1.0
        return features


@dataclass(frozen=True)
class Function:
    """f(x): weights of choices [F] and of pairs of choices [F, F], symmetric, 0 within a decision."""

    singles: Floats
    pairs: Floats

    def __call__(self, features: Floats) -> Floats:
        """Values [N] at features [N, F]."""
        return np.asarray(features @ self.singles + 0.5 * ((features @ self.pairs) * features).sum(1))


@dataclass(frozen=True)
class Samples:
    """Features [N, F], targets [N], and whether each is of another task [N]."""

    features: Floats
    targets: Floats
    foreign: npt.NDArray[np.bool_]


def start(num_decisions: int) -> Floats:
    """Hyperparameters before there is data: the priors' means."""
    return np.concatenate([PRIOR_MEAN, np.zeros(num_decisions)])


def fit(samples: Samples, code: OneHot, theta: Floats) -> Floats:
    """Hyperparameters of higher posterior density than `theta`, by L-BFGS from there."""
    from scipy.optimize import minimize

    bounds = [*BOUNDS, *[SCALE_BOUND] * code.num_decisions]
    found = minimize(lambda x: negative_log_density(x, samples, code), theta, jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": ITERATIONS})
    return np.asarray(found.x, dtype=np.float64)


def negative_log_density(theta: Floats, samples: Samples, code: OneHot) -> tuple[float, Floats]:
    """Minus the log of the hyperparameters' posterior density (up to a constant), and its gradient."""
    parts = _Kernel(theta, code)
    x, z = samples.features, samples.targets
    singles, pairs, alike = parts.terms(x, x)
    tasks = parts.between(samples.foreign, samples.foreign)
    covariance = tasks * (parts.of_choices * singles + parts.of_pairs * pairs)
    noise = parts.noise(samples.foreign)
    lower = np.linalg.cholesky(covariance + np.diag(noise + JITTER))
    inverse = np.linalg.inv(lower)
    precision = inverse.T @ inverse
    solved = precision @ z
    value = 0.5 * z @ solved + np.log(np.diag(lower)).sum()
    slope = 0.5 * (precision - np.outer(solved, solved))
    gradient = np.zeros_like(theta)
    within = slope * tasks
    gradient[0] = parts.of_choices * (within * singles).sum()
    gradient[1] = parts.of_pairs * (within * pairs).sum()
    of_noise = np.diag(slope) * noise
    gradient[2], gradient[3] = of_noise[~samples.foreign].sum(), of_noise[samples.foreign].sum()
    if samples.foreign.any():
        across = samples.foreign[:, None] != samples.foreign[None, :]
        gradient[4] = (1 - parts.correlation) * (slope * covariance)[across].sum()
    # d pairs / d s_d = (2 alike - 2 s_d delta_d) delta_d / (D (D - 1)), and sums over delta_d are sums over the decision's own choices.
    count = parts.num_pairs
    first = within * (parts.of_choices / code.num_decisions + 2 * parts.of_pairs * alike / count)
    by_feature = (x * (first @ x)).sum(0) - 2 * parts.of_pairs / count * parts.scale_of_feature * (x * (within @ x)).sum(0)
    gradient[NUM_SHARED:] = parts.scales * np.bincount(code.decision_of, by_feature, minlength=code.num_decisions)
    shared = (theta[:NUM_SHARED] - PRIOR_MEAN) / PRIOR_DEVIATION
    own = theta[NUM_SHARED:] / SCALE_DEVIATION
    gradient += np.concatenate([shared / PRIOR_DEVIATION, own / SCALE_DEVIATION])
    return float(value + 0.5 * shared @ shared + 0.5 * own @ own), gradient


class Posterior:
    """What is known of this task's f after the samples."""

    def __init__(self, samples: Samples, code: OneHot, theta: Floats) -> None:
        self._kernel = _Kernel(theta, code)
        self._samples = samples
        # A foreign sample says of this task's function what it says of its own, times their correlation.
        self._link = np.where(samples.foreign, self._kernel.correlation, 1.0)
        singles, pairs, _ = self._kernel.terms(samples.features, samples.features)
        tasks = self._kernel.between(samples.foreign, samples.foreign)
        self._covariance = tasks * (self._kernel.of_choices * singles + self._kernel.of_pairs * pairs)
        self._noise = self._kernel.noise(samples.foreign)
        self._inverse = np.linalg.inv(np.linalg.cholesky(self._covariance + np.diag(self._noise + JITTER)))
        self.mean = self._weights(self._solve(samples.targets))

    @property
    def noise(self) -> float:
        """Variance of one training of this task."""
        return self._kernel.own_noise

    def variance(self, features: Floats) -> Floats:
        """Variances [N] of f at features [N, F], without the noise."""
        singles, pairs, _ = self._kernel.terms(features, self._samples.features)
        known = (self._kernel.of_choices * singles + self._kernel.of_pairs * pairs) * self._link
        explained = ((known @ self._inverse.T) ** 2).sum(1)
        return np.asarray(np.maximum(self._kernel.prior_variance() - explained, 0.0))

    def draw(self, rng: np.random.Generator, temperature: float = 1.0) -> Function:
        """A function drawn from the posterior, its distance from the mean times `temperature`."""
        own = self._prior_draw(rng)
        seen = own(self._samples.features)
        if self._samples.foreign.any():
            correlation = self._kernel.correlation
            apart = self._prior_draw(rng)(self._samples.features)
            seen = np.where(self._samples.foreign, correlation * seen + np.sqrt(1 - correlation**2) * apart, seen)
        seen = seen + np.sqrt(self._noise) * rng.standard_normal(len(seen))
        learnt = self._weights(self._solve(seen))
        return Function(
            self.mean.singles + temperature * (own.singles - learnt.singles),
            self.mean.pairs + temperature * (own.pairs - learnt.pairs),
        )

    def _prior_draw(self, rng: np.random.Generator) -> Function:
        kernel = self._kernel
        singles = rng.standard_normal(len(kernel.single_variance)) * np.sqrt(kernel.single_variance)
        upper = np.triu(rng.standard_normal(kernel.pair_variance.shape), 1) * np.sqrt(kernel.pair_variance)
        return Function(singles, upper + upper.T)

    def _solve(self, targets: Floats) -> Floats:
        return np.asarray(self._inverse.T @ (self._inverse @ targets))

    def _weights(self, solved: Floats) -> Function:
        """The function that a sum of kernels at the samples is."""
        x, amounts = self._samples.features, solved * self._link
        return Function(self._kernel.single_variance * (x.T @ amounts), self._kernel.pair_variance * ((x * amounts[:, None]).T @ x))


class _Kernel:
    """Covariances under hyperparameters `theta`."""

    def __init__(self, theta: Floats, code: OneHot) -> None:
        self.of_choices, self.of_pairs, self.own_noise, self.foreign_noise = (float(value) for value in np.exp(theta[:4]))
        self.correlation = float(1 / (1 + np.exp(-theta[4])))
        self.scales = np.exp(theta[NUM_SHARED:])
        self.scale_of_feature = self.scales[code.decision_of]
        self.num_decisions = code.num_decisions
        self.num_pairs = max(1, code.num_decisions * (code.num_decisions - 1))
        self.single_variance = self.of_choices * self.scale_of_feature / code.num_decisions
        apart = code.decision_of[:, None] != code.decision_of[None, :]
        self.pair_variance = 2 * self.of_pairs / self.num_pairs * np.outer(self.scale_of_feature, self.scale_of_feature) * apart

    def terms(self, left: Floats, right: Floats) -> tuple[Floats, Floats, Floats]:
        """Shares of choices and of pairs in common [N, M], by scale, and the sum of the scales of what is in common."""
        alike = (left * self.scale_of_feature) @ right.T
        squares = (left * self.scale_of_feature**2) @ right.T
        return alike / self.num_decisions, (alike**2 - squares) / self.num_pairs, alike

    def prior_variance(self) -> float:
        """Variance of f at any architecture before there is data."""
        total, squares = self.scales.sum(), (self.scales**2).sum()
        return float(self.of_choices * total / self.num_decisions + self.of_pairs * (total**2 - squares) / self.num_pairs)

    def between(self, left: npt.NDArray[np.bool_], right: npt.NDArray[np.bool_]) -> Floats:
        """Correlation [N, M] of the samples' tasks."""
        return np.where(left[:, None] == right[None, :], 1.0, self.correlation)

    def noise(self, foreign: npt.NDArray[np.bool_]) -> Floats:
        """Variance of each sample's noise [N]."""
        return np.where(foreign, self.foreign_noise, self.own_noise)
