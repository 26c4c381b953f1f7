"""Likeness and shared words, made into one ranking."""

from datetime import datetime, time, timezone

import numpy as np
import pytest

from tinydancer.semantic_routes.conditions import UNCONDITIONAL, Conditions
from tinydancer.semantic_routes.ranking import Match, Matching
from tinydancer.semantic_routes.route import Route
from tinydancer.semantic_routes.table import RouteTable

from .test_match import CALIBRATION

NOON = datetime(2026, 1, 1, 12, tzinfo=timezone.utc)
QUERY = np.array([[1.0, 0.0]], np.float32)


def route(name: str, *texts: str, conditions: Conditions = UNCONDITIONAL) -> Route:
    """A route that is matched by the words of texts, or by likeness only where none are given."""
    words = tuple(frozenset(text.split()) for text in texts)
    return Route(name, "", "agent", words=words, conditions=conditions)


@pytest.fixture(params=["in memory", "searched elsewhere"])
def match(request):
    """Matches routes of given similarities, in memory or as a search finds them, and a text."""

    def ask(routes: dict[Route, float], text: str, top_k: int = 3) -> list[Match]:
        vectors = np.array([[s, np.sqrt(1 - s * s)] for s in routes.values()], np.float32)
        table = RouteTable.build(list(routes), vectors, np.arange(len(routes)))
        how = Matching(top_k, None, NOON, 0.5, CALIBRATION)
        words = frozenset(text.split())
        if request.param == "in memory":
            (found,) = table.match(QUERY, how, [words])
            return found
        best_first = sorted(routes.items(), key=lambda hit: -hit[1])
        return table.match_found(best_first, how, words)

    return ask


def names(matches: list[Match]) -> list[str]:
    return [match.route.name for match in matches]


def test_a_route_that_shares_words_fits_below_its_threshold_and_keeps_its_cosine(match):
    found = match({route("code", "e7"): 0.1, route("other", "e8"): 0.2}, "lamp shows e7")
    assert names(found) == ["code"]
    assert found[0].similarity == pytest.approx(0.1)
    assert 0 <= found[0].confidence <= 1


def test_without_shared_words_hybrid_routes_go_by_their_threshold(match):
    assert names(match({route("a", "e7"): 0.6, route("b", "e8"): 0.4}, "e9")) == ["a"]
    assert match({route("a", "e7"): 0.4}, "") == []


def test_a_route_by_both_comes_before_one_by_either(match):
    routes = {route("both", "e7 red"): 0.6, route("likest"): 0.9, route("word", "e7"): 0.1}
    # 1/62 + 1/61, then 1/63 + 1/62, then 1/61: reciprocal ranks
    assert names(match(routes, "e7 is red")) == ["both", "word", "likest"]


def test_first_and_second_in_turn_are_equals_and_likeness_decides(match):
    routes = {route("a", "e7"): 0.9, route("b", "e7 red"): 0.8}
    assert names(match(routes, "e7 is red")) == ["a", "b"]


def test_more_words_come_before_more_likeness_where_they_are_more_ranks_ahead(match):
    routes = {
        route("a", "e7"): 0.8,
        route("b", "e7 is red"): 0.7,
        route("c", "e7 is"): 0.9,
    }
    # a: 1/62 + 1/63, b: 1/63 + 1/61, c: 1/61 + 1/62
    assert names(match(routes, "e7 is red")) == ["c", "b", "a"]


def test_a_route_far_down_by_likeness_is_still_found_by_its_words(match):
    crowd = {route(f"r{at:02}"): 0.9 - at / 100 for at in range(30)}
    assert names(match({**crowd, route("code", "e7"): -0.2}, "e7", top_k=1)) == ["code"]


def test_words_open_no_route_that_is_closed_now(match):
    morning = Conditions(time_from=time(6), time_to=time(11))
    assert match({route("code", "e7", conditions=morning): 0.1}, "e7") == []
