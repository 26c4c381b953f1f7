"""Exact nearest neighbours in memory."""

from __future__ import annotations

import numpy as np

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
        distances = -(queries[block] @ stored.T)
        if leave_self_out:
            own = np.arange(len(distances))
            distances[own, own + first] = np.inf
        near = np.sort(np.argpartition(distances, k - 1, axis=1)[:, :k], axis=1)
        order = np.argsort(np.take_along_axis(distances, near, axis=1), axis=1, kind="stable")
        found[block] = np.take_along_axis(near, order, axis=1)
    return found
