"""What the estimators see of a request: its vector, its surface and its terms."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tinydancer.embeddings.base import Embedder
from tinydancer.errors import InvalidInput
from tinydancer.learning.surface import SURFACE_FEATURES, surface_features
from tinydancer.learning.terms import Terms, hash_terms

Floats = NDArray[np.float32]
Rows = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Requests:
    """n requests. embeddings: (n, d) float32 unit rows; surface: (n, SURFACE_FEATURES) float32."""

    embeddings: Floats
    surface: Floats
    terms: Terms

    def __post_init__(self) -> None:
        n = len(self.terms)
        if self.embeddings.ndim != 2 or len(self.embeddings) != n:
            raise InvalidInput(
                f"embeddings of shape {self.embeddings.shape} do not fit {n} requests"
            )
        if self.surface.shape != (n, len(SURFACE_FEATURES)):
            raise InvalidInput(
                f"surface features of shape {self.surface.shape} do not fit {n} requests "
                f"of {len(SURFACE_FEATURES)} features"
            )

    def __len__(self) -> int:
        return len(self.terms)

    def take(self, rows: Rows) -> Requests:
        """Some of the requests, in the order asked for."""
        return Requests(self.embeddings[rows], self.surface[rows], self.terms.take(rows))


def describe(texts: Sequence[str], embeddings: Floats) -> Requests:
    """Requests from their texts and the vectors that are already known. O(characters)."""
    return Requests(embeddings, surface_features(texts), hash_terms(texts))


def describe_with(texts: Sequence[str], embedder: Embedder) -> Requests:
    """Requests from their texts alone. Raises what the embedder raises."""
    return describe(texts, embedder.embed(texts))
