"""A day with an agent that goes down: a conversation, its fallbacks, and the way back."""

from __future__ import annotations

import uuid

import psycopg
import pytest


@pytest.fixture
def agents(db: psycopg.Connection) -> psycopg.Connection:
    db.execute(
        """
        SELECT ruvector_register_agent('large', 'llm', ARRAY['chat'], cost_per_call := 0.02,
                   avg_latency_ms := 2000, quality_score := 0.95, concurrency_limit := 4),
               ruvector_register_agent('medium', 'llm', ARRAY['chat'], cost_per_call := 0.005,
                   avg_latency_ms := 900, quality_score := 0.85),
               ruvector_register_agent('small', 'llm', ARRAY['chat'], cost_per_call := 0.001,
                   avg_latency_ms := 300, quality_score := 0.70);
        SELECT ruvector_set_budget('month', 10);
        UPDATE settings SET prior_weight = 1000  -- a few outcomes say little of quality
        """
    )
    return db


def ask(db: psycopg.Connection, request: str, key: str) -> tuple[str, uuid.UUID, list[str]]:
    return db.execute(
        "SELECT agent_name, decision_id, fallbacks"
        " FROM ruvector_route(%s, optimize_for := 'quality', session_key := %s)",
        (request, key),
    ).fetchone()


def state(db: psycopg.Connection, agent: str) -> str:
    query = "SELECT state FROM agent_health WHERE agent = %s"
    return db.execute(query, (agent,)).fetchone()[0]


def test_an_agent_goes_down_and_comes_back_and_every_request_is_served(agents):
    # Given a conversation that the best agent serves
    agent, decision, fallbacks = ask(agents, "Hello, who are you?", "talk-1")
    assert (agent, fallbacks) == ("large", ["medium", "small"])
    agents.execute("SELECT ruvector_record_usage(%s, latency_ms := 1800)", (decision,))

    # When that agent goes down, each request falls back to the next
    for number in range(5):
        agent, decision, _ = ask(agents, f"Question {number}", f"talk-{number + 2}")
        assert agent == "large"
        agent, decision = agents.execute(
            "SELECT agent_name, new_decision_id FROM ruvector_fallback(%s, error := '503')",
            (decision,),
        ).fetchone()
        assert agent == "medium"
        agents.execute("SELECT ruvector_record_usage(%s, latency_ms := 850)", (decision,))

    # Then its circuit is open, and new conversations do not even try it
    assert state(agents, "large") == "open"
    assert ask(agents, "A new one", "talk-9")[0] == "medium"
    # And those that had fallen back stay where they are, the first one moves
    assert ask(agents, "And then?", "talk-3")[0] == "medium"
    assert ask(agents, "And then?", "talk-1")[0] == "medium"

    # When the time has come and it is up again, single probes find that out
    agents.execute("UPDATE agent_breakers SET retry_at = clock_timestamp() WHERE is_open")
    assert state(agents, "large") == "half_open"
    for number in (20, 21):
        agent, decision, _ = ask(agents, "Are you back?", f"talk-{number}")
        assert agent == "large"
        assert ask(agents, "Meanwhile", f"talk-{number}b")[0] == "medium"
        agents.execute("SELECT ruvector_record_usage(%s, latency_ms := 1900)", (decision,))
    assert state(agents, "large") == "closed"

    # Then it takes as many calls at once as it may, and no more
    chosen = [ask(agents, "All at once", f"talk-{number}")[0] for number in range(30, 36)]
    assert chosen == ["large"] * 4 + ["medium"] * 2

    # And the accounts are right: failures cost nothing, the rest what it cost
    failed, spent = agents.execute(
        "SELECT count(*) FILTER (WHERE NOT success), sum(cost)::float8 FROM usage"
    ).fetchone()
    assert (failed, spent) == (5, pytest.approx(0.02 + 5 * 0.005 + 2 * 0.02))
    assert agents.execute("SELECT spent::float8 FROM budget_status").fetchone() == (
        pytest.approx(spent),
    )
