"""Which trained architectures are trained from scratch."""

import pandas as pd

from kfnas.steps.choose_finalists import most_promising


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
