"""Teams and budgets: agent_plans and budget_allocations."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tinydancer.errors import (
    BudgetExceeded,
    InvalidInput,
    MissingInput,
    NotReady,
    NumberOutOfRange,
)

if TYPE_CHECKING:
    from .conftest import Engine

BUILD = "Analyze the requirements, then test the login page"


def test_a_pipeline_has_a_member_for_each_stage_and_its_costs_add_up(engine: Engine) -> None:
    rows = engine.ask("agent_plans", request=BUILD, num_agents="2", strategy="pipeline")
    assert [row["place"] for row in rows] == ["1", "2"]
    assert [row["agent_name"] for row in rows] == ["gpt-4", "code-specialist"]
    assert [row["capability"] for row in rows] == ["analysis", "testing"]
    assert {row["request"] for row in rows} == {BUILD}
    cost = sum(float(row["estimated_cost"] or "") for row in rows)
    latency = sum(float(row["estimated_latency_ms"] or "") for row in rows)
    for row in rows:
        assert float(row["team_cost"] or "") == pytest.approx(cost)
        assert float(row["team_latency_ms"] or "") == latency
    assert "code-specialist, number 2 of 2, takes" in (rows[1]["reasoning"] or "")


def test_a_member_beyond_the_pieces_of_work_goes_over_the_whole(engine: Engine) -> None:
    *_, last = engine.ask("agent_plans", request=BUILD, num_agents="3", strategy="pipeline")
    assert last["part"] == BUILD
    assert "number 3 of 3, goes over the whole request, which calls for" in (
        last["reasoning"] or ""
    )


def test_a_parallel_team_takes_as_long_as_its_slowest_member(engine: Engine) -> None:
    rows = engine.ask("agent_plans", request=BUILD, num_agents="2", strategy="parallel")
    slowest = max(float(row["estimated_latency_ms"] or "") for row in rows)
    assert {float(row["team_latency_ms"] or "") for row in rows} == {slowest}


def test_members_of_a_parallel_team_build_on_nobodys_work(engine: Engine) -> None:
    # "then test the login page" builds on the analysis: one member has both, the other the whole.
    rows = engine.ask("agent_plans", request=BUILD, num_agents="2", strategy="parallel")
    found = [found["found_by"] for found in json.loads(rows[0]["explanation"] or "")["members"]]
    assert found[0] == "joined with what builds on it"
    assert found[1].startswith("the whole request calls for")


def test_an_ensemble_shares_the_task_and_says_how_sure_it_is_together(engine: Engine) -> None:
    rows = engine.ask("agent_plans", request=BUILD, num_agents="3", strategy="ensemble")
    assert {row["agent_name"] for row in rows} == {"gpt-4", "claude-3-haiku", "code-specialist"}
    best = max(float(row["expected_quality"] or "") for row in rows)
    assert float(rows[0]["team_quality"] or "") > best
    joint = json.loads(rows[0]["explanation"] or "")["joint_success"]
    assert joint["any"] >= joint["most"] >= joint["all"]


def test_without_a_number_a_team_has_three_members_or_all_there_are(engine: Engine) -> None:
    assert len(engine.ask("agent_plans", request=BUILD)) == 3
    engine.agents = engine.agents[:2]
    assert len(engine.ask("agent_plans", request=BUILD)) == 2


def test_limits_hold_for_the_whole_team_and_the_row_says_which_is_in_the_way(
    engine: Engine,
) -> None:
    (row,) = engine.ask("agent_plans", request=BUILD, num_agents="2", max_cost="0.0000001")
    assert (row["place"], row["agent_name"], row["team_cost"]) == ("1", None, None)
    assert (row["reasoning"] or "").startswith("No team suits: max_cost")
    assert json.loads(row["explanation"] or "")["members"] == []


def test_an_excluded_agent_is_in_no_team(engine: Engine) -> None:
    rows = engine.ask("agent_plans", request=BUILD, excluded_agents=["gpt-4"])
    assert {row["agent_name"] for row in rows} == {"claude-3-haiku", "code-specialist"}


@pytest.mark.parametrize(
    ("name", "value", "error", "message"),
    [
        ("strategy", "pipelin", InvalidInput, "strategy = 'pipelin' is not a strategy"),
        ("num_agents", "0", NumberOutOfRange, "num_agents = 0 is out of range"),
        ("num_agents", "4", InvalidInput, "num_agents must be from 1 to 3, not 4"),
        ("min_quality", "2", NumberOutOfRange, "min_quality = 2"),
    ],
)
def test_a_team_that_can_not_be_is_refused(
    engine: Engine, name: str, value: str, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        engine.ask("agent_plans", request=BUILD, **{name: value})


def test_without_agents_there_is_nobody_to_make_a_team_of(engine: Engine) -> None:
    engine.agents = ()
    with pytest.raises(NotReady, match="there is no agent to make a team of"):
        engine.ask("agent_plans", request=BUILD)


def test_a_budget_is_allocated_to_agents_within_the_thresholds(engine: Engine) -> None:
    rows = engine.ask(
        "budget_allocations",
        budget="100",
        quality_threshold="0.85",
        latency_threshold_ms="2000",
        expected_requests="1000",
    )
    shares = {row["agent_name"]: row for row in rows}
    assert set(shares) == {"claude-3-haiku", "code-specialist", "gpt-4"}
    chosen = shares["code-specialist"]
    assert chosen["share"] == "1.0"
    assert chosen["allocation"] == chosen["spent"] == "1"
    assert chosen["expected_requests_served"] == chosen["demand"] == "1000.0"
    assert chosen["expected_quality"] == chosen["plan_quality"] == "0.9"
    assert chosen["demand_source"] == "given"
    # The others are beyond a threshold: no price would change that.
    assert shares["gpt-4"]["allocation"] == "0"
    assert shares["gpt-4"]["expected_quality"] is None
    assert shares["gpt-4"]["shortfall"] is None


def test_a_budget_that_binds_has_a_price_and_is_spent(engine: Engine) -> None:
    # At gpt-4's 0.01536 a request 10 would buy 651 of them: the rest go to cheaper agents.
    rows = engine.ask("budget_allocations", budget="10", expected_requests="1000")
    spent = sum(float(row["allocation"] or "") for row in rows)
    assert spent == pytest.approx(10, abs=1e-6)
    assert float(rows[0]["budget_shadow_price"] or "") > 0
    assert sum(float(row["share"] or "") for row in rows) == pytest.approx(1, abs=1e-5)


def test_without_a_forecast_the_demand_is_assumed_and_says_so(engine: Engine) -> None:
    rows = engine.ask("budget_allocations", budget="100")
    assert {row["demand_source"] for row in rows} == {"assumed"}
    assert float(rows[0]["demand"] or "") > 0


def test_several_budgets_are_planned_each(engine: Engine) -> None:
    rows = engine.ask(
        "budget_allocations",
        budget=["10", "20"],
        expected_requests="100",
        columns=["budget", "agent_name"],
    )
    assert [row["budget"] for row in rows] == ["10"] * 3 + ["20"] * 3


def test_a_budget_that_can_not_serve_the_demand_says_what_would(engine: Engine) -> None:
    with pytest.raises(BudgetExceeded, match="budget binds"):
        engine.ask("budget_allocations", budget="0.001", expected_requests="1000000")


def test_a_threshold_that_nobody_reaches_binds(engine: Engine) -> None:
    with pytest.raises(NotReady, match="quality_threshold binds"):
        engine.ask("budget_allocations", budget="10", quality_threshold="0.99")


@pytest.mark.parametrize("budget", ["0", "-1", "NaN", "Infinity"])
def test_a_budget_must_be_money(engine: Engine, budget: str) -> None:
    with pytest.raises(NumberOutOfRange, match=f"budget = {budget} is not an amount of money"):
        engine.ask("budget_allocations", budget=budget)


def test_a_budget_is_needed(engine: Engine) -> None:
    with pytest.raises(MissingInput, match="budget_allocations needs a value for budget"):
        engine.ask("budget_allocations")
