"""The architecture knowledge pool: blocks of trained children, found by what they are like, to begin other children with.

    pool = Pool(open_store(uri), "shared")
    pool.push(blocks_of(space, architecture, spec, weights, source=child_key, iterations=steps), space=space.digest, iterations=steps)
    start = initialise(pool.at(), space, other, other_spec, floor=0.8)          # start.weights: a part of the state dict

Any number of searches, processes and machines may push at once. Without torch.
"""

from kfnas.pool.blocks import blocks_of
from kfnas.pool.entries import BlockKey, PoolEntry
from kfnas.pool.initialise import Coverage, Initialisation, coverage, initialise, initialise_all
from kfnas.pool.manifest import Pin, PoolVersion
from kfnas.pool.mirroring import MirrorReport, mirror
from kfnas.pool.pool import Pool, PoolInfo
from kfnas.pool.pushing import EMPTY, PushReport
from kfnas.pool.snapshot import Match, PoolSnapshot
from kfnas.pool.upkeep import GRACE_SECONDS, CompactReport, PruneReport, VerifyReport

__all__ = [
    "EMPTY",
    "GRACE_SECONDS",
    "BlockKey",
    "CompactReport",
    "Coverage",
    "Initialisation",
    "Match",
    "MirrorReport",
    "Pin",
    "Pool",
    "PoolEntry",
    "PoolInfo",
    "PoolSnapshot",
    "PoolVersion",
    "PruneReport",
    "PushReport",
    "VerifyReport",
    "blocks_of",
    "coverage",
    "initialise",
    "initialise_all",
    "mirror",
]
