"""Rate limits of routes: counted in the database, so that they hold across engines and restarts.

A minute is a minute of the database's clock.
"""

from __future__ import annotations

import psycopg

from tinydancer.store.database import Database

# A row is taken by one session at a time. Who waited over the turn of a minute counts in the new
# one, and a clock that goes back never opens a minute again.
TAKE = """
INSERT INTO tinydancer.route_usage AS present (route, minute, used)
VALUES (%s, date_trunc('minute', clock_timestamp()), 1)
ON CONFLICT (route) DO UPDATE SET
    used = CASE WHEN excluded.minute > present.minute THEN 1 ELSE present.used + 1 END,
    minute = greatest(present.minute, excluded.minute)
WHERE excluded.minute > present.minute OR present.used < %s
"""
LEFT = """
SELECT NOT EXISTS (
    SELECT FROM tinydancer.route_usage
    WHERE route = %s AND minute >= date_trunc('minute', clock_timestamp()) AND used >= %s)
"""


class RouteRates:
    """How often routes were taken this minute, by all engines together. Thread-safe."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def take(self, route: str, per_minute: int) -> bool:
        """Count one request for the route, if it is still within its limit.

        Raises Unavailable where the database can't be reached.
        """
        try:
            # Done twice after a break, it may count one too many: never one too few.
            return self._database.run(
                lambda conn: conn.execute(TAKE, (route, per_minute)).rowcount == 1
            )
        except psycopg.errors.ForeignKeyViolation:
            # Dropped since the snapshot was read: nobody can take it any more.
            return False

    def left(self, route: str, per_minute: int) -> bool:
        """Whether `take` would succeed now; counts nothing.

        Raises Unavailable where the database can't be reached.
        """
        row = self._database.run(lambda conn: conn.execute(LEFT, (route, per_minute)).fetchone())
        return row == (True,)
