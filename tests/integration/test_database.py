"""The engine's connections: nothing that is set against other clients ends them."""

from __future__ import annotations

import time
from collections.abc import Iterator

import psycopg
import pytest
from psycopg import conninfo

from tinydancer.errors import Unavailable, Unwritable
from tinydancer.store.database import Database

TIMEOUTS = {
    "statement_timeout": "100ms",
    "lock_timeout": "100ms",
    "idle_in_transaction_session_timeout": "100ms",
    "idle_session_timeout": "100ms",
    "transaction_timeout": "100ms",
}


@pytest.fixture
def bounded(schema_dsn: str, conn: psycopg.Connection) -> Iterator[Database]:
    """The database for an engine whose role has every timeout that this server knows."""
    known = conn.execute(
        "SELECT array_agg(name) FROM pg_settings WHERE name = ANY(%s)", [list(TIMEOUTS)]
    ).fetchone()
    assert known is not None
    options = " ".join(f"-c {name}={TIMEOUTS[name]}" for name in known[0])
    database = Database(conninfo.make_conninfo(schema_dsn, options=options))
    yield database
    database.close()


def test_a_roles_timeouts_end_no_statement_and_no_transaction(bounded: Database) -> None:
    with bounded.connection() as connection, connection.transaction():
        connection.execute("SELECT pg_sleep(0.3)")
        time.sleep(0.3)
        assert connection.execute("SELECT 1").fetchone() == (1,)


def test_a_roles_timeouts_end_no_connection_that_is_kept(bounded: Database) -> None:
    with bounded.connection() as connection:
        kept = connection.info.backend_pid
    time.sleep(0.4)
    with bounded.connection() as connection:
        assert connection.execute("SELECT pg_backend_pid()").fetchone() == (kept,)


def test_a_connection_that_the_server_has_ended_is_given_to_nobody(
    database: Database, conn: psycopg.Connection
) -> None:
    with database.connection() as connection:
        ended = connection.info.backend_pid
    assert conn.execute("SELECT pg_terminate_backend(%s, 5000)", [ended]).fetchone() == (True,)
    with database.connection() as connection:
        assert connection.execute("SELECT pg_backend_pid() <> %s", [ended]).fetchone() == (True,)


def test_a_connection_that_the_server_has_told_something_is_used_again(
    database: Database, conn: psycopg.Connection
) -> None:
    with database.connection() as connection:
        kept = connection.info.backend_pid
        connection.execute("LISTEN something")
    conn.execute("NOTIFY something")
    time.sleep(0.1)
    with database.connection() as connection:
        assert connection.execute("SELECT pg_backend_pid()").fetchone() == (kept,)


def test_a_database_that_is_read_only_says_so_and_with_which_state(schema_dsn: str) -> None:
    read_only = Database(
        conninfo.make_conninfo(schema_dsn, options="-c default_transaction_read_only=on")
    )
    with pytest.raises(Unwritable) as caught:
        read_only.run(lambda connection: connection.execute("DELETE FROM agents"))
    read_only.close()
    assert caught.value.sqlstate == "25006"
    assert caught.value.reason == "cannot execute DELETE in a read-only transaction"


def test_a_server_that_is_short_of_something_says_so_with_its_own_state(
    database: Database,
) -> None:
    with pytest.raises(Unwritable) as caught:
        database.run(
            lambda connection: connection.execute(
                "DO $$ BEGIN RAISE 'no space left on device' USING ERRCODE = 'disk_full'; END $$"
            )
        )
    assert (caught.value.sqlstate, caught.value.reason) == ("53100", "no space left on device")


def test_a_connection_that_is_ended_in_a_transaction_is_unavailable(database: Database) -> None:
    def idle_too_long(connection: psycopg.Connection) -> None:
        with connection.transaction():
            connection.execute("SET LOCAL idle_in_transaction_session_timeout = '50ms'")
            time.sleep(0.3)
            connection.execute("SELECT 1")

    with pytest.raises(Unavailable, match="can't reach its database"):
        database.run(idle_too_long)
    assert database.run(lambda connection: connection.execute("SELECT 1").fetchone()) == (1,)
