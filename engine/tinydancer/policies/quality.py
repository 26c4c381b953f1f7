"""The best agent that satisfies the constraints."""

from __future__ import annotations

from tinydancer.agents.registry import Floats
from tinydancer.policies.estimates import LEAST_SPREAD, Estimates, Mask, scaled


def key(estimates: Estimates, candidates: Mask | None) -> Floats:
    """What is maximised: the expected quality."""
    return estimates.quality


def score(estimates: Estimates, candidates: Mask | None) -> Floats:
    """Quality from 1 (the best candidate) down to 0."""
    return scaled(estimates.quality, LEAST_SPREAD, candidates)
