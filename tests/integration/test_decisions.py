"""Decisions have ids that outcomes name, and are kept where their id is asked for."""

from __future__ import annotations

import psycopg
import pytest


@pytest.fixture
def agents(plan_agents: psycopg.Connection) -> psycopg.Connection:
    """The two models."""
    plan_agents.execute("SELECT ruvector_remove_agent('runner')")
    return plan_agents


@pytest.mark.parametrize("mode", ["async", "sync"])
def test_an_outcome_names_the_decision_it_is_of(agents, mode):
    agents.execute("UPDATE settings SET decision_log = %s", (mode,))
    decision, agent, cost = agents.execute(
        "SELECT decision_id, agent_name, estimated_cost FROM ruvector_route("
        "'Say hello', 'cost', max_cost := 1, user_tier := 'gold', tenant := 'acme')"
    ).fetchone()
    assert agents.execute(
        "SELECT ruvector_record_usage(decision_id := %s, latency_ms := 300, cost := 0.02)",
        (decision,),
    ).fetchone() == (True,)
    assert agents.execute(
        "SELECT decision_id, tenant, agent, user_tier, cost::float8 FROM usage"
    ).fetchall() == [(decision, "acme", agent, "gold", 0.02)]
    row = agents.execute(
        "SELECT id, request, agent, tenant, user_tier, optimize_for, constraints, propensity,"
        " estimated_cost, vector_dims(embedding), candidates FROM decisions WHERE id = %s",
        (decision,),
    ).fetchone()
    kept = (decision, "Say hello", agent, "acme", "gold", "cost", {"max_cost": 1}, 1, cost, 384)
    assert row[:-1] == kept
    assert [candidate["agent"] for candidate in row[-1]] == ["haiku", "gpt-4"]
    assert row[-1][0]["cost"] == pytest.approx(float(cost))


def test_only_the_hash_of_a_request_is_kept_where_settings_say_so(agents):
    agents.execute("UPDATE settings SET decision_log = 'sync', decision_log_text = false")
    agents.execute("SELECT * FROM ruvector_route('My secret')")
    assert agents.execute(
        "SELECT request, request_hash = sha256('My secret') FROM decisions WHERE request IS NULL"
    ).fetchall() == [(None, True)]


def test_a_batch_has_an_id_for_each_request(agents):
    agents.execute("UPDATE settings SET decision_log = 'sync'")
    rows = agents.execute(
        "SELECT request, decision_id FROM ruvector_batch_route(ARRAY['one', 'two', 'three'])"
    ).fetchall()
    kept = agents.execute(
        "SELECT request, id FROM decisions WHERE request = ANY (ARRAY['one', 'two', 'three'])"
    ).fetchall()
    assert len({row[1] for row in rows}) == 3
    assert sorted(rows) == sorted(kept)


def test_only_the_decision_has_an_id_not_the_next_best(agents):
    rows = agents.execute("SELECT decision_id FROM ruvector_route('x', top_k := 2)").fetchall()
    assert [row[0] is None for row in rows] == [False, True]


def test_where_the_log_is_off_there_is_no_id(agents):
    agents.execute("UPDATE settings SET decision_log = 'off'")
    assert agents.execute("SELECT decision_id FROM ruvector_route('off')").fetchall() == [(None,)]
    # Not even by and by; what other tests left to the background may be written now.
    agents.execute("SELECT pg_sleep(0.7)")
    kept = agents.execute("SELECT count(*) FROM decisions WHERE request = 'off'").fetchone()
    assert kept == (0,)


def test_a_question_without_the_id_and_explain_keep_nothing(agents):
    agents.execute("UPDATE settings SET decision_log = 'sync'")
    agents.execute("SELECT agent_name FROM route_decisions WHERE request = 'idle'")
    agents.execute("EXPLAIN SELECT * FROM route_decisions WHERE request = 'idle'")
    kept = agents.execute("SELECT count(*) FROM decisions WHERE request = 'idle'").fetchone()
    assert kept == (0,)


def test_a_request_that_no_agent_suits_is_kept_as_such(agents):
    agents.execute("UPDATE settings SET decision_log = 'sync'")
    agents.execute("SELECT * FROM ruvector_route('beyond', max_cost := 0)")
    found = agents.execute("SELECT agent, candidates FROM decisions WHERE request = 'beyond'")
    assert found.fetchall() == [(None, [])]


def test_the_engine_says_how_many_it_kept_and_lost(agents):
    agents.execute("UPDATE settings SET decision_log = 'sync'")
    before = agents.execute("SELECT decisions_kept, decisions_lost FROM engine_status").fetchone()
    agents.execute("SELECT * FROM ruvector_route('x')")
    after = agents.execute("SELECT decisions_kept, decisions_lost FROM engine_status").fetchone()
    # What earlier questions left to the background may be written meanwhile.
    assert after[0] >= before[0] + 1
    assert after[1] == before[1]


def test_an_unknown_decision_is_refused(agents):
    with pytest.raises(psycopg.errors.UndefinedObject, match="does not exist"):
        agents.execute(
            "SELECT ruvector_record_usage('0190a000-0000-7000-8000-000000000000', cost := 1)"
        )


def test_exploration_tries_others_and_keeps_the_propensity(agents):
    agents.execute(
        "UPDATE settings SET decision_log = 'sync', exploration = 'epsilon', exploration_rate = 0.5"
    )
    requests = [f"trial {n}" for n in range(200)]
    rows = agents.execute(
        "SELECT agent_name, decision_id, reasoning FROM ruvector_batch_route(%s, 'quality')",
        (requests,),
    ).fetchall()
    kept = agents.execute("SELECT id, agent, propensity FROM decisions WHERE request = ANY (%s)",
                          (requests,)).fetchall()  # fmt: skip
    assert {(row[1], row[0]) for row in rows} == {row[:2] for row in kept}
    assert {row[1:] for row in kept} == {("gpt-4", 0.75), ("haiku", 0.25)}
    assert all(("is tried" in row[2]) == (row[0] == "haiku") for row in rows)
    # What keeps nothing stays deterministic.
    assert agents.execute(
        "SELECT DISTINCT agent_name FROM route_decisions"
        " WHERE request = ANY (%s) AND optimize_for = 'quality'",
        (requests,),
    ).fetchall() == [("gpt-4",)]


def test_thompson_sampling_tries_agents_as_often_as_they_may_be_the_best(agents):
    agents.execute(
        "UPDATE settings SET decision_log = 'sync', exploration = 'thompson', exploration_seed = 7"
    )
    requests = [f"trial {n}" for n in range(400)]

    def decided() -> list[tuple]:
        return agents.execute(
            "SELECT request, agent_name FROM ruvector_batch_route(%s, 'quality') ORDER BY 1",
            (requests,),
        ).fetchall()

    first = decided()
    assert decided() == first  # the seed has the same requests throw the same dice
    kept = agents.execute(
        "SELECT agent, min(propensity), max(propensity), count(*) / 800.0 FROM decisions"
        " WHERE request = ANY (%s) GROUP BY 1 ORDER BY 1",
        (requests,),
    ).fetchall()
    # Beta(9.5, 0.5) and Beta(8, 2): how often the first is the greater, by 10 million draws.
    for (agent, least, most, share), chance in zip(kept, (0.8952, 0.1048), strict=True):
        assert least == pytest.approx(most) == pytest.approx(chance, abs=0.02)
        assert float(share) == pytest.approx(chance, abs=0.05), agent
    # As outcomes come, the better one is doubted no more.
    agents.execute(
        "SELECT ruvector_record_usage_batch(jsonb_agg(jsonb_build_object("
        " 'agent_name', agent, 'success', n % 10 < served, 'cost', 0)))"
        " FROM (VALUES ('gpt-4', 9), ('haiku', 2)) AS a (agent, served), generate_series(1, 300) n",
    )
    assert {agent for _, agent in decided()} == {"gpt-4"}


def test_an_explanation_says_how_others_are_tried(agents):
    agents.execute("UPDATE settings SET exploration = 'thompson'")
    (explanation,) = agents.execute("SELECT explanation FROM ruvector_route('x')").fetchone()
    assert explanation["exploration"] == "thompson"
    assert 0 < explanation["propensity"] <= 1
