"""What is known of each agent for each request, and how policies put it on one scale."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tinydancer.agents.registry import Floats

Mask = NDArray[np.bool_]

# A difference in cost or latency counts in full from this share of the largest on; one in quality
# or fit from this much on. Less counts in proportion, so that noise is not blown up to a reason.
LEAST_SPREAD = 0.1


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


def scaled(gains: Floats, relative: bool | Mask, candidates: Mask | None) -> Floats:
    """Gains, of which more is better, from 0 to 1 over the candidates: 1 for the most, linear.

    `gains` is (..., n, a) or (a,). Costs and latencies come in negative, with `relative` true:
    their least spread is a share of the largest.
    """
    most = best(gains, candidates)
    least = -best(-gains, candidates)
    floor = np.where(relative, -LEAST_SPREAD * least, LEAST_SPREAD)
    # Where all is free there is no spread at all: every agent is the cheapest.
    spread = np.maximum(np.maximum(most - least, floor), 1e-99)
    return np.asarray(1.0 - (most - gains) / spread)
