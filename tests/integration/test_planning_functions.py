"""Teams and budgets, asked by the functions."""

from __future__ import annotations

import psycopg
import pytest
from tests.conftest import sqlstate


@pytest.fixture
def agents(plan_agents: psycopg.Connection) -> psycopg.Connection:
    return plan_agents


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


# Ten days of outcomes: code in plenty, which gpt-4 is good at and haiku is not; some chat.
PAST = """
SELECT ruvector_record_usage_batch(jsonb_agg(jsonb_build_object(
    'agent_name', agent, 'category', category, 'cost', 0.001, 'input_tokens', tokens,
    'output_tokens', 256, 'success', n % 10 < served,
    'occurred_at', now() - n * interval '1 hour')))
FROM (VALUES ('gpt-4', 'code', 1000, 10), ('haiku', 'code', 1000, 1), ('haiku', 'chat', 20, 9))
    AS past (agent, category, tokens, served), generate_series(1, 240) AS n
"""


def test_a_plan_is_by_category_where_the_ledger_has_categories(agents):
    agents.execute(PAST)
    (plan,) = agents.execute("SELECT ruvector_optimize_budget(1000, 0.5)").fetchone()
    assert plan["demand_source"] == "history"
    demand = plan["expected_by_category"]
    assert demand == {
        "chat": pytest.approx(720, rel=0.02),
        "code": pytest.approx(1440, rel=0.02),
    }
    # haiku was right in a tenth of what was code: it is below the threshold there, not at chat.
    shares = plan["agents"]
    assert "code" not in shares["haiku"]["by_category"]
    served = [share["by_category"] for share in shares.values()]
    assert sum(part.get("code", 0) for part in served) == pytest.approx(demand["code"])
    # One reads 1,000 tokens, the other 20: what a category costs is by its own requests.
    (cheap,) = agents.execute(
        "SELECT ruvector_optimize_budget(1000, 0.5, expected_by_category := '{\"chat\": 100}',"
        ' agent_capacity := \'{"runner": 0, "haiku": 0}\')'
    ).fetchone()
    assert cheap["demand_source"] == "given"
    assert cheap["spent"] == pytest.approx(100 * 0.03 * 0.276)


def test_a_total_is_mixed_as_requests_were(agents):
    agents.execute(PAST)
    (plan,) = agents.execute(
        "SELECT ruvector_optimize_budget(1000, 0.5, expected_requests := 300)"
    ).fetchone()
    assert plan["expected_by_category"] == {"chat": pytest.approx(100), "code": pytest.approx(200)}
    assert plan["demand_source"] == "given"


def test_capacities_hold_and_have_a_price(agents):
    (plan,) = agents.execute(
        "SELECT ruvector_optimize_budget(1000, 0.5, expected_by_category := %s,"
        " agent_capacity := %s)",
        ('{"code": 100, "talk": 50}', '{"gpt-4": 40, "runner": 30}'),
    ).fetchone()
    shares = plan["agents"]
    assert {name: share["expected_requests"] for name, share in shares.items()} == {
        "gpt-4": 40,
        "haiku": 80,
        "runner": 30,
    }
    # One more place at gpt-4 would have it serve what haiku serves now.
    assert shares["gpt-4"]["shadow_price"] == pytest.approx(0.15, abs=1e-4)
    assert shares["haiku"]["shadow_price"] == 0


@pytest.mark.parametrize(
    ("arguments", "state", "said"),
    [
        (
            '1000, 0.5, expected_requests := 100, agent_capacity := \'{"gpt-4": 10, '
            '"haiku": 10, "runner": 10}\'',
            "55000",
            "capacity binds: of 100 requests the agents within the thresholds can serve 30; "
            "gpt-4, haiku, runner would have to take more",
        ),
        ("0.001, 0.5, expected_requests := 1000", "53400", "budget binds"),
        (
            "10, 0.97, expected_by_category := '{\"code\": 1}'",
            "55000",
            "no agent reaches 0.97 for 'code'",
        ),
        ("10, 0.5, 1, expected_requests := 1", "55000", "latency_threshold_ms binds"),
        (
            "10, expected_requests := 1, expected_by_category := '{\"code\": 1}'",
            "22023",
            "both given",
        ),
        ("10, agent_capacity := '{\"nobody\": 1}'", "42704", "'nobody', which is no active agent"),
        ("10, agent_capacity := '{\"haiku\": 1.5}'", "22023", "no whole number"),
        ("10, agent_capacity := '[1]'", "22023", "no object with numbers"),
        ("10, expected_by_category := '{\"code\": -1}'", "22023", "'code' is -1"),
        ('10, expected_by_category := \'{"code": "much"}\'', "22023", "no number of requests"),
    ],
)
def test_what_binds_and_what_can_not_be_is_named(agents, arguments, state, said):
    with pytest.raises(psycopg.Error) as raised:
        agents.execute(f"SELECT ruvector_optimize_budget({arguments})")
    assert said in raised.value.diag.message_primary
    assert sqlstate(raised.value) == state
    assert raised.value.diag.message_hint


def test_the_foreign_table_says_the_same_as_the_function(agents):
    agents.execute(PAST)
    (plan,) = agents.execute("SELECT ruvector_optimize_budget(1000, 0.5)").fetchone()
    rows = agents.execute(
        "SELECT agent_name, requests_by_category, demand_source FROM budget_allocations"
        " WHERE budget = 1000 AND quality_threshold = 0.5 AND latency_threshold_ms = 5000"
    ).fetchall()
    # Time goes on between the two, so that the month has a little less of the ten days.
    for agent, served, source in rows:
        expected = plan["agents"][agent]["by_category"]
        assert served == {name: pytest.approx(n, rel=1e-3) for name, n in expected.items()}
        assert source == "history"
