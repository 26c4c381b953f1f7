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
       CASE WHEN pg_is_in_recovery() THEN '' ELSE
           ((extract(epoch FROM pg_postmaster_start_time())
             - extract(epoch FROM timestamptz '2000-01-01 00:00:00+00')) * 1000000)::bigint::text
       END
FROM pg_database, pg_control_system() WHERE datname = current_database()
"""
_DATABASE = """
SELECT datname::text, oid::text FROM pg_database WHERE datname = current_database()
"""
_NAME = "SELECT datname::text FROM pg_database WHERE oid = %s::oid"


@dataclass(frozen=True)
class Served:
    """A database: its name and OID, and its server's identifier and start, as a `Place` has them.

    The last two are "" where the server's administrator keeps them to himself, and the start is on
    a standby.
    """

    name: str
    database: str
    server: str = ""
    started: str = ""

    @property
    def commits(self) -> str:
        """What `Place.commits` begins with on this server; "" where that is not known."""
        return f"{self.server}/{self.started}/" if self.started else ""

    def answers(self, place: Place) -> bool:
        """Whether a scan from there is meant for this database, as far as the two can tell."""
        if place.engine_database:
            return place.engine_database == self.name
        if self._on_another_server(place) or self._on_a_copy(place):
            return False
        return not place.database or place.database == self.database

    def refusal(self, place: Place, conn: Connection) -> OtherDatabase:
        """The error for a scan from there."""
        if place.engine_database:
            return OtherDatabase(
                f'the engine serves database "{self.name}", not "{place.engine_database}"',
                detail="The foreign server's option database names the one that is meant.",
                hint=f'Lead the foreign server to the engine of "{place.engine_database}", '
                "or change its option.",
            )
        if self._on_another_server(place):
            asking = f"the one of another server (identifier {place.server}) that asks"
        elif self._on_a_copy(place):
            asking = "the one of a copy of its server that asks"
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

    def _on_another_server(self, place: Place) -> bool:
        return bool(place.server and self.server and place.server != self.server)

    def _on_a_copy(self, place: Place) -> bool:
        """Whether two servers of one identifier run, neither of them the other's standby.

        A standby does not say its start, except through a door that is too old to say its database.
        """
        known = place.database and place.started and self.started
        return bool(known and place.started != self.started)


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
