"""A bounded memory of vectors in front of any embedder."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Sequence
from threading import Lock

import numpy as np

from tinydancer.embeddings.base import Embedder, Vectors
from tinydancer.embeddings.wrapper import EmbedderWrapper, text_key
from tinydancer.errors import InvalidInput


class CachedEmbedder(EmbedderWrapper):
    """An embedder that remembers the vectors of the `limit` texts used last. Thread-safe.

    Texts are known by a 128-bit hash, so a long text takes no more room than a short one: about
    4 · dimension + 200 bytes. `hits` and `misses` count texts since the start, `size` those held.
    """

    def __init__(self, embedder: Embedder, limit: int) -> None:
        if limit < 1:
            raise InvalidInput(f"the embedding cache must hold at least 1 text, not {limit}")
        super().__init__(embedder)
        self._limit = limit
        self._vectors: OrderedDict[bytes, Vectors] = OrderedDict()
        self._lock = Lock()
        self._hits = 0
        self._misses = 0

    @property
    def hits(self) -> int:
        """Texts that were found."""
        return self._hits

    @property
    def misses(self) -> int:
        """Texts that had to be embedded."""
        return self._misses

    @property
    def size(self) -> int:
        """Texts that are held."""
        return len(self._vectors)

    def embed(self, texts: Sequence[str]) -> Vectors:
        """(n, dimension) float32, rows of unit length; a text that occurs twice is embedded once.

        Raises what the embedder raises; nothing is remembered then.
        """
        if len(texts) == 1:
            return self._embed_one(texts)
        keys = [text_key(text) for text in texts]
        vectors = np.empty((len(texts), self.dimension), dtype=np.float32)
        missing: dict[bytes, list[int]] = {}
        with self._lock:
            for row, key in enumerate(keys):
                known = self._vectors.get(key)
                if known is None:
                    missing.setdefault(key, []).append(row)
                else:
                    self._vectors.move_to_end(key)
                    vectors[row] = known
            absent = sum(map(len, missing.values()))
            self._misses += absent
            self._hits += len(keys) - absent
        if missing:
            made = self._embedder.embed([texts[rows[0]] for rows in missing.values()])
            for vector, rows in zip(made, missing.values(), strict=True):
                vectors[rows] = vector
            self._remember(missing, made)
        return vectors

    def _embed_one(self, texts: Sequence[str]) -> Vectors:
        """What `embed` does, without its book-keeping about many."""
        key = text_key(texts[0])
        with self._lock:
            known = self._vectors.get(key)
            if known is not None:
                self._vectors.move_to_end(key)
                self._hits += 1
                return np.array([known])
            self._misses += 1
        made = self._embedder.embed(texts)
        self._remember((key,), made)
        return made

    def _remember(self, keys: Collection[bytes], made: Vectors) -> None:
        with self._lock:
            for key, vector in zip(keys, made, strict=True):
                self._vectors[key] = vector.copy()  # a row alone: a view would hold its batch
            while len(self._vectors) > self._limit:
                self._vectors.popitem(last=False)
