"""Sessions: the same key goes to the same agent, as long as that suits."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest
from tests.conftest import Installation, sqlstate


@pytest.fixture
def agents(good_and_plain: psycopg.Connection) -> psycopg.Connection:
    return good_and_plain


def ask(db: psycopg.Connection, objective: str, key: str | None = "k", more: str = "") -> tuple:
    return db.execute(
        "SELECT agent_name, explanation, reasoning, decision_id"
        f" FROM ruvector_route('x', %s, session_key := %s{more})",
        (objective, key),
    ).fetchone()


def test_a_session_keeps_its_agent_and_the_explanation_says_so(agents):
    first = ask(agents, "cost")
    second = ask(agents, "quality")
    assert (first[0], second[0]) == ("plain", "plain")
    assert first[1]["session"] == {"key": "k", "agent": "plain", "before": None, "held": False}
    assert second[1]["session"] == {"key": "k", "agent": "plain", "before": "plain", "held": True}
    assert second[2].startswith("plain is held by the session, one of 2 agents that qualify")
    assert second[1]["fallbacks"] == ["good"]


def test_others_are_decided_as_ever(agents):
    ask(agents, "cost")
    assert ask(agents, "quality", key="other")[0] == "good"
    assert ask(agents, "quality", more=", tenant := 'acme'")[0] == "good"
    assert ask(agents, "quality", key=None)[0] == "good"
    assert "session" not in ask(agents, "quality", key=None)[1]


def test_a_session_is_held_without_a_decision_id_too(agents):
    one = (
        "SELECT agent_name FROM route_decisions"
        " WHERE request = 'x' AND session_key = 'k' AND optimize_for = %s"
    )
    chosen = [agents.execute(one, (by,)).fetchone()[0] for by in ("cost", "quality")]
    assert chosen == ["plain", "plain"]


def test_an_agent_that_no_longer_suits_is_left_for_good(agents):
    ask(agents, "cost")
    moved = ask(agents, "cost", more=", min_quality := 0.8")
    assert moved[0] == "good"
    assert moved[1]["session"] == {"key": "k", "agent": "good", "before": "plain", "held": False}
    assert ask(agents, "cost")[0] == "good"


def test_budgets_limits_and_circuits_move_a_session(agents):
    agents.execute("SELECT ruvector_set_budget('good money', 0.015, 'agent', 'good')")
    assert [ask(agents, "quality")[0] for _ in range(2)] == ["good", "plain"]
    agents.execute("SELECT ruvector_drop_budget('good money')")
    agents.execute("SELECT ruvector_update_agent('good', concurrency_limit := 1)")
    assert [ask(agents, "quality", key="l")[0] for _ in range(2)] == ["good", "plain"]
    agents.execute("SELECT ruvector_update_agent('good', concurrency_limit := 0)")
    agents.execute(
        "SELECT ruvector_record_usage(agent_name := 'plain', success := false)"
        " FROM generate_series(1, 5)"
    )
    assert ask(agents, "cost", key="l")[0] == "good"


def test_a_session_is_forgotten_after_its_time_and_each_use_prolongs_it(agents):
    ask(agents, "cost")
    agents.execute("UPDATE sessions SET expires_at = now() + interval '1 second'")
    ask(agents, "quality")
    (left,) = agents.execute("SELECT expires_at - now() FROM sessions").fetchone()
    assert 1790 < left.total_seconds() <= 1800
    agents.execute("UPDATE sessions SET expires_at = now() - interval '1 second'")
    agent, explanation, *_ = ask(agents, "quality")
    assert agent == "good"
    assert explanation["session"] == {"key": "k", "agent": "good", "before": None, "held": False}
    agents.execute("UPDATE sessions SET expires_at = now() - interval '1 second'")
    assert agents.execute("SELECT expire_sessions()").fetchone() == (1,)
    assert agents.execute("SELECT count(*) FROM sessions").fetchone() == (0,)


def test_a_session_is_ended_by_hand(agents):
    ask(agents, "cost")
    ended = "SELECT ruvector_end_session('k')"
    assert agents.execute(ended).fetchone() == (True,)
    assert agents.execute(ended).fetchone() == (False,)
    assert ask(agents, "quality")[0] == "good"


def test_requests_of_one_scan_follow_their_session(agents):
    rows = agents.execute(
        "SELECT agent_name FROM route_decisions WHERE request = ANY(ARRAY['a', 'b', 'c'])"
        " AND session_key = 'k' AND optimize_for = 'cost'"
    ).fetchall()
    assert rows == [("plain",)] * 3
    assert agents.execute(
        "SELECT session_key, agent_name FROM route_decisions WHERE request = 'a'"
        " AND session_key = ANY(ARRAY['k', 'new']) AND optimize_for = 'quality' ORDER BY 1"
    ).fetchall() == [("k", "plain"), ("new", "good")]


def test_a_join_has_a_session_for_each_row(agents):
    agents.execute(
        "CREATE TEMP TABLE talks AS SELECT 'a' AS body, key FROM unnest(ARRAY['k', 'l']) AS key"
    )
    ask(agents, "cost", key="k")
    rows = agents.execute(
        "SELECT t.key, d.agent_name FROM talks t JOIN route_decisions d ON d.request = t.body"
        " AND d.session_key = t.key WHERE d.optimize_for = 'quality' ORDER BY 1"
    ).fetchall()
    assert rows == [("k", "plain"), ("l", "good")]


def test_a_fallback_takes_the_session_along(agents):
    *_, decision = ask(agents, "quality")
    agents.execute("SELECT ruvector_fallback(%s, 'down')", (decision,))
    assert ask(agents, "quality")[0] == "plain"


def test_a_fallback_of_an_earlier_decision_leaves_the_session_where_it_is(agents):
    # Given a session that has left the agent of its first decision for another
    agents.execute("SELECT ruvector_register_agent('third', cost_per_call := 1)")
    *_, decision = ask(agents, "quality")
    assert ask(agents, "cost", more=", excluded_agents := ARRAY['good']")[0] == "plain"
    # When that decision falls back, and only a third agent can take it
    agents.execute("UPDATE agents SET active = false WHERE name = 'plain'")
    fallback = "SELECT agent_name FROM ruvector_fallback(%s, 'down')"
    assert agents.execute(fallback, (decision,)).fetchone() == ("third",)
    # Then the session is where it was
    assert agents.execute("SELECT agent FROM sessions").fetchone() == ("plain",)


def test_sessions_of_two_engines_begin_one_session_with_one_agent(
    agents, installation: Installation, second_engine: str
):
    def begin(number: int) -> str:
        schema = second_engine if number % 2 else "tinydancer"
        with installation.connect() as connection:
            return connection.execute(
                f"SELECT agent_name FROM {schema}.route_decisions WHERE request = %s"
                " AND session_key = 'shared' AND optimize_for = %s",
                (f"request {number}", ("cost", "quality")[number // 2 % 2]),
            ).fetchone()[0]

    with ThreadPoolExecutor(16) as pool:
        assert len(set(pool.map(begin, range(32)))) == 1


@pytest.mark.parametrize(("key", "state"), [("", "22023"), ("x" * 257, "54000"), (" ", "22023")])
def test_a_key_that_is_none_is_refused(agents, key, state):
    with pytest.raises(psycopg.Error) as raised:
        agents.execute(
            "SELECT agent_name FROM route_decisions WHERE request = 'x' AND session_key = %s",
            (key,),
        )
    assert sqlstate(raised.value) == state
    assert agents.execute("SELECT count(*) FROM sessions").fetchone() == (0,)
