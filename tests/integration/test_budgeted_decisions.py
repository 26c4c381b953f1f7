"""Decisions within budgets: reserved when made, settled by outcomes, never a cent too much."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from threading import Barrier
from time import monotonic, sleep

import psycopg
import pytest
from tests.conftest import Installation, sqlstate


@pytest.fixture
def agents(good_and_plain: psycopg.Connection) -> psycopg.Connection:
    return good_and_plain


ROUTE = (
    "SELECT agent_name, decision_id, reasoning, explanation FROM ruvector_route(%s, 'quality'{})"
)


def status(db: psycopg.Connection, name: str) -> tuple[Decimal, Decimal]:
    found = db.execute("SELECT spent, reserved FROM budget_status WHERE name = %s", (name,))
    spent, reserved = found.fetchone()
    return spent, reserved


def test_a_decision_reserves_what_it_is_expected_to_cost_and_its_outcome_settles_it(agents):
    agents.execute("SELECT ruvector_set_budget('all', 1)")
    agent, decision, *_ = agents.execute(ROUTE.format(""), ("x",)).fetchone()
    assert agent == "good"
    assert status(agents, "all") == (0, Decimal("0.01"))
    agents.execute("SELECT ruvector_record_usage(%s, cost := 0.008)", (decision,))
    assert status(agents, "all") == (Decimal("0.008"), 0)


def test_where_a_budget_refuses_the_next_best_agent_is_chosen_and_it_says_why(agents):
    agents.execute("SELECT ruvector_set_budget('good money', 0.015, 'agent', 'good')")
    chosen = [agents.execute(ROUTE.format(""), ("x",)).fetchone() for _ in range(2)]
    assert [row[0] for row in chosen] == ["good", "plain"]
    (refusal,) = chosen[1][3]["refusals"]
    assert refusal == {
        "agent": "good",
        "constraint": "budget",
        "limit": "good money",
        "actual": 0.01,
    }


@pytest.mark.parametrize("method", ["epsilon", "thompson"])
def test_dice_are_not_thrown_for_who_has_nothing_left(agents, method):
    agents.execute(
        "UPDATE settings SET exploration = %s, exploration_rate = 0.5, prior_weight = 1,"
        " decision_log = 'sync'",
        (method,),
    )
    agents.execute("SELECT ruvector_set_budget('good money', 0.005, 'agent', 'good')")
    requests = [f"request {n}" for n in range(50)]
    agents.execute("SELECT * FROM ruvector_batch_route(%s, 'quality')", (requests,))
    assert agents.execute(
        "SELECT DISTINCT agent, propensity, jsonb_array_length(candidates) FROM decisions"
        " WHERE request = ANY (%s)",
        (requests,),
    ).fetchall() == [("plain", 1, 1)]


def test_where_all_is_spent_no_agent_suits_and_nothing_is_reserved(agents):
    agents.execute("SELECT ruvector_set_budget('all', 0.0005)")
    agent, _, reasoning, _ = agents.execute(ROUTE.format(""), ("x",)).fetchone()
    assert agent is None
    assert "more than budget 'all' has left" in reasoning
    assert status(agents, "all") == (0, 0)


def test_a_batch_spends_a_budget_request_by_request(agents):
    agents.execute("SELECT ruvector_set_budget('good money', 0.025, 'agent', 'good')")
    rows = agents.execute(
        "SELECT agent_name FROM ruvector_batch_route(ARRAY['a', 'b', 'c', 'd'], 'quality')"
    ).fetchall()
    assert [name for (name,) in rows] == ["good", "good", "plain", "plain"]
    assert status(agents, "good money") == (0, Decimal("0.02"))


def test_a_batch_that_budgets_have_room_for_is_reserved_whole_each_request_in_each(agents):
    agents.execute(
        "SELECT ruvector_set_budget('all', 0.5), ruvector_set_budget('good', 0.4, 'agent', 'good'),"
        " ruvector_set_budget('plain', 0, 'agent', 'plain'),"
        " ruvector_set_budget('acme', 0.4, 'tenant', 'acme')"
    )
    batch = "SELECT decision_id FROM ruvector_batch_route(%s, 'quality', tenant := 'acme')"
    texts = [f"request {n}" for n in range(40)]
    ids = {decision for (decision,) in agents.execute(batch, (texts,))}
    assert status(agents, "all") == status(agents, "good") == (0, Decimal("0.4"))
    assert status(agents, "acme") == (0, Decimal("0.4"))
    assert status(agents, "plain") == (0, 0)
    kept = agents.execute(
        "SELECT decision_id, array_agg(budget ORDER BY budget), sum(amount)"
        " FROM budget_reservations GROUP BY 1"
    ).fetchall()
    assert {decision for decision, *_ in kept} == ids
    assert {(*budgets, amount) for _, budgets, amount in kept} == {
        ("acme", "all", "good", Decimal("0.03"))
    }
    # The next one is more than there is: nobody gets what is not there.
    (nobody,) = agents.execute(
        "SELECT count(agent_name) FROM ruvector_batch_route(%s, 'quality', tenant := 'acme')",
        (texts[:2],),
    ).fetchone()
    assert nobody == 0
    assert status(agents, "all") == (0, Decimal("0.4"))


@pytest.mark.parametrize(
    ("scope", "subject", "argument", "agent"),
    [
        ("tenant", "acme", ", tenant := 'acme'", None),
        ("tenant", "acme", ", tenant := 'other'", "good"),
        ("user_tier", "free", ", user_tier := 'free'", None),
        ("user_tier", "free", "", "good"),
    ],
)
def test_a_budget_holds_for_whom_it_is_made(agents, scope, subject, argument, agent):
    agents.execute("SELECT ruvector_set_budget('b', 0, %s, %s)", (scope, subject))
    assert agents.execute(ROUTE.format(argument), ("x",)).fetchone()[0] == agent


def test_a_budget_of_a_route_holds_for_decisions_that_it_led_to(agents):
    agents.execute(
        "SELECT ruvector_create_route('poems', 'Write a poem about spring', 'good'),"
        " ruvector_set_budget('poems', 0, 'route', 'poems')"
    )
    chosen = [
        agents.execute(ROUTE.format(""), (request,)).fetchone()[0]
        for request in ("Write a poem about spring", "17 + 4")
    ]
    assert chosen == ["plain", "good"]


def test_a_question_without_the_id_looks_at_the_budget_and_reserves_nothing(agents):
    agents.execute("SELECT ruvector_set_budget('all', 0.005)")
    query = (
        "SELECT agent_name FROM route_decisions WHERE request = 'x' AND optimize_for = 'quality'"
    )
    assert agents.execute(query).fetchall() == [("plain",)]
    assert status(agents, "all") == (0, 0)


@pytest.mark.parametrize("objective", ["cost", "quality", "balanced"])
@pytest.mark.parametrize(
    "columns",
    [
        "agent_name",
        "agent_name, estimated_cost",
        "agent_name, similarity",
        "agent_name, explanation",
        "agent_name, decision_id",
    ],
)
def test_what_the_budget_of_a_route_refuses_is_refused_whatever_is_asked(
    agents, columns, objective
):
    agents.execute("SELECT ruvector_set_agent_active('plain', false)")
    agents.execute(
        "SELECT ruvector_create_route('poems', 'Write a poem about spring', 'good'),"
        " ruvector_set_budget('poems', 0.005, 'route', 'poems')"
    )
    found = agents.execute(
        f"SELECT {columns} FROM route_decisions WHERE request = ANY (%s) AND optimize_for = %s",
        (["Write a poem about spring", "17 + 4"], objective),
    ).fetchall()
    assert [row[0] for row in found] == [None, "good"]


def test_a_budget_of_a_route_for_one_tenant_holds_for_that_tenant(agents):
    agents.execute(
        "SELECT ruvector_create_route('poems', 'Write a poem about spring', 'good'),"
        " ruvector_set_budget('poems', 0, 'route', 'poems', tenant := 'acme')"
    )
    chosen = agents.execute(
        "SELECT tenant, agent_name FROM route_decisions WHERE optimize_for = 'quality'"
        " AND request = 'Write a poem about spring' AND tenant IN ('acme', 'other')"
    ).fetchall()
    assert dict(chosen) == {"acme": "plain", "other": "good"}


def test_an_outcome_dearer_than_its_estimate_is_charged_in_full_and_then_nothing_more_is_bought(
    agents,
):
    # Given a decision that reserves a hundredth, and costs three
    agents.execute(
        "SELECT ruvector_register_agent('free', 'tool', ARRAY['work'], quality_score := 0.1),"
        " ruvector_set_budget('all', 0.025)"
    )
    _, decision, *_ = agents.execute(ROUTE.format(""), ("x",)).fetchone()
    agents.execute("SELECT ruvector_record_usage(%s, cost := 0.03)", (decision,))
    # Then the ledger is true, and says by how much the limit is passed
    row = agents.execute("SELECT spent, reserved, remaining, overrun, runs_low FROM budget_status")
    assert row.fetchone() == (Decimal("0.03"), 0, 0, Decimal("0.005"), True)
    # And who costs anything is refused, by either kind of question
    asked = (
        "SELECT agent_name FROM route_decisions WHERE request = 'x' AND optimize_for = 'quality'"
    )
    assert agents.execute(asked).fetchone() == ("free",)
    assert agents.execute(ROUTE.format(""), ("x",)).fetchone()[0] == "free"
    assert status(agents, "all") == (Decimal("0.03"), 0)


def test_a_budget_that_is_overrun_can_be_raised_by_less_and_changed_but_not_lowered(agents):
    agents.execute("SELECT ruvector_set_budget('all', 1)")
    agents.execute("SELECT ruvector_record_usage(agent_name := 'good', cost := 3)")
    agents.execute("SELECT ruvector_set_budget('all', 1, soft_threshold := 0.5)")
    agents.execute("SELECT ruvector_set_budget('all', 2)")
    assert agents.execute("SELECT overrun FROM budget_status").fetchone() == (1,)
    with pytest.raises(psycopg.Error, match="below the 3 that are spent"):
        agents.execute("SELECT ruvector_set_budget('all', 1.5)")


def test_a_budget_holds_where_the_log_is_off(agents):
    agents.execute("UPDATE settings SET decision_log = 'off'")
    agents.execute("SELECT ruvector_set_budget('all', 1)")
    _, decision, *_ = agents.execute(ROUTE.format(""), ("x",)).fetchone()
    assert status(agents, "all") == (0, Decimal("0.01"))
    agents.execute("SELECT ruvector_record_usage(%s, cost := 0.01)", (decision,))
    assert status(agents, "all") == (Decimal("0.01"), 0)


def test_sessions_of_two_engines_never_overspend_by_a_cent(
    agents: psycopg.Connection, installation: Installation, second_engine: str
) -> None:
    limit = Decimal("1.005")
    agents.execute("SELECT ruvector_set_budget('all', %s)", (limit,))
    agents.execute("SELECT ruvector_set_agent_active('plain', false)")

    def session(number: int) -> int:
        schema = second_engine if number % 2 else "tinydancer"
        served = 0
        with installation.connect() as connection:
            for turn in range(6):
                agent, decision = connection.execute(
                    f"SELECT agent_name, decision_id FROM {schema}.route_decisions"
                    " WHERE request = %s",
                    (f"request {number} {turn}",),
                ).fetchone()
                spent, reserved = status(connection, "all")
                assert spent + reserved <= limit
                if agent is None:
                    continue
                served += 1
                connection.execute(
                    "SELECT ruvector_record_usage(%s, cost := 0.01, latency_ms := 5)", (decision,)
                )
        return served

    with ThreadPoolExecutor(32) as pool:
        served = sum(pool.map(session, range(32)))
    assert served == 100
    assert status(agents, "all") == (Decimal(1), 0)


def test_of_sessions_that_race_for_the_last_of_a_budget_one_gets_it(
    agents: psycopg.Connection, installation: Installation, second_engine: str
) -> None:
    agents.execute("SELECT ruvector_set_agent_active('plain', false)")
    tenants = [f"tenant {number}" for number in range(8)]
    for tenant in tenants:
        agents.execute("SELECT ruvector_set_budget(%s, 0.025, 'tenant', %s)", (tenant, tenant))
    # One is served before: making the row of a period would have the others wait for each other.
    agents.execute(
        "SELECT decision_id FROM unnest(%s::text[]) AS name, ruvector_route('x', tenant := name)",
        (tenants,),
    )
    start = Barrier(32)

    def session(number: int) -> list[str | None]:
        schema = second_engine if number % 2 else "tinydancer"
        ask = (
            f"SELECT agent_name, decision_id FROM {schema}.route_decisions"
            " WHERE request = %s AND tenant = %s"
        )
        found = []
        with installation.connect() as connection:
            for tenant in tenants:
                start.wait(60)
                found.append(connection.execute(ask, ("x", tenant)).fetchone()[0])
        return found

    with ThreadPoolExecutor(32) as pool:
        served = list(zip(*pool.map(session, range(32)), strict=True))
    assert [names.count("good") for names in served] == [1] * len(tenants)
    left = agents.execute("SELECT DISTINCT reserved, remaining, overrun FROM budget_status")
    assert left.fetchall() == [(Decimal("0.02"), Decimal("0.005"), 0)]


def test_a_restart_resets_nothing(agents: psycopg.Connection, installation: Installation) -> None:
    agents.execute("SELECT ruvector_set_budget('all', 0.025)")
    before = [agents.execute(ROUTE.format(""), ("x",)).fetchone()[0] for _ in range(2)]
    installation.engine.stop()
    installation.start_engine()
    after = agents.execute(ROUTE.format(""), ("x",)).fetchone()[0]
    assert [*before, after] == ["good", "good", "plain"]
    assert status(agents, "all") == (0, Decimal("0.021"))


def test_a_decision_beside_an_uncommitted_outcome_is_an_error_within_seconds(agents):
    agents.execute("SELECT ruvector_set_budget('all', 1)")
    _, decision, *_ = agents.execute(ROUTE.format(""), ("x",)).fetchone()
    began = monotonic()
    with pytest.raises(psycopg.Error, match="holds budgets") as raised, agents.transaction():
        agents.execute("SELECT ruvector_record_usage(%s, cost := 0.008)", (decision,))
        agents.execute(ROUTE.format(""), ("y",))
    assert sqlstate(raised.value) == "55P03"
    assert "Commit" in raised.value.diag.message_hint
    assert monotonic() - began < 20
    assert status(agents, "all") == (0, Decimal("0.01"))
    assert agents.execute(ROUTE.format(""), ("y",)).fetchone()[0] == "good"


def test_whom_a_transaction_left_open_holds_up_holds_up_nobody_else(
    agents: psycopg.Connection, installation: Installation
):
    agents.execute("SELECT ruvector_set_budget('acme', 1, 'tenant', 'acme')")

    def ask(_: int) -> str | None:
        with installation.connect() as connection, pytest.raises(psycopg.Error) as raised:
            connection.execute(ROUTE.format(", tenant := 'acme'"), ("x",))
        return sqlstate(raised.value)

    with installation.connect() as idle, ThreadPoolExecutor(8) as sessions, idle.transaction():
        idle.execute("SELECT ruvector_record_usage(agent_name := 'good', tenant := 'acme')")
        waiting = [sessions.submit(ask, n) for n in range(8)]
        sleep(0.5)
        agents.execute("UPDATE agents SET quality = 0.1 WHERE name = 'good'")
        asked = agents.execute(
            "SELECT agent_name FROM route_decisions"
            " WHERE request = 'x' AND optimize_for = 'quality' AND max_cost = 0.005"
        )
        assert asked.fetchone() == ("plain",)
        assert not any(future.done() for future in waiting)
        assert {future.result() for future in waiting} == {"55P03"}
