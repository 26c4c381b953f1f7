from dataclasses import dataclass, field, replace
from datetime import datetime, time, timezone

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinydancer.semantic_routes.conditions import Conditions
from tinydancer.semantic_routes.confidence import Calibration
from tinydancer.semantic_routes.ranking import Match, Matching
from tinydancer.semantic_routes.route import Route
from tinydancer.semantic_routes.table import RouteTable

NOON = datetime(2026, 1, 1, 12, tzinfo=timezone.utc)
CALIBRATION = Calibration(
    intercept=-4.0,
    similarity=6.0,
    margin=5.0,
    closeness=-2.0,
    margin_by_closeness=1.0,
    usual=0.5,
    source="a test",
)
MATCHING = Matching(3, None, NOON, 0.5, CALIBRATION)


def unit(*similarities: float) -> np.ndarray:
    """Vectors whose cosine with the query (1, 0) is as given."""
    return np.array([[s, np.sqrt(1 - s * s)] for s in similarities], np.float32)


QUERY = unit(1.0)


def match(*routes: tuple[Route, float], how: Matching = MATCHING) -> list[Match]:
    table = RouteTable.build(
        [route for route, _ in routes], unit(*(s for _, s in routes)), np.arange(len(routes))
    )
    (found,) = table.match(QUERY, how)
    return found


def names(matches: list[Match]) -> list[str]:
    return [match.route.name for match in matches]


def route(name: str, **more: object) -> Route:
    return replace(Route(name, "", f"{name}-agent"), **more)  # type: ignore[arg-type]


@dataclass
class Counter:
    """Rates kept in memory: what the store does in the database."""

    taken: list[str] = field(default_factory=list)

    def take(self, name: str, per_minute: int) -> bool:
        if not self.left(name, per_minute):
            return False
        self.taken.append(name)
        return True

    def left(self, name: str, per_minute: int) -> bool:
        return self.taken.count(name) < per_minute


def test_routes_over_their_threshold_are_matched_best_first() -> None:
    found = match((route("a"), 0.6), (route("b"), 0.9), (route("c"), 0.4))
    assert names(found) == ["b", "a"]
    assert [match.similarity for match in found] == [0.9, 0.6]
    assert found[0].route.target_agent == "b-agent"


def test_nothing_over_its_threshold_gives_no_match() -> None:
    assert match((route("a"), 0.49), (route("b", threshold=0.95), 0.9)) == []
    assert RouteTable.build([], unit(), np.zeros(0, int)).match(QUERY, MATCHING) == [[]]


def test_a_similarity_equal_to_the_threshold_passes() -> None:
    assert names(match((route("a", threshold=0.7), 0.7))) == ["a"]
    assert names(match((route("a", threshold=1.0), 1.0))) == ["a"]


def test_a_route_is_as_similar_as_its_best_utterance() -> None:
    table = RouteTable.build([route("a"), route("b")], unit(0.2, 0.8, 0.7), np.array([0, 0, 1]))
    assert names(table.match(QUERY, MATCHING)[0]) == ["a", "b"]


def test_priority_decides_among_equals_and_nowhere_else() -> None:
    low, high = route("a", priority=0), route("b", priority=5)
    assert names(match((low, 0.804), (high, 0.796))) == ["b", "a"]
    assert names(match((low, 0.85), (high, 0.80))) == ["a", "b"]
    assert names(match((route("b"), 0.8), (route("a"), 0.8))) == ["a", "b"]


def test_among_equals_beyond_the_number_asked_for_priority_still_decides() -> None:
    crowd = [(route(f"r{at}", priority=at), 0.8) for at in range(9)]
    assert names(match(*crowd, how=replace(MATCHING, top_k=2))) == ["r8", "r7"]


def test_a_hundred_that_may_not_be_taken_hide_none_that_may() -> None:
    gold = Conditions(user_tiers=("gold",))
    crowd = [(route(f"r{at}", conditions=gold), 0.9) for at in range(100)]
    assert names(match(*crowd, (route("all"), 0.6), (route("rest"), 0.55))) == ["all", "rest"]


def test_a_route_that_may_not_be_taken_now_gives_way_to_the_next() -> None:
    night = route("night", conditions=Conditions(time(22), time(6)))
    gold = route("gold", conditions=Conditions(user_tiers=("gold",)))
    crowd = ((night, 0.9), (gold, 0.8), (route("all"), 0.7))
    assert names(match(*crowd, how=replace(MATCHING, top_k=1))) == ["all"]
    assert names(match(*crowd, how=replace(MATCHING, top_k=1, user_tier="gold"))) == ["gold"]


def test_only_the_first_match_takes_the_route_and_one_used_up_is_left_out() -> None:
    rates = Counter()
    limited = route("a", conditions=Conditions(rate_limit_per_minute=2))
    other = route("b", conditions=Conditions(rate_limit_per_minute=2))
    how = replace(MATCHING, rates=rates)
    found = [names(match((limited, 0.9), (other, 0.8), how=how)) for _ in range(5)]
    assert found == [["a", "b"], ["a", "b"], ["b"], ["b"], []]
    assert rates.taken == ["a", "a", "b", "b"]


def test_however_many_are_used_up_the_next_one_takes_their_place() -> None:
    # Given a crowd of routes that are used up, and one further down that is not
    limits = Conditions(rate_limit_per_minute=1)
    crowd = [(route(f"r{at}", conditions=limits), 0.9 - at / 50) for at in range(9)]
    hits = [*crowd, (route("free"), 0.6), (route("last"), 0.55)]
    table = RouteTable.build(
        [one for one, _ in hits], unit(*(s for _, s in hits)), np.arange(len(hits))
    )
    for top_k in (1, 2, 3):
        rates = Counter([one.name for one, _ in crowd[:8]])
        how = replace(MATCHING, rates=rates, top_k=top_k)
        # When it is asked for the best few, then they are those that can be taken
        (here,) = table.match(QUERY, how)
        assert names(here) == ["r8", "free", "last"][:top_k]
        assert rates.taken[8:] == ["r8"]
        assert names(table.match_found(iter(hits), how)) == ["free", "last"][:top_k]


def test_confidence_grows_with_similarity_and_with_the_margin_over_the_next() -> None:
    (alone,) = match((route("a"), 0.8), (route("b"), 0.1))
    close = match((route("a"), 0.8), (route("b"), 0.75))
    (weak,) = match((route("a"), 0.6), (route("b"), -0.1))
    assert alone.confidence > close[0].confidence > close[1].confidence
    assert alone.confidence > weak.confidence


def test_the_margin_is_also_over_a_route_below_its_threshold() -> None:
    (found,) = match((route("a"), 0.8), (route("b", threshold=0.9), 0.75))
    table = RouteTable.build([route("a"), route("b")], unit(0.8, 0.75), np.array([0, 1]))
    expected = CALIBRATION.confidence(0.8, 0.05, table.closeness)
    assert found.confidence == pytest.approx(expected, abs=1e-6)


def test_a_lone_route_is_held_against_what_is_unrelated() -> None:
    (found,) = match((route("a"), 0.6))
    assert found.confidence == pytest.approx(CALIBRATION.confidence(0.6, 0.6, 0.0), abs=1e-6)


def test_the_same_match_says_less_among_routes_that_are_close_to_each_other() -> None:
    apart = RouteTable.build([route("a"), route("b")], unit(0.8, 0.0), np.array([0, 1]))
    close = RouteTable.build(
        [route("a"), route("b"), route("c")],
        np.array([[0.8, 0.6, 0.0], [0.0, 0.1, 0.995], [0.0, 0.0, 1.0]], np.float32),
        np.arange(3),
    )
    assert close.closeness > apart.closeness
    (far,) = apart.match(QUERY, MATCHING)[0]
    (near,) = close.match(np.array([[1, 0, 0]], np.float32), MATCHING)[0]
    assert (near.similarity, near.route.name) == (far.similarity, far.route.name)
    assert near.confidence < far.confidence


def test_the_closeness_of_routes_is_the_mean_cosine_of_nearest_neighbours() -> None:
    # Of three routes the second has two vectors, which are no neighbours of each other.
    vectors = np.array([[1, 0, 0], [0, 1, 0], [0, 0.6, 0.8], [0, 0, 1]], np.float32)
    table = RouteTable.build([route("a"), route("b"), route("c")], vectors, np.array([0, 1, 1, 2]))
    # The nearest of another route: a to any 0, b's first to a or c 0, b's second to c 0.8, c 0.8.
    assert table.closeness == pytest.approx((0 + 0 + 0.8 + 0.8) / 4)
    assert RouteTable.build([route("a")], vectors[:1], np.array([0])).closeness == 0.0


@given(st.floats(-1, 1), st.floats(-2, 2))
def test_confidence_is_a_probability(similarity: float, margin: float) -> None:
    steep = Calibration(-1e6, 1e7, 1e7, 0.0, 0.0, 0.5, "a test")
    assert 0.0 <= CALIBRATION.confidence(similarity, margin, None) <= 1.0
    assert 0.0 <= steep.confidence(similarity, margin, 0.5) <= 1.0


similarities = st.lists(st.floats(-0.999, 0.999), min_size=1, max_size=12)


@given(similarities, st.integers(1, 5), st.data())
def test_a_search_elsewhere_gives_the_same_matches(
    values: list[float], top_k: int, data: st.DataObject
) -> None:
    thresholds = st.none() | st.floats(0, 1)
    crowd = [
        route(f"r{at:02}", priority=at % 3, threshold=data.draw(thresholds))
        for at in range(len(values))
    ]
    table = RouteTable.build(crowd, unit(*values), np.arange(len(values)))
    how = replace(MATCHING, top_k=top_k)
    (here,) = table.match(QUERY, how)
    cosines = table.similarities(QUERY)[0].tolist()
    found = sorted(zip(crowd, cosines, strict=True), key=lambda pair: (-pair[1], pair[0].name))
    there = table.match_found(iter(found), how)
    assert [(m.route, m.similarity) for m in there] == [(m.route, m.similarity) for m in here]


def test_a_search_elsewhere_measures_its_margin_from_the_best_that_does_not_pass() -> None:
    best, strict, stricter = route("best"), route("s", threshold=0.85), route("t", threshold=0.85)
    table = RouteTable.build([best, strict, stricter], unit(0.9, 0.8, 0.6), np.arange(3))
    near, far = [(best, 0.9), (strict, 0.8)], [(best, 0.9), (stricter, 0.6)]
    (alone,), (clearer,) = (table.match_found(iter(found), MATCHING) for found in (near, far))
    (both,) = table.match_found(iter([*near, (stricter, 0.6)]), MATCHING)
    assert both.confidence == alone.confidence < clearer.confidence


def test_a_search_elsewhere_is_read_no_further_than_it_matters() -> None:
    crowd = [route(f"r{at:03}") for at in range(500)]
    table = RouteTable.build(crowd, unit(*[0.5] * 500), np.arange(500))
    read = []

    def found(first: float) -> object:
        for at, one in enumerate(crowd):
            read.append(one.name)
            yield one, first - at / 1000

    assert len(table.match_found(found(0.9), replace(MATCHING, top_k=1))) == 1
    assert len(read) < 20
    read.clear()
    assert table.match_found(found(0.4), MATCHING) == []
    assert len(read) == 1


def test_a_thousand_queries_match_as_each_does_alone() -> None:
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(60, 16)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    table = RouteTable.build([route(f"r{at:02}") for at in range(60)], vectors, np.arange(60))
    queries = rng.normal(size=(1000, 16)).astype(np.float32)
    queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    how = replace(MATCHING, default_threshold=0.2)
    together = table.match(queries, how)
    assert together == [table.match(query[None], how)[0] for query in queries]
    assert any(together)
