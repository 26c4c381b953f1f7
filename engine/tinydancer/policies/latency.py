"""The fastest agent that satisfies the constraints."""

from __future__ import annotations

from tinydancer.agents.registry import Floats
from tinydancer.policies.estimates import Estimates, Mask, scaled_savings


def key(estimates: Estimates, candidates: Mask | None) -> Floats:
    """What is maximised: time saved."""
    return -estimates.latency_ms


def score(estimates: Estimates, candidates: Mask | None) -> Floats:
    """Latency from 1 (the fastest candidate) down to 0."""
    return scaled_savings(estimates.latency_ms, candidates)
