"""A trained child cut into the blocks that a pool stores."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from kfnas.errors import SpaceError
from kfnas.pool.entries import PoolEntry
from kfnas.pool.layout import FIXED, Part, parts_of
from kfnas.space import Architecture, NetworkSpec, Space


def blocks_of(
    space: Space,
    architecture: Architecture,
    spec: NetworkSpec,
    weights: Mapping[str, npt.NDArray[np.generic]],
    *,
    source: str,
    iterations: int,
    generation: int = 0,
    score: float | None = None,
    task: str = "",
    fixed_parts: bool = True,
) -> list[PoolEntry]:
    """The entries of a trained child.

    Args:
        space: of the architecture.
        architecture: what was trained; its canonical form names the blocks.
        spec: the network that was built of it.
        weights: its whole state dict as arrays (`kfnas.nn.weights_as_numpy`, or `safetensors.numpy.load` of the ledger's blob).
        source: key of the child.
        iterations: optimiser steps of its whole training, those of its donors included.
        generation: 0 for a child that began at random.
        score: its accuracy, or None.
        task: name of its task; "" for none.
        fixed_parts: also cut out the layers that belong to no block, such as stem and head (ours).

    Raises:
        SpaceError: the weights are not those of the network.
    """
    tokens = space.canonical(architecture)
    return [
        PoolEntry(
            block=part.block,
            tokens=block_tokens(space, tokens, part),
            embedding=block_embedding(space, tokens, part),
            tensors={name: _tensor(weights, part, name) for name in part.shapes},
            source=source,
            iterations=iterations,
            generation=generation,
            score=score,
            task=task,
            part=part.name,
            shape=part.shape,
            operations=part.operations,
        )
        for part in parts_of(spec, fixed_parts=fixed_parts)
    ]


def block_tokens(space: Space, canonical: Architecture, part: Part) -> tuple[int, ...]:
    """The part's slice of a canonical architecture's tokens; none for a layer outside of the blocks."""
    if part.block == FIXED:
        return ()
    block = space.block(part.block)
    return canonical.tokens[block.start : block.stop]


def block_embedding(space: Space, canonical: Architecture, part: Part) -> npt.NDArray[np.float32]:
    """The part's expand embedding [k]; empty for a layer outside of the blocks."""
    return np.zeros(0, dtype=np.float32) if part.block == FIXED else space.embed_block(canonical, part.block)


def _tensor(weights: Mapping[str, npt.NDArray[np.generic]], part: Part, name: str) -> npt.NDArray[np.generic]:
    full = part.names[name]
    array = weights.get(full)
    if array is None or array.shape != part.shapes[name]:
        found = "missing" if array is None else f"of shape {array.shape}"
        raise SpaceError(f"weight {full!r} is {found}, and the network's is of shape {part.shapes[name]}; pass the state dict of the network of this spec")
    return array
