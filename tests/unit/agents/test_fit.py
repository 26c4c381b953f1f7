from datetime import datetime, time, timezone

import numpy as np

from tinydancer.agents import fit
from tinydancer.agents.model import Agent, Performance, Prices
from tinydancer.agents.registry import AgentTable, Floats
from tinydancer.semantic_routes.conditions import Conditions
from tinydancer.semantic_routes.route import Route
from tinydancer.semantic_routes.table import RouteTable

NOON = datetime(2026, 1, 1, 12, tzinfo=timezone.utc)
AGENTS = AgentTable.build(
    [Agent(name, "llm", (), Prices(), Performance(1.0, 0.5)) for name in ("a", "b")],
    np.array([[1, 0, 0], [0, 1, 0]], np.float32),
)
# A request a little like what agent a can do, and much like the route of each test.
REQUEST = np.array([[0.6, 0.0, 0.8]], np.float32)
ALIKE = np.array([[0, 0, 1]], np.float32)


def fits(*routes: Route, tier: str | None = None, threshold: float = 0.5) -> Floats:
    table = RouteTable.build(routes, np.repeat(ALIKE, len(routes), axis=0), np.arange(len(routes)))
    similarity = fit.similarity(REQUEST, AGENTS)
    lifts = fit.lifts(REQUEST, AGENTS, table, user_tier=tier, now=NOON, default_threshold=threshold)
    return fit.fit(similarity, lifts)


def test_without_routes_the_fit_is_the_cosine_with_the_agents_capabilities() -> None:
    assert fits().tolist() == [[0.6, 0.0]]


def test_a_route_lends_its_similarity_to_the_agent_it_leads_to() -> None:
    assert fits(Route("r", "", "b")).tolist() == [[0.6, 0.8]]


def test_a_route_never_lowers_a_fit() -> None:
    table = RouteTable.build([Route("r", "", "a")], REQUEST[:, [2, 0, 1]], np.array([0]))
    lifts = fit.lifts(REQUEST, AGENTS, table, user_tier=None, now=NOON, default_threshold=-1)
    assert fit.fit(fit.similarity(REQUEST, AGENTS), lifts).tolist() == [[0.6, 0.0]]


def test_a_route_below_its_threshold_lends_nothing() -> None:
    assert fits(Route("r", "", "b", threshold=0.81)).tolist() == [[0.6, 0.0]]
    assert fits(Route("r", "", "b"), threshold=0.81).tolist() == [[0.6, 0.0]]
    assert fits(Route("r", "", "b", threshold=0.8), threshold=0.9).tolist() == [[0.6, 0.8]]


def test_a_route_that_may_not_be_taken_lends_nothing() -> None:
    gold = Route("r", "", "b", conditions=Conditions(user_tiers=("gold",)))
    night = Route("r", "", "b", conditions=Conditions(time(22), time(6)))
    assert fits(gold, tier="free").tolist() == [[0.6, 0.0]]
    assert fits(gold, tier="gold").tolist() == [[0.6, 0.8]]
    assert fits(night).tolist() == [[0.6, 0.0]]


def test_routes_searched_elsewhere_lend_what_those_here_would() -> None:
    routes = [Route("r", "", "b"), Route("s", "", "a", threshold=0.99), Route("t", "", "nobody")]
    bare = RouteTable.build(routes, np.zeros((0, 3), np.float32), np.zeros(0, int))
    lifts = fit.lifts(
        REQUEST,
        AGENTS,
        bare,
        user_tier=None,
        now=NOON,
        default_threshold=0.5,
        search=lambda requests: [[(route, 0.8) for route in routes] for _ in requests],
    )
    assert fit.fit(fit.similarity(REQUEST, AGENTS), lifts).tolist() == [[0.6, 0.8]]


def test_a_route_to_an_agent_that_does_not_exist_changes_nothing() -> None:
    assert fits(Route("r", "", "nobody"), Route("s", "", "b")).tolist() == [[0.6, 0.8]]


def test_of_several_routes_to_an_agent_the_nearest_one_is_the_reason() -> None:
    # Given two routes to a, the second nearer, and one to b
    routes = [Route("far", "", "a"), Route("near", "", "a"), Route("other", "", "b")]
    vectors = np.array([[0.8, 0, 0.6], [0, 0, 1], [0, 1, 0]], np.float32)
    query = np.array([[0, 0.6, 0.8]], np.float32)
    table = RouteTable.build(routes, vectors, np.arange(3))
    # When they lend their similarity
    lifts = fit.lifts(query, AGENTS, table, user_tier=None, now=NOON, default_threshold=0.4)
    # Then each agent has that of its nearest route
    assert lifts is not None
    assert lifts.lent.tolist() == [[0.8, 0.6]]
    assert [routes[lifts.route_of(0, place)].name for place in (0, 1)] == ["near", "other"]
