"""What every embedder around another one has from it, and the key that it knows a text by."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tinydancer.embeddings.base import Embedder

KEY_BYTES = 16


class EmbedderWrapper:
    """An embedder of another one's model, space, dimension and tokens: a base for those that embed
    in a way of their own.
    """

    def __init__(self, embedder: Embedder) -> None:
        self._embedder = embedder

    @property
    def model(self) -> str:
        """Name of the embedder's model."""
        return self._embedder.model

    @property
    def space(self) -> str:
        """Name of the embedder's space."""
        return self._embedder.space

    @property
    def dimension(self) -> int:
        """Length of each vector."""
        return self._embedder.dimension

    def count_tokens(self, texts: Sequence[str]) -> NDArray[np.int64]:
        """(n,) tokens of each text by the embedder."""
        return self._embedder.count_tokens(texts)


def text_key(text: str) -> bytes:
    """A hash of KEY_BYTES that stands for a text."""
    # A lone surrogate gets a key like any text: the embedder is the one to refuse it.
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=KEY_BYTES).digest()
