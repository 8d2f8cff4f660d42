"""Which of many draws of the policy are trained where the critic gives whole functions that are likely: Thompson sampling among draws.

Every candidate is a draw of the policy all the same. Throwing surplus trusted draws away, as FNAS does, is the same act: of what the policy
draws, what would teach little is left out.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from kfnas.controller.agents import Tokens
from kfnas.controller.evidence import Floats
from kfnas.controller.trust import Judged, Selection

Member = Callable[[Sequence[Tokens]], Floats]
MAX_SHARE_OF_SPACE = 0.9
"""The policy's entropy is never held above this share of the uniform one's."""


def choose(draws: Sequence[Judged], count: int, member: Callable[[], Member], *, threshold: float | None, max_trusted_share: float) -> Selection:
    """Fill the new part of a batch.

    The trusted are the first draws at or below the threshold, up to `max_trusted_share` of the batch. Of the others that are unknown, each
    place of the batch goes to the one that another member finds most promising: first among those above the threshold, and where they
    run out among the rest. Known draws fill what is left. A batch that holds anything unknown trains at least one draw.

    Args:
        draws: of the policy, in order.
        count: draws wanted, 1 or more.
        member: gives another member at each call.
        threshold: highest uncertainty that is trusted; None: none is.
        max_trusted_share: in [0, 1).
    """
    new, known = _distinct(draws)
    limit = 0 if threshold is None else int(count * max_trusted_share)
    uncertain = np.array([threshold is None or draw.uncertainty is None or draw.uncertainty > threshold for draw in new], dtype=bool)
    trained = _most_promising([draw.canonical for draw in new], min(count - limit, len(new)), uncertain, member)
    limit = min(limit, math.floor(len(trained) * max_trusted_share / (1 - max_trusted_share) + 1e-9))
    trusted = [index for index in range(len(new)) if not uncertain[index] and index not in set(trained)][:limit]
    left = set(range(len(new))) - set(trained) - set(trusted)
    more = min(count - len(trained) - len(trusted), len(left))
    if more > 0:
        free = np.array([index in left for index in range(len(new))])
        trained += _most_promising([draw.canonical for draw in new], more, uncertain & free, member, among=free)
    order = [new[index] for index in (*trained, *trusted)]
    answered = {new[index].canonical for index in trained}
    fill = [draw for draw in known if draw.known or draw.canonical in answered][: count - len(order)]
    return Selection((*order, *fill), frozenset(range(len(trained), len(order))))


def least_entropy(num_choices: Sequence[int], num_draws: int, num_known: int) -> float:
    """Entropy (nats) that the policy keeps: its perplexity is at least the number of draws that a batch is chosen from, and of the
    architectures that are known, so that there is something new to draw."""
    return min(math.log(num_draws + num_known), MAX_SHARE_OF_SPACE * math.fsum(math.log(count) for count in num_choices))


def _distinct(draws: Sequence[Judged]) -> tuple[list[Judged], list[Judged]]:
    """Unknown draws without repeats, and the others."""
    new: list[Judged] = []
    known: list[Judged] = []
    taken: set[Tokens] = set()
    for draw in draws:
        if draw.known or draw.canonical in taken:
            known.append(draw)
        else:
            taken.add(draw.canonical)
            new.append(draw)
    return new, known


def _most_promising(architectures: list[Tokens], count: int, preferred: np.ndarray, member: Callable[[], Member], among: np.ndarray | None = None) -> list[int]:
    """Places of `count` architectures, another member's favourite each time."""
    left = np.ones(len(architectures), dtype=bool) if among is None else among.copy()
    chosen: list[int] = []
    for _ in range(count):
        pool = left & preferred if (left & preferred).any() else left
        promise = np.where(pool, member()(architectures), -np.inf)
        chosen.append(int(promise.argmax()))
        left[chosen[-1]] = False
    return chosen
