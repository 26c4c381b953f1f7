"""A function in a select list that sends its arguments to the engine in batches."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import psycopg
import pytest

from tinydancer_fdw import frames

from .conftest import ScriptedEngine, encode_answer, plan_of

Connection = psycopg.Connection
BATCHED = "Custom Scan (Tiny Dancer Batched Calls)"
CALL = "ruvector_classify_request(body) ->> 'of'"


def classify(scan: frames.Scan) -> Iterator[bytes]:
    """Each text's classification is the text itself, in jsonb."""
    value = scan.inputs[0].value
    texts = [str(text) for text in value] if isinstance(value, list) else [str(value)]
    cells = ({"content": text, "classification": f'{{"of": "{text}"}}'} for text in texts)
    rows = [tuple(cell.get(column) for column in scan.columns) for cell in cells]
    yield encode_answer(rows, len(scan.columns))


@pytest.fixture(autouse=True)
def classifying(connection: Connection, engine: ScriptedEngine) -> None:
    """The function, as the schema has it, with its support function."""
    engine.reply = classify
    connection.execute(
        "CREATE OR REPLACE FUNCTION ruvector_classify_request(content text) RETURNS jsonb "
        "LANGUAGE plpgsql STABLE STRICT COST 12000 SUPPORT tinydancer_native_support AS $$"
        "BEGIN RETURN (SELECT c.classification FROM request_classifications c "
        "WHERE c.content = ruvector_classify_request.content); END $$"
    )


def answers(connection: Connection, query: str) -> list[tuple[object, ...]]:
    """The rows of a query, which calls row by row must give as well."""
    assert BATCHED in plan_of(connection, query)
    rows = connection.execute(query).fetchall()
    connection.execute("SET tinydancer.enable_batched_calls = off")
    assert BATCHED not in plan_of(connection, query)
    assert connection.execute(query).fetchall() == rows
    connection.execute("RESET tinydancer.enable_batched_calls")
    return rows


def sizes(engine: ScriptedEngine) -> list[int]:
    return [len(inputs[0][1] or "") for inputs in engine.asked]


def test_a_select_list_asks_in_batches_that_grow(
    connection: Connection, engine: ScriptedEngine
) -> None:
    rows = connection.execute(f"SELECT id, {CALL} FROM tickets").fetchall()
    assert rows == [(number, f"ticket {number}") for number in range(1, 101)]
    assert sizes(engine) == [1, 4, 16, 64, 15]


def test_the_first_statement_of_a_connection_is_batched_too(
    door_database: str, engine: ScriptedEngine
) -> None:
    with psycopg.connect(door_database) as fresh:
        fresh.execute(f"SELECT {CALL} FROM tickets")
    assert sizes(engine) == [1, 4, 16, 64, 15]


def test_a_limit_asks_for_little(connection: Connection, engine: ScriptedEngine) -> None:
    connection.execute(f"SELECT {CALL} FROM tickets LIMIT 5")
    assert sizes(engine) == [1, 4]


def test_a_null_is_not_asked_and_a_text_that_repeats_once_a_batch(
    connection: Connection, engine: ScriptedEngine
) -> None:
    rows = connection.execute(
        "SELECT ruvector_classify_request(nullif('r' || n % 3, 'r0')) ->> 'of' "
        "FROM generate_series(1, 30) n"
    ).fetchall()
    assert [row[0] for row in rows] == ["r1", "r2", None] * 10
    asked = [sorted(map(str, inputs[0][1] or [])) for inputs in engine.asked]
    assert asked == [["r1"], ["r1", "r2"], ["r1", "r2"], ["r1", "r2"]]


@pytest.mark.parametrize(
    "query",
    [
        f"SELECT id, {CALL} FROM tickets ORDER BY 2 DESC",
        f"SELECT id, {CALL} FROM tickets ORDER BY body LIMIT 70 OFFSET 3",
        f"SELECT {CALL}, ruvector_classify_request(upper(body)) ->> 'of', {CALL} FROM tickets",
        "SELECT t.id, u.id, ruvector_classify_request(t.body || u.body) FROM tickets t "
        "LEFT JOIN tickets u ON u.id = t.id + 50",
        f"SELECT count(*), max(s.c) FROM (SELECT {CALL} AS c FROM tickets OFFSET 0) s",
        f"SELECT id, (SELECT min(s.c) FROM (SELECT {CALL} AS c FROM tickets u "
        "WHERE u.id <= t.id OFFSET 0) s) FROM tickets t WHERE id < 5",
        f"WITH c AS MATERIALIZED (SELECT id, {CALL} AS c FROM tickets) SELECT * FROM c "
        "WHERE c LIKE '%7'",
        f"SELECT id, coalesce({CALL}, 'x'), {CALL} FROM tickets",
    ],
)
def test_answers_are_those_of_calls_row_by_row(connection: Connection, query: str) -> None:
    assert answers(connection, query)


@pytest.mark.parametrize(
    "query",
    [
        f"SELECT CASE WHEN id < 3 THEN {CALL} END FROM tickets",
        f"SELECT coalesce(nullif(body, ''), {CALL}) FROM tickets",
        f"SELECT {CALL}, count(*) FROM tickets GROUP BY 1",
        "SELECT ruvector_classify_request(body || random()) FROM tickets",
        "SELECT ruvector_classify_request('constant') FROM tickets",
        f"SELECT id FROM tickets WHERE {CALL} = 'x'",
    ],
)
def test_what_need_not_be_called_for_each_row_is_left_as_it_is(
    connection: Connection, query: str
) -> None:
    assert BATCHED not in plan_of(connection, query)
    connection.execute(query)


def test_an_insert_and_an_update_ask_in_batches(
    connection: Connection, engine: ScriptedEngine
) -> None:
    connection.execute("CREATE TEMP TABLE kept (id integer, body text, found text)")
    connection.execute(f"INSERT INTO kept SELECT id, body, {CALL} FROM tickets")
    connection.execute(f"UPDATE kept SET found = 'a ' || ({CALL}), id = -id WHERE id <= 21")
    assert sizes(engine) == [1, 4, 16, 64, 15, 1, 4, 16]
    rows = connection.execute("SELECT id, found FROM kept ORDER BY abs(id)").fetchall()
    assert rows[20:22] == [(-21, "a ticket 21"), (22, "ticket 22")]


def test_an_update_takes_the_row_that_another_transaction_left(
    connection: Connection, door_database: str
) -> None:
    connection.execute("DROP TABLE IF EXISTS contested")
    connection.execute("CREATE TABLE contested AS SELECT * FROM tickets WHERE id <= 10")
    with psycopg.connect(door_database) as other:
        other.execute("UPDATE contested SET body = 'changed' WHERE id = 7")
        waiting = threading.Thread(
            target=connection.execute,
            args=(f"UPDATE contested SET body = 'was ' || ({CALL})",),
        )
        waiting.start()
        while not other.execute("SELECT FROM pg_locks WHERE NOT granted").fetchall():
            pass
        other.commit()
        waiting.join()
    rows = connection.execute("SELECT body FROM contested ORDER BY id").fetchall()
    assert [row[0] for row in rows[5:8]] == ["was ticket 6", "was changed", "was ticket 8"]
    connection.execute("DROP TABLE contested")


@pytest.mark.parametrize(
    "revoke", ["ON FUNCTION ruvector_classify_request", "ON request_classifications"]
)
def test_a_call_needs_the_privileges_of_a_call(connection: Connection, revoke: str) -> None:
    with connection.transaction(force_rollback=True):
        connection.execute("CREATE ROLE asker")
        connection.execute("GRANT SELECT ON tickets, request_classifications TO asker")
        connection.execute("SET LOCAL ROLE asker")
        connection.execute(f"SELECT {CALL} FROM tickets LIMIT 1")
        connection.execute("RESET ROLE")
        connection.execute(f"REVOKE ALL {revoke} FROM PUBLIC, asker")
        connection.execute("SET LOCAL ROLE asker")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute(f"SELECT {CALL} FROM tickets LIMIT 1")


def test_a_grant_on_the_columns_that_are_read_is_enough(connection: Connection) -> None:
    with connection.transaction(force_rollback=True):
        connection.execute("CREATE ROLE asker")
        connection.execute("GRANT SELECT ON tickets TO asker")
        connection.execute("REVOKE ALL ON request_classifications FROM PUBLIC")
        connection.execute(
            "GRANT SELECT (content, classification) ON request_classifications TO asker"
        )
        connection.execute("SET LOCAL ROLE asker")
        query = f"SELECT {CALL} FROM tickets WHERE id = 5"
        assert answers(connection, query) == [("ticket 5",)]


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ("ALTER content TYPE integer", psycopg.errors.UndefinedFunction),
        ("DROP content", psycopg.errors.UndefinedColumn),
    ],
)
def test_a_table_that_is_asked_by_another_key_than_a_text_gets_no_batch(
    survivor: Connection, change: str, error: type[psycopg.Error]
) -> None:
    with survivor.transaction(force_rollback=True):
        survivor.execute(f"ALTER FOREIGN TABLE request_classifications {change}")
        query = f"SELECT {CALL} FROM tickets"
        assert BATCHED not in plan_of(survivor, query)
        with pytest.raises(error):
            survivor.execute(query)


def test_a_prepared_plan_follows_a_table_that_is_made_anew(
    connection: Connection, engine: ScriptedEngine
) -> None:
    query = f"SELECT {CALL} FROM tickets WHERE id = %s"
    for number in range(7):
        connection.execute(query, (number,), prepare=True)
    with connection.transaction(force_rollback=True):
        connection.execute("ALTER FOREIGN TABLE request_classifications RENAME TO former")
        connection.execute(
            "IMPORT FOREIGN SCHEMA tinydancer LIMIT TO (request_classifications) "
            "FROM SERVER engine INTO public"
        )
        connection.execute("DROP FOREIGN TABLE former")
        assert connection.execute(query, (5,)).fetchall() == [("ticket 5",)]


def test_a_refused_text_is_the_engines_error(survivor: Connection, engine: ScriptedEngine) -> None:
    engine.reply = lambda scan: iter(
        [frames.encode_error("22023", "request is empty", "the value: ''", "Give a text.")]
    )
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="request is empty"):
        survivor.execute(f"SELECT {CALL} FROM tickets")
