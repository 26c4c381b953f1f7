"""Teams and budgets, asked by the functions."""

from __future__ import annotations

import psycopg
import pytest


@pytest.fixture
def agents(db: psycopg.Connection) -> psycopg.Connection:
    db.execute(
        """
        SELECT ruvector_register_agent('gpt-4', 'llm', ARRAY['reasoning', 'code', 'analysis'],
                   cost_per_1k_tokens := 0.03, avg_latency_ms := 2500, quality_score := 0.95),
               ruvector_register_agent('haiku', 'llm', ARRAY['simple-tasks'],
                   cost_per_1k_tokens := 0.00025, avg_latency_ms := 400, quality_score := 0.8),
               ruvector_register_agent('runner', 'tool', ARRAY['code-execution'],
                   cost_per_call := 0.001, avg_latency_ms := 100, quality_score := 0.9)
        """
    )
    return db


def test_an_ensemble_has_different_agents_side_by_side(agents):
    rows = agents.execute(
        "SELECT agent_name, team_latency_ms, team_quality, expected_quality"
        " FROM ruvector_route_multi('Review this code', 2, 'ensemble')"
    ).fetchall()
    assert len({row[0] for row in rows}) == 2
    assert all(row[2] > row[3] for row in rows)


def test_a_team_that_can_not_be_has_one_row_that_says_why(agents):
    rows = agents.execute(
        "SELECT agent_name, reasoning FROM ruvector_route_multi('Review this', 2, max_cost := 0)"
    ).fetchall()
    assert len(rows) == 1
    assert rows[0][0] is None
    assert "No team suits" in rows[0][1]


@pytest.mark.parametrize(
    ("call", "state", "said"),
    [
        ("ruvector_route_multi('x', 0)", "22003", "num_agents is 0"),
        ("ruvector_route_multi('x', 4)", None, "4"),
        ("ruvector_route_multi('x', 2, 'pipline')", "22023", "'pipline'"),
        ("ruvector_route_multi('')", "22023", "request is empty"),
        ("ruvector_optimize_budget(-1)", "22003", "monthly_budget is -1"),
        ("ruvector_optimize_budget('NaN')", "22003", "monthly_budget is NaN"),
        ("ruvector_optimize_budget(NULL)", "22004", "monthly_budget is NULL"),
        ("ruvector_optimize_budget(1, 0.99)", None, "quality"),
    ],
)
def test_what_can_not_be_is_refused_with_a_hint(agents, call, state, said):
    with pytest.raises(psycopg.Error) as raised:
        agents.execute(f"SELECT * FROM {call}")
    assert said in raised.value.diag.message_primary
    assert state in (None, raised.value.sqlstate)
    assert raised.value.diag.message_hint


def test_a_budget_goes_where_it_buys_most_quality_within_the_thresholds(agents):
    (plan,) = agents.execute("SELECT ruvector_optimize_budget(100, 0.85, 2000)").fetchone()
    assert plan["allocations"].keys() == {"runner"}
    assert plan["agents"].keys() == {"gpt-4", "haiku", "runner"}
    assert plan["demand_source"] != "history"


def test_demand_is_what_the_ledger_has_of_the_last_month(agents):
    agents.execute(
        """
        SELECT ruvector_record_usage_batch(jsonb_agg(jsonb_build_object(
            'agent_name', 'haiku', 'cost', 0.001, 'input_tokens', 100, 'output_tokens', 50,
            'occurred_at', now() - n * interval '1 hour')))
        FROM generate_series(1, 240) AS n
        """
    )
    (plan,) = agents.execute("SELECT ruvector_optimize_budget(100)").fetchone()
    assert plan["demand_source"] == "history"
    assert plan["expected_requests"] == pytest.approx(720, rel=0.02)
