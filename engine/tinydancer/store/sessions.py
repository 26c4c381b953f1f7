"""Sessions that keep their agent: in the database, so that every engine keeps the same one."""

from __future__ import annotations

from collections.abc import Sequence

from tinydancer.store.database import Database

HOLD = "SELECT agent, before FROM tinydancer.hold_session(%s, %s, %s, %s)"


class Sessions:
    """The sessions of the database. Thread-safe."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def hold(
        self, tenant: str, key: str, chosen: str, suitable: Sequence[str]
    ) -> tuple[str, str | None]:
        """The session's agent from now on, and the one before, None for a new session.

        `chosen` becomes its agent where it has none yet, or one that is not among the `suitable`.
        Raises Unavailable.
        """
        row = self._database.run(
            lambda conn: conn.execute(HOLD, (tenant, key, chosen, list(suitable))).fetchone()
        )
        assert row is not None  # noqa: S101 - a function with OUT parameters has one row
        agent, before = row
        return agent, before
