"""The cheapest agent that satisfies the constraints."""

from __future__ import annotations

from tinydancer.agents.registry import Floats
from tinydancer.policies.estimates import Estimates, Mask, scaled_savings


def key(estimates: Estimates, candidates: Mask | None) -> Floats:
    """What is maximised: money saved."""
    return -estimates.cost


def score(estimates: Estimates, candidates: Mask | None) -> Floats:
    """Cost from 1 (the cheapest candidate) down to 0."""
    return scaled_savings(estimates.cost, candidates)
