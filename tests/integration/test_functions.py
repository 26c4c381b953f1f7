"""The functions for agents and routes: what they do, and how they refuse."""

from __future__ import annotations

import psycopg
import pytest

PLAN_AGENT = """
SELECT ruvector_register_agent(
    name := 'gpt-4',
    agent_type := 'llm',
    capabilities := ARRAY['reasoning', 'code', 'analysis', 'creative'],
    cost_per_1k_tokens := 0.03,
    avg_latency_ms := 2500,
    quality_score := 0.95,
    metadata := '{"provider": "openai", "context_window": 128000}'
)
"""


def test_an_agent_is_registered_listed_and_got(conn):
    assert conn.execute(PLAN_AGENT).fetchone() == (True,)
    listed = conn.execute(
        "SELECT name, agent_type, cost_per_1k_input_tokens, cost_per_1k_output_tokens,"
        " cost_per_call, quality_score, metadata->>'provider' FROM ruvector_list_agents()"
    ).fetchall()
    assert [tuple(map(str, row)) for row in listed] == [
        ("gpt-4", "llm", "0.03", "0.03", "0", "0.95", "openai")
    ]
    got = conn.execute("SELECT capabilities FROM ruvector_get_agent('gpt-4')").fetchone()
    assert got == (["reasoning", "code", "analysis", "creative"],)


def test_a_name_that_is_taken_is_an_error_or_an_update(conn):
    conn.execute(PLAN_AGENT)
    with pytest.raises(psycopg.errors.DuplicateObject) as raised:
        conn.execute("SELECT ruvector_register_agent('gpt-4')")
    assert "on_conflict := 'update'" in raised.value.diag.message_hint
    conn.execute(
        "SELECT ruvector_register_agent('gpt-4', cost_per_call := 0.5, on_conflict := 'update')"
    )
    row = conn.execute(
        "SELECT cost_per_call, cost_per_1k_input_tokens FROM ruvector_get_agent('gpt-4')"
    ).fetchone()
    assert tuple(map(float, row)) == (0.5, 0.0)


def test_an_update_changes_what_is_given_and_nothing_else(conn):
    conn.execute(PLAN_AGENT)
    conn.execute("SELECT ruvector_update_agent('gpt-4', quality_score := 0.5)")
    row = conn.execute(
        "SELECT quality_score, avg_latency_ms, cost_per_1k_output_tokens::float8"
        " FROM ruvector_get_agent('gpt-4')"
    ).fetchone()
    assert row == (0.5, 2500, 0.03)


def test_an_agent_is_switched_off_and_removed(conn):
    conn.execute(PLAN_AGENT)
    conn.execute("SELECT ruvector_set_agent_active('gpt-4', false)")
    assert conn.execute("SELECT * FROM ruvector_list_agents(active_only := true)").fetchall() == []
    conn.execute("SELECT ruvector_remove_agent('gpt-4')")
    assert conn.execute("SELECT * FROM ruvector_list_agents()").fetchall() == []


def test_a_route_is_created_listed_updated_and_dropped(conn):
    conn.execute(
        "SELECT ruvector_create_route(name := 'support', description := 'Help customers',"
        " target_agent := 'nobody-yet', priority := 1,"
        " utterances := ARRAY['help', 'stuck', 'help'],"
        " time_from := '9:00', time_to := '17:00', time_zone := 'Europe/Berlin',"
        " user_tiers := ARRAY['gold'], rate_limit_per_minute := 5, threshold := 0.4,"
        " matching := 'hybrid')"
    )
    listed = "SELECT name, utterances, user_tiers, threshold, matching FROM ruvector_list_routes()"
    assert conn.execute(listed).fetchall() == [
        ("support", ["help", "stuck"], ["gold"], 0.4, "hybrid")
    ]
    with pytest.raises(psycopg.errors.DuplicateObject):
        conn.execute("SELECT ruvector_create_route('support', 'again', 'a')")
    conn.execute(
        "SELECT ruvector_create_route('support', 'again', 'a', utterances := ARRAY['stuck'],"
        " on_conflict := 'update')"
    )
    assert conn.execute(listed).fetchall() == [("support", ["stuck"], [], None, "dense")]
    conn.execute("SELECT ruvector_drop_route('support')")
    assert conn.execute(listed).fetchall() == []


def test_a_route_created_in_a_transaction_that_fails_leaves_nothing(conn):
    with pytest.raises(psycopg.errors.CheckViolation), conn.transaction():
        conn.execute("SELECT ruvector_create_route('r', 'd', 'a', utterances := ARRAY['x'])")
        conn.execute("UPDATE routes SET threshold = 2")
    assert conn.execute("SELECT count(*) FROM route_utterances").fetchone() == (0,)


# A call, its SQLSTATE, and words of its message and hint.
REFUSED = [
    ("ruvector_register_agent(NULL)", "22004", "name is NULL", "Give"),
    ("ruvector_register_agent(' a')", "22023", "' a'", "blanks"),
    ("ruvector_register_agent('a', agent_type := 'robot')", "22023", "'robot'", "llm, tool"),
    ("ruvector_register_agent('a', cost_per_call := -1)", "22003", "cost_per_call is -1", "0"),
    ("ruvector_register_agent('a', cost_per_call := 'NaN')", "22003", "NaN", "number"),
    (
        "ruvector_register_agent('a', cost_per_1k_tokens := 'Infinity')",
        "22003",
        "cost_per_1k_tokens is Infinity",
        "number",
    ),
    ("ruvector_register_agent('a', quality_score := 1.5)", "22003", "quality_score is 1.5", "1"),
    ("ruvector_register_agent('a', avg_latency_ms := -5)", "22003", "avg_latency_ms is -5", "0"),
    ("ruvector_register_agent('a', metadata := '[1]')", "22023", "metadata is [1]", "object"),
    ("ruvector_register_agent('a', ARRAY['x'])", "42883", "does not exist", ""),
    (
        "ruvector_register_agent('a', capabilities := ARRAY['x', NULL])",
        "22023",
        "capabilities is {x,NULL}",
        "NULL",
    ),
    (
        "ruvector_register_agent('a', cost_per_1k_tokens := 1, cost_per_1k_input_tokens := 1)",
        "22023",
        "beside",
        "alone",
    ),
    ("ruvector_register_agent('a', on_conflict := 'x')", "22023", "'x'", "error, update"),
    ("ruvector_get_agent('ghost')", "42704", "agent 'ghost' does not exist", "list_agents"),
    ("ruvector_update_agent('ghost')", "42704", "'ghost'", "list_agents"),
    ("ruvector_update_agent('ghost', quality_score := 'NaN')", "22003", "NaN", "number"),
    ("ruvector_set_agent_active('ghost')", "42704", "'ghost'", "list_agents"),
    ("ruvector_remove_agent(NULL)", "42704", "agent NULL", "list_agents"),
    ("ruvector_drop_route('ghost')", "42704", "route 'ghost'", "list_routes"),
    ("ruvector_create_route('r', '', 'a')", "22023", "description is empty", "text"),
    ("ruvector_create_route('r', 'd', '')", "22023", "target_agent", "name"),
    ("ruvector_create_route('r', 'd', 'a', threshold := 2)", "22003", "threshold is 2", "-1"),
    ("ruvector_create_route('r', 'd', 'a', time_from := '9:00')", "22023", "09:00", "time_to"),
    ("ruvector_create_route('r', 'd', 'a', time_zone := 'Nowhere/Land')", "22023", "Land", "UTC"),
    ("ruvector_create_route('r', 'd', 'a', rate_limit_per_minute := 0)", "22003", "is 0", "1"),
    (
        "ruvector_create_route('r', 'd', 'a', utterances := ARRAY[''])",
        "22023",
        "utterances",
        "NULL",
    ),
    (
        "ruvector_create_route('r', 'd', 'a', utterances := ARRAY[repeat('x', 2001)])",
        "54000",
        "2001 bytes",
        "Shorten",
    ),
    ("ruvector_create_route('r', 'd', 'a', matching := 'fuzzy')", "22023", "'fuzzy'", "hybrid"),
    ("ruvector_create_route('r', 'd', 'a', matching := NULL)", "22023", "is NULL", "hybrid"),
    ("ruvector_create_route('r', 'd', 'a', embedding := '[1,2]')", "22023", "2 dim", "embed"),
    ("ruvector_route('')", "22023", "request is empty", "text"),
    ("ruvector_route(E' \\n ')", "22023", "request is empty", "text"),
    ("ruvector_route(NULL)", "22004", "request is NULL", "text"),
    ("ruvector_route(repeat('x', 1048577))", "54000", "1048577 bytes", "max_text_bytes"),
    (
        "ruvector_route('x', optimize_for := 'cheap')",
        "22023",
        "optimize_for is 'cheap'",
        "cost, latency, quality, balanced, quality_per_dollar, total_cost",
    ),
    ("ruvector_route('x', max_cost := -0.01)", "22003", "max_cost is -0.01", "0"),
    ("ruvector_route('x', max_latency_ms := 'NaN')", "22003", "max_latency_ms is NaN", "0"),
    ("ruvector_route('x', min_quality := 2)", "22003", "min_quality is 2", "1"),
    ("ruvector_route('x', budget_remaining := 'Infinity')", "22003", "Infinity", "0"),
    ("ruvector_route('x', expected_output_tokens := -1)", "22003", "is -1", "0"),
    ("ruvector_route('x', top_k := 0)", "22003", "top_k is 0", "1"),
    ("ruvector_route('x', required_capabilities := ARRAY[''])", "22023", "required_cap", "256"),
    ("ruvector_route('x', excluded_agents := ARRAY[NULL])", "22023", "excluded_agents", "256"),
    ("ruvector_batch_route(NULL)", "22004", "requests is NULL", "array"),
    ("ruvector_batch_route(ARRAY['a', ''])", "22023", "requests[2] is empty", "text"),
    ("ruvector_batch_route(ARRAY['a', NULL])", "22004", "requests[2] is NULL", "text"),
    (
        "ruvector_batch_route(array_fill('a'::text, ARRAY[10001]))",
        "54000",
        "10001 texts",
        "max_batch",
    ),
    ("ruvector_semantic_route('')", "22023", "query is empty", "text"),
    ("ruvector_semantic_route('x', top_k := -1)", "22003", "top_k is -1", "1"),
    ("ruvector_find_agents_by_capability('')", "22023", "capability is empty", "text"),
    ("ruvector_embed('')", "22023", "content is empty", "text"),
]


@pytest.mark.parametrize(("call", "sqlstate", "message", "hint"), REFUSED)
def test_bad_input_is_refused_with_its_argument_its_value_and_a_hint(
    conn, call, sqlstate, message, hint
):
    with pytest.raises(psycopg.Error) as raised:
        conn.execute(f"SELECT * FROM {call}")
    assert raised.value.sqlstate == sqlstate
    assert message in raised.value.diag.message_primary
    assert hint in (raised.value.diag.message_hint or "")
    assert conn.execute("SELECT count(*) FROM agents").fetchone() == (0,)
    assert conn.execute("SELECT count(*) FROM routes").fetchone() == (0,)


def test_asking_after_changes_of_ones_own_transaction_warns(conn):
    notices = []
    conn.add_notice_handler(lambda notice: notices.append(notice.message_primary))
    with pytest.raises(psycopg.errors.UndefinedTable), conn.transaction():
        conn.execute("SELECT ruvector_register_agent('new')")
        conn.execute("SELECT * FROM ruvector_route('x')")
    assert notices == ["the engine does not see what this transaction has changed"]
