"""Who may be called right now, as decisions see it: circuits and limits, on all engines."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from threading import Lock

import psycopg
import pytest
from tests.conftest import Installation


@pytest.fixture
def agents(good_and_plain: psycopg.Connection) -> psycopg.Connection:
    return good_and_plain


ROUTE = "SELECT agent_name, decision_id, reasoning, explanation FROM ruvector_route('x', 'quality')"
WITHOUT_ID = (
    "SELECT agent_name FROM route_decisions WHERE request = 'x' AND optimize_for = 'quality'"
)


def fail(db: psycopg.Connection, agent: str, times: int = 5) -> None:
    db.execute(
        "SELECT ruvector_record_usage(agent_name := %s, success := false, error := 'down')"
        " FROM generate_series(1, %s)",
        (agent, times),
    )


def cool_down(db: psycopg.Connection) -> None:
    """Have the time pass for which circuits are open."""
    db.execute("UPDATE agent_breakers SET retry_at = clock_timestamp() WHERE is_open")


def in_flight(db: psycopg.Connection, agent: str) -> int | None:
    row = db.execute("SELECT in_flight FROM agent_health WHERE agent = %s", (agent,)).fetchone()
    return row[0]


def test_an_open_circuit_is_refused_by_the_next_decision_which_says_until_when(agents):
    fail(agents, "good")
    (retry_at,) = agents.execute(
        "SELECT to_char(retry_at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS') FROM agent_health"
        " WHERE agent = 'good'"
    ).fetchone()
    agent, _, _, explanation = agents.execute(ROUTE).fetchone()
    assert agent == "plain"
    assert explanation["refusals"] == [
        {
            "agent": "good",
            "constraint": "circuit_breaker",
            "limit": f"open until {retry_at}+00:00",
            "actual": None,
        }
    ]
    assert agents.execute(WITHOUT_ID).fetchall() == [("plain",)]


def test_where_every_circuit_is_open_no_agent_suits_and_it_says_why(agents):
    fail(agents, "good")
    fail(agents, "plain")
    agent, _, reasoning, _ = agents.execute(ROUTE).fetchone()
    assert agent is None
    assert "good has its circuit open until 20" in reasoning


def test_a_half_open_circuit_lets_one_probe_through_and_its_success_counts(agents):
    fail(agents, "good")
    cool_down(agents)
    probe = agents.execute(ROUTE).fetchone()
    other = agents.execute(ROUTE).fetchone()
    assert (probe[0], other[0]) == ("good", "plain")
    (refusal,) = other[3]["refusals"]
    assert refusal["limit"] == "half open with 1 of 1 probes under way"
    assert agents.execute(WITHOUT_ID).fetchall() == [("plain",)]
    agents.execute("SELECT ruvector_record_usage(%s)", (probe[1],))
    second = agents.execute(ROUTE).fetchone()
    agents.execute("SELECT ruvector_record_usage(%s)", (second[1],))
    assert agents.execute("SELECT state FROM agent_health WHERE agent = 'good'").fetchone() == (
        "closed",
    )
    assert [agents.execute(ROUTE).fetchone()[0] for _ in range(3)] == ["good"] * 3


def test_a_probe_that_fails_opens_the_circuit_again(agents):
    fail(agents, "good")
    cool_down(agents)
    _, decision, *_ = agents.execute(ROUTE).fetchone()
    agents.execute("SELECT ruvector_record_usage(%s, error := 'still down')", (decision,))
    assert agents.execute(
        "SELECT state, openings FROM agent_health WHERE agent = 'good'"
    ).fetchone() == ("open", 2)
    assert agents.execute(ROUTE).fetchone()[0] == "plain"


def test_an_outcome_without_a_decision_frees_the_probe_that_it_is_of(agents):
    agents.execute("UPDATE settings SET breaker_successes = 5")
    fail(agents, "good")
    cool_down(agents)
    for _ in range(3):
        assert agents.execute(ROUTE).fetchone()[0] == "good"
        agents.execute("SELECT ruvector_record_usage(agent_name := 'good')")
    assert agents.execute("SELECT proven FROM agent_breakers").fetchone() == (3,)


def test_a_limit_of_calls_is_held_until_an_outcome_settles_one(agents):
    agents.execute("SELECT ruvector_update_agent('good', concurrency_limit := 2)")
    rows = [agents.execute(ROUTE).fetchone() for _ in range(3)]
    assert [row[0] for row in rows] == ["good", "good", "plain"]
    (refusal,) = rows[2][3]["refusals"]
    assert (refusal["constraint"], refusal["limit"]) == ("concurrency_limit", 2)
    assert in_flight(agents, "good") == 2
    assert agents.execute(WITHOUT_ID).fetchall() == [("plain",)]
    agents.execute("SELECT ruvector_record_usage(%s)", (rows[0][1],))
    assert in_flight(agents, "good") == 1
    assert agents.execute(ROUTE).fetchone()[0] == "good"


def test_a_call_whose_outcome_never_comes_stops_counting(agents):
    agents.execute("SELECT ruvector_update_agent('good', concurrency_limit := 1)")
    agents.execute(ROUTE)
    assert agents.execute(ROUTE).fetchone()[0] == "plain"
    agents.execute("UPDATE calls_in_flight SET expires_at = clock_timestamp()")
    assert agents.execute(ROUTE).fetchone()[0] == "good"
    assert agents.execute("SELECT expire_calls()").fetchone() == (1,)
    assert in_flight(agents, "good") == 1


def test_a_question_without_the_id_takes_no_place(agents):
    agents.execute("SELECT ruvector_update_agent('good', concurrency_limit := 1)")
    for _ in range(3):
        assert agents.execute(WITHOUT_ID).fetchall() == [("good",)]
    assert in_flight(agents, "good") == 0


def test_a_batch_takes_no_more_places_than_there_are(agents):
    agents.execute("SELECT ruvector_update_agent('good', concurrency_limit := 2)")
    rows = agents.execute(
        "SELECT agent_name FROM ruvector_batch_route(ARRAY['a', 'b', 'c', 'd'], 'quality')"
    ).fetchall()
    assert Counter(name for (name,) in rows) == {"good": 2, "plain": 2}


def test_a_batch_that_is_decided_as_a_whole_is_planned_around_limits_and_circuits(agents):
    agents.execute("SELECT ruvector_update_agent('plain', concurrency_limit := 3)")
    batch = "SELECT agent_name FROM ruvector_batch_route(ARRAY['a','b','c','d','e'], 'total_cost')"
    rows = agents.execute(batch).fetchall()
    assert Counter(name for (name,) in rows) == {"plain": 3, "good": 2}
    fail(agents, "good")
    with pytest.raises(psycopg.Error, match="concurrency_limit '3'"):
        agents.execute("UPDATE calls_in_flight SET expires_at = clock_timestamp()")
        agents.execute(batch)


def test_a_limit_and_a_budget_are_reserved_together_or_not_at_all(agents):
    agents.execute("SELECT ruvector_set_budget('good money', 0.015, 'agent', 'good')")
    agents.execute("SELECT ruvector_update_agent('good', concurrency_limit := 5)")
    chosen = [agents.execute(ROUTE).fetchone()[0] for _ in range(3)]
    assert chosen == ["good", "plain", "plain"]
    assert in_flight(agents, "good") == 1


def test_limits_hold_where_the_log_is_off(agents):
    agents.execute("UPDATE settings SET decision_log = 'off'")
    agents.execute("SELECT ruvector_update_agent('good', concurrency_limit := 1)")
    chosen = [agents.execute(ROUTE).fetchone() for _ in range(2)]
    assert [row[0] for row in chosen] == ["good", "plain"]
    agents.execute("SELECT ruvector_record_usage(%s)", (chosen[0][1],))
    assert in_flight(agents, "good") == 0


def test_a_team_has_no_member_whose_circuit_is_open(agents):
    fail(agents, "good")
    rows = agents.execute(
        "SELECT agent_name FROM ruvector_route_multi('do work', 1, 'ensemble')"
    ).fetchall()
    assert rows == [("plain",)]


def test_a_limit_is_registered_changed_and_taken_away(agents):
    agents.execute("SELECT ruvector_register_agent('new', concurrency_limit := 7)")
    limit = "SELECT concurrency_limit FROM ruvector_get_agent('new')"
    assert agents.execute(limit).fetchone() == (7,)
    agents.execute("SELECT ruvector_update_agent('new', avg_latency_ms := 5)")
    assert agents.execute(limit).fetchone() == (7,)
    agents.execute("SELECT ruvector_update_agent('new', concurrency_limit := 0)")
    assert agents.execute(limit).fetchone() == (None,)
    with pytest.raises(psycopg.errors.NumericValueOutOfRange, match="concurrency_limit is -1"):
        agents.execute("SELECT ruvector_update_agent('new', concurrency_limit := -1)")


def test_a_restart_forgets_neither_circuits_nor_calls(agents, installation: Installation):
    agents.execute("SELECT ruvector_update_agent('plain', concurrency_limit := 1)")
    fail(agents, "good")
    before = agents.execute(ROUTE).fetchone()[0]
    installation.engine.stop()
    installation.start_engine()
    assert (before, agents.execute(ROUTE).fetchone()[0]) == ("plain", None)


class Calls:
    """The calls under way, as the sessions of a test know them."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._now: Counter[str] = Counter()
        self.most: Counter[str] = Counter()
        self.served: Counter[str | None] = Counter()

    def begin(self, agent: str | None) -> None:
        with self._lock:
            self.served[agent] += 1
            if agent is not None:
                self._now[agent] += 1
                self.most[agent] = max(self.most[agent], self._now[agent])

    def end(self, agent: str) -> None:
        with self._lock:
            self._now[agent] -= 1


def test_sessions_of_two_engines_never_exceed_a_limit(
    agents: psycopg.Connection, installation: Installation, second_engine: str
) -> None:
    agents.execute(
        "SELECT ruvector_update_agent('good', concurrency_limit := 5),"
        " ruvector_update_agent('plain', concurrency_limit := 3)"
    )
    calls = Calls()

    def session(number: int) -> None:
        schema = second_engine if number % 2 else "tinydancer"
        with installation.connect() as connection:
            for turn in range(6):
                agent, decision = connection.execute(
                    f"SELECT agent_name, decision_id FROM {schema}.route_decisions"
                    " WHERE request = %s AND optimize_for = 'quality'",
                    (f"request {number} {turn}",),
                ).fetchone()
                calls.begin(agent)
                if agent is not None:
                    connection.execute("SELECT pg_sleep(0.002)")
                    # Before the outcome is recorded: from then on its place is another's.
                    calls.end(agent)
                    connection.execute("SELECT ruvector_record_usage(%s)", (decision,))

    with ThreadPoolExecutor(32) as pool:
        list(pool.map(session, range(32)))
    assert calls.most["good"] <= 5
    assert calls.most["plain"] <= 3
    assert calls.served["good"] > 0
    assert calls.served["plain"] > 0
    assert agents.execute("SELECT count(*) FROM calls_in_flight").fetchone() == (0,)


def test_sessions_of_two_engines_that_hold_their_calls_take_exactly_the_places_there_are(
    agents: psycopg.Connection, installation: Installation, second_engine: str
) -> None:
    agents.execute("SELECT ruvector_update_agent('good', concurrency_limit := 7)")
    fail(agents, "plain")
    agents.execute("UPDATE settings SET breaker_probes = 3")
    cool_down(agents)

    def session(number: int) -> str | None:
        schema = second_engine if number % 2 else "tinydancer"
        with installation.connect() as connection:
            agent, _ = connection.execute(
                f"SELECT agent_name, decision_id FROM {schema}.route_decisions"
                " WHERE request = %s AND optimize_for = 'quality'",
                (f"request {number}",),
            ).fetchone()
            return agent

    with ThreadPoolExecutor(32) as pool:
        chosen = Counter(pool.map(session, range(32)))
    # 7 within the limit, 3 probes of the half-open circuit, and nobody for the rest.
    assert chosen == {"good": 7, "plain": 3, None: 22}
