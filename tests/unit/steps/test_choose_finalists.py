"""Which trained architectures are trained from scratch."""

from pathlib import Path

import pandas as pd
import pytest

from kfnas.errors import BudgetError
from kfnas.steps.choose_finalists import most_promising
from kfnas.steps.context import open_run
from kfnas.steps.study_results import search_result
from kfnas.testing.sequence import StepSequence, small_search


def test_the_best_of_each_initialisation_come_in_turn_and_no_architecture_twice():
    rows = pd.DataFrame(
        [("a", 0.9, "pool:1"), ("b", 0.8, "pool:1"), ("c", 0.7, "random"), ("a", 0.6, "random"), ("d", 0.5, "random")],
        columns=["architecture", "reward", "initialisation"],
    )
    assert list(most_promising(rows, 3)["architecture"]) == ["a", "c", "b"]
    assert list(most_promising(rows, 9)["architecture"]) == ["a", "c", "b", "d"]


def test_of_one_initialisation_the_highest_rewards_come_first_and_equals_in_order():
    rows = pd.DataFrame([("a", 0.5, "random"), ("b", 0.9, "random"), ("c", 0.9, "random")], columns=["architecture", "reward", "initialisation"])
    assert list(most_promising(rows, 3)["architecture"]) == ["b", "c", "a"]


def test_a_search_that_found_nothing_near_its_target_says_so_in_its_store(tmp_path: Path) -> None:
    target = {"kind": "soft", "target": 1e12}
    config = small_search(tmp_path / "store", rounds=1, search={"agent": "random", "batch_size": 2, "reward": target})
    sequence = StepSequence(config, tmp_path / "work")
    sequence.begin()
    for shard in sequence.open_round():
        sequence.train(shard)
    sequence.close_round()
    assert search_result(open_run(config.text)).state == "searched"
    with pytest.raises(BudgetError) as refused:
        sequence.finish()
    assert open_run(config.text).searches.record("search", "fruitless") == {"reason": str(refused.value)}
    assert search_result(open_run(config.text)).state == "fruitless"
