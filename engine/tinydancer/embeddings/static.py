"""The default encoder: a table of token vectors, averaged. Tens of microseconds, no download."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from tinydancer.embeddings.base import Vectors
from tinydancer.embeddings.files import write_atomically
from tinydancer.embeddings.tokens import WordPieces
from tinydancer.errors import NotReady

BUILTIN_TABLE = Path(__file__).parent / "data" / "static.safetensors"
BLOCK_TOKENS = 4096
"""Token vectors that are held as float32 at one time (about 6 MB at 384 dimensions)."""

REBUILD = "reinstall tinydancer-router, or build the table with: tinydancer models build-static"


@dataclass(frozen=True)
class StaticTable:
    """A quantised table of token vectors: the vector of token i is `codes[i] * scales[i]`.

    `codes` is (tokens, dimension) int8, `scales` (tokens,) float32, the token's weight in a mean
    included. `model` and `space` are what an Embedder says of itself; `notes` say how it was made.
    """

    model: str
    space: str
    vocabulary: tuple[str, ...]
    codes: NDArray[np.int8]
    scales: NDArray[np.float32]
    notes: dict[str, str]


def quantise(vectors: Vectors) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Rows as int8 codes with one float32 scale each: the largest entry of a row becomes ±127."""
    scales = np.abs(vectors).max(axis=1) / np.float32(127)
    safe = np.where(scales > 0, scales, np.float32(1))
    codes = np.rint(vectors / safe[:, None]).astype(np.int8)
    return codes, scales.astype(np.float32)


def write_static_table(path: Path, table: StaticTable) -> None:
    """Write the table as one safetensors file, whole or not at all."""
    vocabulary = np.frombuffer("\n".join(table.vocabulary).encode(), dtype=np.uint8)
    # One metadata entry: safetensors writes several in no fixed order, and the same table should
    # be the same bytes.
    about = {"format": "1", "model": table.model, "space": table.space, "notes": table.notes}
    write_atomically(
        path,
        save(
            {"codes": table.codes, "scales": table.scales, "vocabulary": vocabulary},
            metadata={"tinydancer": json.dumps(about, sort_keys=True)},
        ),
    )


def read_static_table(path: Path) -> StaticTable:
    """Read a table and check it. Raises NotReady, naming the file, where it can't be used."""
    try:
        with safe_open(path, framework="numpy") as file:
            about = json.loads((file.metadata() or {})["tinydancer"])
            codes = file.get_tensor("codes")
            scales = file.get_tensor("scales")
            words = file.get_tensor("vocabulary").tobytes().decode()
        table = StaticTable(
            model=about["model"],
            space=about["space"],
            vocabulary=tuple(words.split("\n")),
            codes=codes,
            scales=scales,
            notes=about["notes"],
        )
    except FileNotFoundError:
        raise NotReady(f"there is no static table at {path}", hint=REBUILD) from None
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise NotReady(
            f"{path} is not a static table: truncated, damaged or of another kind",
            detail=f"{type(error).__name__}: {error}",
            hint=REBUILD,
        ) from error
    _check(path, table)
    return table


def builtin_vocabulary() -> tuple[str, ...]:
    """The tokens of the package's own table, without its vectors."""
    with safe_open(BUILTIN_TABLE, framework="numpy") as file:
        words: str = file.get_tensor("vocabulary").tobytes().decode()
    return tuple(words.split("\n"))


def _check(path: Path, table: StaticTable) -> None:
    tokens = len(table.vocabulary)
    shapes = table.codes.shape, table.scales.shape
    if table.codes.ndim != 2 or shapes != ((tokens, table.codes.shape[1]), (tokens,)):
        raise NotReady(
            f"{path}: {tokens} tokens do not fit codes of shape {shapes[0]} "
            f"and scales of shape {shapes[1]}",
            hint=REBUILD,
        )
    if table.codes.dtype != np.int8 or table.scales.dtype != np.float32:
        raise NotReady(
            f"{path}: codes are {table.codes.dtype}, not int8, "
            f"or scales are {table.scales.dtype}, not float32",
            hint=REBUILD,
        )
    if not np.isfinite(table.scales).all():
        bad = int(np.flatnonzero(~np.isfinite(table.scales))[0])
        raise NotReady(
            f"{path}: the scale of token {bad} ({table.vocabulary[bad]!r}) is not a finite number",
            hint=REBUILD,
        )


class StaticEmbedder:
    """The weighted mean of a text's token vectors, at unit length.

    A text without a known token (empty, or of unknown characters only) gets the vector of [UNK]:
    of unit length like any other, so that a cosine with it is defined. Every token of a long text
    counts; memory stays bounded.
    """

    def __init__(self, table: StaticTable) -> None:
        self._table = table
        self._pieces = WordPieces(table.vocabulary)
        unknown = np.array([[self._pieces.unknown]])
        if not np.linalg.norm(self._sum(unknown)) > 0:
            raise NotReady(f"{table.model}: the vector of [UNK] has no length", hint=REBUILD)

    @classmethod
    def builtin(cls) -> StaticEmbedder:
        """The table that comes with the package."""
        return cls(read_static_table(BUILTIN_TABLE))

    @property
    def model(self) -> str:
        """Name of the table, with its version."""
        return self._table.model

    @property
    def space(self) -> str:
        """The space the table was made for."""
        return self._table.space

    @property
    def dimension(self) -> int:
        """Length of each vector."""
        return int(self._table.codes.shape[1])

    def embed(self, texts: Sequence[str]) -> Vectors:
        """(n, dimension) float32, rows of unit length. Raises InvalidText."""
        unknown = [self._pieces.unknown]
        ids = [self._pieces.ids(text) or unknown for text in texts]
        if len(ids) == 1:
            return self._unit(self._sum(np.array(ids)))
        flat = np.fromiter(chain.from_iterable(ids), dtype=np.int64)
        lengths = np.fromiter(map(len, ids), dtype=np.int64, count=len(ids))
        starts = np.cumsum(lengths) - lengths
        vectors = np.empty((len(ids), self.dimension), dtype=np.float32)
        # Texts of one length are one product of matrices: no padding, no ragged sums.
        for length in np.unique(lengths):
            rows = np.flatnonzero(lengths == length)
            step = max(1, BLOCK_TOKENS // int(length))
            for first in range(0, len(rows), step):
                block = rows[first : first + step]
                vectors[block] = self._sum(flat[starts[block][:, None] + np.arange(length)])
        return self._unit(vectors)

    def count_tokens(self, texts: Sequence[str]) -> NDArray[np.int64]:
        """(n,) tokens of each text. Raises InvalidText."""
        ids = self._pieces.ids
        return np.fromiter((len(ids(text)) for text in texts), dtype=np.int64, count=len(texts))

    def _sum(self, ids: NDArray[np.int64]) -> Vectors:
        """(n, length) ids → (n, dimension): the sum over tokens of code times scale."""
        codes, scales = self._table.codes, self._table.scales
        if ids.shape[1] > BLOCK_TOKENS:
            parts = range(0, ids.shape[1], BLOCK_TOKENS)
            part_sums = np.array([self._sum(ids[:, at : at + BLOCK_TOKENS]) for at in parts])
            return np.asarray(part_sums.sum(axis=0))
        products = np.matmul(scales[ids][:, None, :], codes[ids].astype(np.float32))
        return np.asarray(products[:, 0])

    def _unit(self, sums: Vectors) -> Vectors:
        lengths = np.sqrt(np.einsum("ij,ij->i", sums, sums))
        if not lengths.all():  # token vectors that cancel out exactly: nothing is known
            sums[lengths == 0] = self._sum(np.array([[self._pieces.unknown]]))
            lengths = np.sqrt(np.einsum("ij,ij->i", sums, sums))
        unit: Vectors = sums / lengths[:, None]
        return unit
