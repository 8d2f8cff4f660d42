"""Random streams that depend on a seed and a place in the search alone.

A draw of step s, or of one candidate, is the same whichever process makes it, in whatever order, and after any restart: no generator's state is kept.
"""

from __future__ import annotations

import hashlib

import numpy as np


def derived_seed(seed: int, stream: str, *place: int) -> int:
    """A 63-bit seed for one use of one stream: independent for every (seed, stream, place)."""
    text = "/".join([str(seed), stream, *map(str, place)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def random_stream(seed: int, stream: str, *place: int) -> np.random.Generator:
    """A generator for one use of one stream."""
    return np.random.default_rng(derived_seed(seed, stream, *place))
