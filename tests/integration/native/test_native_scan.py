"""What the native front door asks the engine for, and what becomes of the answer."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tinydancer_fdw import contract, frames
from tinydancer_fdw.native import build

from .conftest import ScriptedEngine, answer_rows, encode_answer, plan_of

Connection = psycopg.Connection


def test_it_compiles_without_a_warning(server: Any, tmp_path: Path) -> None:
    if server.embedded is None:
        pytest.skip("the headers of this server may be anywhere")
    built = build.build(server.embedded.pg_config(), tmp_path, cc="cc -Werror")
    assert [library.name for library in built[:1]] == ["tinydancer_fdw.so"]


@pytest.mark.parametrize("qual", ["request = 'hello'", "'hello' = request"])
def test_a_constant_is_asked_for_from_either_side(
    connection: Connection, engine: ScriptedEngine, qual: str
) -> None:
    rows = connection.execute(f"SELECT request, agent_name FROM route_decisions WHERE {qual}")
    assert rows.fetchall() == [("hello", "gpt-4")]
    assert engine.asked == [[("request", "hello")]]


@pytest.mark.parametrize(
    "qual",
    [
        "request = ANY (ARRAY['a', NULL, 'b'])",
        "request IN ('a', 'b', NULL)",
        "(request = 'a' OR 'b' = request)",
    ],
)
def test_a_list_is_one_scan(connection: Connection, engine: ScriptedEngine, qual: str) -> None:
    rows = connection.execute(f"SELECT request FROM route_decisions WHERE {qual}")
    assert rows.fetchall() == [("a",), ("b",)]
    assert len(engine.scans) == 1
    assert engine.scans[0].inputs[0].match == frames.ANY


def test_only_the_columns_that_a_query_needs_are_asked_for(
    connection: Connection, engine: ScriptedEngine
) -> None:
    connection.execute("SELECT agent_name FROM route_decisions WHERE request = 'x'")
    assert engine.scans[0].columns == ("request", "agent_name")


def test_every_type_of_input_reaches_the_engine_and_is_found_again_in_the_row(
    connection: Connection, engine: ScriptedEngine
) -> None:
    connection.execute("SET extra_float_digits = -5")  # would round 0.1 + 0.2 to 0.3
    rows = connection.execute(
        "SELECT count(*) FROM route_decisions WHERE request = 'x' AND max_cost = 0.1 + 0.2 "
        'AND top_k = 1 AND required_capabilities = \'{code,"a b","q\\""}\' '
        "AND excluded_agents = '{}'"
    )
    assert rows.fetchone() == (1,)
    # 0.1 + 0.2 is numeric in SQL; its sum as double precision is 0.3.
    assert dict(engine.asked[0]) == {
        "request": "x", "max_cost": "0.3", "top_k": "1",
        "required_capabilities": ["code", "a b", 'q"'], "excluded_agents": [],
    }  # fmt: skip


def test_a_double_loses_no_digit(connection: Connection, engine: ScriptedEngine) -> None:
    connection.execute("SET extra_float_digits = -5")
    rows = connection.execute(
        "SELECT count(*) FROM route_decisions WHERE request = 'x' "
        "AND max_cost = 0.1::float8 + 0.2::float8"
    )
    assert rows.fetchone() == (1,)
    assert ("max_cost", "0.30000000000000004") in engine.asked[0]


@pytest.mark.parametrize("value", ["2::bigint", "2.0", "2::smallint", "2::float8"])
def test_a_value_of_another_number_type_is_cast_to_the_inputs(
    connection: Connection, engine: ScriptedEngine, value: str
) -> None:
    rows = connection.execute(
        f"SELECT rank FROM route_decisions WHERE request = 'x' AND top_k = {value}"
    )
    assert rows.fetchall() == [(1,), (2,)]
    assert ("top_k", "2") in engine.asked[0]


def test_a_stable_function_is_evaluated_when_the_scan_runs(
    connection: Connection, engine: ScriptedEngine
) -> None:
    connection.execute("SELECT set_config('app.request', 'from a setting', false)")
    connection.execute(
        "SELECT 1 FROM route_decisions WHERE request = current_setting('app.request')"
    )
    assert engine.asked == [[("request", "from a setting")]]


def test_a_volatile_value_is_no_input(connection: Connection, engine: ScriptedEngine) -> None:
    with pytest.raises(psycopg.errors.NullValueNotAllowed):
        connection.execute("SELECT 1 FROM route_decisions WHERE request = random()::text")
    assert engine.scans == []


def test_a_missing_required_input_is_an_error_with_a_hint(
    connection: Connection, engine: ScriptedEngine
) -> None:
    with pytest.raises(psycopg.errors.NullValueNotAllowed) as caught:
        connection.execute("SELECT * FROM route_decisions WHERE max_cost = 1")
    assert caught.value.diag.message_primary == "route_decisions needs a value for request"
    assert "WHERE request = '...'" in str(caught.value.diag.message_hint)
    assert engine.scans == []


@pytest.mark.parametrize(
    "qual", ["request = NULL", "request = ANY ('{}')", "request = ANY (ARRAY[NULL]::text[])"]
)
def test_what_can_match_nothing_is_not_asked(
    connection: Connection, engine: ScriptedEngine, qual: str
) -> None:
    assert connection.execute(f"SELECT * FROM route_decisions WHERE {qual}").fetchall() == []
    assert engine.scans == []


def test_a_generic_plan_sends_each_executions_parameters(
    connection: Connection, engine: ScriptedEngine
) -> None:
    connection.execute("SET plan_cache_mode = force_generic_plan")
    connection.execute(
        "PREPARE one(text, double precision) AS SELECT agent_name FROM route_decisions "
        "WHERE request = $1 AND max_cost = $2"
    )
    connection.execute(
        "PREPARE many(text[]) AS SELECT 1 FROM route_decisions WHERE request = ANY($1)"
    )
    for request in ("a", "b"):
        connection.execute(f"EXECUTE one('{request}', 0.5)")
    connection.execute("EXECUTE many('{c,d}')")
    assert engine.asked == [
        [("request", "a"), ("max_cost", "0.5")],
        [("request", "b"), ("max_cost", "0.5")],
        [("request", ["c", "d"])],
    ]
    plan = plan_of(connection, "EXECUTE many('{c,d}')")
    assert "Inputs: request = ANY ($1)" in plan
    assert "Requests" not in plan


def test_a_long_list_in_a_parameter_is_checked_as_well_as_a_constant(
    connection: Connection, engine: ScriptedEngine
) -> None:
    connection.execute("SET plan_cache_mode = force_generic_plan")
    connection.execute(
        "PREPARE many(text[]) AS SELECT request FROM route_decisions WHERE request = ANY ($1)"
    )
    requests = [f"request {number}" for number in range(3000)]
    execute = psycopg.sql.SQL("EXECUTE many({})").format(requests)
    rows = connection.execute(execute).fetchall()
    assert [request for (request,) in rows] == requests

    def other(scan: frames.Scan) -> Iterator[bytes]:
        yield encode_answer([("never asked",)], 1)

    engine.reply = other
    with pytest.raises(psycopg.errors.ProtocolViolation, match="not asked"):
        connection.execute("EXECUTE many('{a,b}')")


def test_explain_shows_what_would_be_sent_and_sends_nothing(
    connection: Connection, engine: ScriptedEngine
) -> None:
    plan = plan_of(
        connection,
        "SELECT * FROM route_decisions WHERE request IN ('a', 'b') AND optimize_for = 'cost'",
    )
    assert "Engine Table: route_decisions" in plan
    assert "Inputs: request = ANY ('{a,b}'::text[]), optimize_for = 'cost'::text" in plan
    assert "Requests: 2" in plan
    assert engine.scans == []


def test_explain_analyze_counts_scans_and_rows(connection: Connection) -> None:
    (plan,) = connection.execute(
        "EXPLAIN (ANALYZE, FORMAT JSON) SELECT * FROM route_decisions "
        "WHERE request = 'x' AND top_k = 3"
    ).fetchone() or (None,)
    assert plan is not None
    scan = plan[0]["Plan"]
    assert (scan["Engine Table"], scan["Requests"]) == ("route_decisions", 1)
    assert (scan["Scans Sent"], scan["Rows Received"]) == (1, 3)


def test_a_lateral_subquery_takes_every_input_from_the_outer_row(
    connection: Connection, engine: ScriptedEngine
) -> None:
    rows = connection.execute(
        "SELECT t.id, d.rank FROM tickets t, LATERAL (SELECT * FROM route_decisions d "
        "WHERE d.request = t.body AND d.top_k = t.wanted ORDER BY rank LIMIT 1) d "
        "WHERE t.id IN (1, 2) ORDER BY t.id"
    )
    assert rows.fetchall() == [(1, 1), (2, 1)]
    assert engine.asked == [
        [("request", "ticket 1"), ("top_k", "1")],
        [("request", "ticket 2"), ("top_k", "2")],
    ]


def test_a_correlated_subquery_asks_for_each_row(connection: Connection) -> None:
    rows = connection.execute(
        "SELECT id, (SELECT agent_name FROM route_decisions WHERE request = body) "
        "FROM tickets WHERE id < 3 ORDER BY id"
    )
    assert rows.fetchall() == [(1, "gpt-4"), (2, "gpt-4")]


def test_a_join_on_two_inputs_from_two_tables_hands_both_over(
    connection: Connection, engine: ScriptedEngine
) -> None:
    rows = connection.execute(
        "SELECT t.id, d.rank FROM tickets t CROSS JOIN (VALUES (1), (2)) AS k(k) "
        "JOIN route_decisions d ON d.request = t.body AND d.top_k = k.k WHERE t.id = 1 "
        "ORDER BY k.k, d.rank"
    )
    assert rows.fetchall() == [(1, 1), (1, 1), (1, 2)]
    assert all(len(inputs) == 2 for inputs in engine.asked)


def test_a_join_that_no_plan_can_supply_is_an_error_not_an_empty_answer(
    connection: Connection, engine: ScriptedEngine
) -> None:
    with pytest.raises(psycopg.errors.NullValueNotAllowed):
        connection.execute(
            "SELECT * FROM route_decisions d FULL JOIN tickets t ON d.request = t.body"
        )
    assert engine.scans == []


def test_alternatives_of_two_inputs_are_not_mixed_up(
    connection: Connection, engine: ScriptedEngine
) -> None:
    rows = connection.execute(
        "SELECT request, top_k FROM route_decisions WHERE request = 'x' "
        "AND (top_k = 1 OR top_k = 2) AND (user_tier = 'gold' OR rank = 1)"
    )
    assert rows.fetchall() == [("x", 1), ("x", 2)]
    assert engine.asked == [[("request", "x"), ("top_k", ["1", "2"])]]


def test_two_foreign_tables_chain(connection: Connection, engine: ScriptedEngine) -> None:
    rows = connection.execute(
        "SELECT d.agent_name, c.capability FROM route_decisions d "
        "JOIN capability_matches c ON c.capability = d.agent_name WHERE d.request = 'x'"
    )
    assert rows.fetchall() == [("gpt-4", "gpt-4")]
    assert [scan.table for scan in engine.scans] == ["route_decisions", "capability_matches"]


def test_rescans_of_one_statement_share_its_number_and_the_next_has_another(
    connection: Connection, engine: ScriptedEngine
) -> None:
    query = (
        "SELECT (SELECT agent_name FROM route_decisions WHERE request = body) "
        "FROM tickets WHERE id < 4"
    )
    connection.execute(query)
    connection.execute(query)
    numbers = [scan.statement for scan in engine.scans]
    assert 0 not in numbers
    assert len(set(numbers[:3])) == 1
    assert len(set(numbers[3:])) == 1
    assert len(set(numbers)) == 2


def test_a_limit_is_told_to_the_engine_where_nothing_else_drops_rows(
    connection: Connection, engine: ScriptedEngine
) -> None:
    connection.execute(
        "SELECT * FROM route_decisions WHERE request IN ('a', 'b', 'c') LIMIT 1 OFFSET 1"
    )
    connection.execute(
        "SELECT * FROM route_decisions WHERE request IN ('a', 'b', 'c') AND rank = 1 LIMIT 1"
    )
    connection.execute(
        "SELECT * FROM route_decisions WHERE request IN ('a', 'b', 'c') ORDER BY rank LIMIT 1"
    )
    connection.execute("SELECT count(*) FROM route_decisions WHERE request IN ('a', 'b') LIMIT 1")
    assert [scan.limit for scan in engine.scans] == [2, -1, -1, -1]


@pytest.mark.parametrize("wanted", ["top_k = ANY (ARRAY[1.4, 2])", "top_k = 1.4 OR top_k = 2.0"])
def test_a_limit_counts_no_rows_of_a_value_that_was_rounded_to_be_asked_for(
    connection: Connection, wanted: str
) -> None:
    rows = connection.execute(
        f"SELECT top_k, rank FROM route_decisions WHERE request = 'x' AND ({wanted}) LIMIT 1"
    )
    assert rows.fetchall() == [(2, 1)]


def test_the_engine_is_told_which_database_asks_and_how_far_the_server_has_come(
    connection: Connection, engine: ScriptedEngine
) -> None:
    def ask() -> frames.Place:
        connection.execute("SELECT * FROM route_decisions WHERE request = 'x'")
        return frames.Place.of(engine.scans[-1].place)

    [(identifier, database)] = connection.execute(
        "SELECT system_identifier::text, oid::text FROM pg_control_system(), pg_database"
        " WHERE datname = current_database()"
    )
    before = ask()
    # given a commit, then the next scan is from another place of the same server
    connection.execute("CREATE TEMP TABLE changed ()")
    after = ask()
    assert before.ended != after.ended
    assert before == frames.Place(identifier, before.started, before.ended, database, "")
    assert after == before._replace(ended=after.ended)


def test_the_engine_is_told_the_database_that_the_server_names(
    connection: Connection, engine: ScriptedEngine
) -> None:
    # given a scan, then a name with all that a name may have: the next scan says it
    connection.execute("SELECT * FROM engine_status")
    connection.execute("ALTER SERVER engine OPTIONS (ADD database 'a/b/é')")
    try:
        connection.execute("SELECT * FROM engine_status")
    finally:
        connection.execute("ALTER SERVER engine OPTIONS (DROP database)")
    connection.execute("SELECT * FROM engine_status")
    names = [frames.Place.of(scan.place).engine_database for scan in engine.scans]
    assert names == ["", "a/b/é", ""]


def test_one_connection_serves_many_statements(
    connection: Connection, engine: ScriptedEngine
) -> None:
    for number in range(5):
        connection.execute(f"SELECT * FROM route_decisions WHERE request = 'r{number}'")
    with connection.transaction():
        connection.execute("SELECT count(*) FROM engine_status")
    assert engine.connections == 1


def in_many_frames(scan: frames.Scan) -> Iterator[bytes]:
    rows = answer_rows(scan)
    for row in rows:
        yield frames.encode_rows([row], len(scan.columns))
    yield frames.encode_end(len(rows))


def test_an_answer_of_many_frames_is_read_to_its_end(
    connection: Connection, engine: ScriptedEngine
) -> None:
    engine.reply = in_many_frames
    rows = connection.execute(
        "SELECT rank FROM route_decisions WHERE request = 'x' AND top_k = 500"
    )
    assert [rank for (rank,) in rows.fetchall()] == list(range(1, 501))


def test_an_answer_that_comes_byte_by_byte_is_read(
    connection: Connection, engine: ScriptedEngine
) -> None:
    def bytewise(scan: frames.Scan) -> Iterator[bytes]:
        for byte in encode_answer(answer_rows(scan), len(scan.columns)):
            yield bytes((byte,))

    engine.reply = bytewise
    rows = connection.execute("SELECT request FROM route_decisions WHERE request = 'x'")
    assert rows.fetchall() == [("x",)]


def test_portals_read_in_turns_do_not_mix_their_answers(
    connection: Connection, engine: ScriptedEngine
) -> None:
    engine.reply = in_many_frames
    with connection.transaction():
        for name in ("a", "b"):
            connection.execute(
                f"DECLARE {name} CURSOR FOR SELECT request, rank FROM route_decisions "
                f"WHERE request = '{name}' AND top_k = 40"
            )
        for turn in range(4):
            for name in ("a", "b"):
                rows = connection.execute(f"FETCH 10 FROM {name}").fetchall()
                assert rows == [(name, rank) for rank in range(turn * 10 + 1, turn * 10 + 11)]
    assert engine.connections == 2


def test_a_portal_closed_early_leaves_nothing_to_the_next_scan(
    connection: Connection, engine: ScriptedEngine
) -> None:
    engine.reply = in_many_frames
    for number in range(5):
        with connection.transaction():
            connection.execute(
                f"DECLARE c CURSOR FOR SELECT request FROM route_decisions "
                f"WHERE request = 'old {number}' AND top_k = 3000"
            )
            assert connection.execute("FETCH 1 FROM c").fetchall() == [(f"old {number}",)]
            connection.execute("CLOSE c")
            rows = connection.execute(
                f"SELECT request FROM route_decisions WHERE request = 'new {number}'"
            )
            assert rows.fetchall() == [(f"new {number}",)]


def test_a_caught_error_leaves_nothing_to_the_next_scan(connection: Connection) -> None:
    connection.execute(
        "CREATE OR REPLACE FUNCTION pg_temp.bad() RETURNS text LANGUAGE plpgsql AS $$ "
        "BEGIN PERFORM 1 / (rank - 2) FROM route_decisions WHERE request = 'x' AND top_k = 9; "
        "RETURN 'none'; EXCEPTION WHEN division_by_zero THEN RETURN 'caught'; END $$"
    )
    for _ in range(3):
        assert connection.execute("SELECT pg_temp.bad()").fetchone() == ("caught",)
        rows = connection.execute("SELECT request FROM route_decisions WHERE request = 'y'")
        assert rows.fetchall() == [("y",)]


def test_text_beyond_ascii_goes_there_and_back(connection: Connection) -> None:
    request = "Grüße, 世界 🌍"
    rows = connection.execute("SELECT request FROM route_decisions WHERE request = %s", (request,))
    assert rows.fetchall() == [(request,)]


def test_a_database_in_another_encoding_converts(
    server: Any,
    connection: Connection,
    engine: ScriptedEngine,
) -> None:
    schema = connection.execute(
        "SELECT pg_get_functiondef('tinydancer_native_handler'::regproc)"
    ).fetchone()
    assert schema is not None
    name = "tinydancer_latin1"
    provider = "LOCALE_PROVIDER libc" if connection.info.server_version >= 150000 else ""
    connection.execute(
        f"CREATE DATABASE {name} ENCODING latin1 LC_COLLATE 'C' LC_CTYPE 'C' "
        f"{provider} TEMPLATE template0"
    )
    try:
        with psycopg.connect(server.dsn(name), autocommit=True) as latin:
            latin.execute(schema[0])
            latin.execute("CREATE FOREIGN DATA WRAPPER native HANDLER tinydancer_native_handler")
            latin.execute(
                f"CREATE SERVER engine FOREIGN DATA WRAPPER native OPTIONS (socket '{engine.path}')"
            )
            latin.execute(
                "CREATE FOREIGN TABLE route_decisions (request text, agent_name text) "
                "SERVER engine OPTIONS (table 'route_decisions')"
            )
            query = "SELECT request FROM route_decisions WHERE request = 'Grüße'"
            assert latin.execute(query).fetchall() == [("Grüße",)]
            assert engine.asked == [[("request", "Grüße")]]

            def other(scan: frames.Scan) -> Iterator[bytes]:
                yield encode_answer([("Grüße", "世界")], 2)

            engine.reply = other
            with pytest.raises(psycopg.errors.UntranslatableCharacter):
                latin.execute("SELECT * FROM route_decisions WHERE request = 'Grüße'")
    finally:
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


def test_the_imported_tables_are_the_contracts(connection: Connection) -> None:
    for table in contract.TABLES.values():
        rows = connection.execute(
            "SELECT attname, format_type(atttypid, atttypmod) FROM pg_attribute "
            "WHERE attrelid = %s::regclass AND attnum > 0 ORDER BY attnum",
            (f"public.{table.name}",),
        ).fetchall()
        types = {"timestamptz": "timestamp with time zone"}
        assert rows == [(c.name, types.get(c.type, c.type)) for c in table.columns]


@pytest.mark.parametrize(
    ("clause", "imported"),
    [
        ("LIMIT TO (route_decisions, engine_status)", {"route_decisions", "engine_status"}),
        (
            "EXCEPT (request_embeddings, engine_status)",
            contract.TABLES.keys() - {"request_embeddings", "engine_status"},
        ),
    ],
)
def test_some_tables_can_be_imported(
    connection: Connection, clause: str, imported: set[str]
) -> None:
    with connection.transaction(force_rollback=True):
        connection.execute("CREATE SCHEMA chosen")
        connection.execute(
            f"IMPORT FOREIGN SCHEMA tinydancer {clause} FROM SERVER engine INTO chosen"
        )
        rows = connection.execute(
            "SELECT foreign_table_name FROM information_schema.foreign_tables "
            "WHERE foreign_table_schema = 'chosen'"
        )
        assert {name for (name,) in rows.fetchall()} == imported


def test_to_import_a_table_that_there_is_not_is_an_error(connection: Connection) -> None:
    with pytest.raises(psycopg.errors.FdwTableNotFound) as caught:
        connection.execute(
            "IMPORT FOREIGN SCHEMA tinydancer LIMIT TO (route_decision) "
            "FROM SERVER engine INTO public"
        )
    assert "route_decisions" in str(caught.value.diag.message_hint)


@pytest.mark.parametrize(
    ("options", "message", "hint"),
    [
        ("ADD sockett '/x'", 'invalid option "sockett"', "socket, host, port"),
        ("SET socket 'engine.sock'", "not an absolute path", ""),
        ("SET timeout 'soon'", 'option "timeout" is "soon"', ""),
        ("ADD connect_timeout '0'", "from 1 to 3600000", ""),
        ("ADD token 'secret'", 'invalid option "token"', ""),
        ("ADD host '127.0.0.1'", "exclude each other", ""),
        ("ADD database ''", 'option "database" is empty', "whose engine is meant"),
        ("ADD sslrootcert '/x'", "there is no TLS over a socket", ""),
        ("DROP socket, ADD sslrootcert 'ca.pem'", "not an absolute path", ""),
    ],
)
def test_wrong_options_are_refused(
    connection: Connection, options: str, message: str, hint: str
) -> None:
    with pytest.raises(psycopg.Error, match=message) as caught:
        connection.execute(f"ALTER SERVER engine OPTIONS ({options})")
    assert str(caught.value.sqlstate).startswith("HV0")
    assert hint in (caught.value.diag.message_hint or "")


def test_a_column_that_the_engine_does_not_have_is_an_error(connection: Connection) -> None:
    with connection.transaction(force_rollback=True):
        connection.execute(
            "CREATE FOREIGN TABLE odd (request text, colour text) SERVER engine "
            "OPTIONS (table 'route_decisions')"
        )
        with pytest.raises(psycopg.errors.FdwColumnNameNotFound, match='"colour"'):
            connection.execute("SELECT * FROM odd WHERE request = 'x'")


def test_the_token_of_the_user_is_sent(connection: Connection, engine: ScriptedEngine) -> None:
    connection.execute(
        "CREATE USER MAPPING FOR CURRENT_USER SERVER engine OPTIONS (token 's3cret')"
    )
    try:
        connection.execute("SELECT count(*) FROM engine_status")
        connection.execute(
            "ALTER USER MAPPING FOR CURRENT_USER SERVER engine OPTIONS (SET token 'new')"
        )
        connection.execute("SELECT count(*) FROM engine_status")
    finally:
        connection.execute("DROP USER MAPPING FOR CURRENT_USER SERVER engine")
    connection.execute("SELECT count(*) FROM engine_status")
    assert engine.tokens == ["s3cret", "new", ""]
