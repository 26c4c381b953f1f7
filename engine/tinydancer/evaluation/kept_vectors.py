"""Vectors kept between evaluations: a slow encoder encodes each text once on a machine.

A file in the cache directory has a record a text: a hash of the text, then its vector. It is named
by a digest of the model's files, so vectors of two models never meet; delete it at will.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tinydancer.embeddings.base import Embedder, Vectors
from tinydancer.embeddings.wrapper import KEY_BYTES, EmbedderWrapper, text_key

BLOCK = 1024
"""Texts that are encoded before their vectors are written: what an interruption loses at most."""


class KeptVectors(EmbedderWrapper):
    """An embedder whose vectors are kept in a file, and read from there the next time."""

    def __init__(self, embedder: Embedder, directory: Path, digest: str) -> None:
        super().__init__(embedder)
        self._file = directory / f"{embedder.model}-{digest[:16]}.vectors"
        self._record = np.dtype([("key", f"V{KEY_BYTES}"), ("vector", "<f4", embedder.dimension)])
        self._known: dict[bytes, Vectors] | None = None

    def embed(self, texts: Sequence[str]) -> Vectors:
        """(n, dimension) float32, rows of unit length. Raises what the embedder raises."""
        known = self._read()
        keys = [text_key(text) for text in texts]
        missing = {key: text for key, text in zip(keys, texts, strict=True) if key not in known}
        new = list(missing.items())
        for at in range(0, len(new), BLOCK):
            block = new[at : at + BLOCK]
            made = self._embedder.embed([text for _, text in block])
            records = np.empty(len(block), self._record)
            records["key"] = [key for key, _ in block]
            records["vector"] = made
            self._file.parent.mkdir(parents=True, exist_ok=True)
            with self._file.open("ab") as file:
                file.write(records.tobytes())
            known.update(zip((key for key, _ in block), made, strict=True))
        return np.array([known[key] for key in keys], np.float32).reshape(-1, self.dimension)

    def _read(self) -> dict[bytes, Vectors]:
        if self._known is None:
            self._known = {}
            if self._file.is_file():
                if self._file.stat().st_size % self._record.itemsize:
                    self._file.unlink()  # a write was cut off: where records begin is not known
                else:
                    records = np.fromfile(self._file, self._record)
                    keys = [key.tobytes() for key in records["key"]]
                    self._known.update(zip(keys, records["vector"], strict=True))
        return self._known


def digest_of(files: Sequence[Path]) -> str:
    """A digest of these files' contents, hexadecimal."""
    digest = hashlib.blake2b()
    for path in files:
        digest.update(path.read_bytes())
    return digest.hexdigest()
