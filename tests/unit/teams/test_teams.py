"""Teams: who works with whom, and what holds for all of them together."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from tinydancer.agents.model import Agent, Performance, Prices
from tinydancer.agents.registry import AgentTable
from tinydancer.embeddings.static import StaticEmbedder
from tinydancer.errors import InvalidInput
from tinydancer.policies import POLICIES
from tinydancer.teams import formation
from tinydancer.teams.decomposition import Part
from tinydancer.teams.formation import Bids, Limits, Team, form_ensemble, form_team
from tinydancer.teams.joint_success import unknown_correlations
from tinydancer.teams.planning import plan_team

PARTS = tuple(Part(f"part {number}", "given", number > 0) for number in range(4))


def bids(cost: list[list[float]], latency: list[list[float]], success: list[list[float]]) -> Bids:
    quality = np.array(success)
    return Bids(
        cost=np.array(cost),
        latency_ms=np.array(latency),
        success=quality,
        score=quality,
        allowed=np.ones(quality.shape, np.bool_),
    )


def agent(name: str, capabilities: tuple[str, ...], price: float, ms: float, q: float) -> Agent:
    return Agent(name, "llm", capabilities, Prices(per_call=price), Performance(ms, q))


@pytest.fixture(scope="module")
def embedder() -> StaticEmbedder:
    return StaticEmbedder.builtin()


@pytest.fixture(scope="module")
def table(embedder: StaticEmbedder) -> AgentTable:
    agents = [
        agent("gpt-4", ("reasoning", "code", "analysis", "creative"), 0.03, 2500, 0.95),
        agent("haiku", ("fast-response", "simple-tasks", "classification"), 0.0003, 400, 0.8),
        agent("runner", ("code-execution", "debugging", "testing"), 0.001, 100, 0.9),
        agent("linguist", ("translation",), 0.002, 300, 0.85),
    ]
    return AgentTable.build(agents, embedder.embed([one.text for one in agents]))


def plan(
    table: AgentTable,
    embedder: StaticEmbedder,
    request: str,
    strategy: str,
    count: int,
    limits: Limits | None = None,
) -> Team:
    return plan_team(
        request,
        strategy,
        count,
        table,
        embedder,
        POLICIES["balanced"],
        np.full(len(table), 500.0),
        limits or Limits(),
    )


def test_a_pipeline_adds_up_cost_and_latency(table: AgentTable, embedder: StaticEmbedder) -> None:
    team = plan(table, embedder, "Build and deploy a web application", "pipeline", 3)
    assert [member.part.text for member in team.members][:2] == [
        "Build a web application",
        "deploy a web application",
    ]
    assert team.cost == pytest.approx(sum(member.cost for member in team.members))
    assert team.latency_ms == pytest.approx(sum(member.latency_ms for member in team.members))
    assert team.quality == pytest.approx(np.prod([member.success for member in team.members]))
    assert len({member.agent for member in team.members}) == 3


def test_each_stage_goes_to_an_agent_that_lists_its_capability(
    table: AgentTable, embedder: StaticEmbedder
) -> None:
    team = plan(table, embedder, "Translation of the text, then debugging", "pipeline", 2)
    names = [table.names[member.agent] for member in team.members]
    assert names == ["linguist", "runner"]


def test_parallel_takes_as_long_as_its_slowest_member(
    table: AgentTable, embedder: StaticEmbedder
) -> None:
    request = "Translate the letter; classify the tickets"
    team = plan(table, embedder, request, "parallel", 2)
    assert team.latency_ms == max(member.latency_ms for member in team.members)
    assert team.cost == pytest.approx(sum(member.cost for member in team.members))


def test_an_ensemble_has_different_agents_on_the_same_task(
    table: AgentTable, embedder: StaticEmbedder
) -> None:
    team = plan(table, embedder, "Is this contract valid?", "ensemble", 3)
    assert len({member.agent for member in team.members}) == 3
    assert {member.part.text for member in team.members} == {"Is this contract valid?"}
    assert team.joint is not None
    best = max(member.success for member in team.members)
    independent = 1 - np.prod([1 - member.success for member in team.members])
    assert best < team.quality < independent


@pytest.mark.parametrize("strategy", ["pipeline", "parallel", "ensemble"])
def test_limits_hold_for_the_whole_team(
    table: AgentTable, embedder: StaticEmbedder, strategy: str
) -> None:
    request = "Plan and write a report"
    team = plan(table, embedder, request, strategy, 2, Limits(max_cost=0.005))
    assert team.members
    assert team.cost <= 0.005
    refused = plan(table, embedder, request, strategy, 2, Limits(max_cost=0.0001))
    assert not refused.members
    assert "max_cost 0.0001: the cheapest team costs at least" in refused.refusal


def test_a_pipeline_too_slow_says_how_quick_one_can_be(
    table: AgentTable, embedder: StaticEmbedder
) -> None:
    limits = Limits(max_latency_ms=150)
    team = plan(table, embedder, "Plan and write a report", "pipeline", 2, limits)
    assert "max_latency_ms 150" in team.refusal


def test_a_least_quality_is_held_against_the_whole_team(
    table: AgentTable, embedder: StaticEmbedder
) -> None:
    limits = Limits(min_quality=0.9)
    team = plan(table, embedder, "Plan and write a report", "pipeline", 2, limits)
    assert not team.members  # 0.95 x 0.9 is below 0.9
    assert "0.9" in team.refusal
    sure = plan(table, embedder, "Plan and write a report", "ensemble", 2, limits)
    assert sure.quality > 0.95


@pytest.mark.parametrize(
    ("strategy", "count"), [("pipeline", 0), ("parallel", 5), ("ensemble", -1)]
)
def test_a_number_of_agents_that_cannot_be_is_refused(
    table: AgentTable, embedder: StaticEmbedder, strategy: str, count: int
) -> None:
    with pytest.raises(InvalidInput, match="num_agents must be from 1 to 4"):
        plan(table, embedder, "Anything", strategy, count)


def test_where_no_agent_may_be_chosen_the_team_is_refused(
    table: AgentTable, embedder: StaticEmbedder
) -> None:
    team = plan_team(
        "Anything",
        "pipeline",
        2,
        table,
        embedder,
        POLICIES["cost"],
        np.full(len(table), 500.0),
        Limits(),
        candidates=np.zeros(len(table), np.bool_),
    )
    assert (team.members, team.refusal) == ((), "no agent satisfies the constraints")


def test_a_misspelt_strategy_lists_what_there_is(
    table: AgentTable, embedder: StaticEmbedder
) -> None:
    with pytest.raises(InvalidInput, match="pipelin") as caught:
        plan(table, embedder, "Anything", "pipelin", 2)
    assert "pipeline, parallel, ensemble" in caught.value.hint


def test_an_ensemble_prefers_agents_whose_errors_differ() -> None:
    offers = bids([[1, 1, 1]], [[1, 1, 1]], [[0.8, 0.79, 0.7]])
    known = unknown_correlations(3)
    known.values[0, 1] = known.values[1, 0] = 0.95
    known.values[0, 2] = known.values[2, 0] = 0.0
    team = form_ensemble(PARTS[0], 2, offers, known, Limits())
    assert {member.agent for member in team.members} == {0, 2}


@st.composite
def small_bids(draw: st.DrawFn) -> Bids:
    shape = (draw(st.integers(1, 3)), draw(st.integers(3, 5)))
    figures = [
        draw(arrays(np.float64, shape, elements=st.integers(1, 10).map(float))) for _ in range(3)
    ]
    return Bids(figures[0], figures[1], figures[2] / 10, figures[2] / 10, np.ones(shape, np.bool_))


@settings(max_examples=150, deadline=None)
@given(
    small_bids(),
    st.sampled_from(["pipeline", "parallel"]),
    st.integers(2, 30).map(float),
    st.integers(2, 30).map(float),
)
def test_no_team_that_keeps_to_the_limits_scores_higher(
    offers: Bids, strategy: str, max_cost: float, max_latency: float
) -> None:
    k, m = offers.cost.shape
    rows, best = np.arange(k), -np.inf
    for picked in permutations(range(m), k):
        columns = list(picked)
        latencies = offers.latency_ms[rows, columns]
        latency = latencies.sum() if strategy == "pipeline" else latencies.max()
        if offers.cost[rows, columns].sum() <= max_cost and latency <= max_latency:
            best = max(best, float(offers.score[rows, columns].sum()))
    team = form_team(strategy, PARTS[:k], offers, Limits(max_cost, max_latency))
    assert team.exact
    if best == -np.inf:
        assert not team.members
        assert team.refusal
        return
    assert sum(member.score for member in team.members) == pytest.approx(best)
    assert team.cost <= max_cost
    assert team.latency_ms <= max_latency


def test_a_team_is_exact_where_all_teams_were_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    few = bids([[1.0] * 4] * 2, [[1.0] * 4] * 2, [[0.5, 0.6, 0.7, 0.8]] * 2)
    assert form_team("pipeline", PARTS[:2], few, Limits()).exact
    monkeypatch.setattr(formation, "MOST_STEPS", 2)
    assert not form_team("pipeline", PARTS[:2], few, Limits()).exact


def test_an_ensemble_is_exact_where_all_agents_were_compared() -> None:
    def ensemble(agents: int) -> Team:
        chances = np.linspace(0.5, 0.9, agents).tolist()
        offers = bids([[1.0] * agents], [[1.0] * agents], [chances])
        return form_ensemble(PARTS[0], 2, offers, unknown_correlations(agents), Limits())

    assert ensemble(formation.SHORTLIST).exact
    # The surest, cheapest and quickest are compared; of 50 that are equal, not all of them.
    assert not ensemble(5 * formation.SHORTLIST).exact
