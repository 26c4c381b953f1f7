"""What every embedder is: a model's name, a dimension, and two functions of text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.float32]


class Embedder(Protocol):
    """Turns text into unit vectors. Thread-safe; the same text always gives the same vector.

    `model` is the provenance stored beside each vector. Two embedders whose vectors may be
    compared (the static table and MiniLM) have the same `space`.
    """

    @property
    def model(self) -> str:
        """Name of the model that makes the vectors, with its version."""

    @property
    def space(self) -> str:
        """Name of the vector space: vectors of two spaces are never compared."""

    @property
    def dimension(self) -> int:
        """Length of each vector."""

    def embed(self, texts: Sequence[str]) -> Vectors:
        """(n, dimension) float32, rows of unit length. Raises ProviderFailed (remote ones)."""

    def count_tokens(self, texts: Sequence[str]) -> NDArray[np.int64]:
        """(n,) tokens of each text by the embedder's tokenizer, special tokens left out."""
