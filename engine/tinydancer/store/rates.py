"""Rate limits of routes: counted in the database, so that they hold across engines and restarts.

In no minute of the database's time, wherever it starts, is a route taken more often than that.
"""

from __future__ import annotations

import psycopg

from tinydancer.store.database import Database

TAKE = "SELECT tinydancer.take_route(%s, %s)"
LEFT = """
SELECT NOT EXISTS (
    SELECT FROM tinydancer.route_usage JOIN tinydancer.route_takes USING (route)
    WHERE route = %s AND number = taken - %s + 1
        AND taken_at > clock_timestamp() - interval '1 minute')
"""


class RouteRates:
    """How often routes were taken within a minute, by all engines together. Thread-safe."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def take(self, route: str, per_minute: int) -> bool:
        """Count one request for the route, if it is still within its limit.

        Raises Unavailable where the database can't be reached.
        """
        try:
            # Done twice after a break, it may count one too many: never one too few.
            row = self._database.run(
                lambda conn: conn.execute(TAKE, (route, per_minute)).fetchone()
            )
        except psycopg.errors.ForeignKeyViolation:
            # Dropped at this very moment: nobody can take it any more.
            return False
        return row == (True,)

    def left(self, route: str, per_minute: int) -> bool:
        """Whether `take` would succeed now; counts nothing.

        Raises Unavailable where the database can't be reached.
        """
        row = self._database.run(lambda conn: conn.execute(LEFT, (route, per_minute)).fetchone())
        return row == (True,)
