"""Any model of the sentence-transformers package, where that is installed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tinydancer.embeddings.base import Vectors
from tinydancer.embeddings.static_table import builtin_vocabulary
from tinydancer.embeddings.tokens import WordPieces
from tinydancer.errors import InvalidInput, InvalidText, NotReady


class SentenceTransformersEmbedder:
    """A sentence-transformers model on the CPU, at unit length. Thread-safe.

    `name` is a directory or a name of the model hub. Its weights must be safetensors, and code
    that comes with a model is not run. Tokens are counted by the built-in WordPiece vocabulary.
    """

    def __init__(self, name: str, dimension: int) -> None:
        try:
            from sentence_transformers import SentenceTransformer
        except ImportError:
            raise NotReady(
                "sentence-transformers is not installed",
                hint="pip install sentence-transformers",
            ) from None
        try:
            self._transformer = SentenceTransformer(
                name,
                device="cpu",
                trust_remote_code=False,
                model_kwargs={"use_safetensors": True},
            )
        except (OSError, ValueError) as error:
            raise NotReady(
                f"the sentence-transformers model {name!r} can't be loaded",
                detail=str(error),
                hint="name a directory with the model, or one that the model hub has",
            ) from error
        probe = np.asarray(self._transformer.encode(["probe"]))
        if probe.shape != (1, dimension):
            raise InvalidInput(
                f"{name} gives vectors of {probe.shape[-1]} dimensions, "
                f"not the {dimension} of this installation",
                hint="choose a model of that dimension, or re-embed with another",
            )
        self._name = name
        self._dimension = dimension
        self._pieces = WordPieces(builtin_vocabulary())

    @property
    def model(self) -> str:
        """Name of the model."""
        return self._name

    @property
    def space(self) -> str:
        """The model's own space: its vectors are compared with no other's."""
        return f"sentence-transformers/{self._name}"

    @property
    def dimension(self) -> int:
        """Length of each vector."""
        return self._dimension

    def embed(self, texts: Sequence[str]) -> Vectors:
        """(n, dimension) float32, rows of unit length. Raises InvalidText."""
        if not texts:
            return np.empty((0, self._dimension), dtype=np.float32)
        try:
            vectors = self._transformer.encode(
                list(texts), normalize_embeddings=True, show_progress_bar=False
            )
        except (UnicodeEncodeError, TypeError) as error:
            raise InvalidText("a text has a character that is not valid Unicode") from error
        return np.asarray(vectors, dtype=np.float32)

    def count_tokens(self, texts: Sequence[str]) -> NDArray[np.int64]:
        """(n,) tokens of each text by the built-in vocabulary."""
        return self._pieces.counts(texts)
