"""Vectors as rows of the tables have them, and those that have to be made from their texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tinydancer.embeddings.base import Embedder, Vectors


@dataclass(frozen=True, eq=False)
class Unsaved:
    """Vectors made while reading: rows of a table, each with the text its vector is of.

    `keys` are the primary keys: (name,) of agents and routes, (route, utterance) of utterances.
    """

    table: str
    keys: tuple[tuple[str, ...], ...]
    texts: tuple[str, ...]
    vectors: Vectors


def stored_vectors(
    embedder: Embedder, stored: Sequence[bytes | None], texts: Sequence[str]
) -> tuple[Vectors, NDArray[np.intp]]:
    """(n, d) unit rows, and which of them had to be made from their texts."""
    vectors = np.empty((len(stored), embedder.dimension), np.float32)
    missing = np.array([i for i, data in enumerate(stored) if data is None], np.intp)
    present = np.array([i for i, data in enumerate(stored) if data is not None], np.intp)
    if len(present):
        # vector_send: u16 dimension, u16 unused, then that many big-endian float32.
        data = np.frombuffer(b"".join(data for data in stored if data is not None), np.uint8)
        rows = data.reshape(len(present), 4 + 4 * embedder.dimension)[:, 4:]
        vectors[present] = np.ascontiguousarray(rows).view(">f4")
        vectors[present] = _unit_rows(vectors[present])
    if len(missing):
        vectors[missing] = embedder.embed([texts[i] for i in missing])
    return vectors, missing


def unsaved(
    table: str,
    made: NDArray[np.intp],
    keys: Sequence[tuple[str, ...]],
    texts: Sequence[str],
    vectors: Vectors,
) -> tuple[Unsaved, ...]:
    """The rows `made` of a table's texts and their vectors, where there are any."""
    if not len(made):
        return ()
    return (
        Unsaved(
            table,
            tuple(keys[i] for i in made),
            tuple(texts[i] for i in made),
            vectors[made],
        ),
    )


def _unit_rows(rows: Vectors) -> Vectors:
    """Rows of any length but 0 as unit rows; squares of the longest and shortest are no float32."""
    with np.errstate(over="ignore", under="ignore"):
        lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    odd = ~((lengths > 1e-15) & (lengths < 1e15))[:, 0]
    if odd.any():
        rows[odd] = rows[odd] / np.abs(rows[odd]).max(axis=1, keepdims=True)
        lengths[odd] = np.linalg.norm(rows[odd], axis=1, keepdims=True)
    unit: Vectors = rows / lengths
    return unit
