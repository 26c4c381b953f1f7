"""What a decision promises, whatever the agents are."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinydancer.agents.cost import cost
from tinydancer.agents.model import Agent, Performance, Prices
from tinydancer.agents.registry import AgentTable
from tinydancer.policies import POLICIES
from tinydancer.policies.estimates import Estimates
from tinydancer.router import Constraints, Decisions, barriers, decide, estimate

CAPABILITIES = ("code", "law", "math", "poetry")
FREE = Constraints()
PURE = ("cost", "latency", "quality")

money = st.floats(0, 10).map(lambda value: round(value, 6))
agents = st.builds(
    Agent,
    name=st.text("abcdef", min_size=1, max_size=3),
    type=st.just("llm"),
    capabilities=st.lists(st.sampled_from(CAPABILITIES), max_size=3).map(tuple),
    prices=st.builds(Prices, money, money, money, money),
    performance=st.builds(Performance, st.floats(1, 1e5), st.floats(0, 1)),
)
crowds = st.lists(agents, min_size=1, max_size=8, unique_by=lambda agent: agent.name)
bounds = st.none() | st.floats(0, 20)
constraints = st.builds(
    Constraints,
    required_capabilities=st.lists(st.sampled_from(CAPABILITIES), max_size=1).map(tuple),
    excluded_agents=st.lists(st.sampled_from(["a", "b", "c"]), max_size=2).map(tuple),
    max_cost=bounds,
    max_latency_ms=st.none() | st.floats(0, 1e5),
    min_quality=st.none() | st.floats(0, 1),
    budget_remaining=bounds,
)
objectives = st.sampled_from(sorted(POLICIES))


def vector(name: str) -> list[float]:
    """Some vector of an agent, by its name alone."""
    rng = np.random.default_rng(sum(map(ord, name)))
    found = rng.normal(size=4)
    return list(found / np.linalg.norm(found))


def table(crowd: list[Agent]) -> AgentTable:
    vectors = np.array([vector(agent.name) for agent in crowd], np.float32).reshape(len(crowd), 4)
    return AgentTable.build(crowd, vectors)


def estimates(found: AgentTable, tokens: tuple[int, ...] = (12, 900)) -> Estimates:
    fit = np.array([[round(vector(name)[0], 6) for name in found.names]] * len(tokens))
    return estimate(found, np.array(tokens), np.full(len(found), 100.0), fit)


def run(crowd: list[Agent], objective: str, given: Constraints = FREE, top_k: int = 1) -> Decisions:
    found = table(crowd)
    known = estimates(found)
    return decide(found, known, POLICIES[objective], barriers(found, known, given), top_k)


def chosen(decisions: Decisions) -> list[str | None]:
    return [
        None if position < 0 else decisions.agents.names[position]
        for position in decisions.order[:, 0]
    ]


@given(crowds, objectives, constraints)
def test_the_chosen_agent_satisfies_every_constraint(
    crowd: list[Agent], objective: str, given: Constraints
) -> None:
    decisions = run(crowd, objective, given)
    known = decisions.estimates
    for row, position in enumerate(decisions.order[:, 0]):
        if position < 0:
            continue
        agent = decisions.agents.agents[position]
        price = known.cost[row, position]
        assert set(given.required_capabilities) <= set(agent.capabilities)
        assert agent.name not in given.excluded_agents
        assert given.max_cost is None or price <= given.max_cost
        assert given.budget_remaining is None or price <= given.budget_remaining
        latency = agent.performance.avg_latency_ms
        assert given.max_latency_ms is None or latency <= given.max_latency_ms
        assert given.min_quality is None or agent.performance.quality >= given.min_quality


@given(crowds, objectives, constraints)
def test_nobody_is_chosen_only_where_every_agent_is_refused(
    crowd: list[Agent], objective: str, given: Constraints
) -> None:
    decisions = run(crowd, objective, given)
    for row, name in enumerate(chosen(decisions)):
        refused = {position for position, _ in decisions.refusals(row, 100)}
        assert (name is None) == (len(refused) == len(crowd))


@given(crowds, objectives, constraints, st.randoms(use_true_random=False))
def test_the_order_in_which_agents_were_registered_decides_nothing(
    crowd: list[Agent], objective: str, given: Constraints, random: object
) -> None:
    shuffled = list(crowd)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert chosen(run(crowd, objective, given)) == chosen(run(shuffled, objective, given))


@given(crowds, objectives, st.sampled_from([2.0, 8.0, 1024.0]))
def test_the_unit_of_money_decides_nothing(
    crowd: list[Agent], objective: str, factor: float
) -> None:
    # Costs far above a billionth, so that rounding to it does not blur them.
    dear = [
        replace(agent, prices=Prices(per_call=round(1 + agent.prices.per_call, 3)))
        for agent in crowd
    ]
    scaled = [
        replace(agent, prices=Prices(per_call=agent.prices.per_call * factor)) for agent in dear
    ]
    assert chosen(run(dear, objective)) == chosen(run(scaled, objective))


@given(crowds, st.sampled_from(PURE), agents)
def test_an_agent_that_is_worse_than_the_choice_changes_no_pure_decision(
    crowd: list[Agent], objective: str, other: Agent
) -> None:
    before = run(crowd, objective)
    best = before.agents.agents[before.order[0, 0]]
    if other.name in before.agents.positions:
        return
    worse = replace(
        other,
        prices=Prices(per_call=10_000.0),
        performance=Performance(
            best.performance.avg_latency_ms + 1, best.performance.quality * 0.5 - 0.1
        ),
    )
    assert chosen(run([*crowd, worse], objective)) == chosen(before)


@given(crowds, st.integers(0, 5000))
def test_the_estimated_cost_is_that_of_the_one_formula(crowd: list[Agent], tokens: int) -> None:
    found = table(crowd)
    known = estimates(found, (tokens,))
    for position, agent in enumerate(found.agents):
        prices = np.array(
            [
                [agent.prices.per_1k_input_tokens],
                [agent.prices.per_1k_output_tokens],
                [agent.prices.per_call],
                [agent.prices.per_second],
            ]
        )
        alone = cost(
            prices,
            np.array([[tokens]]),
            np.array([100.0]),
            np.array([agent.performance.avg_latency_ms]),
        )
        assert known.cost[0, position] == alone.item()


@given(crowds, objectives, constraints, st.integers(1, 10))
def test_ranks_are_in_the_order_of_what_is_maximised_and_begin_with_the_decision(
    crowd: list[Agent], objective: str, given: Constraints, top_k: int
) -> None:
    decisions = run(crowd, objective, given, top_k)
    first = chosen(run(crowd, objective, given))
    key = np.broadcast_to(decisions.key, decisions.estimates.cost.shape)
    for row, order in enumerate(decisions.order):
        ranked = [position for position in order if position >= 0]
        assert len(ranked) == min(top_k, decisions.qualified()[row])
        assert list(order[len(ranked) :]) == [-1] * (len(order) - len(ranked))
        assert (decisions.agents.names[ranked[0]] if ranked else None) == first[row]
        pairs = [(-key[row, position], position) for position in ranked]
        assert pairs == sorted(pairs)


@given(crowds, objectives, constraints)
def test_scores_are_from_0_to_1_and_the_choice_has_the_highest(
    crowd: list[Agent], objective: str, given: Constraints
) -> None:
    decisions = run(crowd, objective, given, top_k=len(crowd))
    scores = decisions.scores()
    for row, order in enumerate(decisions.order):
        ranked = [float(scores[row, position]) for position in order if position >= 0]
        assert all(-1e-9 <= score <= 1 + 1e-9 for score in ranked)
        assert ranked == sorted(ranked, reverse=True)


@pytest.mark.parametrize("objective", sorted(POLICIES))
def test_equals_go_by_name(objective: str) -> None:
    twins = [Agent(name, "llm", (), Prices(per_call=1.0), Performance(5.0, 0.5)) for name in "cab"]
    found = table(twins)
    known = replace(estimates(found), fit=np.full((2, 3), 0.5))
    decisions = decide(found, known, POLICIES[objective], (), 3)
    assert decisions.order.tolist() == [[0, 1, 2]] * 2


def test_a_request_decides_alone_as_it_does_in_a_batch() -> None:
    crowd = [
        Agent(name, "llm", (), Prices(at / 7, 0.3 / (at + 1)), Performance(100.0 * at, 0.1 * at))
        for at, name in enumerate("abcde", 1)
    ]
    found = table(crowd)
    many = decide(found, estimates(found, (5, 50, 5000)), POLICIES["balanced"])
    for row, tokens in enumerate((5, 50, 5000)):
        alone = decide(found, estimates(found, (tokens,)), POLICIES["balanced"])
        assert many.order[row].tolist() == alone.order[0].tolist()
        assert many.scores()[row].tolist() == alone.scores()[0].tolist()


def test_without_agents_there_is_no_choice_for_any_request() -> None:
    decisions = decide(table([]), estimates(table([])), POLICIES["balanced"], (), 3)
    assert decisions.order.shape == (2, 0)
    assert decisions.scores().shape == (2, 0)
    assert decisions.qualified().tolist() == [0, 0]
