"""What an engine does now and then: each step, whatever becomes of the others."""

from __future__ import annotations

import psycopg
import pytest
from psycopg import conninfo

from tinydancer.store import maintenance
from tinydancer.store.database import Database
from tinydancer.store.maintenance import maintain

RESERVE = (
    "SELECT reserve_calls(ARRAY[gen_random_uuid()], ARRAY['default'], ARRAY['a'], ARRAY[NULL],"
    " ARRAY[NULL], ARRAY[1.0])"
)
EXPIRED = "UPDATE budget_reservations SET expires_at = now() - interval '1 second'"


def test_the_engines_role_may_do_all_steps(conn, schema_dsn):
    database = Database(conninfo.make_conninfo(schema_dsn, options="-c role=tinydancer_engine"))
    try:
        database.run(maintain)
    finally:
        database.close()


def test_all_that_has_expired_is_given_back(conn, database):
    conn.execute("SELECT ruvector_set_budget('all', 10000)")
    conn.execute("SELECT ruvector_set_budget('of a', 10000, 'agent', 'a')")
    conn.execute(f"{RESERVE} FROM generate_series(1, 1200)")
    conn.execute(EXPIRED)
    database.run(maintain)
    assert conn.execute("SELECT name, reserved FROM budget_status ORDER BY 1").fetchall() == [
        ("all", 0),
        ("of a", 0),
    ]


def test_what_has_not_expired_yet_stays(conn, database):
    conn.execute("SELECT ruvector_register_agent('a', concurrency_limit := 1)")
    conn.execute("SELECT ruvector_set_budget('all', 10)")
    conn.execute(RESERVE)
    conn.execute("SELECT hold_session('default', 'key', 'a', ARRAY['a'])")
    database.run(maintain)
    assert conn.execute("SELECT reserved FROM budget_status").fetchone() == (1,)
    assert conn.execute("SELECT in_flight FROM agent_health").fetchone() == (1,)
    assert conn.execute("SELECT session_key FROM sessions").fetchone() == ("key",)


def test_a_step_that_a_transaction_holds_up_holds_up_no_other(conn, database, monkeypatch):
    monkeypatch.setattr(maintenance, "PATIENCE_MS", 50)
    conn.execute("SELECT ruvector_set_budget('all', 10)")
    conn.execute(RESERVE)
    conn.execute(EXPIRED)
    conn.execute("SELECT hold_session('default', 'key', 'a', ARRAY['a'])")
    conn.execute("UPDATE sessions SET expires_at = now() - interval '1 second'")
    with conn.transaction():
        conn.execute("SELECT FROM budget_periods FOR UPDATE")
        with database.connection() as engines, pytest.raises(psycopg.errors.LockNotAvailable):
            maintain(engines)
        assert conn.execute("SELECT count(*) FROM sessions").fetchone() == (0,)
    database.run(maintain)
    assert conn.execute("SELECT reserved FROM budget_status").fetchone() == (0,)
