"""Entries of a pool: what is pushed, what the index keeps of it, and which of two entries for one place stays.

A pool keeps one entry for each slot: block, part, tokens, shape and task. Of two entries for one slot the lower generation stays, of equal
ones the higher score, of equal ones the lexicographically first source, of equal ones the first digest. That order is total, so a pool's
content does not depend on the order of the pushes. (The FNAS paper states no policy; this one is ours.)

An entry's tensors are one safetensors blob, known by its sha256.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from kfnas.config import canonical_json
from kfnas.errors import CorruptError, UserError

_DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "i1", "U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "u1"}
_DTYPES |= {"BOOL": "?"}
_STORED = {name: np.dtype(kind) for name, kind in _DTYPES.items()}

Tensors = Mapping[str, npt.NDArray[np.generic]]


class BlockKey(NamedTuple):
    """What a part is found by, within a pool of one space.

    Attributes:
        block: index of the space's block; -1 for a layer outside of the blocks.
        part: name of the layer outside of the blocks, else "".
        tokens: the block's slice of the canonical architecture's tokens.
        shape: digest of the layers' shapes, `Part.shape`.
    """

    block: int
    part: str
    tokens: tuple[int, ...]
    shape: str


Slot = tuple[BlockKey, str]
"""Key and task: a pool keeps one entry for each."""


@dataclass(frozen=True, eq=False)
class PoolEntry:
    """The parameters of one block of a trained child, to be pushed. `blocks_of` makes them.

    Attributes:
        block: index of the space's block; -1 for a layer outside of the blocks.
        tokens: the block's slice of the canonical architecture's tokens.
        embedding: the block's expand embedding, float32 [k]; empty for a layer outside of the blocks.
        tensors: arrays by name within the block, such as `0.expand.conv.weight`; batch-norm statistics go along.
        source: key of the child that they come from.
        iterations: optimiser steps of its whole training, those of its donors included.
        generation: 0 for a child that began at random, 1 for a child of a pool of such children, and so on.
        score: the child's accuracy, or None.
        task: name of the task that it was trained for; "" for none.
        part: name of the layer outside of the blocks, else "".
        shape: digest of the layers' shapes, `Part.shape`.
        operations: names of the layers' operations, `Part.operations`.
    """

    block: int
    tokens: tuple[int, ...]
    embedding: npt.NDArray[np.float32]
    tensors: Tensors
    source: str
    iterations: int
    generation: int = 0
    score: float | None = None
    task: str = ""
    part: str = ""
    shape: str = ""
    operations: str = ""


@dataclass(frozen=True)
class Row:
    """What the index keeps of an entry: everything but the tensors.

    Attributes:
        key: what it is found by.
        task, generation, score, source: see `PoolEntry`.
        operations: names of the layers' operations, `Part.operations`.
        embedding: the block's expand embedding.
        sha256: digest (hex) of the safetensors blob.
        length: bytes of the blob.
        pack: key of the pack that holds it, within the pool; "" before it is stored.
        offset: where it begins in the pack.
    """

    key: BlockKey
    task: str
    generation: int
    score: float | None
    source: str
    operations: str
    embedding: tuple[float, ...]
    sha256: str
    length: int
    pack: str = field(default="", compare=False)
    offset: int = field(default=0, compare=False)

    @property
    def slot(self) -> Slot:
        """Of the entries for one slot a pool keeps one."""
        return self.key, self.task

    @property
    def position(self) -> tuple[int, str]:
        """Where in the network it belongs: block and part."""
        return self.key.block, self.key.part

    @property
    def lengths(self) -> tuple[int, int]:
        """Number of tokens and size of the embedding: the same for all rows of a position."""
        return len(self.key.tokens), len(self.embedding)

    @property
    def precedence(self) -> tuple[int, float, str, str]:
        """Of two entries for one slot the one with the lower value stays."""
        return self.generation, math.inf if self.score is None else -self.score, self.source, self.sha256

    @property
    def order(self) -> tuple[Any, ...]:
        """The lexicographic order of a pool's entries, each once."""
        return self.key, self.task, self.precedence


def row_of(entry: PoolEntry, data: bytes) -> Row:
    """The index row of an entry whose blob is `data`, not stored yet.

    Raises:
        UserError: a field is none that an index can keep.
    """
    if entry.score is not None and not math.isfinite(entry.score):
        raise UserError(f"pool entry of child {entry.source!r}: score {entry.score} is not finite; give a number, or None where there is none")
    if entry.generation < 0 or entry.block < -1:
        raise UserError(f"pool entry of child {entry.source!r}: block {entry.block}, generation {entry.generation}; give -1 or more, and 0 or more")
    embedding = tuple(float(value) for value in np.asarray(entry.embedding, dtype=np.float32).ravel())
    return Row(
        key=BlockKey(entry.block, entry.part, tuple(int(token) for token in entry.tokens), entry.shape),
        task=entry.task,
        generation=entry.generation,
        score=None if entry.score is None else float(entry.score),
        source=entry.source,
        operations=entry.operations,
        embedding=embedding,
        sha256=hashlib.sha256(data).hexdigest(),
        length=len(data),
    )


def pack_tensors(tensors: Tensors) -> bytes:
    """One safetensors blob; equal tensors give equal bytes.

    Raises:
        UserError: there are none, or one is of a type that safetensors does not hold.
    """
    import safetensors.numpy

    if not tensors:
        raise UserError("a pool entry has no tensors; leave it out")
    for name, array in tensors.items():
        if np.asarray(array).dtype.newbyteorder("=") not in _STORED.values():
            raise UserError(
                f"tensor {name!r} of a pool entry is of type {np.asarray(array).dtype}; give plain numbers: {', '.join(map(str, _STORED.values()))}"
            )
    return safetensors.numpy.save({name: np.ascontiguousarray(tensors[name]).reshape(np.shape(tensors[name])) for name in sorted(tensors)})


def unpack_tensors(data: bytes | memoryview) -> dict[str, npt.NDArray[np.generic]]:
    """The arrays of a safetensors blob, as read-only views of its bytes: pulling a pool copies nothing.

    Raises:
        CorruptError: it is no safetensors blob of plain numbers.
    """
    try:
        start = 8 + int.from_bytes(data[:8], "little")
        if start > len(data):
            raise ValueError("it ends within its header")
        header = json.loads(bytes(data[8:start]))
        return {name: _view(data, start, **fields) for name, fields in sorted(header.items()) if name != "__metadata__"}
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise CorruptError(f"a pool entry is no safetensors blob ({error})") from error


def _view(data: bytes | memoryview, start: int, *, dtype: str, shape: list[int], data_offsets: list[int]) -> npt.NDArray[np.generic]:
    begin, end = data_offsets
    kind = _STORED[dtype]
    if not 0 <= begin <= end or math.prod(shape) * kind.itemsize != end - begin:
        raise ValueError(f"shape {shape} in bytes {begin} to {end}")
    return np.ndarray(shape, kind, data, start + begin)  # numpy refuses negative sizes, and a buffer that is too small


def winners(rows: Iterable[Row]) -> dict[Slot, Row]:
    """The entry that stays for each slot."""
    kept: dict[Slot, Row] = {}
    for row in rows:
        other = kept.get(row.slot)
        if other is None or row.precedence < other.precedence:
            kept[row.slot] = row
    return kept


def misfits(rows: Iterable[Row]) -> dict[Row, str]:
    """Rows with another number of tokens, or another size of embedding, than most slots at their position have, and what is wrong with each.

    No similarity to them can be told. Of equally many the first in lexicographic order is right.
    """
    listed = list(rows)
    counts: dict[tuple[int, str], Counter[tuple[int, int]]] = {}
    for row in sorted(winners(listed).values(), key=lambda row: row.order):
        counts.setdefault(row.position, Counter())[row.lengths] += 1
    usual = {position: lengths.most_common(1)[0][0] for position, lengths in counts.items()}
    return {row: unlike(row, usual[row.position]) for row in listed if row.lengths != usual[row.position]}


def unlike(row: Row, lengths: tuple[int, int]) -> str:
    """That a row is not of the `lengths` of others at its position, in words."""
    where = f"block {row.key.block}" if row.key.block >= 0 else row.key.part
    has, have = (f"{tokens} tokens and an embedding of {size}" for tokens, size in (row.lengths, lengths))
    return f"entry {where} of child {row.source[:12]} has {has}, and others there have {have}"


def content_digest(rows: Iterable[Row]) -> str:
    """Sha256 (hex) of what a pool answers with: its entries in order, wherever they are stored."""
    hashed = hashlib.sha256()
    for row in sorted(rows, key=lambda row: row.order):
        hashed.update(canonical_json([*row.key, row.task, row.generation, row.score, row.source, row.sha256]).encode())
        hashed.update(b"\n")
    return hashed.hexdigest()
