"""Expectations of operators against hand-counted shares."""

from __future__ import annotations

import math

import numpy as np
import pytest

from kfnas.errors import SpaceError, UserError
from kfnas.space import Space
from kfnas.studies.operators import compare_operators, expectation

SPACE = Space.from_decisions({"a/op": ["conv", "mb3"], "a/kernel": [3, 5, 7]})
FIRST = [(0, 0), (0, 1), (1, 2), (0, 0)]
SECOND = [(1, 0), (1, 0)]


def test_the_expectation_is_the_share_of_each_choice():
    assert expectation(SPACE, FIRST) == pytest.approx([3 / 4, 1 / 4, 2 / 4, 1 / 4, 1 / 4])


def test_the_expectation_is_the_mean_embedding():
    embedded = np.mean([SPACE.embed(SPACE.architecture(tokens)) for tokens in FIRST], axis=0)
    assert expectation(SPACE, FIRST) == pytest.approx(embedded)


def test_operators_are_sorted_by_difference_then_by_the_space_s_order():
    operators = compare_operators(SPACE, FIRST, SECOND)
    assert [(operator.decision, operator.choice, operator.difference) for operator in operators] == [
        ("a/op", "conv", -0.75),
        ("a/op", "mb3", 0.75),
        ("a/kernel", "3", 0.5),
        ("a/kernel", "5", -0.25),
        ("a/kernel", "7", -0.25),
    ]


def test_a_difference_is_standardised_by_the_pooled_share():
    conv = compare_operators(SPACE, FIRST, SECOND)[0]
    assert (conv.first, conv.second) == (0.75, 0.0)
    assert conv.z == pytest.approx(-0.75 / math.sqrt(0.5 * 0.5 * (1 / 4 + 1 / 2)))


def test_an_operator_that_nobody_or_everybody_chose_is_no_difference():
    assert {operator.z for operator in compare_operators(SPACE, [(0, 0)], [(0, 0)])} == {0.0}


def test_no_architecture_is_refused():
    with pytest.raises(UserError, match="no architecture"):
        compare_operators(SPACE, FIRST, [])


@pytest.mark.parametrize("tokens", [(0, 3), (0,), (-1, 0)])
def test_an_architecture_of_another_space_is_refused(tokens):
    with pytest.raises(SpaceError, match="do not fit"):
        expectation(SPACE, [tokens])
