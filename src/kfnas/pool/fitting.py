"""Parameters of one shape made to serve another (ours; the FNAS paper says only that a match initialises the block).

Equal shapes are copied. Otherwise kernels are cropped to their centre or zero-padded around it, and of channels the leading ones are taken.
Channels that the donor lacks are what they would be in a network that begins at random: Kaiming (fan-out) normal weights, zero biases, and
batch norm of mean 0, variance 1, weight 1 and bias 0. Zeros instead would leave them dead: neither side of a zero product gets a gradient.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from kfnas.pool.layout import Shape

Array = npt.NDArray[np.generic]

_ONES = ("bn.weight", "bn.running_var")


def fit(donor: Mapping[str, Array], shapes: Mapping[str, Shape], rng: np.random.Generator) -> dict[str, Array]:
    """Those of the wanted tensors that the donor has under the same name, each of the wanted shape.

    Args:
        donor: arrays by name within the part.
        shapes: wanted shape of each tensor by name, in a fixed order.
        rng: draws the channels that the donor lacks, tensor by tensor; not used where all shapes agree.
    """
    named = {name: (donor[name], shape) for name, shape in shapes.items() if name in donor and donor[name].ndim == len(shape)}
    return {name: fit_tensor(array, shape, name, rng) for name, (array, shape) in named.items()}


def fit_tensor(donor: Array, shape: Shape, name: str, rng: np.random.Generator) -> Array:
    """`donor` as an array of its own of `shape`, and of the same number of dimensions: [C_out, C_in, height, width], [C] or []."""
    if donor.shape == shape:
        return donor.copy()
    fitted = fit_kernel(donor, shape[2:]) if len(shape) == 4 else donor
    kept = tuple(slice(0, min(old, new)) for old, new in zip(fitted.shape, shape, strict=True))
    if all(old >= new for old, new in zip(fitted.shape, shape, strict=True)):
        return fitted[kept].copy()
    base = _at_random(shape, name, rng).astype(donor.dtype)
    base[kept] = fitted[kept]
    return base


def fit_kernel(weight: Array, size: Shape) -> Array:
    """The centre of each kernel, or each kernel amid zeros: [C_out, C_in, height, width] -> [C_out, C_in, *size]."""
    fitted = np.zeros((*weight.shape[:2], *size), dtype=weight.dtype)
    source, target = zip(*(_centred(old, new) for old, new in zip(weight.shape[2:], size, strict=True)), strict=True)
    fitted[(..., *target)] = weight[(..., *source)]
    return fitted


def _centred(old: int, new: int) -> tuple[slice, slice]:
    """The centre of the larger of two sizes, in the old array and in the new one."""
    common, first, second = min(old, new), max(0, (old - new) // 2), max(0, (new - old) // 2)
    return slice(first, first + common), slice(second, second + common)


def _at_random(shape: Shape, name: str, rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """What `kfnas.nn.build_network` would give a tensor of this name and shape."""
    if len(shape) == 4:
        fan_out = shape[0] * shape[2] * shape[3]
        return rng.normal(0.0, math.sqrt(2 / fan_out), shape)
    return np.ones(shape) if name.endswith(_ONES) else np.zeros(shape)
