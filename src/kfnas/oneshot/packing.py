"""State as one blob: named arrays as safetensors, everything else as JSON in its header. Never pickle. Equal states give equal bytes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import safetensors.numpy
from safetensors import SafetensorError

from kfnas.config import canonical_json
from kfnas.errors import CorruptError, StateVersionError

FORMAT = 1
_KEY = "kfnas"


class Packed(NamedTuple):
    """JSON values, and arrays by name."""

    values: Mapping[str, Any]
    arrays: Mapping[str, npt.NDArray[Any]]


def pack(packed: Packed) -> bytes:
    """The blob that `unpack` reads."""
    arrays = {name: np.asarray(array, order="C") for name, array in packed.arrays.items()}
    return safetensors.numpy.save(arrays, metadata={_KEY: canonical_json({"format": FORMAT, **packed.values})})


def unpack(data: bytes) -> Packed:
    """What `pack` was given.

    Raises:
        CorruptError: the bytes are damaged.
        StateVersionError: a newer kfnas wrote them.
    """
    try:
        arrays = safetensors.numpy.load(data)
        length = int.from_bytes(data[:8], "little")
        values = json.loads(json.loads(data[8 : 8 + length])["__metadata__"][_KEY])
        version = values.pop("format")
    except (SafetensorError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CorruptError(f"a saved state of {len(data)} bytes cannot be read ({error}); go back to an earlier one") from error
    if version > FORMAT:
        raise StateVersionError(f"the state is of format {version}, this kfnas reads up to {FORMAT}; upgrade kfnas")
    return Packed(values, arrays)
