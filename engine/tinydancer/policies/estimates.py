"""What is known of each agent for each request, and how policies put it on one scale."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tinydancer.agents.registry import Floats

Mask = NDArray[np.bool_]

# A difference in quality or fit counts in full from this much on, one in cost or latency from this
# factor on. Less counts in proportion, so that noise is not blown up to a reason.
LEAST_SPREAD = 0.1
LEAST_FACTOR = 2.0

# Among agents with a price, one that costs nothing counts as one at a tenth of the least price.
FREE_SHARE = 0.1


@dataclass(frozen=True)
class Estimates:
    """What each of a agents is expected to do for each of n requests.

    Arrays broadcast to (n, a); those that do not depend on the request are (a,). `cost` is money,
    `quality` and `confidence` are 0 to 1, `confidence` being the probability of success. `fit` is
    how well agent and request suit each other by meaning, -1 to 1; None where no policy asks.
    `source` says what stands behind quality: 'registered', or the name of a learned model, which
    speaks of the agents in `learned` (a,), and whose `evidence` is a sentence.
    """

    cost: Floats
    latency_ms: Floats
    quality: Floats
    confidence: Floats
    fit: Floats | None = None
    source: str = "registered"
    learned: Mask | None = None
    evidence: str | None = None


class Weights(NamedTuple):
    """What each objective counts in a blend; they add up to 1."""

    cost: float = 0.0
    latency: float = 0.0
    quality: float = 0.0
    fit: float = 0.0


def best(values: Floats, candidates: Mask | None) -> Floats:
    """(..., 1) the largest value among each request's candidates (None: all agents)."""
    if candidates is not None:
        values = np.where(candidates, values, -np.inf)
    return np.asarray(values.max(axis=-1, keepdims=True))


def scaled(gains: Floats, least_spread: float | Floats, candidates: Mask | None) -> Floats:
    """Gains, of which more is better, from 0 to 1 over the candidates: 1 for the most, linear.

    `gains` is (..., n, a) or (a,); a spread below `least_spread` is taken to be that.
    """
    if candidates is None:
        most, least = gains.max(axis=-1, keepdims=True), gains.min(axis=-1, keepdims=True)
    else:
        most, least = best(gains, candidates), -best(-gains, candidates)
    spread = np.maximum(most - least, least_spread)
    return np.asarray(1.0 - (most - gains) / spread)


def savings(amounts: Floats, candidates: Mask | None) -> Floats:
    """Costs or latencies, (n, a) or (a,), as gains: their logarithms, negative.

    They differ by orders of magnitude: next to a person who takes ten minutes, a second and ten
    seconds would be the same on a linear scale. Factors count alike wherever they stand.
    """
    if candidates is None and amounts.size and amounts.min() > 0:
        return -np.log(amounts)
    priced = amounts > 0 if candidates is None else (amounts > 0) & candidates
    least = np.where(priced, amounts, np.inf).min(axis=-1, keepdims=True)
    # Where all is free there is no least price, and every agent is the cheapest.
    floor = np.where(np.isfinite(least), FREE_SHARE * least, 1.0)
    return np.asarray(-np.log(np.maximum(amounts, floor)))


LEAST_LOG = float(np.log(LEAST_FACTOR))


def scaled_savings(amounts: Floats, candidates: Mask | None) -> Floats:
    """Costs or latencies from 1 (the least) down to 0 over the candidates, by their logarithms."""
    return scaled(savings(amounts, candidates), LEAST_LOG, candidates)
