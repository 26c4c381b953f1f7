"""Words and pairs of words as hashed buckets: a sparse vector that needs no vocabulary.

Only bucket numbers are kept, so that a model learnt from requests holds none of their text.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from tinydancer.learning.surface import MOST_CHARACTERS

BUCKETS = 1 << 18
_TERM = re.compile(r"\w+|[^\w\s]")

Floats = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Terms:
    """The terms of n texts, row by row.

    Row i is `buckets[starts[i]:starts[i + 1]]` (int32, ascending, distinct) with
    `weights` 1 + log(count) float32. starts: (n + 1,) int64.
    """

    buckets: NDArray[np.int32]
    weights: Floats
    starts: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.starts) - 1

    @property
    def rows(self) -> NDArray[np.int64]:
        """(entries,) the row of each entry."""
        return np.repeat(np.arange(len(self)), np.diff(self.starts))

    def take(self, rows: NDArray[np.int64]) -> Terms:
        """The terms of some rows, in the order asked for."""
        lengths = np.diff(self.starts)[rows]
        starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        entries = np.arange(starts[-1]) + np.repeat(self.starts[rows] - starts[:-1], lengths)
        return Terms(self.buckets[entries], self.weights[entries], starts)


def hash_terms(texts: Sequence[str]) -> Terms:
    """The words, signs and pairs of neighbours of each text, lower-cased (CRC-32, BUCKETS)."""
    buckets: list[NDArray[np.int32]] = []
    counts: list[NDArray[np.int64]] = []
    for text in texts:
        tokens = [term.encode() for term in _TERM.findall(text[:MOST_CHARACTERS].lower())]
        hashes = [crc32(token) for token in tokens]
        hashes += [crc32(right, crc32(b" ", crc32(left))) for left, right in pairwise(tokens)]
        row = np.array(hashes, dtype=np.int64) % BUCKETS
        bucket, count = np.unique(row, return_counts=True)
        buckets.append(bucket.astype(np.int32))
        counts.append(count)
    starts = np.concatenate([[0], np.cumsum([len(row) for row in buckets])]).astype(np.int64)
    if not buckets:
        return Terms(np.empty(0, np.int32), np.empty(0, np.float32), starts)
    weights = (1 + np.log(np.concatenate(counts))).astype(np.float32)
    return Terms(np.concatenate(buckets), weights, starts)


@dataclass(frozen=True, eq=False)
class TermWeights:
    """The buckets worth a column and the weight of each: (v,) int32 ascending, (v,) float32."""

    buckets: NDArray[np.int32]
    inverse_frequency: Floats

    def columns(self, terms: Terms) -> Floats:
        """(n, v) float32: tf-idf rows of unit length, or 0 where a text has no known term."""
        dense = np.zeros((len(terms), len(self.buckets)), dtype=np.float32)
        if not len(self.buckets):
            return dense
        at = np.minimum(np.searchsorted(self.buckets, terms.buckets), len(self.buckets) - 1)
        known = self.buckets[at] == terms.buckets
        dense[terms.rows[known], at[known]] = (
            terms.weights[known] * self.inverse_frequency[at[known]]
        )
        lengths = np.sqrt(np.einsum("ij,ij->i", dense, dense))
        unit: Floats = dense / np.where(lengths > 0, lengths, np.float32(1))[:, None]
        return unit


def fit_term_weights(terms: Terms, most: int, least_documents: int = 3) -> TermWeights:
    """The most frequent buckets, each with log((1 + n) / (1 + df)) + 1. Ties by bucket number."""
    frequency = np.bincount(terms.buckets, minlength=BUCKETS)
    ranked = np.argsort(-frequency, kind="stable")[:most]
    kept = np.sort(ranked[frequency[ranked] >= least_documents])
    inverse = np.log((1 + len(terms)) / (1 + frequency[kept])) + 1
    return TermWeights(kept.astype(np.int32), inverse.astype(np.float32))
