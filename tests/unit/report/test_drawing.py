from __future__ import annotations

from typing import Any

import pytest

from kfnas.report.drawing import cards

MOBILE: dict[str, Any] = {"b/op": "mb6", "b/kernel": 5, "b/se": 0.25, "b/skip": "pool", "b/width": 0.75, "b/layers": 2}


def test_a_mobile_block_is_drawn_with_a_bar_for_each_layer() -> None:
    narrow, wide = cards({**MOBILE, **{name.replace("b/", "c/"): value for name, value in MOBILE.items()}, "c/width": 1.5})
    assert (len(narrow.bars), narrow.skip, narrow.has_se, narrow.style) == (2, "pool", True, "mb6")
    assert narrow.bars[0].width == pytest.approx(wide.bars[0].width / 2)
    assert narrow.summary == "b: MBConv 6, 5×5, 2 layers, width ×0.75, SE 0.25, skip pool"


@pytest.mark.parametrize("change", [{"b/op": "other"}, {"b/layers": 40}, {"b/width": 0.0}, {"b/kernel": "3"}, {"b/extra": 1}])
def test_any_other_block_is_drawn_by_its_choices(change: dict[str, Any]) -> None:
    (card,) = cards({**MOBILE, **change})
    assert card.bars == ()
    assert ("skip", "pool") in card.facts


def test_a_decision_without_a_block_is_a_block_of_its_own() -> None:
    assert [(card.name, card.facts) for card in cards({"lr": 0.1, "a/b/op": "x", "a/b/k": True})] == [
        ("lr", (("", "0.1"),)),
        ("a/b", (("op", "x"), ("k", "True"))),
    ]


def test_no_choices_are_no_cards() -> None:
    assert cards({}) == []
