"""The foreign table routing_analytics says what the function says."""

from __future__ import annotations

import psycopg
import pytest
from tests.conftest import sqlstate

AGENTS = """
INSERT INTO agents (name, type, capabilities, cost_per_call, avg_latency_ms, quality) VALUES
  ('dear', 'llm', '{writing}', 0.5, 100, 0.6), ('cheap', 'llm', '{writing}', 0.01, 100, 0.6)
"""
COLUMNS = "agent, total_requests, total_cost, avg_latency_ms, success_rate, share, p50_latency_ms"


@pytest.fixture
def ledger(db: psycopg.Connection) -> psycopg.Connection:
    """Three outcomes: two successes of one agent, a failure of another."""
    db.execute(AGENTS)
    for agent, latency, success in (("dear", 200, True), ("dear", 400, True), ("cheap", 50, False)):
        db.execute(
            "SELECT ruvector_record_usage(agent_name := %s, latency_ms := %s, success := %s)",
            (agent, latency, success),
        )
    return db


def test_sums_are_those_of_the_function(ledger: psycopg.Connection) -> None:
    found = ledger.execute(f"SELECT {COLUMNS} FROM routing_analytics ORDER BY agent").fetchall()
    same = ledger.execute(
        f"SELECT {COLUMNS} FROM ruvector_routing_analytics() ORDER BY agent"
    ).fetchall()
    assert found == same
    assert [(agent, total) for agent, total, *_ in found] == [("cheap", 1), ("dear", 2)]


def test_groupings_and_times_are_inputs_that_rows_echo(ledger: psycopg.Connection) -> None:
    found = ledger.execute(
        "SELECT group_by, time_range, sum(total_requests) FROM routing_analytics"
        " WHERE group_by IN ('agent', 'day') AND time_range = '1 hour' GROUP BY 1, 2 ORDER BY 1"
    ).fetchall()
    assert found == [("agent", "1 hour", 3), ("day", "1 hour", 3)]


def test_a_time_range_that_is_none_and_an_unknown_grouping_are_refused(
    ledger: psycopg.Connection,
) -> None:
    for wrong in ("some days", "-1 day"):
        with pytest.raises(psycopg.Error, match=f"time_range = '{wrong}'") as caught:
            ledger.execute("SELECT * FROM routing_analytics WHERE time_range = %s", (wrong,))
        assert sqlstate(caught.value) == "22023"
    with pytest.raises(psycopg.Error, match="'agents' is not a grouping") as caught:
        ledger.execute("SELECT * FROM routing_analytics WHERE group_by = 'agents'")
    assert sqlstate(caught.value) == "22023"
