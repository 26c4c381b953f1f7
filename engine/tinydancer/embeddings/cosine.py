"""How alike vectors are."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tinydancer.embeddings.base import Vectors


def cosines(queries: Vectors, vectors: Vectors) -> NDArray[np.float32]:
    """(n, m) float32: the cosine of each row of `queries` (n, d) and of `vectors` (m, d).

    Both must have unit rows. Each pair is summed in the same order whatever n and m are, which
    BLAS does not promise: a request gets the same figure alone and in a batch of 10,000.
    """
    found: NDArray[np.float32] = np.einsum("nd,md->nm", queries, vectors)
    return found
