"""The default critic: how it sees rewards, what it trusts, and what the agent does with it."""

import math
from pathlib import Path

import numpy as np
import pytest

from kfnas.config import parse
from kfnas.controller import Candidate, Knowledge, Result, Row, Search, SearchConfig
from kfnas.controller.agents import Draw, Scored, Tokens
from kfnas.controller.bayesian import OWN_LIMIT, BayesianCritic, Lens
from kfnas.controller.config import CriticConfig
from kfnas.controller.fnas import FNASAgent
from kfnas.space import Space

SPACE = Space.from_decisions({f"decision{index}": [0, 1, 2] for index in range(9)})


def _search(agent: str = "fnas", seed: int = 0, prior: Knowledge | None = None, **fields: object) -> Search:
    values = {"agent": agent, "policy": {"hidden_units": 16}, **fields}
    return Search(SPACE, parse(SearchConfig, values), seed=seed, prior=prior)


def _truth(tokens: Tokens) -> float:
    return (sum(tokens) + 2.0 * (tokens[0] == tokens[1] == 2)) / 20


def _answer(candidate: Candidate) -> Result:
    noise = 0.02 * np.random.default_rng(candidate.seed).standard_normal()
    return Result(candidate.id, accuracy=_truth(candidate.tokens) + noise)


def _rounds(search: Search, count: int) -> Search:
    for _ in range(count):
        search.update([_answer(candidate) for candidate in search.suggest()])
    return search


def _scored(tokens: Tokens, reward: float, value: float | None = None, uncertainty: float | None = None) -> Scored:
    return Scored(Draw(tokens, -1.0, "policy", None, value, uncertainty), reward, id=str(tokens), status="ok")


def _taught(count: int, **fields: object) -> BayesianCritic:
    critic = BayesianCritic(SPACE, CriticConfig(**fields), seed=0)  # type: ignore[arg-type]
    rng = np.random.default_rng(1)
    tokens = [tuple(row) for row in rng.integers(3, size=(count, 9)).tolist()]
    critic.learn([(item, _scored(item, _truth(item))) for item in tokens])
    return critic


def test_the_lens_is_undone() -> None:
    rewards = np.array([0.1, 0.5, 0.9, 0.91, 0.95])
    lens = Lens.of(rewards)
    beyond = np.array([-3.0, 0.3, 0.95, 1.5])
    assert lens.to_reward(lens(beyond)) == pytest.approx(beyond)
    assert np.diff(lens(beyond)).min() > 0
    assert (float(lens(rewards).mean()), float(lens(rewards).std())) == pytest.approx((0.0, 1.0))


def test_the_lens_sees_more_near_the_best_than_far_below_it() -> None:
    lens = Lens.of([0.0, 0.5, 0.6, 0.8, 0.9])
    seen = lens(np.array([0.0, 0.1, 0.8, 0.9]))
    assert seen[3] - seen[2] > 2 * (seen[1] - seen[0])


@pytest.mark.parametrize("rewards", [[0.5], [0.5, 0.5, 0.5], [0.9, 0.9, 0.9, 0.1]])
def test_the_lens_takes_rewards_that_hardly_differ(rewards: list[float]) -> None:
    lens = Lens.of(rewards)
    assert np.isfinite(lens(rewards)).all()
    assert lens.to_reward(lens(rewards)) == pytest.approx(rewards)


def test_v_predicts_what_it_was_not_shown() -> None:
    critic = _taught(80)
    others = [tuple(row) for row in np.random.default_rng(2).integers(3, size=(50, 9)).tolist()]
    scores = critic.score(others)
    assert scores is not None
    truth = np.array([_truth(item) for item in others])
    assert np.abs(scores.value - truth).mean() < 0.25 * truth.std()


def test_u_is_larger_where_less_is_known() -> None:
    critic = BayesianCritic(SPACE, CriticConfig(), seed=0)
    # Of the first decision choice 2 was never seen.
    tokens = [(int(row[0]) % 2, *row[1:]) for row in np.random.default_rng(1).integers(3, size=(60, 9)).tolist()]
    critic.learn([(item, _scored(item, _truth(item))) for item in tokens])
    seen, unseen = critic.score([(0, *[1] * 8)]), critic.score([(2, *[1] * 8)])
    assert seen is not None
    assert unseen is not None
    assert unseen.uncertainty[0] > seen.uncertainty[0]


def test_u_grows_with_the_errors_that_were_made() -> None:
    asked = [(0,) * 9]
    factors = []
    for error in (0.1, 10.0):
        critic = _taught(40)
        before = critic.score(asked)
        assert before is not None
        one = (1,) * 9
        spread = float(before.uncertainty[0])
        critic.learn([(one, _scored(one, 0.5, 0.5 + error * spread, spread))] * 30)
        factors.append(critic._factor())
    assert factors[0] == pytest.approx((8 + 30 * 0.1) / 38, rel=1e-6)
    assert factors[1] == pytest.approx((8 + 30 * 10) / 38, rel=1e-6)


def test_it_says_nothing_before_two_rewards_and_is_trusted_after_min_samples() -> None:
    assert _taught(1).score([(0,) * 9]) is None
    assert _taught(1).member() is None
    assert not _taught(15, min_samples=16).is_calibrated
    assert _taught(16, min_samples=16).is_calibrated


def test_what_is_over_budget_is_told_to_members_and_not_to_v() -> None:
    critic, told = _taught(60, temperature=0.0), _taught(60, temperature=0.0)
    bad = [(2, 2, *row) for row in np.random.default_rng(3).integers(3, size=(30, 7)).tolist()]
    told.learn([], [(item, _scored(item, 0.0)) for item in bad])
    asked = [(2,) * 9]
    for left, right in ((critic.score(asked), told.score(asked)),):
        assert left is not None
        assert right is not None
        assert left.value == pytest.approx(right.value)
    members = critic.member(), told.member()
    assert members[0] is not None
    assert members[1] is not None
    assert members[1](asked)[0] < members[0](asked)[0] - 0.5


def test_of_very_many_samples_the_best_and_the_latest_are_kept() -> None:
    critic = _taught(8)
    rng = np.random.default_rng(4)
    for item in rng.integers(3, size=(OWN_LIMIT + 200, 9)).tolist():
        critic._own.add(tuple(item), float(rng.random()), False, math.nan)
    kept = critic._samples()
    assert len(kept.targets) == OWN_LIMIT
    assert kept.targets.max() == pytest.approx(critic.seen([max(critic._own.rewards)])[0])
    assert kept.targets[-1] == pytest.approx(critic.seen([critic._own.rewards[-1]])[0])


def _of_source(search: Search, source: str) -> list[Row]:
    return [row for row in search.rows if row.source == source]


def test_every_candidate_is_a_draw_with_its_log_prob() -> None:
    search = _rounds(_search(), 8)
    before = search._live_agent()
    assert isinstance(before, FNASAgent)
    batch = search.suggest()
    new = [row for row in search._batch.slots if row.candidate.id in {candidate.id for candidate in batch}]  # type: ignore[union-attr]
    log_probs = before._ppo.log_probs([slot.candidate.tokens for slot in new])
    assert [slot.log_prob for slot in new] == pytest.approx(log_probs, abs=1e-5)


def test_the_chosen_are_better_than_the_policys_draws() -> None:
    search = _rounds(_search("mnas+uac"), 4)
    agent = search._live_agent()
    assert isinstance(agent, FNASAgent)
    drawn = np.mean([_truth(item) for item in agent._ppo.sample(256)])
    assert np.mean([_truth(candidate.tokens) for candidate in search.suggest()]) > drawn + 0.1


def test_imagined_draws_teach_the_policy() -> None:
    means = []
    for imagined in (0, 48):
        agent = _rounds(_search("mnas+uac", policy={"hidden_units": 64}, critic={"imagined": imagined}), 8)._live_agent()
        assert isinstance(agent, FNASAgent)
        means.append(np.mean([_truth(item) for item in agent._ppo.sample(512)]))
    assert means[1] > means[0] + 0.05


def test_the_policy_stays_open() -> None:
    def distinct(search: Search) -> float:
        agent = search._live_agent()
        assert isinstance(agent, FNASAgent)
        return len(set(agent._ppo.sample(100))) / 100

    closed, opened = (_rounds(_search("fnas", policy={"hidden_units": 64}, critic={"keep_open": flag}), 24) for flag in (False, True))
    assert distinct(opened) > 0.6
    assert distinct(opened) > distinct(closed)


def test_half_as_many_samples_as_random_search_find_better_ones() -> None:
    def found(agent: str, samples: int, seed: int) -> float:
        search = _search(agent, seed=seed, policy={"hidden_units": 64})
        while search.num_activated < samples:
            _rounds(search, 1)
        return _truth(search.best().tokens)

    guided, random = (np.mean([found(agent, samples, seed) for seed in range(3)]) for agent, samples in (("fnas", 60), ("random", 120)))
    assert guided > random + 0.02


@pytest.mark.parametrize("with_prior", [False, True])
def test_saved_and_loaded_at_every_point_it_goes_on_alike(with_prior: bool, tmp_path: Path) -> None:
    prior = _rounds(_search(seed=9), 6).knowledge("other") if with_prior else None
    whole, broken = _search(prior=prior), _search(prior=prior)
    for _ in range(5):
        results = [_answer(candidate) for candidate in whole.suggest()]
        whole.update(results)
        broken.suggest()
        broken.save(tmp_path)
        broken = Search.load(tmp_path)
        broken.update(results[::-1])
    assert broken.digest() == whole.digest()


def test_a_prior_of_a_like_task_is_worth_samples_and_a_shuffled_one_is_given_up() -> None:
    donor = _rounds(_search(seed=9), 16).knowledge("other")
    accuracies = np.random.default_rng(0).permutation([sample.accuracy for sample in donor.samples]).tolist()
    shuffled = Knowledge(donor.space, tuple(sample._replace(accuracy=value) for sample, value in zip(donor.samples, accuracies, strict=True)))
    helped, misled = (_rounds(_search(seed=1, prior=prior), 2) for prior in (donor, shuffled))
    for search, has_prior in ((helped, True), (misled, False)):
        agent = search._live_agent()
        assert isinstance(agent, FNASAgent)
        assert isinstance(agent._critic, BayesianCritic)
        assert agent._critic.has_prior == has_prior
    assert _of_source(helped, "trusted")


def test_what_was_over_the_budget_counts_as_the_kind_of_children_that_the_search_trains() -> None:
    # A warm search's members are asked for warm children: low rewards of the other kind would be explained away by the kind.
    search = Search(
        SPACE, parse(SearchConfig, {"agent": "fnas", "batch_size": 8, "policy": {"hidden_units": 16}, "reward": {"kind": "hard", "target": 1.0}}), seed=0
    )
    for _ in range(2):
        batch = search.suggest()
        search.update(
            [
                Result(candidate.id, status="infeasible", cost=2.0)
                if index == 0
                else Result(candidate.id, accuracy=_truth(candidate.tokens), cost=1.0, initialisation="pool:x")
                for index, candidate in enumerate(batch)
            ]
        )
    critic = search._live_agent()._critic  # type: ignore[attr-defined]
    assert len(critic._graded) > 0
    assert critic._graded.arrays()["warm"].all()
