"""Exact nearest neighbours in memory."""

from __future__ import annotations

import numpy as np

from tinydancer.embeddings.cosine import cosines
from tinydancer.learning.requests import Floats, Rows

BLOCK_ROWS = 512


def nearest(queries: Floats, stored: Floats, k: int, *, leave_self_out: bool = False) -> Rows:
    """(n, min(k, stored)) rows of the most similar stored vectors, by inner product, nearest first.

    Ties go by row. `leave_self_out` says that the queries are the stored vectors themselves.
    """
    k = min(k, len(stored) - int(leave_self_out))
    found = np.empty((len(queries), k), dtype=np.int64)
    for first in range(0, len(queries), BLOCK_ROWS):
        block = slice(first, first + BLOCK_ROWS)
        if leave_self_out:
            distances = -(queries[block] @ stored.T)
            own = np.arange(len(distances))
            distances[own, own + first] = np.inf
        else:
            # A request is to have the same neighbours alone and in a batch.
            distances = -cosines(queries[block], stored)
        near = _least(distances, k)
        order = np.argsort(np.take_along_axis(distances, near, axis=1), axis=1, kind="stable")
        found[block] = np.take_along_axis(near, order, axis=1)
    return found


def _least(distances: Floats, k: int) -> Rows:
    """(n, k) columns of the k least distances of each row, in the order of the columns.

    Of those as far as the last one, the first columns are taken.
    """
    last = np.partition(distances, k - 1, axis=1)[:, k - 1 : k]
    nearer, equal = distances < last, distances == last
    room = k - nearer.sum(axis=1, keepdims=True)
    chosen = nearer | (equal & (np.cumsum(equal, axis=1) <= room))
    return np.nonzero(chosen)[1].reshape(len(distances), k)
