"""Looking back: the ledger's sums, as the database makes them."""

from __future__ import annotations

from collections.abc import Sequence

import psycopg

from tinydancer.errors import InvalidInput
from tinydancer.store.database import Database
from tinydancer_fdw.contract import ROUTING_ANALYTICS
from tinydancer_fdw.frames import Row

_OUTPUTS = ", ".join(
    f"{column.name}::text" for column in ROUTING_ANALYTICS.columns if not column.input
)
ANALYTICS = f"SELECT {_OUTPUTS} FROM tinydancer.ruvector_routing_analytics(%s, %s)"  # noqa: S608


def routing_analytics(database: Database, time_range: str, group_by: str) -> Sequence[Row]:
    """A row for each group, in PostgreSQL's text forms.

    Raises InvalidInput for a time range that is none, Unavailable where the database can't be
    reached.
    """
    with database.connection() as conn:
        try:
            return conn.execute(ANALYTICS, (time_range, group_by)).fetchall()
        except psycopg.errors.DataError as error:
            said = error.diag
            raise InvalidInput(
                said.message_primary or str(error), hint=said.message_hint or ""
            ) from error
