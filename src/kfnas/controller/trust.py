"""Which of the policy's draws are trained, and which take the critic's word (FNAS, section 4.2, and Fig. 1)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from kfnas.controller.agents import Tokens


@dataclass(frozen=True)
class Judged:
    """A draw of the policy as the critic sees it.

    Attributes:
        tokens: as drawn.
        canonical: tokens of the canonical form.
        known: whether the search has an answer for it.
        value: predicted reward; None without a critic.
        uncertainty: expected error of `value`, in the reward's unit.
    """

    tokens: Tokens
    canonical: Tokens
    known: bool
    value: float | None = None
    uncertainty: float | None = None


@dataclass(frozen=True)
class Selection:
    """New draws of a batch: unknown ones in the order in which they were drawn, `trusted` being the places of those whose reward is the
    critic's word; then known ones."""

    draws: tuple[Judged, ...]
    trusted: frozenset[int]


def select(draws: Iterable[Judged], count: int, *, threshold: float | None, max_trusted_share: float) -> Selection:
    """Fill the new part of a batch.

    Unknown draws above the threshold are trained. Those at or below it are trusted until they are `max_trusted_share` of the batch; from
    then on they are thrown away, and drawing goes on until the batch is full. Where `draws` ends first, the most uncertain of those thrown
    away are trained, and then known draws fill what is left. A batch that holds anything unknown trains at least one draw.

    Args:
        draws: of the policy, in order; ended by the caller.
        count: draws wanted, 1 or more.
        threshold: highest uncertainty that is trusted; None: none is.
        max_trusted_share: in [0, 1).
    """
    limit = int(count * max_trusted_share)
    order: list[Judged] = []
    trusted: list[Judged] = []
    surplus: list[Judged] = []
    known: list[Judged] = []
    taken: set[Tokens] = set()
    for draw in draws:
        if draw.known or draw.canonical in taken:
            known.append(draw)
            continue
        taken.add(draw.canonical)
        if threshold is None or draw.uncertainty is None or draw.uncertainty > threshold:
            order.append(draw)
        elif len(trusted) < limit:
            trusted.append(draw)
            order.append(draw)
        else:
            surplus.append(draw)
        if len(order) == count:
            break
    order += _most_uncertain(surplus)[: count - len(order)]
    trained = {draw.canonical for draw in order} - {draw.canonical for draw in trusted}
    fill = [draw for draw in known if draw.known or draw.canonical in trained][: count - len(order)]
    limit = min(int((len(order) + len(fill)) * max_trusted_share), len(order) - 1)
    kept = {draw.canonical for draw in _most_uncertain(trusted)[len(trusted) - min(limit, len(trusted)) :]} if trusted else set()
    return Selection((*order, *fill), frozenset(index for index, draw in enumerate(order) if draw.canonical in kept))


def _most_uncertain(draws: list[Judged]) -> list[Judged]:
    """Draws by falling uncertainty."""
    return sorted(draws, key=lambda draw: -(draw.uncertainty or 0.0))
