"""Weights of an ONNX graph: folded from a network's state, or filler where only the time matters.

Batch normalisation in evaluation is affine, `gamma * (x - mean) / sqrt(var + eps) + beta`, so it disappears into the weight and the bias of the
convolution before it. Filler weights keep the scale of activations through depth (uniform with variance 2 / fan-in, He et al. 2015, equation 10):
values that died away into denormal numbers would be timed several times too slow.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cache
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from kfnas.errors import UserError

BATCH_NORM_EPS = 1e-5
_FILLER_SIZE = 1 << 18
_FILLER_BIAS = 0.05

Array = npt.NDArray[np.float32]


class Affine(NamedTuple):
    """Weight (its shape is the operation's) and bias [out] of one convolution or linear layer."""

    weight: Array
    bias: Array


class WeightSource(Protocol):
    """Where a graph's weights come from."""

    def folded(self, path: str, shape: tuple[int, ...]) -> Affine:
        """Convolution of weight `shape` [out, in / groups, height, width] with the batch normalisation after it."""
        ...

    def plain(self, path: str, shape: tuple[int, ...]) -> Affine:
        """Convolution or linear layer with its own bias."""
        ...


class StateWeights:
    """Weights of a trained network, by the names that `kfnas.nn` gives them."""

    def __init__(self, state: Mapping[str, npt.NDArray[np.generic]]) -> None:
        self._state = state

    def folded(self, path: str, shape: tuple[int, ...]) -> Affine:
        """See `WeightSource`. The scale is computed in double precision."""
        channels = shape[:1]
        weight = self._get(f"{path}.conv.weight", shape)
        gamma, beta, mean, variance = (
            self._get(f"{path}.bn.{name}", channels).astype(np.float64) for name in ("weight", "bias", "running_mean", "running_var")
        )
        scale = gamma / np.sqrt(variance + BATCH_NORM_EPS)
        return Affine(weight * scale.astype(np.float32).reshape(-1, 1, 1, 1), (beta - mean * scale).astype(np.float32))

    def plain(self, path: str, shape: tuple[int, ...]) -> Affine:
        """See `WeightSource`."""
        return Affine(self._get(f"{path}.weight", shape), self._get(f"{path}.bias", shape[:1]))

    def _get(self, name: str, shape: tuple[int, ...]) -> Array:
        value = self._state.get(name)
        if value is None:
            raise UserError(f"weights lack {name!r}; give the whole state of a network built from the same specification")
        if value.shape != shape:
            raise UserError(f"weight {name!r} has shape {value.shape}, the specification says {shape}; give the state of a network built from it")
        return np.asarray(value, dtype=np.float32)


class FillerWeights:
    """Deterministic numbers of a sensible scale, for graphs that are only timed. The n-th request of a given size is the same in every process."""

    def __init__(self) -> None:
        self._next = 0

    def folded(self, path: str, shape: tuple[int, ...]) -> Affine:
        """See `WeightSource`; `path` does not matter."""
        bound = math.sqrt(6.0 / math.prod(shape[1:]))
        return Affine(self._take(math.prod(shape), bound).reshape(shape), self._take(shape[0], _FILLER_BIAS))

    def plain(self, path: str, shape: tuple[int, ...]) -> Affine:
        """See `WeightSource`; `path` does not matter."""
        return self.folded(path, shape)

    def _take(self, size: int, bound: float) -> Array:
        block = _filler()
        if size > _FILLER_SIZE:
            return np.resize(block * np.float32(bound), size)
        start = self._next if self._next + size <= _FILLER_SIZE else 0
        self._next = start + size
        return block[start : start + size] * np.float32(bound)


@cache
def _filler() -> Array:
    return np.random.default_rng(0).uniform(-1.0, 1.0, _FILLER_SIZE).astype(np.float32)
