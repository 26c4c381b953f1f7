"""The models that are active, as the table `models` has them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from tinydancer.errors import InvalidInput
from tinydancer.learning import quality_file
from tinydancer.learning.quality import QualityModel
from tinydancer.neural import model_file, packing
from tinydancer.neural.classifier import RouteClassifier
from tinydancer.store.database import Connection

ACTIVE = """
SELECT id, name, checksum FROM tinydancer.models
WHERE kind = %s AND active AND (%s::text IS NULL OR embedding_space = %s)
"""
WEIGHTS = "SELECT weights FROM tinydancer.models WHERE id = %s"


@dataclass(frozen=True, eq=False)
class StoredModel:
    """A row of the table `models`. The checksum, too, says which: numbers come again.

    What the weights hold is unpacked when it is first asked: damaged ones are for the scans that
    need them to complain about, not for every scan of an engine that has such a row.
    """

    id: int
    name: str
    checksum: bytes
    weights: bytes

    @property
    def source(self) -> str:
        """How an error calls it."""
        return f"model {self.id} ({self.name!r})"


@dataclass(frozen=True, eq=False)
class StoredClassifier(StoredModel):
    """A classifier."""

    @cached_property
    def classifier(self) -> RouteClassifier:
        """The classifier itself. Raises InvalidInput where the weights are damaged."""
        try:
            return packing.from_bytes(self.weights, self.source)
        except InvalidInput as error:
            error.hint = "ruvector_rollback_model('classifier') goes back to the one before it."
            raise


@dataclass(frozen=True, eq=False)
class StoredQuality(StoredModel):
    """A model of each agent's quality, trained on vectors of `space`."""

    space: str

    @cached_property
    def model(self) -> QualityModel:
        """The model itself. Raises InvalidInput where the weights are damaged."""
        contents = model_file.from_bytes(self.weights, self.source)
        return quality_file.unpack(contents, self.space, self.source)


def read_classifier(conn: Connection, previous: StoredClassifier | None) -> StoredClassifier | None:
    """The active classifier, or None; `previous` itself where that is still the one."""
    row = _active(conn, "classifier", None)
    if row is None or _same(row, previous):
        return previous if row else None
    return StoredClassifier(*row, _weights(conn, row[0]))


def read_quality(
    conn: Connection, space: str, previous: StoredQuality | None
) -> StoredQuality | None:
    """The active quality model where it was trained in `space`, or None.

    One of another space says nothing of today's vectors: after a change of embedder agents have
    their own figures again, until a new one is trained.
    """
    row = _active(conn, "quality", space)
    if row is None or _same(row, previous):
        return previous if row else None
    return StoredQuality(*row, _weights(conn, row[0]), space)


def _active(conn: Connection, kind: str, space: str | None) -> tuple[int, str, bytes] | None:
    with conn.cursor(binary=True) as cursor:
        row = cursor.execute(ACTIVE, (kind, space, space)).fetchone()
    return None if row is None else (row[0], row[1], row[2])


def _same(row: tuple[int, str, bytes], previous: StoredModel | None) -> bool:
    return previous is not None and (previous.id, previous.name, previous.checksum) == row


def _weights(conn: Connection, number: int) -> bytes:
    with conn.cursor(binary=True) as cursor:
        row = cursor.execute(WEIGHTS, (number,)).fetchone()
    return row[0] if row else b""
