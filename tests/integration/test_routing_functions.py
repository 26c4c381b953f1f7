"""The functions that ask the engine: what they push down to it, and what they give back."""

from __future__ import annotations

import psycopg
import pytest


@pytest.fixture
def agents(plan_agents: psycopg.Connection) -> psycopg.Connection:
    return plan_agents


def test_a_request_is_routed_with_the_columns_that_the_plan_shows(agents):
    cursor = agents.execute("SELECT * FROM ruvector_route('Say hello', optimize_for := 'latency')")
    names = [column.name for column in cursor.description]
    assert names[:4] == ["agent_name", "confidence", "estimated_cost", "estimated_latency_ms"]
    rows = cursor.fetchall()
    assert [row[0] for row in rows] == ["runner"]
    assert rows[0][3] == 100


@pytest.mark.parametrize(
    ("argument", "agent"),
    [
        ("optimize_for := 'quality'", "gpt-4"),
        ("optimize_for := 'latency', required_capabilities := ARRAY['code']", "gpt-4"),
        ("optimize_for := 'latency', excluded_agents := ARRAY['runner']", "haiku"),
        ("optimize_for := 'quality', max_latency_ms := 1000", "runner"),
        ("optimize_for := 'quality', max_cost := 0.0005", "haiku"),
        ("optimize_for := 'quality', budget_remaining := 0.0005", "haiku"),
        ("optimize_for := 'latency', min_quality := 0.92", "gpt-4"),
        ("optimize_for := 'cost', expected_output_tokens := 100000", "runner"),
        ("optimize_for := 'cost', expected_output_tokens := 0", "haiku"),
    ],
)
def test_each_argument_reaches_the_engine(agents, argument, agent):
    (row,) = agents.execute(
        f"SELECT agent_name FROM ruvector_route('Say hello', {argument})"
    ).fetchall()
    assert row == (agent,)


def test_top_k_gives_the_next_best_in_order(agents):
    rows = agents.execute(
        "SELECT rank, agent_name FROM ruvector_route('x', optimize_for := 'latency', top_k := 2)"
    ).fetchall()
    assert rows == [(1, "runner"), (2, "haiku")]


def test_where_no_agent_suits_one_row_says_why(agents):
    (row,) = agents.execute(
        "SELECT agent_name, estimated_cost, reasoning FROM ruvector_route('x', min_quality := 1)"
    ).fetchall()
    assert row[:2] == (None, None)
    assert "quality" in row[2]


def test_a_batch_is_answered_in_its_order_with_repeats(agents):
    rows = agents.execute(
        "SELECT request_index, request, agent_name FROM ruvector_batch_route("
        " requests := ARRAY['b', 'a', 'b'], optimize_for := 'latency')"
    ).fetchall()
    assert rows == [(1, "b", "runner"), (2, "a", "runner"), (3, "b", "runner")]


def test_a_batch_of_nothing_has_no_rows(agents):
    assert agents.execute("SELECT * FROM ruvector_batch_route('{}')").fetchall() == []


def test_a_join_may_ask_for_each_of_its_rows(agents):
    rows = agents.execute(
        "SELECT t.id, d.agent_name FROM (VALUES (1, 'a'), (2, 'b')) AS t (id, body),"
        " LATERAL ruvector_route(t.body, optimize_for := 'latency') AS d ORDER BY 1"
    ).fetchall()
    assert rows == [(1, "runner"), (2, "runner")]


def test_a_text_is_embedded_and_given_to_a_route(agents):
    agents.execute(
        "SELECT ruvector_create_route(name := 'support', description := 'Unrelated words',"
        " embedding := ruvector_embed('How do I reset my password?'), target_agent := 'desk')"
    )
    (row,) = agents.execute(
        "SELECT route_name, similarity, target_agent, confidence"
        " FROM ruvector_semantic_route(query := 'How do I reset my password?', top_k := 3)"
    ).fetchall()
    assert row[0] == "support"
    assert row[1] == pytest.approx(1, abs=1e-4)
    assert row[2] == "desk"
    assert 0 <= row[3] <= 1


def test_a_dropped_route_matches_no_more(agents):
    agents.execute("SELECT ruvector_create_route('weather', 'Will it rain tomorrow', 'w')")
    ask = "SELECT route_name FROM ruvector_semantic_route('Will it rain tomorrow')"
    assert agents.execute(ask).fetchall() == [("weather",)]
    agents.execute("SELECT ruvector_drop_route('weather')")
    assert agents.execute(ask).fetchall() == []


def test_a_route_is_taken_no_more_often_in_a_minute_than_its_limit_says(agents):
    agents.execute(
        "SELECT ruvector_create_route('rare', 'Will it rain tomorrow', 'w',"
        " rate_limit_per_minute := 1)"
    )
    found = [
        len(
            agents.execute(
                "SELECT * FROM ruvector_semantic_route('Will it rain tomorrow')"
            ).fetchall()
        )
        for _ in range(4)
    ]
    # At most one for each of the two minutes that a slow machine may touch.
    assert found[0] == 1
    assert sum(found) <= 2


@pytest.mark.parametrize("index", ["exact", "hnsw"])
def test_routes_are_matched_the_same_by_either_search(agents, index):
    agents.execute(
        "INSERT INTO routes (name, description, target_agent, priority) VALUES"
        " ('rain', 'Will it rain tomorrow', 'w', 0), ('bill', 'Question about an invoice', 'b', 0)"
    )
    agents.execute("UPDATE settings SET route_index = %s", (index,))
    (first, *_) = agents.execute(
        "SELECT route_name, round(similarity::numeric, 4) FROM ruvector_semantic_route('rain?')"
    ).fetchall()
    assert first[0] == "rain"


def test_an_agent_is_found_by_a_capability(agents):
    rows = agents.execute(
        "SELECT agent_name, exact FROM ruvector_find_agents_by_capability('code', top_k := 2)"
    ).fetchall()
    assert rows[0] == ("gpt-4", True)
    assert len(rows) == 2


def test_what_the_callers_own_transaction_has_changed_is_not_seen_and_it_is_told(agents):
    notices: list[tuple[str, str]] = []
    agents.add_notice_handler(
        lambda notice: notices.append((notice.message_primary or "", notice.message_hint or ""))
    )
    with agents.transaction():
        agents.execute("SELECT ruvector_register_agent('new', avg_latency_ms := 1)")
        before = agents.execute(
            "SELECT agent_name FROM ruvector_route('x', optimize_for := 'latency')"
        ).fetchone()
    after = agents.execute(
        "SELECT agent_name FROM ruvector_route('x', optimize_for := 'latency')"
    ).fetchone()
    assert (before, after) == (("runner",), ("new",))
    assert [hint for _, hint in notices if "COMMIT" in hint]


def test_a_router_asks_as_that_role_and_public_can_not(agents):
    with agents.transaction(force_rollback=True):
        agents.execute("SET LOCAL ROLE tinydancer_router")
        assert agents.execute("SELECT agent_name FROM tinydancer.ruvector_route('x')").fetchone()
    with agents.transaction(force_rollback=True):
        agents.execute("SET LOCAL ROLE tinydancer_reader")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            agents.execute("SELECT * FROM tinydancer.route_decisions WHERE request = 'x'")


def test_foreign_tables_and_columns_are_described(db):
    undescribed = db.execute(
        "SELECT attrelid::regclass::text, attname FROM pg_attribute"
        " JOIN pg_foreign_table ON ftrelid = attrelid"
        " WHERE attnum > 0 AND col_description(attrelid, attnum) IS NULL"
    ).fetchall()
    assert undescribed == []
