"""Of the routes that fit a query, which it means: who may take them, and in which order."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
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


def best_matches(
    passing: Iterable[Hit],
    runner_up: Callable[[], float],
    closeness: float | None,
    matching: Matching,
    shared: SharedWords,
) -> list[Match]:
    """The best of `passing`, which come best first, whose conditions and rate limits hold.

    Similarity decides; among equals (to EQUAL_DIGITS) priority, then the exact similarity, then
    the name. Where words are shared, that order is fused with the one by their number. `runner_up`
    gives the similarity of the best route that did not pass, once the first ones were read. The
    first match takes the route, for its rate limit; the others would only be able to.
    """
    rates = matching.rates
    matches: list[Match] = []
    first = second = below = UNRELATED
    for number, permitted in enumerate(_permitted(passing, matching, shared)):
        if number == 0:
            below = max(runner_up(), UNRELATED)
            first = permitted[0][1]
            second = max(permitted[1][1] if len(permitted) > 1 else UNRELATED, below)
        ranked = sorted(
            permitted, key=lambda hit: (-_nearness(hit[1]), -hit[0].priority, -hit[1], hit[0].name)
        )
        for route, similarity in _fused(ranked, shared) if shared else ranked:
            limit = route.conditions.rate_limit_per_minute
            if limit is not None and rates is not None:
                within = rates.left if matches else rates.take
                if not within(route.name, limit):
                    continue
            margin = similarity - (second if similarity == first else max(first, below))
            confidence = matching.calibration.confidence(similarity, margin, closeness)
            matches.append(Match(route, similarity, confidence))
            if len(matches) == matching.top_k:
                return matches
    return matches


def _permitted(
    passing: Iterable[Hit], matching: Matching, shared: SharedWords
) -> Iterator[list[Hit]]:
    """The hits whose conditions hold, a piece at a time: all of one are nearer than those of the
    next. A piece is as many as can matter, unless rate limits leave some of them out.

    Where words are shared all can: a route far down may come first by its words.
    """
    piece: list[Hit] = []
    for route, similarity in passing:
        # One more than asked for, since the margin of the last is over the next.
        enough = not shared and len(piece) > matching.top_k
        if enough and _nearness(similarity) < _nearness(piece[-1][1]):
            yield piece
            piece = []
        if route.conditions.permit(matching.user_tier, matching.now):
            piece.append((route, similarity))
    if piece:
        yield piece


def _fused(ranked: list[Hit], shared: SharedWords) -> list[Hit]:
    """The ranking by likeness and the one by shared words as one; ties go by likeness."""
    dense = [route.name for route, _ in ranked]
    lexical = sorted((name for name in dense if name in shared), key=lambda name: -shared[name])
    scores = dict(reciprocal_rank_fusion([dense, lexical]))
    return sorted(ranked, key=lambda hit: -scores[hit[0].name])


def _nearness(similarity: float) -> float:
    return round(similarity, EQUAL_DIGITS)
