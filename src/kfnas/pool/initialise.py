"""Initial weights of a child, block by block, from one version of a pool.

Whether a match is close enough is settled by a floor on its similarity (ours: the FNAS paper's uncertainty network judges architectures, not
blocks). However similar, an entry that shares no operation with the block has no tensor for it, and is no donor. The caller
holds the fairness rule: it adds up `queried` and `matched` over a batch, and starts all children at random where too few matched.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from kfnas.errors import PoolMismatch
from kfnas.pool.blocks import block_tokens
from kfnas.pool.fitting import fit
from kfnas.pool.layout import FIXED, Part, parts_of
from kfnas.pool.snapshot import Arrays, Match, PoolSnapshot
from kfnas.space import Architecture, NetworkSpec, Space

_MAX_DONORS = 4
"""Donors that are tried for a block before it counts as not matched, when the pool is damaged."""


@dataclass(frozen=True)
class Initialisation:
    """What a pool gives a child to begin with.

    Attributes:
        weights: part of the network's state dict, by name; never the classifier.
        queried: blocks of the network.
        matched: those with a donor: an entry of at least the floor's similarity that has something to give.
        hits: those whose donor has their own tokens and shapes.
        similarities: of each queried block its best similarity, 0 where the pool has nothing at that position.
        sources: keys of the children that gave something, sorted.
        filled: share of the parameters of blocks and fixed parts that come from the pool, drawn channels included.
        problems: entries that were passed over because they are missing, torn or damaged.
    """

    weights: dict[str, npt.NDArray[np.generic]]
    queried: int
    matched: int
    hits: int
    similarities: tuple[float, ...]
    sources: tuple[str, ...]
    filled: float
    problems: tuple[str, ...]


class Coverage(NamedTuple):
    """How much of some networks a pool knows, without reading parameters: see `Initialisation`."""

    queried: int
    matched: int
    hits: int
    similarities: tuple[float, ...]


def coverage(snapshot: PoolSnapshot, space: Space, networks: Iterable[tuple[Architecture, NetworkSpec]], *, floor: float, task: str = "") -> Coverage:
    """What `initialise_all` would match of a batch of networks if every entry can be read.

    Raises:
        PoolMismatch: the pool is of another space.
    """
    _check_space(snapshot, space)
    answers = [match for architecture, spec in networks for match in _matches(snapshot, space, architecture, parts_of(spec, fixed_parts=False), task)]
    close = [match for match in answers if match is not None and match.counts(floor)]
    return Coverage(len(answers), len(close), sum(match.exact for match in close), tuple(match.similarity if match else 0.0 for match in answers))


def initialise(
    snapshot: PoolSnapshot,
    space: Space,
    architecture: Architecture,
    spec: NetworkSpec,
    *,
    floor: float,
    task: str = "",
    fixed_parts: bool = True,
    rng: np.random.Generator | None = None,
) -> Initialisation:
    """Initial weights for one network; see `initialise_all`, which reads each donor of a batch once."""
    return initialise_all(snapshot, space, [(architecture, spec)], floor=floor, task=task, fixed_parts=fixed_parts, rngs=[_default(rng)])[0]


def initialise_all(
    snapshot: PoolSnapshot,
    space: Space,
    networks: Sequence[tuple[Architecture, NetworkSpec]],
    *,
    floor: float,
    task: str = "",
    fixed_parts: bool = True,
    rngs: Sequence[np.random.Generator] | None = None,
) -> list[Initialisation]:
    """Initial weights for each network of a batch: of every block the most similar entry, fitted. Only what is needed is fetched, once.

    Args:
        snapshot: one version of a pool.
        space: of the architectures.
        networks: architectures and the networks built of them.
        floor: similarity, 0 to 1, that a donor must have.
        task: a task whose entries are preferred among equally similar ones.
        fixed_parts: also initialise layers outside of the blocks, such as stem and head (ours); they count in no ratio.
        rngs: one for each network, for channels that a donor lacks; None seeds each with 0.

    Raises:
        PoolMismatch: the pool is of another space.
    """
    _check_space(snapshot, space)
    rngs = rngs if rngs is not None else [_default(None) for _ in networks]
    parts = [parts_of(spec, fixed_parts=fixed_parts) for _, spec in networks]
    num_problems = len(snapshot.problems)
    answers = [_matches(snapshot, space, architecture, each, task) for (architecture, _), each in zip(networks, parts, strict=True)]
    fetched: dict[Match, Arrays] = {}
    for _ in range(_MAX_DONORS):
        wanted = {match for row in answers for match in row if match is not None and match.counts(floor)} - fetched.keys()
        if not wanted:
            break
        fetched.update(snapshot.fetch(sorted(wanted, key=lambda match: match.row.order)))
        if wanted <= fetched.keys():
            break
        answers = [_matches(snapshot, space, architecture, each, task) for (architecture, _), each in zip(networks, parts, strict=True)]
    problems = tuple(snapshot.problems[num_problems:])
    return [_assembled(each, row, fetched, rng, problems) for each, row, rng in zip(parts, answers, rngs, strict=True)]


def _matches(snapshot: PoolSnapshot, space: Space, architecture: Architecture, parts: Sequence[Part], task: str) -> list[Match | None]:
    canonical = space.canonical(architecture)
    return [
        snapshot.query(part.block, block_tokens(space, canonical, part), part=part.name, shape=part.shape, operations=part.operations, task=task)
        for part in parts
    ]


def _assembled(
    parts: Sequence[Part], answers: Sequence[Match | None], fetched: dict[Match, Arrays], rng: np.random.Generator, problems: tuple[str, ...]
) -> Initialisation:
    weights: dict[str, npt.NDArray[np.generic]] = {}
    donors = [(part, match) for part, match in zip(parts, answers, strict=True) if match is not None and match in fetched]
    for part, match in donors:
        weights.update((part.names[name], array) for name, array in fit(fetched[match], part.shapes, rng).items())
    blocks = [match for part, match in donors if part.block != FIXED]
    similarities = tuple(match.similarity if match else 0.0 for part, match in zip(parts, answers, strict=True) if part.block != FIXED)
    total = sum(int(np.prod(shape)) for part in parts for shape in part.shapes.values())
    return Initialisation(
        weights=weights,
        queried=len(similarities),
        matched=len(blocks),
        hits=sum(match.exact for match in blocks),
        similarities=similarities,
        sources=tuple(sorted({match.source for _, match in donors})),
        filled=sum(array.size for array in weights.values()) / total if total else 0.0,
        problems=problems,
    )


def _check_space(snapshot: PoolSnapshot, space: Space) -> None:
    if snapshot.space and snapshot.space != space.digest:
        raise PoolMismatch(
            f"the pool is of space {snapshot.space[:12]}, and {space.name!r} is {space.digest[:12]}; use a pool of this space, or another name for a new one"
        )


def _default(rng: np.random.Generator | None) -> np.random.Generator:
    return rng if rng is not None else np.random.default_rng(0)
