from __future__ import annotations

import json
from collections import Counter

import numpy as np
import pytest

from kfnas.errors import BudgetError, ConfigError
from kfnas.oneshot.evolution import EvolutionConfig, EvolutionState, Scored, mutate, pc_nas_evaluations, run
from kfnas.oneshot.paths import Path
from kfnas.oneshot.pc_nas import PCNASConfig, candidates, update_pool
from kfnas.oneshot.pc_nas import PCNASState as PoolState
from kfnas.oneshot.pc_nas import Potential as PotentialOfPartial
from kfnas.space import OperatorCosts

NUM_CHOICES = (3, 1, 4, 3, 2)
COSTS = OperatorCosts(0.0, ((0.0, 1.0, 2.0), (0.0,), (0.0, 1.0, 2.0, 3.0), (0.0, 1.0, 2.0), (0.0, 1.0)))


class Toy:
    """The more a path costs, the better it is; each mini-batch adds something known."""

    def __init__(self) -> None:
        self.asked: list[tuple[Path, int]] = []

    def accuracy(self, path: Path, batch: int) -> float:
        self.asked.append((path, batch))
        return COSTS(path) / 10 + batch / 100


def test_a_mutation_replaces_the_operator_of_one_mixed_operator_uniformly() -> None:
    rng = np.random.default_rng(0)
    path = (1, 0, 2, 0, 1)
    found: Counter[tuple[int, int]] = Counter()
    for _ in range(4000):
        mutant = mutate(path, NUM_CHOICES, rng)
        changed = [place for place in range(5) if mutant[place] != path[place]]
        assert len(changed) == 1
        found[changed[0], mutant[changed[0]]] += 1
    expected = {(place, token): 1000 / (count - 1) for place, count in enumerate(NUM_CHOICES) if count > 1 for token in range(count) if token != path[place]}
    assert set(found) == set(expected)
    # Chi-square with 7 degrees of freedom: above 45 with odds of 1e-7.
    assert sum((found[key] - count) ** 2 / count for key, count in expected.items()) < 45


def test_a_path_without_alternatives_has_no_mutant() -> None:
    assert mutate((0, 0), (1, 1), np.random.default_rng(0)) == (0, 0)


def test_it_climbs_to_the_best_model_within_the_limit() -> None:
    state = run(Toy(), NUM_CHOICES, EvolutionConfig(num_evaluations=120, batches_per_model=2, limit=6.0), seed=0, cost=COSTS)
    assert COSTS(state.best(1)[0].path) == 6.0
    assert all(COSTS(model.path) <= 6.0 for model in state.models)


def test_the_budget_counts_mini_batches_and_no_model_is_scored_twice() -> None:
    toy = Toy()
    state = run(toy, NUM_CHOICES, EvolutionConfig(num_evaluations=50, batches_per_model=3), seed=0)
    assert len(state.models) == 16
    assert [batch for _, batch in toy.asked] == [0, 1, 2] * 16
    assert len({model.path for model in state.models}) == 16
    assert state.models[0].accuracy == pytest.approx(COSTS(state.models[0].path) / 10 + 0.01)


def test_children_come_from_the_best_models_only() -> None:
    state = run(Toy(), NUM_CHOICES, EvolutionConfig(num_evaluations=18, batches_per_model=1, population_size=3), seed=1)
    assert len(state.models) == 18
    for index in range(3, 18):
        parents = EvolutionState(state.models[:index]).best(3)
        differing = [sum(a != b for a, b in zip(parent.path, state.models[index].path, strict=True)) for parent in parents]
        assert 1 in differing


def test_an_unreachable_limit_says_what_to_raise() -> None:
    with pytest.raises(BudgetError, match="raise the limit"):
        run(Toy(), (2, 2), EvolutionConfig(num_evaluations=4, limit=0.5), seed=0, cost=lambda path: 1.0)
    with pytest.raises(ConfigError, match="nothing says what a model costs"):
        run(Toy(), (2, 2), EvolutionConfig(num_evaluations=4, limit=0.5), seed=0)


def test_where_feasible_models_are_rare_mutants_fill_the_population() -> None:
    wide = (10,) * 6
    # One random model in 10,000 is within this limit, and every mutant of it at the two other places.
    state = EvolutionState((Scored((0,) * 6, 0.5),))
    state = run(Sum(), wide, EvolutionConfig(num_evaluations=10, batches_per_model=1, limit=0.5), seed=0, cost=lambda path: float(sum(path[:4])), state=state)
    assert len(state.models) == 10
    assert all(path[:4] == (0, 0, 0, 0) for path in (model.path for model in state.models))


class Sum:
    """For paths of any length."""

    def accuracy(self, path: Path, batch: int) -> float:
        return sum(path) / 60


def test_it_ends_when_nothing_new_is_in_reach() -> None:
    state = run(Sum(), (2, 1), EvolutionConfig(num_evaluations=100, batches_per_model=1), seed=0)
    assert state.exhausted
    assert {model.path for model in state.models} == {(0, 0), (1, 0)}


def test_where_all_mutants_are_known_it_goes_on_with_random_models() -> None:
    state = run(Toy(), NUM_CHOICES, EvolutionConfig(num_evaluations=72, batches_per_model=1, population_size=1), seed=0)
    assert len({model.path for model in state.models}) == 72


def test_resumed_from_json_after_any_model_it_goes_on_alike() -> None:
    config = EvolutionConfig(num_evaluations=40, batches_per_model=2, limit=7.0)
    states = [EvolutionState()]
    expected = run(Toy(), NUM_CHOICES, config, seed=3, cost=COSTS, after_model=states.append)
    assert len(states) == 21
    for state in states:
        again = EvolutionState.from_json(json.loads(json.dumps(state.to_json())))
        assert run(Toy(), NUM_CHOICES, config, seed=3, cost=COSTS, state=again) == expected


def test_its_budget_is_what_pc_nas_evaluates() -> None:
    config = PCNASConfig(pool_size=4, num_evaluations=7)
    state, total = PoolState(), 0
    for _ in NUM_CHOICES:
        found = [PotentialOfPartial(partial, 0.5, 7, 7) for partial in candidates(state, NUM_CHOICES)]
        total += sum(item.num_draws for item in found)
        state = update_pool(state, found, NUM_CHOICES, config)
    assert pc_nas_evaluations(config, NUM_CHOICES) == total
    assert pc_nas_evaluations(PCNASConfig(), (10,) * 21) == 900 * (10 + 20 * 50)
