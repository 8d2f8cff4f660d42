"""Small trained children of a small space, and a pool of them."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pytest
import torch

from kfnas.nn import build_network, weights_as_numpy
from kfnas.pool import Pool, PoolEntry, blocks_of
from kfnas.pool.entries import Tensors
from kfnas.space import Architecture, NetworkArguments, NetworkSpec, Space, mnas_small
from kfnas.storage import MemoryStore

ARGUMENTS = NetworkArguments(width=0.3, resolution=28, in_channels=1, num_outputs=10)


class Child(NamedTuple):
    architecture: Architecture
    spec: NetworkSpec
    weights: Tensors
    entries: list[PoolEntry]


@pytest.fixture(scope="session")
def space() -> Space:
    return mnas_small()


@pytest.fixture(scope="session")
def make_child(space: Space) -> Callable[[Architecture, int], Child]:
    """A child with weights by its seed, batch-norm statistics included."""

    def make(architecture: Architecture, seed: int) -> Child:
        spec = space.network(architecture, ARGUMENTS)
        weights = weights_as_numpy(build_network(spec, torch.Generator().manual_seed(seed)))
        rng = np.random.default_rng(seed)
        for name, array in weights.items():
            if ".bn." in name:
                weights[name] = rng.random(array.shape, dtype=np.float32) if array.ndim else np.array(seed)
        return Child(architecture, spec, weights, blocks_of(space, architecture, spec, weights, source=f"child-{seed}", iterations=50, score=seed / 100))

    return make


@pytest.fixture(scope="session")
def children(space: Space, make_child: Callable[[Architecture, int], Child]) -> list[Child]:
    rng = np.random.default_rng(5)
    return [make_child(space.random(rng), seed) for seed in range(6)]


@pytest.fixture
def pool(space: Space, children: list[Child]) -> Pool:
    pool = Pool(MemoryStore(), "shared", pack_bytes=500_000)
    for child in children:
        pool.push(child.entries, space=space.digest, iterations=50)
    return pool
