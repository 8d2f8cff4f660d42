"""The outside peers: exact ranking, exact posterior, distinct suggestions, and a better search than random."""

from __future__ import annotations

import itertools
import math
import sys

import numpy as np
import pytest
import scipy.stats

from kfnas.errors import PluginError, SearchExhausted
from kfnas.space import Space
from kfnas.studies.peers import Peer, RidgeConfig, RidgePeer, TPEConfig, TPEPeer, log_evidence, ranked

SPACE = Space.from_decisions({f"d{index}": [0, 1, 2] for index in range(6)})
WEIGHTS = np.random.default_rng(5).normal(size=(6, 3))


def worth(tokens: tuple[int, ...]) -> float:
    return float(sum(WEIGHTS[index, token] for index, token in enumerate(tokens)))


def peer(kind: str, space: Space = SPACE, seed: int = 0) -> Peer:
    return RidgePeer(space, RidgeConfig(), seed) if kind == "ridge" else TPEPeer(space, TPEConfig(), seed)


def asked(searcher: Peer, samples: int, noise: float = 0.3) -> list[tuple[int, ...]]:
    rng, found = np.random.default_rng(9), []
    for _ in range(samples):
        tokens = searcher.ask()
        searcher.tell(tokens, worth(tokens) + noise * rng.standard_normal())
        found.append(tokens)
    return found


@pytest.mark.parametrize("kind", ["ridge", "tpe"])
def test_a_peer_never_suggests_an_architecture_twice_and_repeats_itself_with_its_seed(kind: str) -> None:
    first = asked(peer(kind), 25)
    assert len(set(first)) == 25
    assert first == asked(peer(kind), 25)
    assert first != asked(peer(kind, seed=1), 25)


@pytest.mark.parametrize(("kind", "goal"), [("ridge", 0.999), ("tpe", 0.98)])
def test_a_peer_finds_better_architectures_than_random_search(kind: str, goal: float) -> None:
    # 729 architectures; the best of 60 random ones lies at the 98.4th percentile on average.
    everything = np.array([worth(tokens) for tokens in itertools.product(range(3), repeat=6)])
    best = max(map(worth, asked(peer(kind), 60)))
    assert np.mean(everything <= best) >= goal


@pytest.mark.parametrize("kind", ["ridge", "tpe"])
def test_a_peer_keeps_to_the_rule_and_uses_a_small_space_up(kind: str) -> None:
    space = Space.from_decisions({"a": [0, 1, 2], "b": [0, 1, 2]}, is_valid=lambda choices: choices["a"] != choices["b"])
    searcher = peer(kind, space)
    found = []
    for _ in range(6):
        found.append(searcher.ask())
        searcher.tell(found[-1], float(found[-1][0]))
    assert sorted(found) == [(a, b) for a in range(3) for b in range(3) if a != b]
    with pytest.raises(SearchExhausted, match="were all known"):
        searcher.ask()


@pytest.mark.parametrize("kind", ["ridge", "tpe"])
def test_a_peer_suggests_canonical_forms_only(kind: str) -> None:
    space = Space.from_decisions({"a": [0, 1, 2], "b": [0, 1, 2, 3]}, canonical=lambda tokens: (0, 0) if tokens[0] == 0 else tokens)
    searcher = peer(kind, space)
    found = []
    for _ in range(9):
        found.append(searcher.ask())
        searcher.tell(found[-1], float(sum(found[-1])))
    assert sorted(found) == [(0, 0), *((a, b) for a in (1, 2) for b in range(4))]


@pytest.mark.parametrize("kind", ["ridge", "tpe"])
def test_failed_trainings_do_not_stop_a_peer(kind: str) -> None:
    searcher = peer(kind)
    for index in range(40):
        tokens = searcher.ask()
        searcher.tell(tokens, math.nan if index < 15 or index % 3 else worth(tokens))
    assert len(set(searcher.draws)) == 40


def test_architectures_are_ranked_by_the_sum_of_their_weights() -> None:
    weights = [np.array([0.3, -1.0, 0.2]), np.array([2.0, 2.5]), np.array([0.0, 0.0, 0.1, -3.0]), np.array([1.0])]
    found = list(ranked(weights))
    totals = [sum(values[token] for values, token in zip(weights, tokens, strict=True)) for tokens in found]
    assert len(set(found)) == len(found) == 24
    assert totals == pytest.approx(sorted(totals, reverse=True))


def test_evidence_is_the_likelihood_under_the_integrated_weights() -> None:
    rng = np.random.default_rng(3)
    features, values, variance = rng.normal(size=(9, 4)), rng.normal(size=9), 0.25
    gram, axes = np.linalg.eigh(features.T @ features)

    def exact(noise: float) -> float:
        return float(scipy.stats.multivariate_normal(np.zeros(9), variance * features @ features.T + noise * np.eye(9)).logpdf(values))

    def ours(noise: float) -> float:
        return log_evidence(noise, variance, gram, axes.T @ (features.T @ values), values)

    assert ours(0.5) - ours(0.1) == pytest.approx(exact(0.5) - exact(0.1))


def test_sampled_weights_have_the_posterior_mean_and_covariance() -> None:
    space, noise = Space.from_decisions({"a": [0, 1], "b": [0, 1, 2]}), 0.5
    searcher = RidgePeer(space, RidgeConfig(noise=noise), 0)
    values = {(0, 0): 1.0, (0, 2): -1.0, (1, 1): 0.5, (1, 2): -0.5}
    for tokens, value in values.items():
        searcher.tell(tokens, value)
    features = np.array([space.embed(space.architecture(tokens)) for tokens in values], dtype=float)
    targets = np.array(list(values.values()))
    targets = (targets - targets.mean()) / targets.std()
    covariance = np.linalg.inv(features.T @ features / noise + 2 * np.eye(5))
    draws = np.array([searcher._sample_weights() for _ in range(4000)])
    # 4,000 draws: standard errors of about 0.01; five of them.
    assert draws.mean(0) == pytest.approx(covariance @ features.T @ targets / noise, abs=0.06)
    assert np.cov(draws.T) == pytest.approx(covariance, abs=0.06)


def test_tpe_without_optuna_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(PluginError, match=r"pip install 'kfnas\[bench\]'"):
        TPEPeer(SPACE, TPEConfig(), 0)
