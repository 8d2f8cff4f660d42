"""PC-NAS on a toy supernet whose accuracies are known."""

from __future__ import annotations

import json
import math
from collections import Counter
from itertools import product
from typing import Any

import numpy as np
import pytest

from kfnas.errors import BudgetError, ConfigError, UserError
from kfnas.oneshot.paths import Path, Sampler, complete
from kfnas.oneshot.pc_nas import (
    MAX_DRAWS_FACTOR,
    PCNASConfig,
    PCNASState,
    Potential,
    TrainPhase,
    UpdatePhase,
    candidates,
    next_phase,
    potential,
    result,
    run,
    sample_path,
    update_pool,
)
from kfnas.oneshot.seeds import random_stream
from kfnas.space import OperatorCosts

NUM_CHOICES = (3, 2, 4, 3)
COSTS = OperatorCosts(1.0, ((1.0, 2.0, 3.0), (1.0, 4.0), (0.0, 1.0, 2.0, 3.0), (2.0, 1.0, 5.0)))
EVERY_PATH = list(product(*map(range, NUM_CHOICES)))
NOISE = np.random.default_rng(0).uniform(0.1, 0.4, len(EVERY_PATH))
# The dearer, the better: so a limit changes every expectation.
ACCURACIES = {path: float(0.04 * COSTS(path) + noise) for path, noise in zip(EVERY_PATH, NOISE, strict=True)}


class Toy:
    """Known accuracies; remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[Path, int]] = []

    def accuracy(self, path: Path, batch: int) -> float:
        self.asked.append((path, batch))
        return ACCURACIES[path]


class Weights:
    """Counts epochs and draws a few paths in each, as a trainer would; `die_in` raises in the middle of that epoch."""

    def __init__(self, paths_per_epoch: int = 3) -> None:
        self.num_epochs = 0
        self.paths: list[list[Path]] = []
        self.paths_per_epoch = paths_per_epoch

    def train(self, sample: Sampler, *, until: int) -> None:
        while self.num_epochs < until:
            self.paths.append([sample(random_stream(0, "path", self.num_epochs, index)) for index in range(self.paths_per_epoch)])
            self.num_epochs += 1


def config(**changes: Any) -> PCNASConfig:
    return PCNASConfig.model_validate({"pool_size": 2, "num_evaluations": 20, "warmup_epochs": 3, "interval_epochs": 2, **changes})


def completions(partial: Path, limit: float = math.inf) -> list[float]:
    return [accuracy for path, accuracy in ACCURACIES.items() if path[: len(partial)] == partial and COSTS(path) <= limit]


@pytest.mark.parametrize("partial", [(), (0,), (2, 0), (1, 0, 3)])
@pytest.mark.parametrize("how", ["drawn", "feasible"])
def test_the_mean_over_s_draws_converges_to_the_exact_expectation_under_the_limit(partial: Path, how: str) -> None:
    limit = 9.0
    exact = completions(partial, limit)
    errors = []
    for count in (30, 3000):
        found = potential(partial, NUM_CHOICES, Toy(), config(num_evaluations=count, limit=limit, completions=how), cost=COSTS, seed=1)
        assert found.value is not None
        errors.append(abs(found.value - np.mean(exact)))
        # Five standard deviations of a mean of independent draws: false alarms below 1e-6 each, 16 in all.
        assert errors[-1] <= 5 * np.std(exact) / math.sqrt(found.num_feasible) + 1e-12
    assert np.std(exact) > 0
    assert abs(np.mean(exact) - np.mean(completions(partial))) > 5 * np.std(exact) / math.sqrt(3000), "the limit makes no difference here"


def test_infeasible_completions_are_dumped_and_the_mean_is_over_the_feasible_ones() -> None:
    toy = Toy()
    found = potential((2,), NUM_CHOICES, toy, config(num_evaluations=50, limit=9.0), cost=COSTS, seed=0)
    assert found.num_draws == 50
    assert 0 < found.num_feasible == len(toy.asked) < 50
    assert all(COSTS(path) <= 9.0 for path, _ in toy.asked)
    assert found.value == pytest.approx(np.mean([ACCURACIES[path] for path, _ in toy.asked]))


def test_the_other_way_to_count_draws_until_s_are_feasible() -> None:
    found = potential((2,), NUM_CHOICES, Toy(), config(num_evaluations=50, limit=9.0, completions="feasible"), cost=COSTS, seed=0)
    assert found.num_feasible == 50 < found.num_draws <= 50 * MAX_DRAWS_FACTOR


@pytest.mark.parametrize(("how", "draws"), [("drawn", 20), ("feasible", 400)])
def test_rejection_ends_where_nothing_is_feasible_and_says_why(how: str, draws: int) -> None:
    toy = Toy()
    found = potential((2, 1), NUM_CHOICES, toy, config(limit=8.5, completions=how), cost=COSTS, seed=0)
    assert (found.value, found.num_feasible, found.num_draws, toy.asked) == (None, 0, draws, [])
    assert found.reason == f"none of {draws} random completions costs 8.5 or less; the cheapest costs 9"


def test_each_completion_is_scored_on_one_mini_batch_and_every_candidate_on_the_same_ones() -> None:
    for partial in [(0,), (1, 1)]:
        toy = Toy()
        potential(partial, NUM_CHOICES, toy, config(limit=9.0), cost=COSTS, seed=0)
        assert [batch for _, batch in toy.asked] == list(range(len(toy.asked)))


def test_completions_are_uniform() -> None:
    rng = np.random.default_rng(5)
    draws = Counter(complete((1,), NUM_CHOICES, rng) for _ in range(4800))
    assert len(draws) == 24
    # Chi-square with 23 degrees of freedom: above 75 with odds of 2e-7.
    assert sum((count - 200) ** 2 / 200 for count in draws.values()) < 75


def test_a_shard_of_candidates_gives_what_all_of_them_together_give() -> None:
    settings = config(limit=10.0)
    state = PCNASState(pool=((0, 1), (2, 0)), updates=((), ()))
    together = [potential(partial, NUM_CHOICES, Toy(), settings, cost=COSTS, seed=3) for partial in candidates(state, NUM_CHOICES)]
    shards = [candidates(state, NUM_CHOICES)[1::2], candidates(state, NUM_CHOICES)[-2::-2]]
    apart = [potential(partial, NUM_CHOICES, Toy(), settings, cost=COSTS, seed=3) for shard in shards for partial in shard]
    assert sorted(apart, key=lambda item: item.tokens) == sorted(together, key=lambda item: item.tokens)
    assert update_pool(state, apart, NUM_CHOICES, settings) == update_pool(state, together, NUM_CHOICES, settings)


def test_another_seed_draws_other_completions() -> None:
    asked = []
    for seed in (0, 0, 1):
        toy = Toy()
        potential((1,), NUM_CHOICES, toy, config(), cost=None, seed=seed)
        asked.append(toy.asked)
    assert asked[0] == asked[1] != asked[2]


def test_the_best_p_are_kept_and_ties_go_to_the_lower_tokens() -> None:
    state = PCNASState(pool=((1,), (0,)), updates=((),))
    scores = {(0, 0): 0.5, (0, 1): 0.7, (1, 0): 0.7, (1, 1): None}
    potentials = [Potential(tokens, value, 1, 1) for tokens, value in reversed(scores.items())]
    assert update_pool(state, potentials, NUM_CHOICES, config(pool_size=2)).pool == ((0, 1), (1, 0))
    kept = update_pool(state, potentials, NUM_CHOICES, config(pool_size=9))
    assert kept.pool == ((0, 1), (1, 0), (0, 0)), "a candidate without a potential is no candidate"
    assert [item.tokens for item in kept.updates[-1]] == [(0, 1), (1, 0), (0, 0), (1, 1)]


def test_missing_foreign_and_doubled_potentials_are_refused() -> None:
    state = PCNASState()
    whole = [Potential((token,), 0.5, 1, 1) for token in range(3)]
    for wrong in (whole[:2], [*whole, whole[0]], [*whole[:2], Potential((5,), 0.5, 1, 1)]):
        with pytest.raises(UserError, match="potentials of its 3 candidates once each"):
            update_pool(state, wrong, NUM_CHOICES, config())


def test_an_update_without_a_feasible_candidate_says_what_to_raise() -> None:
    with pytest.raises(BudgetError, match=r"mixed operator 0: .* the cheapest costs .* raise the limit"):
        run(Weights(), Toy(), NUM_CHOICES, config(limit=2.0), seed=0, cost=COSTS)


def test_a_limit_needs_a_cost() -> None:
    with pytest.raises(ConfigError, match="nothing says what a model costs"):
        potential((), NUM_CHOICES, Toy(), config(limit=2.0), cost=None, seed=0)


def test_an_accuracy_that_is_no_number_is_refused() -> None:
    class Broken:
        def accuracy(self, path: Path, batch: int) -> float:
            return math.nan

    with pytest.raises(UserError, match="no finite number"):
        potential((), NUM_CHOICES, Broken(), config(), cost=None, seed=0)


def test_the_papers_schedule_is_100_epochs_and_20_times_5() -> None:
    settings = PCNASConfig()
    assert (settings.pool_size, settings.num_evaluations) == (5, 900)
    assert settings.num_epochs(21) == 200
    state, epochs, phases = PCNASState(), 0, []
    while (phase := next_phase(state, epochs, 21, settings)) is not None:
        phases.append(phase)
        if isinstance(phase, TrainPhase):
            epochs = phase.until
        else:
            state = PCNASState((*state.updates, ()), state.pool)
    assert phases == [TrainPhase(100), *(item for mixop in range(20) for item in (UpdatePhase(mixop), TrainPhase(105 + 5 * mixop))), UpdatePhase(20)]
    assert epochs == 200


def test_training_paths_are_uniform_in_the_warm_up_and_then_completions_of_the_pool() -> None:
    weights = Weights(paths_per_epoch=400)
    pools = [((),)]
    state = run(weights, Toy(), NUM_CHOICES, config(), seed=0, after_phase=lambda state: pools.append(state.pool))
    warm_up = Counter(path for paths in weights.paths[:3] for path in paths)
    # 1,200 draws of 72 paths; chi-square with 71 degrees of freedom: above 155 with odds of 4e-8.
    assert sum((warm_up[path] - 1200 / 72) ** 2 / (1200 / 72) for path in EVERY_PATH) < 155
    for decided in range(1, 4):
        pool = [item.tokens for item in state.updates[decided - 1]][:2]
        drawn = {path for paths in weights.paths[3 + 2 * (decided - 1) : 3 + 2 * decided] for path in paths}
        assert {path[:decided] for path in drawn} == set(pool)
        assert {path[decided] for path in drawn} == set(range(NUM_CHOICES[decided]))


def test_the_result_is_within_the_limit_and_the_best_where_the_pool_holds_everything() -> None:
    state = run(Weights(), Toy(), NUM_CHOICES, config(pool_size=1000, limit=9.0, completions="feasible"), seed=0, cost=COSTS)
    best = max((path for path in EVERY_PATH if COSTS(path) <= 9.0), key=ACCURACIES.__getitem__)
    assert result(state, NUM_CHOICES) == best
    narrow = run(Weights(), Toy(), NUM_CHOICES, config(limit=9.0), seed=0, cost=COSTS)
    assert COSTS(result(narrow, NUM_CHOICES)) <= 9.0
    with pytest.raises(UserError, match="2 of 4 mixed operators are decided"):
        result(PCNASState(narrow.updates[:2], narrow.pool), NUM_CHOICES)


def test_a_state_survives_json() -> None:
    state = run(Weights(), Toy(), NUM_CHOICES, config(limit=8.5, num_evaluations=5), seed=0, cost=COSTS)
    assert PCNASState.from_json(json.loads(json.dumps(state.to_json()))) == state


def test_a_search_killed_after_any_phase_and_resumed_gives_the_same_state_and_paths() -> None:
    class Killed(Exception):
        """The process ends here."""

    settings = config(limit=9.0)
    weights = Weights()
    expected = run(weights, Toy(), NUM_CHOICES, settings, seed=4, cost=COSTS)
    for phases in range(1, 8):
        first, saved = Weights(), []

        def kill(state: PCNASState, saved: list[Any] = saved, first: Weights = first, phases: int = phases) -> None:
            saved.append((json.dumps(state.to_json()), first.num_epochs, list(first.paths)))
            if len(saved) == phases:
                raise Killed

        with pytest.raises(Killed):
            run(first, Toy(), NUM_CHOICES, settings, seed=4, cost=COSTS, after_phase=kill)
        second = Weights()
        text, second.num_epochs, second.paths = saved[-1]
        state = run(second, Toy(), NUM_CHOICES, settings, seed=4, cost=COSTS, state=PCNASState.from_json(json.loads(text)))
        assert state == expected
        assert second.paths == weights.paths


def test_a_path_is_drawn_from_each_partial_model_of_the_pool_alike() -> None:
    state = PCNASState(pool=((0,), (2,)), updates=((),))
    rng = np.random.default_rng(0)
    first = Counter(sample_path(state, NUM_CHOICES, rng)[0] for _ in range(2000))
    # A binomial of 2,000 draws, standard deviation 22: five of them, odds of 6e-7.
    assert set(first) == {0, 2}
    assert abs(first[0] - 1000) < 112


def test_candidates_draw_completions_of_their_own() -> None:
    asked = []
    for partial in [(0,), (1,)]:
        toy = Toy()
        potential(partial, NUM_CHOICES, toy, config(), cost=None, seed=0)
        asked.append([path[1:] for path, _ in toy.asked])
    assert asked[0] != asked[1]
