"""Which draws are trained and which take the critic's word."""

from collections.abc import Iterator

import numpy as np
import pytest

from kfnas.controller.trust import Judged, Selection, select


def _draws(uncertainties: list[float | None], known: tuple[int, ...] = ()) -> list[Judged]:
    return [Judged((index,), (index,), index in known, 0.0, uncertainty) for index, uncertainty in enumerate(uncertainties)]


def _names(selection: Selection) -> tuple[list[int], list[int]]:
    """Places in the stream of all chosen draws, and of the trusted ones."""
    return [draw.tokens[0] for draw in selection.draws], sorted(selection.draws[index].tokens[0] for index in selection.trusted)


def test_draws_at_or_below_the_threshold_are_trusted() -> None:
    chosen = select(_draws([0.5, 0.1, 0.9, 0.3]), 4, threshold=0.3, max_trusted_share=0.5)
    assert _names(chosen) == ([0, 1, 2, 3], [1, 3])


def test_without_a_threshold_nothing_is_trusted() -> None:
    assert _names(select(_draws([0.5, 0.1, None]), 3, threshold=None, max_trusted_share=0.5)) == ([0, 1, 2], [])


def test_surplus_trusted_draws_are_thrown_away_and_drawing_goes_on() -> None:
    chosen = select(_draws([0.1, 0.1, 0.1, 0.1, 0.9, 0.1, 0.8, 0.7]), 4, threshold=0.3, max_trusted_share=0.5)
    assert _names(chosen) == ([0, 1, 4, 6], [0, 1])


def test_no_more_is_drawn_than_fills_the_batch() -> None:
    drawn: list[int] = []

    def stream() -> Iterator[Judged]:
        for draw in _draws([0.9] * 10):
            drawn.append(draw.tokens[0])
            yield draw

    select(stream(), 3, threshold=0.3, max_trusted_share=0.5)
    assert drawn == [0, 1, 2]


def test_where_drawing_ends_the_most_uncertain_are_trained() -> None:
    chosen = select(_draws([0.1, 0.1, 0.05, 0.2, 0.15]), 4, threshold=0.3, max_trusted_share=0.5)
    assert _names(chosen) == ([0, 1, 3, 4], [0, 1])


def test_known_draws_fill_what_is_left() -> None:
    chosen = select(_draws([0.9, 0.1, 0.1, 0.1], known=(2, 3)), 4, threshold=0.3, max_trusted_share=0.5)
    assert _names(chosen) == ([0, 1, 2, 3], [1])


def test_a_repeat_fills_the_batch_only_where_its_answer_will_be_known() -> None:
    trained, trusted = Judged((0,), (0,), False, 0.0, 0.9), Judged((1,), (1,), False, 0.0, 0.1)
    chosen = select([trained, trusted, trusted, trained], 4, threshold=0.3, max_trusted_share=0.5)
    assert _names(chosen) == ([0, 1, 0], [1])


def test_a_batch_with_anything_unknown_trains_something() -> None:
    chosen = select(_draws([0.1, 0.2, None, None], known=(2, 3)), 4, threshold=0.3, max_trusted_share=0.5)
    assert _names(chosen) == ([0, 1, 2, 3], [0])
    assert _names(select(_draws([0.1]), 4, threshold=0.3, max_trusted_share=0.5)) == ([0], [])


@pytest.mark.parametrize("share", [0.0, 0.25, 0.5, 0.9])
def test_trusted_draws_never_pass_their_share(share: float) -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        count = int(rng.integers(1, 12))
        draws = [Judged((int(name),), (int(name),), bool(rng.random() < 0.3), 0.0, float(rng.random())) for name in rng.integers(8, size=30)]
        chosen = select(draws, count, threshold=float(rng.random()), max_trusted_share=share)
        assert len(chosen.draws) <= count
        assert len(chosen.trusted) <= share * len(chosen.draws)
        unknown = [index for index, draw in enumerate(chosen.draws) if not draw.known]
        assert len(chosen.trusted) < max(1, len(unknown))
        kept = [chosen.draws[index].canonical for index in chosen.trusted]
        assert len(set(kept)) == len(kept)
