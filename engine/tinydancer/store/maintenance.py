"""What has to be done now and then: partitions ahead, old ones away, reservations given back.

Every engine of a database does it; doing it twice, or not for a while, harms nothing.
"""

from __future__ import annotations

import logging
from threading import Event, Thread

from tinydancer.errors import Unavailable
from tinydancer.store.database import Connection, Database

logger = logging.getLogger(__name__)

SECONDS_BETWEEN = 30.0

# Each in a transaction of its own: one that fails holds up no other.
STEPS = (
    "SELECT tinydancer.expire_reservations()",
    "SELECT tinydancer.expire_calls()",
    "SELECT tinydancer.expire_sessions()",
    "SELECT tinydancer.ensure_partitions()",
    "SELECT tinydancer.apply_retention()",
    "SELECT tinydancer.compact_sums()",
)


def maintain(conn: Connection) -> None:
    """Do each step once."""
    for step in STEPS:
        conn.execute(step.encode())


class Maintenance:
    """A thread that does it, from `start` to `close`."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._stop = Event()
        self._thread = Thread(target=self._run, name="maintenance", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def close(self) -> None:
        """Stop, after the step under way."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(timeout=5)

    def _run(self) -> None:
        while not self._stop.wait(SECONDS_BETWEEN):
            try:
                self._database.run(maintain)
            except Unavailable as error:
                logger.warning("maintenance waits for the database: %s", error.detail)
            except Exception:
                logger.exception("maintenance failed")
