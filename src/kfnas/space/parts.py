"""The parts that networks are made of: what an operator latency table has an entry for.

A part is a layer without its name and place, or what stands behind the last layer: global pool and linear layers. Networks share parts: blocks of equal
shape do, and so do layers of one block. A layer that does nothing (Identity) is no part.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import product

import numpy as np

from kfnas.errors import SpaceError
from kfnas.space.layers import LayerSpec, LinearSpec, NetworkArguments, NetworkSpec
from kfnas.space.mixop import MixopSpace
from kfnas.space.space import Block, Space

MAX_BLOCK_CHOICES = 5000
NUM_PROBES = 300


@dataclass(frozen=True)
class Tail:
    """Global average pool of [N, in_channels, in_size, in_size], then linear layers."""

    in_channels: int
    in_size: int
    classifier: tuple[LinearSpec, ...]


Part = LayerSpec | Tail


@lru_cache(maxsize=1 << 16)
def part_of(layer: LayerSpec) -> LayerSpec | None:
    """The layer without its name, its operations' names and its block, so that equal parts are equal values; None for one that does nothing."""
    if not layer.operations and layer.skip == "none":
        return None
    operations = tuple(replace(operation, name=f"operation{index}") for index, operation in enumerate(layer.operations))
    return replace(layer, name="layer", operations=operations, block=None)


def tail_of(spec: NetworkSpec) -> Tail:
    """What stands behind a network's last layer."""
    return Tail(spec.layers[-1].out_channels, spec.layers[-1].out_size, spec.classifier)


def parts_of(spec: NetworkSpec) -> tuple[Part, ...]:
    """The parts of a network from input to output, as often as they occur."""
    layers = (part_of(layer) for layer in spec.layers)
    return (*(layer for layer in layers if layer is not None), tail_of(spec))


def distinct_parts(space: Space, arguments: NetworkArguments) -> tuple[Part, ...]:
    """Every part of every network of the space, each once, in the order in which they are found.

    A mixed-operator space says itself what its layers are. Any other is taken at its word that a block decides its layers and one decision of the block before
    (its width) their input: every choice of a block is built beside every change of one decision of the block before it. Random networks check that.

    Raises:
        SpaceError: the space builds no networks, a block has more than `MAX_BLOCK_CHOICES` choices, or a random network has a part that was not found.
    """
    if isinstance(space, MixopSpace):
        layers = space.layers(arguments)
        choices = (*layers.before, *(layer for mixop in layers.mixops for layer in mixop), *layers.after)
        named = [part for layer in choices if (part := part_of(layer)) is not None]
        last = layers.after[-1]
        return tuple(dict.fromkeys([*named, Tail(last.out_channels, last.out_size, layers.classifier)]))
    found: dict[Part, None] = {}
    for tokens in _covering(space):
        found.update(dict.fromkeys(parts_of(space.network(space.architecture(tokens), arguments))))
    _check(space, arguments, found)
    return tuple(found)


def _covering(space: Space) -> Iterator[tuple[int, ...]]:
    """Tokens of networks that have all parts among them, if blocks are as `distinct_parts` says; those that the space's rule refuses are left out."""
    base = (space.reference or space.random(np.random.default_rng(0))).tokens
    seen: set[tuple[int, ...]] = set()
    for index, block in enumerate(space.blocks):
        counts = space.num_choices[block.start : block.stop]
        if np.prod(counts, dtype=float) > MAX_BLOCK_CHOICES:
            raise SpaceError(
                f"space {space.name!r}: block {block.name!r} has {np.prod(counts, dtype=float):.0f} choices, too many for a table of operators "
                f"({MAX_BLOCK_CHOICES}); split the block, or measure each network"
            )
        before = [base, *(_changes(space, base, space.blocks[index - 1]) if index else ())]
        for start, own in product(before, product(*map(range, counts))):
            tokens = (*start[: block.start], *own, *start[block.stop :])
            if tokens not in seen and space.is_valid(tokens):
                seen.add(tokens)
                yield tokens


def _changes(space: Space, tokens: tuple[int, ...], block: Block) -> Iterator[tuple[int, ...]]:
    """Every change of one decision of a block."""
    for place in range(block.start, block.stop):
        for token in range(space.num_choices[place]):
            if token != tokens[place]:
                yield (*tokens[:place], token, *tokens[place + 1 :])


def _check(space: Space, arguments: NetworkArguments, found: dict[Part, None]) -> None:
    rng = np.random.default_rng(1)
    for _ in range(NUM_PROBES):
        architecture = space.random(rng)
        missing = [part for part in parts_of(space.network(architecture, arguments)) if part not in found]
        if missing:
            raise SpaceError(
                f"{architecture} has a part that no change of one block, and of one decision of the block before it, builds: {missing[0]}; "
                "a table of operators does not serve this space: measure each network"
            )
