"""Of the routes that fit a query, which it means: who may take them, and in which order."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from tinydancer.neural.fusion import reciprocal_rank_fusion
from tinydancer.semantic_routes.confidence import Calibration
from tinydancer.semantic_routes.route import UNRELATED, Hit, Route
from tinydancer.semantic_routes.words import SharedWords

# Two routes as alike to a query to this many digits are equals, and their priority decides.
EQUAL_DIGITS = 2


class Rates(Protocol):
    """The store's exact count of how often a route was taken within the last minute."""

    def take(self, route: str, per_minute: int) -> bool:
        """Counts one request for the route, if it is still within its limit."""

    def left(self, route: str, per_minute: int) -> bool:
        """Whether `take` would succeed; counts nothing."""


@dataclass(frozen=True)
class Match:
    """A route that a query means, its similarity and the probability that it is the right one."""

    route: Route
    similarity: float
    confidence: float


@dataclass(frozen=True)
class Matching:
    """How to match: how many routes, for whom, when, from which threshold on, within which rates.

    `now` must know its zone. Without `rates` no rate limit holds.
    """

    top_k: int
    user_tier: str | None
    now: datetime
    default_threshold: float
    calibration: Calibration
    rates: Rates | None = None


def permitted_hits(passing: Iterable[Hit], matching: Matching, shared: SharedWords) -> list[Hit]:
    """The first of `passing`, best first, whose conditions hold: as many as can matter.

    Where words are shared all can: a route far down may come first by its words.
    """
    top_k = matching.top_k
    permitted: list[Hit] = []
    for route, similarity in passing:
        # One more than asked for, since the margin of the last is over the next.
        if (
            not shared
            and len(permitted) > top_k
            and _nearness(similarity) < _nearness(permitted[top_k - 1][1])
        ):
            break
        if route.conditions.permit(matching.user_tier, matching.now):
            permitted.append((route, similarity))
    return permitted


def ranked_matches(
    permitted: list[Hit],
    runner_up: float,
    closeness: float | None,
    matching: Matching,
    shared: SharedWords,
) -> list[Match]:
    """The best of the permitted routes, given by falling similarity.

    Similarity decides; among equals (to EQUAL_DIGITS) priority, then the exact similarity, then
    the name. Where words are shared, that order is fused with the one by their number. `runner_up`
    is the similarity of the best route that did not pass. The first match takes the route, for
    its rate limit; the others would only be able to.
    """
    first = permitted[0][1] if permitted else 0.0
    runner_up = max(runner_up, UNRELATED)
    second = max(permitted[1][1] if len(permitted) > 1 else UNRELATED, runner_up)
    permitted = sorted(
        permitted, key=lambda hit: (-_nearness(hit[1]), -hit[0].priority, -hit[1], hit[0].name)
    )
    if shared:
        permitted = _fused(permitted, shared)
    rates = matching.rates
    matches: list[Match] = []
    for route, similarity in permitted:
        if len(matches) == matching.top_k:
            break
        limit = route.conditions.rate_limit_per_minute
        if limit is not None and rates is not None:
            within = rates.left if matches else rates.take
            if not within(route.name, limit):
                continue
        margin = similarity - (second if similarity == first else max(first, runner_up))
        confidence = matching.calibration.confidence(similarity, margin, closeness)
        matches.append(Match(route, similarity, confidence))
    return matches


def _fused(ranked: list[Hit], shared: SharedWords) -> list[Hit]:
    """The ranking by likeness and the one by shared words as one; ties go by likeness."""
    dense = [route.name for route, _ in ranked]
    lexical = sorted((name for name in dense if name in shared), key=lambda name: -shared[name])
    scores = dict(reciprocal_rank_fusion([dense, lexical]))
    return sorted(ranked, key=lambda hit: -scores[hit[0].name])


def _nearness(similarity: float) -> float:
    return round(similarity, EQUAL_DIGITS)
