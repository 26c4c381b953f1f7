"""The default encoder: vectors of tokens, averaged. Tens of microseconds, no download."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain, pairwise

import numpy as np
from numpy.typing import NDArray

from tinydancer.embeddings.base import Vectors
from tinydancer.embeddings.static_table import (
    BUILTIN_TABLE,
    REBUILD,
    StaticTable,
    read_static_table,
)
from tinydancer.embeddings.tokens import WordPieces
from tinydancer.errors import NotReady

BLOCK_ROWS = 4096
"""Rows of the table that are held as float32 at one time (about 6 MB at 384 dimensions)."""

Rows = NDArray[np.int64]


# A sum shorter than this share of the table's largest entry is no more than rounding.
_LEAST_SHARE = 1e-6


class StaticEmbedder:
    """The weighted mean of the vectors of a text's tokens and known pairs, at unit length.

    A text without a known token (empty, or of unknown characters only) gets the vector of [UNK]:
    of unit length like any other, so that a cosine with it is defined. Every token of a long text
    counts; memory stays bounded.
    """

    def __init__(self, table: StaticTable) -> None:
        self._table = table
        self._pieces = WordPieces(table.vocabulary)
        # A single text looks its few pairs up one by one; a batch searches for all at once.
        first = len(table.vocabulary)
        self._row_of_pair = {key: first + row for row, key in enumerate(table.pairs.tolist())}
        self._unknown = self._sum(np.array([[self._pieces.unknown]]))
        if not np.linalg.norm(self._unknown) > 0:
            raise NotReady(f"{table.model}: the vector of [UNK] has no length", hint=REBUILD)
        # Vectors that cancel out leave what a processor's rounding leaves, and that points nowhere.
        self._least = np.float32(_LEAST_SHARE * 127 * table.scales.max())

    @classmethod
    def builtin(cls) -> StaticEmbedder:
        """The table that comes with the package."""
        return cls(read_static_table(BUILTIN_TABLE))

    @property
    def model(self) -> str:
        """Name of the table, with its version."""
        return self._table.model

    @property
    def space(self) -> str:
        """The space the table was made for."""
        return self._table.space

    @property
    def dimension(self) -> int:
        """Length of each vector."""
        return int(self._table.codes.shape[1])

    def embed(self, texts: Sequence[str]) -> Vectors:
        """(n, dimension) float32, rows of unit length. Raises InvalidText."""
        unknown = [self._pieces.unknown]
        ids = [self._pieces.ids(text) or unknown for text in texts]
        if len(ids) == 1:
            return self._unit(self._sum(np.array([self._with_pairs(ids[0])], dtype=np.int64)))
        lengths = np.fromiter(map(len, ids), dtype=np.int64, count=len(ids))
        return self._embed_ragged(np.fromiter(chain.from_iterable(ids), dtype=np.int64), lengths)

    def count_tokens(self, texts: Sequence[str]) -> NDArray[np.int64]:
        """(n,) tokens of each text. Raises InvalidText."""
        return self._pieces.counts(texts)

    def _embed_ragged(self, tokens: Rows, lengths: NDArray[np.int64]) -> Vectors:
        """Vectors of texts whose tokens stand one after the other, `lengths` of each."""
        text_of = np.repeat(np.arange(len(lengths)), lengths)
        pairs, places = self._pair_rows(tokens)
        inside = text_of[places] == text_of[places + 1]
        text_of = np.concatenate([text_of, text_of[places[inside]]])
        rows = np.concatenate([tokens, pairs[inside]])[np.argsort(text_of, kind="stable")]
        lengths = np.bincount(text_of, minlength=len(lengths))
        starts = np.cumsum(lengths) - lengths
        sums = np.empty((len(lengths), self.dimension), dtype=np.float32)
        # Texts with as many rows are one product of matrices: no padding, no ragged sums.
        for length in np.unique(lengths):
            same = np.flatnonzero(lengths == length)
            step = max(1, BLOCK_ROWS // int(length))
            for first in range(0, len(same), step):
                block = same[first : first + step]
                sums[block] = self._sum(rows[starts[block][:, None] + np.arange(length)])
        return self._unit(sums)

    def _with_pairs(self, tokens: list[int]) -> list[int]:
        """The rows of one text's tokens, then of its known pairs."""
        known, size = self._row_of_pair, len(self._table.vocabulary)
        pairs = (known.get(left * size + right) for left, right in pairwise(tokens))
        return tokens + [row for row in pairs if row is not None]

    def _pair_rows(self, tokens: Rows) -> tuple[Rows, NDArray[np.intp]]:
        """The rows of the known pairs among neighbours, and the place of each one's first token."""
        known = self._table.pairs
        if not len(known):
            return tokens[:0], np.empty(0, dtype=np.intp)
        keys = tokens[:-1] * len(self._table.vocabulary) + tokens[1:]
        found = np.searchsorted(known, keys)
        found[found == len(known)] = 0
        places = np.flatnonzero(known[found] == keys)
        return len(self._table.vocabulary) + found[places], places

    def _sum(self, rows: Rows) -> Vectors:
        """(n, length) rows of the table → (n, dimension): the sum over each of code times scale."""
        codes, scales = self._table.codes, self._table.scales
        if rows.shape[1] > BLOCK_ROWS:
            parts = range(0, rows.shape[1], BLOCK_ROWS)
            sums = np.array([self._sum(rows[:, at : at + BLOCK_ROWS]) for at in parts])
            return np.asarray(sums.sum(axis=0))
        gathered = codes.take(rows, axis=0).astype(np.float32)
        products = np.matmul(scales.take(rows)[:, None, :], gathered)
        return np.asarray(products[:, 0])

    def _unit(self, sums: Vectors) -> Vectors:
        lengths = np.sqrt(np.einsum("ij,ij->i", sums, sums))
        nothing = lengths < self._least
        if nothing.any():
            sums[nothing] = self._unknown
            lengths = np.sqrt(np.einsum("ij,ij->i", sums, sums))
        unit: Vectors = sums / lengths[:, None]
        return unit
