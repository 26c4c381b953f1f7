"""Several objectives at once: a weighted blend, and quality for money."""

from __future__ import annotations

import numpy as np

from tinydancer.agents.registry import Floats
from tinydancer.policies.estimates import (
    LEAST_LOG,
    LEAST_SPREAD,
    Estimates,
    Mask,
    Weights,
    best,
    savings,
    scaled,
)

# Quality a little before the rest. What an agent is for (fit) counts as much as what it costs.
BALANCED = Weights(cost=0.25, latency=0.15, quality=0.35, fit=0.25)

# An agent that costs nothing is taken to cost this much: the best free one goes first, as any
# quality for nothing beats any for money, and nothing is divided by zero.
FREE = 1e-12


# From which spread on a difference counts in full: of cost, latency, quality and fit.
LEAST = np.array([LEAST_LOG, LEAST_LOG, LEAST_SPREAD, LEAST_SPREAD]).reshape(4, 1, 1)


def parts(estimates: Estimates, candidates: Mask | None) -> Floats:
    """(4, n, a): cost, latency, quality and fit, each from 0 to 1 over the candidates."""
    gains = np.zeros((4, *estimates.cost.shape))
    gains[0] = estimates.cost
    gains[1] = estimates.latency_ms
    gains[:2] = savings(gains[:2], candidates)
    gains[2] = estimates.quality
    if estimates.fit is not None:
        gains[3] = estimates.fit
    return scaled(gains, LEAST, candidates)


def blend(weights: Weights, estimates: Estimates, candidates: Mask | None) -> Floats:
    """(n, a): the weighted sum of the four parts."""
    total: Floats = np.einsum("p,pna->na", np.array(weights), parts(estimates, candidates))
    return total


def split(weights: Weights, estimates: Estimates, candidates: Mask | None) -> tuple[Floats, Floats]:
    """The blend as `factor * quality + rest`: (..., 1) and (n, a), up to a constant a request."""
    quality = estimates.quality
    spread = best(quality, candidates) + best(-quality, candidates)
    factor = weights.quality / np.maximum(spread, LEAST_SPREAD)
    return factor, blend(weights._replace(quality=0.0), estimates, candidates)


def quality_per_dollar(estimates: Estimates, candidates: Mask | None) -> Floats:
    """Expected quality for a unit of money."""
    return estimates.quality / np.maximum(estimates.cost, FREE)


def share_of_best(estimates: Estimates, candidates: Mask | None) -> Floats:
    """Quality per dollar as a share of the best candidate's."""
    value = quality_per_dollar(estimates, candidates)
    return value / np.maximum(best(value, candidates), 1e-99)
