"""An engine's connections to the database, where others lock what they need."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from time import monotonic, sleep

import pytest

from tinydancer.errors import Held
from tinydancer.store.database import Database

LOCK = "SELECT pg_advisory_lock(%s)"


def test_who_is_chosen_to_end_a_deadlock_is_told_to_ask_again(conn, database: Database):
    # Given a session that waits for the engine, and will not be the one to give up
    conn.execute("SET deadlock_timeout = '1min'")
    conn.execute(LOCK, (1,))
    with ThreadPoolExecutor(1) as pool:
        with pytest.raises(Held) as raised, database.connection() as engine:
            engine.execute("SET deadlock_timeout = '10ms'")
            engine.execute(LOCK, (2,))
            waiting = pool.submit(conn.execute, LOCK, (2,))
            wait_until_one_waits(engine)
            # When the engine waits for that session
            try:
                engine.execute(LOCK, (1,))
            finally:
                engine.execute("SELECT pg_advisory_unlock_all()")
                engine.execute("RESET deadlock_timeout")
        waiting.result()
    # Then
    assert raised.value.sqlstate == "55P03"
    assert "wait for each other" in raised.value.message
    assert "Ask again" in (raised.value.hint or "")


def wait_until_one_waits(connection) -> None:
    until = monotonic() + 10
    while not connection.execute("SELECT count(*) FROM pg_locks WHERE NOT granted").fetchone()[0]:
        assert monotonic() < until
        sleep(0.01)
