"""Rankings of one query, such as dense and lexical, made into one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

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


def _check_weights(weights: Sequence[float]) -> None:
    if any(not (np.isfinite(w) and w >= 0) for w in weights) or not sum(weights) > 0:
        raise NumberOutOfRange(f"weights are {list(weights)}, not numbers from 0 up, one above 0")


def _ordered(scores: Mapping[str, float]) -> list[tuple[str, float]]:
    return sorted(scores.items(), key=lambda pair: (-pair[1], pair[0]))
