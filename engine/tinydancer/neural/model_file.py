"""A model as bytes and as a file: safetensors, which holds arrays and text and runs nothing.

A model is a set of named arrays with a description in JSON. Reading checks everything before
anything is made of it, so that a damaged file leaves the active model as it was.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from tinydancer.embeddings.files import write_atomically
from tinydancer.errors import InvalidInput, NotFound, NumberOutOfRange, TooLarge

FORMAT = 1
LARGEST_MODEL = 512 << 20
"""Bytes of a model at most."""
_KEY = "tinydancer"
_HEADER = 8


@dataclass(frozen=True, eq=False)
class Contents:
    """arrays by name, and a description that JSON can hold."""

    arrays: Mapping[str, NDArray[Any]] = field(repr=False)
    about: Mapping[str, Any]


def to_bytes(contents: Contents) -> bytes:
    """The same contents always give the same bytes."""
    about = {"format": FORMAT} | dict(contents.about)
    arrays = {name: np.asarray(array, order="C") for name, array in contents.arrays.items()}
    return save(arrays, metadata={_KEY: json.dumps(about, sort_keys=True)})


def from_bytes(data: bytes, source: str = "the model") -> Contents:
    """Raises InvalidInput, naming `source`, for what is truncated, damaged or of another kind;
    NumberOutOfRange for an array with NaN or infinity; TooLarge beyond LARGEST_MODEL.
    """
    if len(data) > LARGEST_MODEL:
        raise TooLarge(f"{source} has {len(data)} bytes, at most {LARGEST_MODEL} are allowed")
    try:
        arrays = load(data)
        about = json.loads(_metadata(data)[_KEY])
    except (SafetensorError, KeyError, ValueError, TypeError) as error:
        raise InvalidInput(
            f"{source} is not a model: truncated, damaged or of another kind",
            detail=f"{type(error).__name__}: {error}",
            hint="Train it again, or take it from its source again.",
        ) from error
    if not isinstance(about, dict) or about.get("format") != FORMAT:
        found = about.get("format") if isinstance(about, dict) else about
        raise InvalidInput(f"{source} has format {found!r}, this version reads {FORMAT}")
    for name, array in arrays.items():
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise NumberOutOfRange(f"{source}: array {name!r} has NaN or infinity")
    return Contents(arrays, about)


def write(path: Path, contents: Contents) -> None:
    """The file appears whole or not at all."""
    write_atomically(path, to_bytes(contents))


def read(path: Path) -> Contents:
    """As `from_bytes`, and NotFound when there is no file."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise NotFound(f"there is no model file {str(path)!r}") from None
    return from_bytes(data, str(path))


def _metadata(data: bytes) -> dict[str, str]:
    """The text part of the header, which safetensors' reader of bytes leaves out."""
    length = int.from_bytes(data[:_HEADER], "little")
    header = json.loads(data[_HEADER : _HEADER + length])
    metadata: dict[str, str] = header["__metadata__"]
    return metadata
