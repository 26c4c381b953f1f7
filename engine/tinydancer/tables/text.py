"""Python values as PostgreSQL's text forms of them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime, timedelta

from tinydancer.embeddings.base import Vectors

Nested = Sequence["str | Nested | None"]


def double(value: float) -> str:
    """A double precision, in the fewest digits that give the same number back."""
    return repr(float(value))


def money(value: float) -> str:
    """A numeric, to a billionth, without an exponent or zeros at its end."""
    return f"{value:.9f}".rstrip("0").rstrip(".")


def boolean(value: bool) -> str:
    """A boolean."""
    return "t" if value else "f"


def array(values: Nested) -> str:
    """A text[], every element quoted."""
    return "{" + ",".join(map(_element, values)) + "}"


def _element(value: str | Nested | None) -> str:
    if value is None:
        return "NULL"
    if isinstance(value, str):
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return array(value)


_ENCODER = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def jsonb(value: object) -> str:
    """A jsonb. Raises ValueError where there is a NaN or an infinity in it."""
    return _ENCODER.encode(value)


def vector(values: Vectors) -> str:
    """A pgvector vector; nine digits give every float32 back."""
    return "[" + ",".join(format(value, ".9g") for value in values.tolist()) + "]"


def interval(value: timedelta) -> str:
    """An interval, in seconds."""
    return f"{value.total_seconds():.6f} seconds"


def timestamptz(value: datetime) -> str:
    """A timestamptz; the time must know its zone."""
    return value.isoformat()
