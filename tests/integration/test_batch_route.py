"""ruvector_batch_route with total_cost: the batch decided as a whole, asked by SQL."""

from __future__ import annotations

import json
from collections import Counter
from decimal import Decimal

import psycopg
import pytest

REQUESTS = [f"Say hello to guest {n} and " + "tell a story " * n for n in range(10)]


@pytest.fixture
def agents(db: psycopg.Connection) -> psycopg.Connection:
    db.execute(
        """
        SELECT ruvector_register_agent('best', cost_per_1k_tokens := 0.03, quality_score := 0.95),
               ruvector_register_agent('good', cost_per_1k_tokens := 0.004, quality_score := 0.9),
               ruvector_register_agent('cheap', cost_per_1k_tokens := 0.001, quality_score := 0.8)
        """
    )
    return db


def route(conn: psycopg.Connection, requests: list[str] = REQUESTS, **limits: object) -> list[dict]:
    given = "".join(f", {name} := %({name})s" for name in limits)
    cursor = conn.execute(
        "SELECT * FROM ruvector_batch_route(%(requests)s, optimize_for := 'total_cost'"
        + given
        + ")",
        {"requests": requests, **limits},
    )
    names = [column.name for column in cursor.description]
    return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]


def cost(rows: list[dict]) -> Decimal:
    return sum((row["estimated_cost"] for row in rows), Decimal(0))


def quality(rows: list[dict]) -> float:
    return sum(row["expected_quality"] for row in rows) / len(rows)


def capacity(**places: int) -> str:
    return json.dumps(places)


def test_rows_come_in_the_order_of_the_requests_with_repeats(agents):
    rows = route(agents, ["b", "a", "b"])
    assert [(row["request_index"], row["request"]) for row in rows] == [
        (1, "b"),
        (2, "a"),
        (3, "b"),
    ]
    assert {row["agent_name"] for row in rows} == {"cheap"}
    assert all(0 <= row["score"] <= 1 and row["similarity"] is not None for row in rows)


def test_an_array_of_two_dimensions_or_another_first_place_is_the_same_batch(agents):
    for array in ("'[0:2]={b,a,b}'::text[]", "ARRAY[['b'], ['a'], ['b']]"):
        rows = agents.execute(
            "SELECT request_index, request FROM ruvector_batch_route("
            f"{array}, optimize_for := 'total_cost')"
        ).fetchall()
        assert rows == [(1, "b"), (2, "a"), (3, "b")]


def test_a_batch_of_nothing_has_no_rows(agents):
    assert route(agents, []) == []


def test_no_agent_gets_more_than_its_capacity_repeats_included(agents):
    rows = route(agents, ["same"] * 10, agent_capacity=capacity(cheap=5, good=3))
    assert Counter(row["agent_name"] for row in rows) == {"cheap": 5, "good": 3, "best": 2}


def test_an_agent_out_of_the_choice_may_have_a_capacity(agents):
    agents.execute("SELECT ruvector_set_agent_active('best', false)")
    rows = route(agents, agent_capacity=capacity(best=1, cheap=4))
    assert Counter(row["agent_name"] for row in rows) == {"cheap": 4, "good": 6}


def test_the_mean_quality_holds_at_less_than_where_each_request_must_hold_it(agents):
    batch = route(agents, min_batch_quality=0.85)
    each = route(agents, min_quality=0.85)
    assert quality(batch) >= 0.85 - 1e-9
    assert cost(batch) < cost(each)


def test_a_budget_that_just_suffices_is_kept_and_a_billionth_less_is_refused(agents):
    limits = {"min_batch_quality": 0.85, "agent_capacity": capacity(cheap=6)}
    needed = cost(route(agents, **limits))
    assert cost(route(agents, total_budget=float(needed), **limits)) <= needed
    with pytest.raises(psycopg.Error) as raised:
        route(agents, total_budget=float(needed - Decimal("1e-9")), **limits)
    assert "budget" in str(raised.value)
    assert "is too small" in str(raised.value)


def test_it_beats_deciding_row_by_row_under_the_same_capacity(agents):
    """Row by row, the first requests take the cheap places; the batch gives those to the long."""
    whole = route(agents, agent_capacity=capacity(cheap=5, good=10))
    alone = {
        (row[0], row[1]): row[2]
        for row in agents.execute(
            "SELECT request, agent_name, estimated_cost FROM route_decisions"
            " WHERE request = ANY (%s) AND optimize_for = 'cost' AND top_k = 3",
            (REQUESTS,),
        )
    }
    left, greedy = {"cheap": 5, "good": 10, "best": 10}, Decimal(0)
    for request in REQUESTS:
        choice = min((n for n in left if left[n]), key=lambda name: alone[request, name])
        left[choice] -= 1
        greedy += alone[request, choice]
    assert cost(whole) < greedy
    assert [row["agent_name"] for row in whole] == ["good"] * 5 + ["cheap"] * 5


def test_a_request_that_nobody_may_serve_says_why(agents):
    rows = route(agents, ["a"], min_quality=0.99)
    assert rows[0]["agent_name"] is None
    assert rows[0]["estimated_cost"] is None
    assert "quality" in rows[0]["reasoning"]


def test_each_row_is_a_decision_of_its_own_that_an_outcome_can_name(agents):
    agents.execute("UPDATE settings SET decision_log = 'sync'")
    rows = route(
        agents, ["a", "a"], agent_capacity=capacity(cheap=1), tenant="acme", user_tier="free"
    )
    kept = agents.execute(
        "SELECT id, request, agent, optimize_for, tenant, user_tier, estimated_cost FROM decisions"
        " WHERE tenant = 'acme'"
    ).fetchall()
    assert {row["agent_name"] for row in rows} == {"cheap", "good"}
    assert set(kept) == {
        (
            row["decision_id"],
            "a",
            row["agent_name"],
            "total_cost",
            "acme",
            "free",
            row["estimated_cost"],
        )
        for row in rows
    }
    agents.execute("UPDATE settings SET decision_log = 'off'")
    assert {row["decision_id"] for row in route(agents, ["a", "b"])} == {None}


@pytest.mark.parametrize(
    "objective", ["cost", "latency", "quality", "balanced", "quality_per_dollar", "total_cost"]
)
def test_a_text_given_twice_is_two_decisions_by_every_objective(agents, objective):
    agents.execute("UPDATE settings SET decision_log = 'sync'")
    agents.execute("SELECT ruvector_set_budget('all', 100)")
    rows = agents.execute(
        "SELECT request, agent_name, estimated_cost, decision_id"
        " FROM ruvector_batch_route(ARRAY['a', 'b', 'a', 'a'], %s)",
        (objective,),
    ).fetchall()
    ids = [row[3] for row in rows]
    assert [row[0] for row in rows] == ["a", "b", "a", "a"]
    assert len(set(ids)) == 4
    kept = agents.execute(
        "SELECT id, request, agent, estimated_cost FROM decisions WHERE id = ANY (%s)", (ids,)
    ).fetchall()
    assert set(kept) == {(id_, text, agent, price) for text, agent, price, id_ in rows}
    held = dict(agents.execute("SELECT decision_id, amount FROM budget_reservations").fetchall())
    assert held == {row[3]: row[2] for row in rows}
    for id_ in ids:
        agents.execute("SELECT ruvector_record_usage(%s, cost := 0.001)", (id_,))
    assert agents.execute("SELECT spent, reserved FROM budget_status").fetchone() == (
        Decimal("0.004"),
        0,
    )


def test_requests_that_repeat_never_overspend_a_budget(agents):
    agents.execute("SELECT ruvector_set_budget('best money', 0.05, 'agent', 'best')")
    rows = agents.execute(
        "SELECT agent_name, estimated_cost FROM ruvector_batch_route("
        "array_fill('a'::text, ARRAY[10]), 'quality')"
    ).fetchall()
    spent = sum(price for name, price in rows if name == "best")
    assert agents.execute("SELECT reserved FROM budget_status").fetchone() == (spent,)
    assert 0 < spent <= Decimal("0.05")
    assert {name for name, _ in rows} == {"best", "good"}


def test_each_by_itself_is_what_the_same_question_alone_is_answered(agents):
    texts = [*REQUESTS, REQUESTS[0]]
    figures = (
        "request, agent_name, confidence, estimated_cost, estimated_latency_ms,"
        " expected_quality, similarity, score, reasoning"
    )
    for objective in ("cost", "latency", "quality", "balanced", "quality_per_dollar"):
        batch = agents.execute(
            f"SELECT {figures} FROM ruvector_batch_route(%s, %s, min_quality := 0.85)",
            (texts, objective),
        ).fetchall()
        alone = [
            agents.execute(
                f"SELECT %s, {figures.partition(', ')[2]} FROM ruvector_route("
                "%s, %s, min_quality := 0.85)",
                (text, text, objective),
            ).fetchone()
            for text in texts
        ]
        assert batch == alone


def test_what_the_budget_of_an_agent_refuses_goes_where_the_batch_is_next_cheapest(agents):
    agents.execute("SELECT ruvector_set_budget('cheap money', 0.0008, 'agent', 'cheap')")
    rows = route(agents, ["a"] * 5)
    chosen = [row["agent_name"] for row in rows]
    held = agents.execute("SELECT reserved, remaining FROM budget_status").fetchone()
    assert 0 < chosen.count("cheap") < 5
    assert set(chosen) == {"cheap", "good"}
    assert (
        held[0] == cost([row for row in rows if row["agent_name"] == "cheap"]) <= Decimal("0.0008")
    )


def test_a_batch_that_no_budget_can_pay_is_refused_and_reserves_nothing(agents):
    agents.execute("SELECT ruvector_set_budget('everything', 0.0008)")
    with pytest.raises(psycopg.Error) as raised:
        route(agents, ["a"] * 5)
    assert "does not fit into what is left of budget 'everything'" in str(raised.value)
    assert agents.execute("SELECT reserved FROM budget_status").fetchone() == (0,)


def test_the_table_shows_the_figures_of_the_batch(agents):
    (row,) = agents.execute(
        "SELECT total_cost, least_cost, mean_quality, quality_price, capacity_prices, unserved,"
        " jsonb_array_length(decisions) FROM batch_decisions"
        " WHERE requests = %s AND min_batch_quality = 0.85 AND agent_capacity = '{cheap=6}'",
        (REQUESTS,),
    ).fetchall()
    assert row[0] >= row[1] > 0
    assert row[2] >= 0.85
    assert row[3] > 0
    assert set(row[4]) <= {"cheap"}
    assert row[5:] == (0, 10)


def test_a_join_supplies_batches_of_its_rows(agents):
    rows = agents.execute(
        "SELECT t.id, jsonb_array_length(b.decisions) FROM"
        " (VALUES (1, ARRAY['a', 'b']), (2, ARRAY['c'])) AS t (id, texts)"
        " JOIN batch_decisions AS b ON b.requests = t.texts ORDER BY 1"
    ).fetchall()
    assert rows == [(1, 2), (2, 1)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("'total_cost', min_batch_quality := 0.99", "quality floor of 0.99 is out of reach"),
        ('\'total_cost\', agent_capacity := \'{"best": 0, "good": 0, "cheap": 1}\'', "capacity"),
        ("'total_cost', agent_capacity := '{\"bset\": 1}'", "agent 'bset' does not exist"),
        ("'total_cost', agent_capacity := '{\"best\": 1.5}'", "'best' is 1.5"),
        ("'total_cost', agent_capacity := '[1]'", "agent_capacity is [1]"),
        ("'total_cost', min_batch_quality := 2", "min_batch_quality is 2"),
        ("'total_cost', total_budget := -1", "total_budget is -1"),
        ("'cost', total_budget := 1", "total_budget needs optimize_for = total_cost"),
    ],
)
def test_limits_that_can_not_hold_are_refused(agents, arguments, message):
    with pytest.raises(psycopg.Error) as raised:
        agents.execute(f"SELECT * FROM ruvector_batch_route(ARRAY['a', 'b'], {arguments})")
    assert message in str(raised.value)
