"""How alike vectors are."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tinydancer.embeddings.base import Vectors


def cosines(queries: Vectors, vectors: Vectors) -> NDArray[np.float32]:
    """(n, m) float32: the cosine of each row of `queries` (n, d) and of `vectors` (m, d).

    Both must have unit rows. A product of matrix and vector for each query, not one of matrices:
    BLAS sums that in another order for another n, and a request is to get the same figure alone
    and in a batch of 10,000.
    """
    found = np.empty((len(queries), len(vectors)), np.float32)
    for query, row in zip(queries, found, strict=True):
        np.dot(vectors, query, out=row)
    return found
