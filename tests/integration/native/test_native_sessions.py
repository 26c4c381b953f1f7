"""What outlives a scan in a session (connections, plans, cursors), and what is done under it."""

from __future__ import annotations

import psycopg
import pytest

from .conftest import ScriptedEngine

Connection = psycopg.Connection

QUERY = "SELECT request FROM route_decisions WHERE request = %s"
MANY = "SELECT request FROM route_decisions WHERE request = ANY (%s)"
TEXTS = [f"request {number}" for number in range(3000)]


def test_a_read_only_transaction_may_ask(survivor: Connection) -> None:
    with survivor.transaction():
        survivor.execute("SET TRANSACTION READ ONLY")
        assert survivor.execute(QUERY, ("x",)).fetchall() == [("x",)]


def test_a_plan_that_is_kept_asks_as_the_role_that_runs_it(
    survivor: Connection, engine: ScriptedEngine
) -> None:
    with survivor.transaction(force_rollback=True):
        survivor.execute(
            """CREATE ROLE td_one; CREATE ROLE td_two;
               GRANT SELECT ON route_decisions TO td_one, td_two;
               CREATE USER MAPPING FOR td_one SERVER engine OPTIONS (token 'of one');
               CREATE USER MAPPING FOR td_two SERVER engine OPTIONS (token 'of two');
               SET LOCAL plan_cache_mode = force_generic_plan;
               PREPARE ask (text) AS SELECT request FROM route_decisions WHERE request = $1"""
        )
        for role in ("td_one", "td_two", "td_one"):
            survivor.execute(f"SET LOCAL ROLE {role}")
            assert survivor.execute("EXECUTE ask ('x')").fetchall() == [("x",)]
        survivor.execute("RESET ROLE; DEALLOCATE ask")
    assert engine.tokens == ["of one", "of two"]  # each role has a connection, which it keeps


def test_a_role_without_the_privilege_asks_nothing(
    survivor: Connection, engine: ScriptedEngine
) -> None:
    with survivor.transaction(force_rollback=True):
        survivor.execute("CREATE ROLE td_none; SET LOCAL ROLE td_none")
        with pytest.raises(psycopg.errors.InsufficientPrivilege), survivor.transaction():
            survivor.execute(QUERY, ("x",))
    assert engine.scans == []


def test_a_plan_that_is_kept_is_made_anew_where_its_table_changes(survivor: Connection) -> None:
    survivor.execute("SET plan_cache_mode = force_generic_plan")
    survivor.execute("PREPARE ask (text) AS SELECT * FROM semantic_matches WHERE query = $1")
    whole = len(survivor.execute("EXECUTE ask ('x')").description or ())
    with survivor.transaction(force_rollback=True):
        survivor.execute("ALTER FOREIGN TABLE semantic_matches OPTIONS (SET table 'engine_status')")
        with pytest.raises(psycopg.errors.FdwColumnNameNotFound), survivor.transaction():
            survivor.execute("EXECUTE ask ('x')")
    assert len(survivor.execute("EXECUTE ask ('x')").description or ()) == whole


def test_a_savepoint_rolled_back_takes_its_half_read_cursor_along(
    survivor: Connection, engine: ScriptedEngine
) -> None:
    with survivor.transaction():
        survivor.execute("SAVEPOINT before")
        survivor.execute(
            "DECLARE half_read CURSOR FOR SELECT request FROM route_decisions WHERE request = ANY"
            " (ARRAY(SELECT 'request ' || number FROM generate_series(1, 3000) number))"
        )
        assert len(survivor.execute("FETCH 5 FROM half_read").fetchall()) == 5
        survivor.execute("ROLLBACK TO before")
        assert survivor.execute(QUERY, ("x",)).fetchall() == [("x",)]
    assert engine.connections <= 2


def test_a_cursor_outlives_a_savepoint_that_fails_beside_it(survivor: Connection) -> None:
    with survivor.transaction(), survivor.cursor("outer_one") as cursor:
        cursor.execute(MANY, (TEXTS,))
        first = cursor.fetchmany(5)
        with pytest.raises(psycopg.errors.NullValueNotAllowed), survivor.transaction():
            survivor.execute("SELECT * FROM route_decisions")
        assert len({*first, *cursor.fetchall()}) == len(TEXTS)


def test_a_cursor_held_over_its_transaction_has_all_its_rows(survivor: Connection) -> None:
    with survivor.transaction():
        survivor.execute(
            "DECLARE held CURSOR WITH HOLD FOR SELECT request FROM route_decisions"
            " WHERE request IN ('a', 'b', 'c')"
        )
        assert survivor.execute("FETCH 1 FROM held").fetchall() == [("a",)]
    assert survivor.execute("FETCH ALL FROM held").fetchall() == [("b",), ("c",)]
    survivor.execute("CLOSE held")


def test_a_server_may_be_dropped_while_its_connection_is_kept(
    survivor: Connection, engine: ScriptedEngine
) -> None:
    survivor.execute(
        f"""CREATE SERVER short_lived FOREIGN DATA WRAPPER tinydancer_native
              OPTIONS (socket '{engine.path}');
            CREATE SCHEMA short_lived;
            IMPORT FOREIGN SCHEMA tinydancer LIMIT TO (route_decisions)
              FROM SERVER short_lived INTO short_lived"""
    )
    query = "SELECT request FROM short_lived.route_decisions WHERE request = 'x'"
    assert survivor.execute(query).fetchall() == [("x",)]
    survivor.execute("DROP SERVER short_lived CASCADE; DROP SCHEMA short_lived")
    with pytest.raises(psycopg.errors.UndefinedTable):
        survivor.execute(query)
    assert survivor.execute(QUERY, ("x",)).fetchall() == [("x",)]


def test_a_table_in_use_by_a_cursor_can_not_be_dropped_under_it(survivor: Connection) -> None:
    with survivor.transaction(), survivor.cursor("using") as cursor:
        cursor.execute(MANY, (TEXTS,))
        cursor.fetchmany(5)
        with pytest.raises(psycopg.errors.ObjectInUse), survivor.transaction():
            survivor.execute("DROP SERVER engine CASCADE")
        assert len(cursor.fetchall()) == len(TEXTS) - 5


def test_a_backend_that_ends_in_the_middle_of_an_answer_leaves_the_engine_serving(
    door_database: str, engine: ScriptedEngine, survivor: Connection
) -> None:
    with psycopg.connect(door_database) as short, short.cursor("unread") as cursor:
        cursor.execute(MANY, (TEXTS,))
        cursor.fetchmany(5)
        survivor.execute("SELECT pg_terminate_backend(%s)", (short.info.backend_pid,))
        with pytest.raises(psycopg.OperationalError):
            cursor.fetchall()
    assert survivor.execute(QUERY, ("x",)).fetchall() == [("x",)]


def test_scans_under_parallel_workers_stay_with_their_backend(survivor: Connection) -> None:
    with survivor.transaction(force_rollback=True):
        survivor.execute(
            """SET LOCAL parallel_setup_cost = 0; SET LOCAL parallel_tuple_cost = 0;
               SET LOCAL min_parallel_table_scan_size = 0;
               SET LOCAL max_parallel_workers_per_gather = 2;
               CREATE TABLE many AS SELECT i % 50 AS id FROM generate_series(1, 20000) i;
               ANALYZE many"""
        )
        query = """SELECT count(*) FROM (SELECT id::text AS body FROM many GROUP BY id) t
                   JOIN route_decisions ON request = body"""
        assert survivor.execute(query).fetchall() == [(50,)]
