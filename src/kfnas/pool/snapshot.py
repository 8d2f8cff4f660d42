"""One version of a pool, open for reading: exact search by cosine similarity, and the parameters of what was found.

Similarity is the cosine of expand embeddings at the same position; for one-hot encodings that is the share of equal tokens. Of equally
similar entries the first in this order is taken (ours; the FNAS paper names no order): most operations in common with the wanted block, the
same shapes, the same task, then the lexicographic order of the entries.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from kfnas.errors import CorruptError, UserError
from kfnas.pool.access import PoolAccess
from kfnas.pool.entries import Row, unpack_tensors
from kfnas.pool.manifest import PoolVersion
from kfnas.pool.packs import read_rows

Arrays = dict[str, npt.NDArray[np.generic]]


@dataclass(frozen=True)
class Match:
    """The entry that answers a query.

    Attributes:
        row: what the index knows of it.
        similarity: cosine similarity of its key and the query's, at most 1.
        exact: tokens and shapes are the query's own, so that its parameters need no fitting.
        gives: some of its parameters have a place in the wanted block: they have an operation of a layer in common, or nothing is known of
            the operations of one of them.
    """

    row: Row
    similarity: float
    exact: bool
    gives: bool = True

    @property
    def source(self) -> str:
        """Key of the child that its parameters come from."""
        return self.row.source

    def counts(self, floor: float) -> bool:
        """Whether the entry is a donor: at least so similar, and not without anything to give."""
        return self.gives and self.similarity >= floor


class _Position:
    """The entries of one block, or of one layer outside of the blocks, in lexicographic order."""

    def __init__(self, rows: list[Row]) -> None:
        self.rows = sorted(rows, key=lambda row: row.order)
        self.tokens = np.array([row.key.tokens for row in self.rows], dtype=np.int64)
        self.embeddings = np.array([row.embedding for row in self.rows], dtype=np.float32)
        norms = np.linalg.norm(self.embeddings, axis=1)
        self.norms = np.where(norms > 0, norms, 1)
        self.operations = [_counted(row.operations) for row in self.rows]

    def by_tokens(self, tokens: tuple[int, ...]) -> npt.NDArray[np.float64]:
        """Cosine similarity of one-hot encodings [rows]: equal tokens / tokens."""
        if self.tokens.shape[1] != len(tokens):
            raise UserError(f"a query of {len(tokens)} tokens meets entries of {self.tokens.shape[1]}; give the block's slice of the tokens")
        if not tokens:
            return np.ones(len(self.rows))
        return np.asarray((self.tokens == np.array(tokens)).sum(axis=1) / len(tokens), dtype=np.float64)

    def by_embedding(self, embedding: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
        """Cosine similarity to an embedding [k]: [rows]."""
        if self.embeddings.shape[1:] != embedding.shape:
            raise UserError(f"a query of shape {embedding.shape} meets embeddings of shape {self.embeddings.shape[1:]}; give the block's expand embedding")
        norm = float(np.linalg.norm(embedding)) or 1.0
        return np.asarray((self.embeddings @ embedding.astype(np.float32)) / (self.norms * norm), dtype=np.float64)


class PoolSnapshot:
    """A version of a pool. Later pushes do not change it.

    Args:
        access: the pool's blobs.
        version: what is open.
        rows: its entries.
        problems: what could not be read of its index.

    Attributes:
        version: what is open.
        space: digest of the pool's space; "" for the empty version.
        iterations: optimiser steps of every entry's training; 0 for the empty version.
        problems: everything that was skipped because it was missing, torn or damaged, in words.
    """

    def __init__(self, access: PoolAccess, version: PoolVersion, rows: Iterable[Row], problems: Iterable[str], *, space: str = "", iterations: int = 0) -> None:
        self.version = version
        self.space = space
        self.iterations = iterations
        self.problems = list(problems)
        self._access = access
        self._rows = sorted(rows, key=lambda row: row.order)
        grouped: dict[tuple[int, str], list[Row]] = {}
        for row in self._rows:
            grouped.setdefault(row.position, []).append(row)
        self._positions = {position: _Position(group) for position, group in grouped.items()}
        self._unreadable: set[Row] = set()

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def rows(self) -> Sequence[Row]:
        """Its entries, in lexicographic order."""
        return tuple(self._rows)

    def query(
        self,
        block: int,
        tokens: Sequence[int] | None = None,
        *,
        embedding: npt.NDArray[np.floating] | None = None,
        part: str = "",
        shape: str = "",
        operations: str = "",
        task: str = "",
    ) -> Match | None:
        """The most similar entry at a position; None where the pool has none there. Entries found unreadable are passed over.

        Args:
            block: index of the space's block; -1 for a layer outside of the blocks.
            tokens: the block's slice of the canonical architecture's tokens.
            embedding: its expand embedding [k], instead of `tokens`.
            part: name of the layer outside of the blocks, else "".
            shape, operations: `Part.shape` and `Part.operations` of the wanted block, which settle ties; "" settles none. By the operations it
                is seen too whether the entry has anything to give.
            task: a task whose entries are preferred among equals.

        Raises:
            UserError: not one of `tokens` and `embedding`, or its length is not that of the entries.
        """
        if (tokens is None) == (embedding is None):
            raise UserError("a query takes either tokens or an embedding; give one of them")
        position = self._positions.get((block, part))
        if position is None:
            return None
        similarities = position.by_tokens(tuple(tokens)) if tokens is not None else position.by_embedding(np.asarray(embedding))
        if self._unreadable:
            similarities = np.where([row in self._unreadable for row in position.rows], -np.inf, similarities)
        best = similarities.max()
        if best == -np.inf:
            return None
        wanted = _counted(operations)

        def rank(index: int) -> tuple[int, bool, bool, int]:
            row = position.rows[index]
            return -(position.operations[index] & wanted).total(), row.key.shape != shape, row.task != task, index

        row = position.rows[min(np.flatnonzero(similarities == best).tolist(), key=rank)]
        same = row.key.tokens == tuple(tokens) if tokens is not None else bool(best >= 1 - 1e-6)
        gives = not row.operations or not operations or any(name for _, name in _counted(row.operations) & wanted)
        return Match(row, float(best), exact=same and row.key.shape == shape, gives=gives)

    def fetch(self, matches: Iterable[Match]) -> dict[Match, Arrays]:
        """The parameters of matches, by name within the block, each verified; what is missing, torn or damaged is left out and added to
        `problems`, and no later query answers with it. Entries are read pack by pack, each once. The arrays are read-only.
        """
        wanted = list(matches)
        loaded: dict[Row, Arrays] = {}
        for row, data, problem in read_rows(self._access.store, self._access.root, {match.row for match in wanted} - self._unreadable):
            try:
                if data is None:
                    raise CorruptError(problem)
                loaded[row] = unpack_tensors(data)
            except CorruptError as error:
                self._unreadable.add(row)
                self.problems.append(str(error))
        return {match: loaded[match.row] for match in wanted if match.row in loaded}


def _counted(operations: str) -> Counter[tuple[int, str]]:
    """Operations of each layer, by the layer's number."""
    layers = operations.split("/") if operations else []
    return Counter((index, name) for index, layer in enumerate(layers) for name in layer.split("+"))
