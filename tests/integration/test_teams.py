"""Teams by SQL: what they are judged by, what they reserve, what comes of them."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal

import numpy as np
import psycopg
import pytest
from psycopg.types.json import Jsonb
from tests.conftest import Installation
from tests.integration.test_learned_quality import trained

from tinydancer.embeddings.static import StaticEmbedder

MEMBERS = """
SELECT agent_name, decision_id, estimated_cost, reasoning, explanation
FROM ruvector_route_multi(%s, %s, %s{}) ORDER BY place
"""


@pytest.fixture
def agents(db: psycopg.Connection) -> psycopg.Connection:
    db.execute(
        """
        UPDATE settings SET decision_log = 'sync';
        SELECT ruvector_register_agent(name, 'tool', ARRAY['work'], cost_per_call := price,
                   avg_latency_ms := 100, quality_score := quality)
        FROM (VALUES ('a', 0.3, 0.9), ('b', 0.2, 0.8), ('c', 0.1, 0.7)) AS x (name, price, quality)
        """
    )
    return db


def team(db: psycopg.Connection, size: int, strategy: str = "ensemble", more: str = "") -> list:
    return db.execute(MEMBERS.format(more), ("Do the work", size, strategy)).fetchall()


def status(db: psycopg.Connection, name: str) -> tuple[float, float]:
    spent, reserved = db.execute(
        "SELECT spent, reserved FROM budget_status WHERE name = %s", (name,)
    ).fetchone()
    return float(spent), float(reserved)


def test_a_team_takes_a_place_at_each_member_or_none_at_all(agents):
    agents.execute("SELECT ruvector_update_agent('a', concurrency_limit := 1)")
    flight = "SELECT in_flight FROM agent_health WHERE agent = 'a'"
    # Without an id the team takes nothing
    agents.execute(
        "SELECT agent_name FROM agent_plans WHERE request = 'x' AND strategy = 'ensemble'"
    )
    assert agents.execute(flight).fetchone() == (0,)
    first = team(agents, 2)
    assert "a" in [row[0] for row in first]
    assert agents.execute(flight).fetchone() == (1,)
    # The next is made of those that have a place, and a team of all there are finds none
    assert sorted(row[0] for row in team(agents, 2)) == ["b", "c"]
    assert [row[0] for row in team(agents, 3)] == [None]
    # An outcome gives the place back
    (mine,) = (row[1] for row in first if row[0] == "a")
    agents.execute("SELECT ruvector_record_usage(%s)", (mine,))
    assert len(team(agents, 3)) == 3


def test_each_member_has_a_decision_and_an_outcome_of_its_own(agents):
    rows = team(agents, 2, more=", tenant := 'acme', user_tier := 'gold', max_cost := 1")
    ids = [row[1] for row in rows]
    assert len(set(ids)) == 2
    kept = agents.execute(
        "SELECT id, agent, request, tenant, user_tier, estimated_cost, constraints, candidates"
        " FROM decisions WHERE team = %s ORDER BY id = %s DESC",
        (ids[0], ids[0]),
    ).fetchall()
    assert [row[:2] for row in kept] == [(row[1], row[0]) for row in rows]
    shared = {"strategy": "ensemble", "num_agents": 2, "max_cost": 1}
    assert [row[2:] for row in kept] == [
        ("Do the work", "acme", "gold", row[2], shared, []) for row in rows
    ]
    for decision in ids:
        agents.execute("SELECT ruvector_record_usage(%s, cost := 0.1)", (decision,))
    assert agents.execute("SELECT count(*) FROM usage WHERE tenant = 'acme'").fetchone() == (2,)


def test_without_its_ids_a_team_leaves_nothing_behind(agents):
    agents.execute("SELECT ruvector_set_budget('all', 10)")
    agents.execute("SELECT agent_name FROM agent_plans WHERE request = 'Leave nothing'")
    assert status(agents, "all") == (0, 0)
    kept = agents.execute("SELECT count(*) FROM decisions WHERE request = 'Leave nothing'")
    assert kept.fetchone() == (0,)


def test_a_team_reserves_what_all_its_members_cost_and_each_outcome_settles_its_own(agents):
    agents.execute("SELECT ruvector_set_budget('all', 10)")
    rows = team(agents, 2)
    assert {row[0] for row in rows} == {"a", "b"}
    assert status(agents, "all") == (0, 0.5)
    first = next(row for row in rows if row[0] == "a")
    agents.execute("SELECT ruvector_record_usage(%s, cost := 0.25)", (first[1],))
    assert status(agents, "all") == (0.25, 0.2)


def test_a_team_is_chosen_within_what_budgets_have_left(agents):
    agents.execute("SELECT ruvector_set_budget('all', 0.45)")
    assert {row[0] for row in team(agents, 2)} == {"a", "c"}
    assert status(agents, "all") == (0, 0.4)
    # Now 0.05 are left: the cheapest two cost 0.3, and nothing is reserved for one of them.
    ((agent, decision, _, reasoning, explanation),) = team(agents, 2)
    assert (agent, decision) == (None, None)
    assert reasoning == (
        "No team suits: budget 'all' has 0.05 left: the cheapest team costs at least 0.3."
    )
    assert explanation["refusal"] in reasoning
    assert status(agents, "all") == (0, 0.4)


def test_an_agent_whose_own_budget_is_spent_is_in_no_team(agents):
    agents.execute("SELECT ruvector_set_budget('a', 0.2, 'agent', 'a')")
    rows = team(agents, 2)
    assert {row[0] for row in rows} == {"b", "c"}
    assert rows[0][4]["budgets_of_agents"] == {"a": "a"}
    assert status(agents, "a") == (0, 0)
    # A look at a team, which reserves nothing, keeps to it as well.
    looked = agents.execute(
        "SELECT agent_name FROM agent_plans WHERE request = 'Do the work' AND num_agents = 2"
        " AND strategy = 'ensemble'"
    ).fetchall()
    assert {row[0] for row in looked} == {"b", "c"}


@pytest.mark.parametrize("strategy", ["pipeline", "parallel"])
def test_other_strategies_reserve_as_well(agents, strategy):
    agents.execute("SELECT ruvector_set_budget('all', 1)")
    rows = agents.execute(
        MEMBERS.format(""), ("Do this work, then do that work", 2, strategy)
    ).fetchall()
    cost = sum(row[2] for row in rows)
    assert status(agents, "all") == (0, float(cost))


def test_sessions_at_once_never_reserve_more_than_there_is(agents, installation: Installation):
    agents.execute("SELECT ruvector_set_budget('all', 2)")

    def ask(_: int) -> Decimal:
        with installation.connect() as connection:
            rows = [team(connection, 2) for _ in range(3)]
        return sum((row[2] for one in rows for row in one if row[1]), Decimal(0))

    with ThreadPoolExecutor(8) as pool:
        reserved = sum(pool.map(ask, range(8)), Decimal(0))
    assert reserved <= 2
    assert status(agents, "all") == (0, float(reserved))
    # What is left buys no other team: the cheapest costs 0.3.
    assert 2 - reserved < Decimal("0.3")


def test_a_team_is_judged_by_learned_quality(db: psycopg.Connection) -> None:
    db.execute(
        "SELECT ruvector_register_agent(name, 'llm', ARRAY['writing'], cost_per_call := 0.01,"
        " avg_latency_ms := 100, quality_score := 0.6)"
        " FROM unnest(ARRAY['logician', 'poet']) AS name"
    )
    embedder = StaticEmbedder.builtin()
    (model,) = db.execute(
        "INSERT INTO models (kind, name, weights, embedding_space)"
        " VALUES ('quality', 'learned', %s, %s) RETURNING id",
        (trained(embedder), embedder.space),
    ).fetchone()
    before = db.execute(
        "SELECT expected_quality FROM ruvector_route_multi('Write a poem about the sea', 1)"
    ).fetchone()
    assert before == (0.6,)
    db.execute("SELECT ruvector_activate_model(%s)", (model,))
    for request, agent in (("Write a poem about the sea", "poet"), ("Compute 5 + 6", "logician")):
        name, quality, explanation = db.execute(
            "SELECT agent_name, expected_quality, explanation"
            " FROM ruvector_route_multi(%s, 1, 'ensemble', 'quality')",
            (request,),
        ).fetchone()
        assert name == agent
        assert quality > 0.8
        assert explanation["models"]["quality"] == "learned"
        assert explanation["members"][0]["quality_is"] == "learned"
        assert "learned from" in explanation["quality_evidence"]


def serve_together(db: psycopg.Connection, teams: int) -> None:
    """Ensembles of all three, of which a and b fail on the same requests, and c on others."""
    dice = np.random.default_rng(3)
    rows = db.execute(
        "SELECT request, agent_name, decision_id::text FROM agent_plans"
        " WHERE request = ANY (%s) AND num_agents = 3 AND strategy = 'ensemble'",
        ([f"request {n}" for n in range(teams)],),
    ).fetchall()
    hard = {f"request {n}": bool(dice.random() < 0.4) for n in range(teams)}
    outcomes = [
        {
            "decision_id": decision,
            "cost": 0,
            "success": (not hard[request]) if agent in "ab" else bool(dice.random() > 0.4),
        }
        for request, agent, decision in rows
    ]
    db.execute("SELECT ruvector_record_usage_batch(%s)", (Jsonb(outcomes),))


def test_errors_that_go_together_are_measured_and_decide_who_is_in_an_ensemble(agents):
    agents.execute("UPDATE agents SET quality = 0.6")
    agents.execute("UPDATE settings SET prior_weight = 1000000")  # all three stay as good
    joint = team(agents, 2)[0][4]["joint_success"]
    assert (joint["correlation_is"], joint["correlation"]) == ("assumed", 0.5)
    assert joint["pairs"][0]["requests"] == 0
    serve_together(agents, 300)
    rows = team(agents, 2)
    joint = rows[0][4]["joint_success"]
    # a and b fail on the same requests: whoever of them is in it, c is beside.
    assert "c" in {row[0] for row in rows}
    assert joint["correlation_is"] == "measured"
    assert joint["correlation"] < 0.25
    assert joint["pairs"][0]["requests"] == 300
    three = team(agents, 3)[0][4]["joint_success"]["pairs"]
    by_pair = {tuple(pair["agents"]): pair["correlation"] for pair in three}
    assert by_pair["a", "b"] > 0.9
    assert by_pair["a", "c"] < 0.25
    # An agent that nobody has seen beside others yet is taken as before.
    agents.execute("SELECT ruvector_register_agent('new', cost_per_call := 0.1)")
    joint = team(agents, 4)[0][4]["joint_success"]
    assert joint["correlation_is"] == "partly measured"


def test_an_ensembles_outcomes_are_one_request_to_learn_from(agents):
    serve_together(agents, 40)
    (model,) = agents.execute("SELECT ruvector_train_quality()").fetchone()
    from tests.integration.test_training import finished

    assert finished(agents, model) == "ready", agents.execute(
        "SELECT message FROM models"
    ).fetchall()
    rows, names = agents.execute(
        "SELECT training ->> 'rows', training -> 'agents' FROM models WHERE id = %s", (model,)
    ).fetchone()
    assert (rows, names) == ("40", ["a", "b", "c"])
