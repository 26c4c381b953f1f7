"""The static table as a file: int8 vectors of tokens and of pairs of tokens, checked when read."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from tinydancer.embeddings.base import Vectors
from tinydancer.embeddings.files import write_atomically
from tinydancer.errors import NotReady

BUILTIN_TABLE = Path(__file__).parent / "data" / "static.safetensors"
REBUILD = "reinstall tinydancer-router, or build the table with: tinydancer models build-static"


@dataclass(frozen=True)
class StaticTable:
    """A quantised table of vectors: that of row i is `codes[i] * scales[i]`.

    The first rows are the tokens', in the order of the vocabulary; then come those of pairs of
    tokens that often follow each other. `pairs` is (pairs,) int64 in ascending order, each
    `first * tokens + second`. `codes` is (tokens + pairs, dimension) int8, `scales` (tokens +
    pairs,) float32, the row's weight in a mean included. `model` and `space` are what an Embedder
    says of itself; `notes` say how the table was made.
    """

    model: str
    space: str
    vocabulary: tuple[str, ...]
    pairs: NDArray[np.int64]
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
    about = {"format": "2", "model": table.model, "space": table.space, "notes": table.notes}
    write_atomically(
        path,
        save(
            {
                "codes": table.codes,
                "scales": table.scales,
                "pairs": table.pairs,
                "vocabulary": vocabulary,
            },
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
            pairs = file.get_tensor("pairs")
            words = file.get_tensor("vocabulary").tobytes().decode()
        table = StaticTable(
            model=about["model"],
            space=about["space"],
            vocabulary=tuple(words.split("\n")),
            pairs=pairs,
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
    tokens, rows = len(table.vocabulary), len(table.vocabulary) + len(table.pairs)
    shapes = table.codes.shape, table.scales.shape
    if table.codes.ndim != 2 or shapes != ((rows, table.codes.shape[1]), (rows,)):
        raise NotReady(
            f"{path}: {tokens} tokens and {len(table.pairs)} pairs do not fit codes of shape "
            f"{shapes[0]} and scales of shape {shapes[1]}",
            hint=REBUILD,
        )
    types = f"{table.codes.dtype}, {table.scales.dtype}, {table.pairs.dtype}"
    if types != "int8, float32, int64":
        raise NotReady(
            f"{path}: codes, scales and pairs are {types}, not int8, float32, int64", hint=REBUILD
        )
    if not np.isfinite(table.scales).all():
        bad = int(np.flatnonzero(~np.isfinite(table.scales))[0])
        raise NotReady(f"{path}: the scale of row {bad} is not a finite number", hint=REBUILD)
    if (np.diff(table.pairs) <= 0).any():
        raise NotReady(f"{path}: the pairs of tokens are not in ascending order", hint=REBUILD)
