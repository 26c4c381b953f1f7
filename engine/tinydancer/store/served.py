"""The database that an engine serves, and whether it is the one that a scan comes from.

A database that is copied or restored brings its foreign servers along, and these still lead to the
engine of the one that it was made from, which must not answer for it.
"""

from __future__ import annotations

from dataclasses import dataclass

import psycopg

from tinydancer.errors import OtherDatabase
from tinydancer.store.database import Connection
from tinydancer_fdw.frames import Place

_SERVED = """
SELECT datname::text, oid::text, system_identifier::text,
       ((extract(epoch FROM pg_postmaster_start_time())
         - extract(epoch FROM timestamptz '2000-01-01 00:00:00+00')) * 1000000)::bigint::text
FROM pg_database, pg_control_system() WHERE datname = current_database()
"""
_DATABASE = """
SELECT datname::text, oid::text FROM pg_database WHERE datname = current_database()
"""
_NAME = "SELECT datname::text FROM pg_database WHERE oid = %s::oid"


@dataclass(frozen=True)
class Served:
    """A database: its name and OID, and its server's identifier and start, as a `Place` has them.

    The last two are "" where the server's administrator keeps them to himself.
    """

    name: str
    database: str
    server: str = ""
    started: str = ""

    @property
    def commits(self) -> str:
        """What `Place.commits` begins with on this server; "" where that is not known."""
        return f"{self.server}/{self.started}/" if self.server else ""

    def answers(self, place: Place) -> bool:
        """Whether a scan from there is meant for this database, as far as the two can tell.

        A standby has the identifier and the OIDs of its primary.
        """
        if place.engine_database:
            return place.engine_database == self.name
        return not (self._elsewhere(place) or (place.database and place.database != self.database))

    def refusal(self, place: Place, conn: Connection) -> OtherDatabase:
        """The error for a scan from there."""
        if place.engine_database:
            return OtherDatabase(
                f'the engine serves database "{self.name}", not "{place.engine_database}"',
                detail="The foreign server's option database names the one that is meant.",
                hint=f'Lead the foreign server to the engine of "{place.engine_database}", '
                "or change its option.",
            )
        if self._elsewhere(place):
            asking = f"the one of another server (identifier {place.server}) that asks"
        else:
            row = conn.execute(_NAME, (place.database,)).fetchone()
            asking = f'"{row[0]}"' if row else f"the one with OID {place.database}, which asks"
        return OtherDatabase(
            f'the engine serves database "{self.name}", not {asking}',
            detail="A database that is copied or restored brings its foreign servers along. The "
            f'answer would go by the agents, budgets and settings of "{self.name}".',
            hint="Start an engine for the database that asks (tinydancer serve --dsn ...), and say "
            "where it listens: tinydancer install --dsn ... --socket (or --connect) .... "
            f'If it is to share the engine of "{self.name}", say so: '
            f"ALTER SERVER ... OPTIONS (ADD database {_quoted(self.name)}).",
        )

    def _elsewhere(self, place: Place) -> bool:
        return bool(place.server and self.server and place.server != self.server)


def read_served(conn: Connection) -> Served:
    """The database of a connection."""
    try:
        row = conn.execute(_SERVED).fetchone()
    except psycopg.errors.InsufficientPrivilege:
        row = conn.execute(_DATABASE).fetchone()
    assert row is not None  # noqa: S101 - we are connected to it
    return Served(*row)


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
