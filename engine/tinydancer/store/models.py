"""The models that are active, as the table `models` has them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import psycopg

from tinydancer.neural import packing
from tinydancer.neural.classifier import RouteClassifier

ACTIVE = "SELECT id, name, checksum FROM tinydancer.models WHERE kind = 'classifier' AND active"
WEIGHTS = "SELECT weights FROM tinydancer.models WHERE id = %s"


@dataclass(frozen=True, eq=False)
class StoredClassifier:
    """A classifier of the table `models`. The checksum, too, says which: numbers come again."""

    id: int
    name: str
    checksum: bytes
    weights: bytes

    @cached_property
    def classifier(self) -> RouteClassifier:
        """The classifier itself, unpacked when it is first asked.

        Raises InvalidInput where the weights are damaged: that is for the scans that classify, not
        for every scan of an engine that has such a row.
        """
        return packing.from_bytes(self.weights, f"model {self.id} ({self.name!r})")


def read_classifier(
    conn: psycopg.Connection[Any], previous: StoredClassifier | None
) -> StoredClassifier | None:
    """The active classifier, or None; `previous` itself where that is still the one."""
    with conn.cursor(binary=True) as cursor:
        row = cursor.execute(ACTIVE).fetchone()
        if row is None:
            return None
        if previous is not None and (previous.id, previous.name, previous.checksum) == row:
            return previous
        (weights,) = cursor.execute(WEIGHTS, (row[0],)).fetchone() or (b"",)
    return StoredClassifier(row[0], row[1], row[2], weights)
