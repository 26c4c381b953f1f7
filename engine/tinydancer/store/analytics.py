"""Looking back: the ledger's sums, as the database makes them."""

from __future__ import annotations

from collections.abc import Sequence

import psycopg

from tinydancer.errors import InvalidInput
from tinydancer.store.database import Connection, Database
from tinydancer_fdw.contract import ROUTING_ANALYTICS
from tinydancer_fdw.frames import Row

_OUTPUTS = ", ".join(
    f"{column.name}::text" for column in ROUTING_ANALYTICS.columns if not column.input
)
IS_PAST = "SELECT now() - %s::interval < now()"
ANALYTICS = f"SELECT {_OUTPUTS} FROM tinydancer.usage_analytics(now() - %s::interval, %s)"  # noqa: S608


def routing_analytics(database: Database, time_range: str, group_by: str) -> Sequence[Row]:
    """A row for each group, in PostgreSQL's text forms.

    Raises InvalidInput for a time range that is no interval or does not lie in the past,
    Unavailable where the database can't be reached.
    """
    with database.connection() as conn:
        check_time_range(conn, time_range)
        return conn.execute(ANALYTICS, (time_range, group_by)).fetchall()


def check_time_range(conn: Connection, time_range: str) -> None:
    """Raises InvalidInput unless PostgreSQL reads it as an interval that lies in the past."""
    try:
        past = conn.execute(IS_PAST, (time_range,)).fetchone()
    except psycopg.errors.DataError:
        past = None
    if past != (True,):
        raise InvalidInput(
            f"time_range = {time_range[:80]!r} is no interval that lies in the past",
            hint="Give what PostgreSQL reads as one: 7 days, 12 hours, 1 month.",
        )
