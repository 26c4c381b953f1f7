"""What has to be done now and then: partitions ahead, old ones away, reservations given back.

Every engine of a database does it; doing it twice, or not for a while, harms nothing.
"""

from __future__ import annotations

import logging
from threading import Event, Thread

import psycopg

from tinydancer.errors import TinyDancerError
from tinydancer.store.database import Connection, Database

logger = logging.getLogger(__name__)

SECONDS_BETWEEN = 30.0
# How long a step waits for a lock that somebody holds: there is a next time.
PATIENCE_MS = 2_000

# Each with how often it is called at most, for the steps after it. What expires returns of how many
# it was, up to a number that keeps its transaction short: it is called until nothing is left, as
# more may expire in the time between than one call takes. Sums are merged a shard a call, of eight.
STEPS = {
    "SELECT tinydancer.expire_reservations()": 1_000,
    "SELECT tinydancer.expire_calls()": 1_000,
    "SELECT tinydancer.expire_sessions()": 1_000,
    "SELECT tinydancer.ensure_partitions()": 1,
    "SELECT tinydancer.apply_retention()": 1,
    "SELECT tinydancer.compact_sums()": 8,
}


def maintain(conn: Connection) -> None:
    """Do each step, in transactions of its own: one that fails holds up no other.

    Raises what the last of them raised that failed.
    """
    failed: psycopg.Error | None = None
    for step, calls in STEPS.items():
        try:
            while calls and _do(conn, step) != (0,):
                calls -= 1
        except psycopg.Error as error:
            if conn.closed:
                raise
            failed = error
    if failed is not None:
        raise failed


def _do(conn: Connection, step: str) -> tuple[object, ...] | None:
    with conn.transaction():
        conn.execute(f"SET LOCAL lock_timeout = {PATIENCE_MS}".encode())
        return conn.execute(step.encode()).fetchone()


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
            except TinyDancerError as error:
                # Each time, with what is wrong now: the server is away, then has not the database.
                logger.warning("maintenance is tried again: %s", error.reason)
            except Exception:
                logger.exception("maintenance failed")
