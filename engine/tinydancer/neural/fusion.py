"""Two rankings of one query, dense and lexical, made into one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from tinydancer.errors import InvalidInput, NumberOutOfRange

RANK_CONSTANT = 60


def reciprocal_rank_fusion(
    rankings: Sequence[Sequence[str]], weights: Sequence[float] | None = None
) -> list[tuple[str, float]]:
    """Names by Σ weight / (60 + rank), best first, ties by name; ranks start at 1.

    Cormack, Clarke, Büttcher 2009. A name that a ranking lacks gets nothing from it. The scores
    are divided by the best possible, so that first in every ranking is 1.
    """
    if weights is None:
        weights = [1.0] * len(rankings)
    if len(weights) != len(rankings):
        raise InvalidInput(f"{len(weights)} weights were given for {len(rankings)} rankings")
    _check_weights(weights)
    scores: dict[str, float] = {}
    for ranking, weight in zip(rankings, weights, strict=True):
        if len(set(ranking)) != len(ranking):
            raise InvalidInput("a ranking has a name twice")
        for rank, name in enumerate(ranking, 1):
            scores[name] = scores.get(name, 0.0) + weight / (RANK_CONSTANT + rank)
    best = sum(weights) / (RANK_CONSTANT + 1)
    return _ordered({name: score / best for name, score in scores.items()})


def weighted_fusion(
    dense: Mapping[str, float], lexical: Mapping[str, float], weight: float
) -> list[tuple[str, float]]:
    """Names by (1 - weight) · cosine + weight · text rank, best first, ties by name.

    dense: cosine similarities; one below 0 counts as 0. lexical: ranks of full text search,
    at least 0, divided here by the query's greatest, since they have no scale of their own.
    A name that one side lacks counts as 0 there.
    """
    if not 0 <= weight <= 1:
        raise NumberOutOfRange(f"the weight of the text rank is {weight}, not in 0 to 1")
    for name, value in (*dense.items(), *lexical.items()):
        if not np.isfinite(value):
            raise NumberOutOfRange(f"the score of {name!r} is {value}")
    top = max(lexical.values(), default=0.0) or 1.0
    return _ordered(
        {
            name: (1 - weight) * max(dense.get(name, 0.0), 0.0)
            + weight * lexical.get(name, 0.0) / top
            for name in {*dense, *lexical}
        }
    )


@dataclass(frozen=True)
class Judged:
    """A query's scores on both sides, and the route that it should go to."""

    dense: Mapping[str, float]
    lexical: Mapping[str, float]
    expected: str


@dataclass(frozen=True)
class FittedWeight:
    """A weight for `weighted_fusion` with its evidence: mean reciprocal ranks over the queries."""

    weight: float
    queries: int
    mean_reciprocal_rank: float
    dense_only: float
    lexical_only: float


def fit_weight(queries: Sequence[Judged]) -> FittedWeight:
    """The weight, in steps of 0.05, of the greatest mean reciprocal rank; the least among equals.

    Raises InvalidInput when there are no queries.
    """
    if not queries:
        raise InvalidInput("there is no query to fit a weight on")
    ranks = {step: _mean_reciprocal_rank(queries, step / 20) for step in range(21)}
    best = max(ranks, key=lambda step: (round(ranks[step], 9), -step))
    return FittedWeight(best / 20, len(queries), ranks[best], ranks[0], ranks[20])


def _mean_reciprocal_rank(queries: Sequence[Judged], weight: float) -> float:
    total = 0.0
    for query in queries:
        names = [name for name, _ in weighted_fusion(query.dense, query.lexical, weight)]
        total += 1 / (names.index(query.expected) + 1) if query.expected in names else 0.0
    return total / len(queries)


def _check_weights(weights: Sequence[float]) -> None:
    if any(not (np.isfinite(w) and w >= 0) for w in weights) or not sum(weights) > 0:
        raise NumberOutOfRange(f"weights are {list(weights)}, not numbers from 0 up, one above 0")


def _ordered(scores: Mapping[str, float]) -> list[tuple[str, float]]:
    return sorted(scores.items(), key=lambda pair: (-pair[1], pair[0]))
