"""The regression on choices and pairs of choices: closed forms, gradients, and draws."""

import numpy as np
import pytest

from kfnas.controller.pairwise import Function, OneHot, Posterior, Samples, fit, negative_log_density, start

CODE = OneHot([3, 2, 4])


def _tokens(count: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.stack([rng.integers(size, size=count) for size in (3, 2, 4)], axis=1)


def _samples(count: int, foreign: int = 0, seed: int = 0) -> Samples:
    targets = np.random.default_rng(seed + 1).standard_normal(count)
    return Samples(CODE(_tokens(count, seed)), targets, np.arange(count) >= count - foreign)


def _theta(seed: int = 3) -> np.ndarray:
    return start(3) + 0.3 * np.random.default_rng(seed).standard_normal(8)


def _all_features(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Choices and pairs of choices of unlike decisions side by side, and the pairs' places."""
    left, right = np.nonzero(np.triu(CODE.decision_of[:, None] != CODE.decision_of[None, :]))
    return np.concatenate([features, features[:, left] * features[:, right]], axis=1), np.stack([left, right])


def _prior_variances(theta: np.ndarray) -> np.ndarray:
    scales = np.exp(theta[5:])[CODE.decision_of]
    _, (left, right) = _all_features(np.zeros((1, CODE.num_features)))
    return np.concatenate([np.exp(theta[0]) * scales / 3, np.exp(theta[1]) * 2 / 6 * scales[left] * scales[right]])


def test_one_hot_marks_one_choice_of_each_decision() -> None:
    assert CODE([[2, 0, 3]]).tolist() == [[0, 0, 1, 1, 0, 0, 0, 0, 1]]


def test_a_function_sums_its_choices_and_its_pairs_once() -> None:
    singles = np.arange(9.0)
    pairs = np.zeros((9, 9))
    pairs[2, 3] = pairs[3, 2] = 100.0
    assert Function(singles, pairs)(CODE([[2, 0, 3], [0, 0, 3]])).tolist() == [2 + 3 + 8 + 100, 0 + 3 + 8]


@pytest.mark.parametrize("foreign", [0, 8])
def test_the_gradient_is_that_of_the_density(foreign: int) -> None:
    samples, theta = _samples(20, foreign), _theta()
    gradient = negative_log_density(theta, samples, CODE)[1]
    for index in range(len(theta)):
        step = 1e-5 * np.eye(len(theta))[index]
        above, below = (negative_log_density(theta + sign * step, samples, CODE)[0] for sign in (1, -1))
        assert gradient[index] == pytest.approx((above - below) / 2e-5, abs=1e-6)


def test_the_posterior_is_that_of_linear_regression_on_choices_and_pairs() -> None:
    samples, theta = _samples(20), _theta()
    design, _ = _all_features(samples.features)
    noise = np.exp(theta[2]) + 1e-6
    covariance = np.linalg.inv(design.T @ design / noise + np.diag(1 / _prior_variances(theta)))
    weights = covariance @ design.T @ samples.targets / noise
    others = CODE(_tokens(7, seed=9))
    asked, _ = _all_features(others)
    posterior = Posterior(samples, CODE, theta)
    assert posterior.mean(others) == pytest.approx(asked @ weights, abs=1e-8)
    assert posterior.variance(others) == pytest.approx(((asked @ covariance) * asked).sum(1), abs=1e-8)


@pytest.mark.parametrize("foreign", [0, 8])
def test_draws_have_the_posteriors_mean_and_variance(foreign: int) -> None:
    posterior, others, rng = Posterior(_samples(20, foreign), CODE, _theta()), CODE(_tokens(5, seed=9)), np.random.default_rng(0)
    draws = np.array([posterior.draw(rng)(others) for _ in range(4000)])
    assert draws.mean(0) == pytest.approx(posterior.mean(others), abs=5 * float(draws.std(0).max()) / 63)
    assert draws.var(0) == pytest.approx(posterior.variance(others), rel=0.12)
    cold = np.array([posterior.draw(rng, 0.5)(others) for _ in range(4000)])
    assert cold.std(0) == pytest.approx(0.5 * draws.std(0), rel=0.06)
    assert posterior.draw(rng, 0.0)(others) == pytest.approx(posterior.mean(others), abs=1e-12)


def _truth(tokens: np.ndarray) -> np.ndarray:
    return np.asarray(tokens[:, 0] - 1.0 + 0.8 * tokens[:, 1] * (tokens[:, 2] == 3))


def _two_tasks(count: int, other: int, *, related: bool) -> Samples:
    tokens, rng = _tokens(count + other, seed=4), np.random.default_rng(5)
    targets = _truth(tokens)
    if not related:
        targets[count:] = rng.permutation(targets[count:])
    return Samples(CODE(tokens), targets + 0.05 * rng.standard_normal(len(targets)), np.arange(count + other) >= count)


def test_another_task_helps_where_it_is_related_and_does_not_harm_where_it_is_not() -> None:
    everything = np.stack(np.meshgrid(range(3), range(2), range(4), indexing="ij"), -1).reshape(-1, 3)

    def error(samples: Samples) -> float:
        theta = start(3)
        for _ in range(4):
            theta = fit(samples, CODE, theta)
        return float(np.abs(Posterior(samples, CODE, theta).mean(CODE(everything)) - _truth(everything)).mean())

    few, some = _two_tasks(8, 0, related=True), _two_tasks(16, 0, related=True)
    assert error(_two_tasks(8, 60, related=True)) < 0.5 * error(few)
    assert error(_two_tasks(16, 60, related=False)) < 1.5 * error(some)


def test_a_fit_finds_the_noise_and_what_matters() -> None:
    rng, tokens = np.random.default_rng(0), _tokens(300)
    samples = Samples(CODE(tokens), tokens[:, 0] + 0.3 * rng.standard_normal(300), np.zeros(300, dtype=bool))
    theta = start(3)
    for _ in range(4):
        theta = fit(samples, CODE, theta)
    assert np.exp(theta[2]) == pytest.approx(0.09, rel=0.25)
    assert theta[5] > max(theta[6], theta[7]) + 0.5
