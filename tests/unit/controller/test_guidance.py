"""Which draws are trained where members of the critic choose."""

import math

import numpy as np
import pytest

from kfnas.controller.agents import Tokens
from kfnas.controller.guidance import Member, choose, least_entropy
from kfnas.controller.trust import Judged


def _draw(token: int, uncertainty: float | None = 1.0, *, known: bool = False) -> Judged:
    return Judged((token,), (token,), known, 0.0, uncertainty)


def _by_token(architectures: list[Tokens]) -> np.ndarray:
    return np.array([float(tokens[0]) for tokens in architectures])


def _member() -> Member:
    return _by_token  # type: ignore[return-value]


def _tokens(draws: tuple[Judged, ...]) -> list[int]:
    return [draw.tokens[0] for draw in draws]


def test_the_most_promising_are_trained_where_nothing_is_trusted() -> None:
    chosen = choose([_draw(token) for token in (3, 9, 1, 7)], 2, _member, threshold=None, max_trusted_share=0.5)
    assert _tokens(chosen.draws) == [9, 7]
    assert not chosen.trusted


def test_each_place_asks_another_member() -> None:
    members = iter([_by_token, lambda architectures: -_by_token(architectures)])
    chosen = choose([_draw(token) for token in (3, 9, 1, 7)], 2, lambda: next(members), threshold=None, max_trusted_share=0.5)  # type: ignore[arg-type, return-value]
    assert _tokens(chosen.draws) == [9, 1]


def test_the_trained_are_uncertain_and_the_trusted_are_not() -> None:
    draws = [_draw(9, 0.1), _draw(8, 0.1), _draw(3, 2.0), _draw(2, 2.0), _draw(4, 2.0), _draw(1, 0.1)]
    chosen = choose(draws, 4, _member, threshold=1.0, max_trusted_share=0.5)
    assert _tokens(chosen.draws) == [4, 3, 9, 8]
    assert chosen.trusted == {2, 3}


def test_where_all_are_certain_the_most_promising_are_trained_all_the_same() -> None:
    chosen = choose([_draw(token, 0.1) for token in range(10)], 4, _member, threshold=1.0, max_trusted_share=0.5)
    assert _tokens(chosen.draws) == [9, 8, 0, 1]
    assert chosen.trusted == {2, 3}


def test_where_all_are_uncertain_none_is_trusted() -> None:
    chosen = choose([_draw(token) for token in range(10)], 4, _member, threshold=0.5, max_trusted_share=0.5)
    assert _tokens(chosen.draws) == [9, 8, 7, 6]
    assert not chosen.trusted


@pytest.mark.parametrize("share", [0.0, 0.25, 0.5, 0.75])
def test_the_trusted_keep_to_their_share_and_one_is_trained(share: float) -> None:
    for count_of_new in range(1, 9):
        draws = [_draw(token, 0.1) for token in range(count_of_new)] + [_draw(100, known=True)] * 8
        chosen = choose(draws, 8, _member, threshold=1.0, max_trusted_share=share)
        assert len(chosen.draws) == 8
        assert len(chosen.trusted) <= share * 8
        assert any(not draw.known and index not in chosen.trusted for index, draw in enumerate(chosen.draws))


def test_known_draws_and_repeats_fill_what_is_left() -> None:
    chosen = choose([_draw(1), _draw(1), _draw(5, known=True), _draw(2)], 5, _member, threshold=None, max_trusted_share=0.5)
    assert _tokens(chosen.draws) == [2, 1, 1, 5]


def test_the_least_entropy_leaves_room_for_what_is_new() -> None:
    assert least_entropy([10] * 6, 256, 0) == pytest.approx(math.log(256))
    assert least_entropy([10] * 6, 256, 744) == pytest.approx(math.log(1000))
    assert least_entropy([2, 2], 256, 0) == pytest.approx(0.9 * math.log(4))
