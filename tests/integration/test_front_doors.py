"""What both front doors promise: the same SQL gives the same rows, whatever plan carries it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from psycopg import sql
from tests.conftest import Installation

from tinydancer.store import schema
from tinydancer_fdw.contract import TABLES

AGENTS = """
INSERT INTO agents (name, type, capabilities, cost_per_1k_input_tokens, cost_per_1k_output_tokens,
                    avg_latency_ms, quality) VALUES
  ('careful', 'llm', '{reasoning,analysis}', 0.03, 0.06, 2500, 0.95),
  ('quick', 'llm', '{classification}', 0.0002, 0.001, 400, 0.80),
  ('coder', 'tool', '{code,debugging}', 0.001, 0.002, 900, 0.90)
"""
# Its place in a row of all columns.
AGENT_NAME = [column.name for column in TABLES["route_decisions"].columns].index("agent_name")
TEXTS = ["Summarize this contract", "Debug my Python function", "Is this mail spam?"]


@pytest.fixture
def agents(db: psycopg.Connection) -> psycopg.Connection:
    """A database with three agents."""
    db.execute(AGENTS)
    return db


@pytest.fixture
def tickets(agents: psycopg.Connection) -> Iterator[psycopg.Connection]:
    """The same, with a table of tickets whose bodies are TEXTS and a NULL."""
    agents.execute("CREATE TABLE tickets (id serial PRIMARY KEY, body text)")
    agents.cursor().executemany(
        "INSERT INTO tickets (body) VALUES (%s)", [(text,) for text in [*TEXTS, None]]
    )
    agents.execute("ANALYZE tickets")
    yield agents
    agents.execute("DROP TABLE tickets")


def rows(db: psycopg.Connection, query: str, arguments: Any = None, **options: Any) -> list[Any]:
    return db.execute(query, arguments, **options).fetchall()


def explain(db: psycopg.Connection, query: str) -> str:
    return "\n".join(line for (line,) in rows(db, f"EXPLAIN (COSTS OFF) {query}"))


# ---- which quals reach the engine ----


def test_a_request_by_equality_is_decided_and_echoed(agents: psycopg.Connection) -> None:
    query = "SELECT request, rank, agent_name FROM route_decisions WHERE request = %s"
    [(request, rank, agent)] = rows(agents, query, (TEXTS[0],))
    assert (request, rank) == (TEXTS[0], 1)
    assert agent in {"careful", "quick", "coder"}


def test_a_list_of_requests_is_one_row_each(agents: psycopg.Connection) -> None:
    query = "SELECT request FROM route_decisions WHERE request = ANY(%s)"
    found = rows(agents, query, ([*TEXTS, None],))
    assert sorted(request for (request,) in found) == sorted(TEXTS)


def test_in_is_a_list(agents: psycopg.Connection) -> None:
    query = "SELECT request FROM route_decisions WHERE request IN ('a b c', 'd e f')"
    assert sorted(rows(agents, query)) == [("a b c",), ("d e f",)]


def test_an_empty_list_and_a_list_of_nulls_have_no_rows(agents: psycopg.Connection) -> None:
    query = "SELECT request FROM route_decisions WHERE request = ANY(%s)"
    assert rows(agents, query, ([],)) == []
    assert rows(agents, query, ([None],)) == []


def test_every_input_reaches_the_engine_and_comes_back_as_it_was(
    agents: psycopg.Connection,
) -> None:
    inputs = {
        "request": TEXTS[1],
        "optimize_for": "cost",
        "required_capabilities": ["code"],
        "excluded_agents": ["quick", 'a "quoted", one'],
        "max_cost": 0.123456789012345,
        "max_latency_ms": 1000.0,
        "min_quality": 0.5,
        "budget_remaining": 1e15,
        "expected_output_tokens": 77,
        "user_tier": "gold",
        "top_k": 2,
    }
    quals = sql.SQL(" AND ").join(
        sql.SQL("{} = %s").format(sql.Identifier(name)) for name in inputs
    )
    columns = sql.SQL(", ").join(map(sql.Identifier, inputs))
    query = sql.SQL("SELECT {}, agent_name FROM route_decisions WHERE {}").format(columns, quals)
    assert agents.execute(query, list(inputs.values())).fetchall() == [(*inputs.values(), "coder")]


def test_lists_on_several_inputs_multiply(agents: psycopg.Connection) -> None:
    query = """SELECT request, optimize_for FROM route_decisions
               WHERE request = ANY(%s) AND optimize_for IN ('cost', 'quality')"""
    found = rows(agents, query, (TEXTS[:2],))
    assert sorted(found) == sorted((t, o) for t in TEXTS[:2] for o in ("cost", "quality"))


def test_a_qual_on_an_output_filters_what_came(agents: psycopg.Connection) -> None:
    query = """SELECT agent_name FROM route_decisions
               WHERE request = %s AND top_k = 3 AND agent_name <> 'quick' AND rank >= 1"""
    assert sorted(rows(agents, query, (TEXTS[0],))) == [("careful",), ("coder",)]


def test_two_quals_on_one_input_both_hold(agents: psycopg.Connection) -> None:
    query = """SELECT request FROM route_decisions
               WHERE request = ANY(%s) AND request = ANY(%s) ORDER BY 1"""
    assert rows(agents, query, (TEXTS[:2], TEXTS[1:])) == [(TEXTS[1],)]
    both = "SELECT request FROM route_decisions WHERE request = %s AND request LIKE %s"
    assert rows(agents, both, (TEXTS[0], "Sum%")) == [(TEXTS[0],)]
    assert rows(agents, both, (TEXTS[0], "Deb%")) == []


def test_a_request_that_equals_null_has_no_rows(agents: psycopg.Connection) -> None:
    query = "SELECT request FROM route_decisions WHERE request = %s::text"
    assert rows(agents, query, (None,)) == []


@pytest.mark.parametrize(
    "qual", ["true", "rank = 1", "optimize_for = 'cost'", "request LIKE 'a%'", "request <> 'a'"]
)
def test_a_missing_request_is_an_error_with_a_hint_not_an_empty_result(
    agents: psycopg.Connection, qual: str
) -> None:
    with pytest.raises(psycopg.Error) as caught:
        rows(agents, f"SELECT * FROM route_decisions WHERE {qual}")
    assert "request" in str(caught.value.diag.message_primary)
    assert "request = " in str(caught.value.diag.message_hint)


@pytest.mark.parametrize(
    "text",
    [
        "ü ∞ 漢字 🙂",
        "'; DROP TABLE agents; --",
        "a\nb\tc\\d",
        "%s {} $1",
        "  padded  ",
        "\u200b\u202e",
    ],
)
def test_any_text_is_echoed_exactly(agents: psycopg.Connection, text: str) -> None:
    query = "SELECT request FROM route_decisions WHERE request = %s"
    assert rows(agents, query, (text,)) == [(text,)]
    assert rows(agents, "SELECT count(*) FROM agents") == [(3,)]


# ---- joins ----


def test_a_join_decides_each_row_and_leaves_nulls_out(tickets: psycopg.Connection) -> None:
    query = "SELECT id, agent_name FROM tickets JOIN route_decisions ON request = body"
    found = dict(rows(tickets, query))
    assert sorted(found) == [1, 2, 3]
    assert all(found.values())


def test_a_left_join_keeps_the_rows_without_a_text(tickets: psycopg.Connection) -> None:
    query = """SELECT id, agent_name IS NULL FROM tickets
               LEFT JOIN route_decisions ON request = body ORDER BY id"""
    assert rows(tickets, query) == [(1, False), (2, False), (3, False), (4, True)]


def test_lateral_and_a_correlated_subquery_ask_with_the_outer_rows_value(
    tickets: psycopg.Connection,
) -> None:
    lateral = """SELECT id, d.agent_name FROM tickets, LATERAL (
                   SELECT agent_name FROM route_decisions
                   WHERE request = body AND optimize_for = 'cost' LIMIT 1) d ORDER BY id"""
    scalar = """SELECT id, (SELECT agent_name FROM route_decisions
                            WHERE request = body AND optimize_for = 'cost')
                FROM tickets WHERE body IS NOT NULL ORDER BY id"""
    assert rows(tickets, lateral) == rows(tickets, scalar)
    assert [agent for _, agent in rows(tickets, scalar)] == ["quick"] * 3


def test_a_join_by_an_expression_of_the_outer_row(tickets: psycopg.Connection) -> None:
    query = """SELECT id, request FROM tickets
               JOIN route_decisions ON request = 'Please: ' || body ORDER BY id"""
    assert rows(tickets, query) == [(i + 1, f"Please: {text}") for i, text in enumerate(TEXTS)]


def test_a_join_by_a_cast_of_a_number(tickets: psycopg.Connection) -> None:
    query = "SELECT id, request FROM tickets JOIN route_decisions ON request = id::text"
    assert sorted(rows(tickets, query)) == [(i, str(i)) for i in (1, 2, 3, 4)]


def test_a_join_on_more_inputs_than_the_request(tickets: psycopg.Connection) -> None:
    query = """SELECT body, optimize_for, agent_name FROM tickets
               CROSS JOIN (VALUES ('cost'), ('quality')) AS o (objective)
               JOIN route_decisions ON request = body AND optimize_for = objective
               WHERE id = 1 ORDER BY 2"""
    assert rows(tickets, query) == [
        (TEXTS[0], "cost", "quick"),
        (TEXTS[0], "quality", "careful"),
    ]


def test_several_foreign_tables_in_one_query(tickets: psycopg.Connection) -> None:
    query = """SELECT d.agent_name, vector_dims(e.embedding), s.pid > 0
               FROM route_decisions d JOIN request_embeddings e ON e.content = d.request,
                    engine_status s
               WHERE d.request = %s AND d.optimize_for = 'cost'"""
    assert rows(tickets, query, (TEXTS[0],)) == [("quick", 384, True)]


def test_a_join_that_supplies_only_an_optional_input(agents: psycopg.Connection) -> None:
    query = """SELECT d.* FROM (VALUES ('cost'), ('quality')) AS o (objective)
               JOIN route_decisions d ON request = 'x' AND optimize_for = objective"""
    assert sorted(row[AGENT_NAME] for row in rows(agents, query)) == ["careful", "quick"]


def test_a_join_that_supplies_three_inputs(tickets: psycopg.Connection) -> None:
    tickets.execute("ALTER TABLE tickets ADD budget float8 DEFAULT 1, ADD goal text DEFAULT 'cost'")
    query = """SELECT d.* FROM tickets
               JOIN route_decisions d ON request = body AND max_cost = budget
                                     AND optimize_for = goal"""
    assert [row[AGENT_NAME] for row in rows(tickets, query)] == ["quick"] * 3


def test_two_scans_that_share_the_outer_rows_value(
    tickets: psycopg.Connection, front_door: str
) -> None:
    if front_door == "multicorn":
        pytest.skip("Multicorn2 makes each scan wait for the other: see the next test")
    query = """SELECT id, c.agent_name, q.agent_name FROM tickets
               JOIN route_decisions c ON c.request = body AND c.optimize_for = 'cost'
               JOIN route_decisions q ON q.request = body AND q.optimize_for = 'quality'
               ORDER BY id"""
    assert rows(tickets, query) == [(i, "quick", "careful") for i in (1, 2, 3)]


def test_scans_that_would_wait_for_each_other_can_be_told_apart(
    tickets: psycopg.Connection,
) -> None:
    query = """SELECT c.id, c.agent_name, q.agent_name
               FROM (SELECT id, body, agent_name FROM tickets
                     JOIN route_decisions ON request = body AND optimize_for = 'cost' OFFSET 0) c
               JOIN route_decisions q ON q.request = c.body AND q.optimize_for = 'quality'
               ORDER BY 1"""
    assert rows(tickets, query) == [(i, "quick", "careful") for i in (1, 2, 3)]


def test_a_rescan_gives_the_same_rows_each_time(tickets: psycopg.Connection) -> None:
    query = """SELECT n, (SELECT string_agg(agent_name, ',' ORDER BY rank) FROM route_decisions
                          WHERE request = 'the same' || (n * 0)::text AND top_k = 3)
               FROM generate_series(1, 5) n"""
    assert len({names for _, names in rows(tickets, query)}) == 1


def test_writing_from_a_join(tickets: psycopg.Connection) -> None:
    tickets.execute("ALTER TABLE tickets ADD COLUMN agent text")
    tickets.execute(
        """UPDATE tickets SET agent = agent_name FROM route_decisions
           WHERE request = body AND optimize_for = 'cost'"""
    )
    found = rows(tickets, "SELECT agent FROM tickets ORDER BY id")
    assert found == [("quick",), ("quick",), ("quick",), (None,)]


# ---- plans, portals, limits ----


def test_a_prepared_statement_works_with_a_custom_and_a_generic_plan(
    agents: psycopg.Connection,
) -> None:
    query = "SELECT request FROM route_decisions WHERE request = %s AND top_k = %s"
    listed = "SELECT request FROM route_decisions WHERE request = ANY(%s)"
    for mode in ("force_custom_plan", "force_generic_plan"):
        agents.execute(f"SET plan_cache_mode = {mode}")
        for text in TEXTS:
            assert rows(agents, query, (text, 1), prepare=True) == [(text,)]
        assert len(rows(agents, listed, (TEXTS,), prepare=True)) == 3
        assert rows(agents, query, (None, 1), prepare=True) == []


def test_the_same_prepared_statement_many_times_over(agents: psycopg.Connection) -> None:
    # From the sixth time on PostgreSQL may choose a generic plan by itself.
    query = "SELECT request FROM route_decisions WHERE request = %s"
    for number in range(12):
        assert rows(agents, query, (f"request {number}",), prepare=True) == [(f"request {number}",)]


def test_a_portal_may_be_fetched_in_parts_and_closed_early(agents: psycopg.Connection) -> None:
    texts = [f"request {number}" for number in range(2000)]
    with agents.transaction(), agents.cursor("portal") as cursor:
        cursor.execute("SELECT request FROM route_decisions WHERE request = ANY(%s)", (texts,))
        first = cursor.fetchmany(3)
        # Meanwhile the same connection asks something else.
        other = "SELECT request FROM route_decisions WHERE request = 'between'"
        assert rows(agents, other) == [("between",)]
        assert len({*first, *cursor.fetchmany(3)}) == 6
    assert rows(agents, other) == [("between",)]


def test_a_portal_left_open_by_a_failed_transaction_leaves_the_connection_usable(
    agents: psycopg.Connection,
) -> None:
    texts = [f"request {number}" for number in range(2000)]
    with pytest.raises(psycopg.errors.DivisionByZero), agents.transaction():
        agents.execute(
            sql.SQL(
                "DECLARE portal CURSOR FOR SELECT request FROM route_decisions"
                " WHERE request = ANY({})"
            ).format(texts)
        )
        assert len(rows(agents, "FETCH 3 FROM portal")) == 3
        agents.execute("SELECT 1 / 0")
    assert rows(agents, "SELECT count(*) FROM route_decisions WHERE request = 'a'") == [(1,)]


def test_limit_gives_so_many_rows(agents: psycopg.Connection) -> None:
    query = "SELECT request FROM route_decisions WHERE request = ANY(%s) LIMIT 2"
    assert len(rows(agents, query, (TEXTS,))) == 2
    assert rows(agents, "SELECT count(*) FROM (SELECT FROM engine_status LIMIT 1) s") == [(1,)]


def test_a_scan_that_needs_no_columns_still_counts(agents: psycopg.Connection) -> None:
    assert rows(agents, "SELECT count(*) FROM engine_status") == [(1,)]
    query = "SELECT count(*) FROM route_decisions WHERE request = ANY(%s)"
    assert rows(agents, query, (TEXTS,)) == [(3,)]


def test_a_function_asks_with_its_parameters(agents: psycopg.Connection) -> None:
    agents.execute(
        """CREATE FUNCTION pg_temp.decide(texts text[]) RETURNS SETOF text LANGUAGE plpgsql AS $$
           DECLARE t text; BEGIN
             FOREACH t IN ARRAY texts LOOP
               RETURN QUERY SELECT request FROM tinydancer.route_decisions d WHERE d.request = t;
             END LOOP;
             RETURN QUERY SELECT request FROM tinydancer.route_decisions WHERE request = ANY(texts);
           END $$"""
    )
    found = rows(agents, "SELECT * FROM pg_temp.decide(%s)", (TEXTS,))
    assert sorted(found) == sorted([(text,) for text in TEXTS] * 2)


# ---- EXPLAIN ----


def test_explain_shows_the_table_the_inputs_and_how_many_requests(
    agents: psycopg.Connection,
) -> None:
    plan = explain(
        agents,
        "SELECT agent_name FROM route_decisions WHERE request IN ('a', 'b') AND top_k = 3",
    )
    assert "Engine Table: route_decisions" in plan
    assert "Inputs: request = ANY" in plan
    assert "top_k = " in plan
    assert "Requests: 2" in plan


def test_explain_asks_the_engine_nothing(agents: psycopg.Connection) -> None:
    [(before,)] = rows(agents, "SELECT scans FROM engine_status")
    explain(agents, "SELECT * FROM route_decisions WHERE request = 'x'")
    [(after,)] = rows(agents, "SELECT scans FROM engine_status")
    assert after == before + 1  # the reading before


def test_a_join_is_planned_with_the_outer_rows_value(tickets: psycopg.Connection) -> None:
    plan = explain(tickets, "SELECT * FROM tickets JOIN route_decisions ON request = body")
    assert "body" in plan
    assert "Hash Join" not in plan


def test_a_join_of_many_rows_is_still_planned_with_the_outer_rows_value(
    agents: psycopg.Connection,
) -> None:
    plan = explain(
        agents,
        """SELECT * FROM (SELECT g::text AS body FROM generate_series(1, 200000) g) t
           JOIN route_decisions ON request = body""",
    )
    assert "Hash Join" not in plan
    assert "Merge Join" not in plan


# ---- no agent, other tables, importing ----


def test_a_request_that_no_agent_suits_is_a_row_without_an_agent(
    tickets: psycopg.Connection,
) -> None:
    query = """SELECT id, agent_name, reasoning IS NOT NULL, explanation -> 'refused' IS NOT NULL
               FROM tickets LEFT JOIN route_decisions ON request = body AND min_quality = 0.99
               WHERE body IS NOT NULL ORDER BY id"""
    assert [row[1:3] for row in rows(tickets, query)] == [(None, True)] * 3


def test_an_embedding_comes_as_a_vector_of_unit_length(db: psycopg.Connection) -> None:
    query = """SELECT vector_dims(embedding), abs(vector_norm(embedding) - 1) < 1e-5, model
               FROM request_embeddings WHERE content = 'some text'"""
    [(dimension, unit, model)] = rows(db, query)
    assert (dimension, unit) == (384, True)
    assert model


def test_a_reader_sees_the_engines_state_and_asks_it_nothing_else(
    agents: psycopg.Connection,
) -> None:
    tables = agents.execute(
        "SELECT array_agg(relname::text) FROM pg_class WHERE relkind = 'f'"
        " AND relnamespace = 'tinydancer'::regnamespace"
        " AND has_table_privilege('tinydancer_reader', oid, 'SELECT')"
    ).fetchone()
    assert tables == (["engine_status"],)
    with agents.transaction():
        agents.execute("SET LOCAL ROLE tinydancer_reader")
        assert agents.execute("SELECT scans >= 0 FROM engine_status").fetchall() == [(True,)]


def test_the_status_names_the_front_door_it_came_through(
    db: psycopg.Connection, front_door: str
) -> None:
    assert rows(db, "SELECT front_door FROM engine_status") == [(front_door,)]


@pytest.mark.parametrize(
    ("clause", "kept"),
    [
        ("", len(TABLES)),
        ("LIMIT TO (route_decisions, engine_status)", 2),
        ("EXCEPT (engine_status)", len(TABLES) - 1),
    ],
)
def test_import_foreign_schema_takes_limit_to_and_except(
    db: psycopg.Connection, front_door: str, clause: str, kept: int
) -> None:
    db.execute("CREATE SCHEMA imported")
    try:
        db.execute(
            f"IMPORT FOREIGN SCHEMA tinydancer {clause} FROM SERVER tinydancer_{front_door}"
            " INTO imported"
        )
        query = "SELECT count(*) FROM pg_class WHERE relnamespace = 'imported'::regnamespace"
        assert rows(db, query) == [(kept,)]
        assert rows(db, "SELECT count(*) FROM imported.route_decisions WHERE request = 'x'") == [
            (1,)
        ]
    finally:
        db.execute("DROP SCHEMA imported CASCADE")


def test_only_a_front_door_that_takes_no_python_from_its_users_is_theirs_to_use(
    db: psycopg.Connection, front_door: str
) -> None:
    server = f"tinydancer_{front_door}"
    with db.transaction(force_rollback=True):
        db.execute("SET LOCAL ROLE tinydancer_router")
        assert rows(db, "SELECT rank FROM route_decisions WHERE request = 'x'") == [(1,)]
    with db.transaction(force_rollback=True):
        # As up to 0.4.0.
        db.execute(f"GRANT USAGE ON FOREIGN SERVER {server} TO tinydancer_router, tinydancer_admin")
        schema.upgrade(db)
        for role in ("tinydancer_router", "tinydancer_admin"):
            query = f"SELECT has_server_privilege('{role}', '{server}', 'USAGE')"
            assert rows(db, query) == [(front_door == "native",)]


# ---- what is committed is seen ----


def test_an_agent_inserted_by_sql_is_seen_by_the_next_scan(db: psycopg.Connection) -> None:
    query = "SELECT agent_name FROM route_decisions WHERE request = 'x' AND optimize_for = 'cost'"
    assert rows(db, query) == [(None,)]
    db.execute(AGENTS)
    assert rows(db, query) == [("quick",)]
    db.execute("UPDATE agents SET active = false WHERE name = 'quick'")
    assert rows(db, query) == [("coder",)]
    db.execute("DELETE FROM agents WHERE name = 'coder'")
    assert rows(db, query) == [("careful",)]


def test_within_one_transaction_later_statements_see_what_others_committed(
    agents: psycopg.Connection, installation: Installation
) -> None:
    query = "SELECT agent_name FROM route_decisions WHERE request = 'x' AND optimize_for = 'cost'"
    with installation.connect() as other, agents.transaction():
        assert rows(agents, query, prepare=True) == [("quick",)]
        other.execute("DELETE FROM agents WHERE name = 'quick'")
        assert rows(agents, query, prepare=True) == [("coder",)]


def test_a_loop_in_a_function_sees_what_others_committed(
    agents: psycopg.Connection, installation: Installation
) -> None:
    agents.execute(
        """CREATE FUNCTION pg_temp.watch() RETURNS text LANGUAGE plpgsql AS $$
           DECLARE chosen text; BEGIN
             FOR i IN 1..500 LOOP
               SELECT agent_name INTO chosen FROM tinydancer.route_decisions
               WHERE request = 'x' AND optimize_for = 'cost';
               EXIT WHEN chosen = 'coder';
               PERFORM pg_sleep(0.01);
             END LOOP;
             RETURN chosen;
           END $$"""
    )
    with installation.connect() as other:
        delete = threading.Timer(0.2, other.execute, ["DELETE FROM agents WHERE name = 'quick'"])
        delete.start()
        assert rows(agents, "SELECT pg_temp.watch()") == [("coder",)]
        delete.join()


# ---- many at once ----


def test_fifty_backends_at_once_are_all_answered(
    agents: psycopg.Connection, installation: Installation
) -> None:
    answers: list[Any] = []

    def ask(number: int) -> None:
        with installation.connect() as connection:
            for turn in range(3):
                text = f"request {turn} of backend {number}"
                query = "SELECT request FROM route_decisions WHERE request = %s"
                answers.append(rows(connection, query, (text,)) == [(text,)])

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [True] * 150


# ---- what a scan finds out before it reads ----


def test_nobody_asks_the_database_for_changes_where_no_transaction_has_ended(
    agents: psycopg.Connection,
) -> None:
    def questions() -> list[Any]:
        """When the engine was answered last on the connection for this question."""
        return rows(
            agents,
            "SELECT pid, state_change FROM pg_stat_activity WHERE datname = current_database()"
            " AND query LIKE '%pg_visible_in_snapshot%' AND pid <> pg_backend_pid()",
        )

    def ask() -> str:
        [(name,)] = rows(agents, "SELECT agent_name FROM route_decisions WHERE request = 'hello'")
        return str(name)

    def asks_again() -> bool:
        ask()
        before = questions()
        ask()
        return questions() != before

    # given scans with no commit in between: the server's own processes commit at times as well
    assert not all(asks_again() for _ in range(20))
    # when somebody commits, then the next scan asks
    before = questions()
    agents.execute("DELETE FROM agents WHERE name <> 'coder'")
    assert ask() == "coder"
    assert questions() != before
