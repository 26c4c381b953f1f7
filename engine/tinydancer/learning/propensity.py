"""How likely each agent was to serve each request, where it was recorded and where it was not."""

from __future__ import annotations

import numpy as np

from tinydancer.learning.estimators import LEAST_ROWS
from tinydancer.learning.outcomes import Doubles, Outcomes
from tinydancer.learning.requests import Requests
from tinydancer.learning.search import nearest

NEIGHBOURS = 100
LEAST_PROPENSITY = 0.02


def estimate_propensities(requests: Requests, outcomes: Outcomes) -> tuple[Doubles, str]:
    """(n, m) probabilities above 0 that an agent's reward is seen, and where they are from.

    'recorded' where every row has one reward and a recorded propensity. Otherwise 'estimated':
    the share of the NEIGHBOURS most similar requests on which the agent was seen, itself left out,
    drawn to the agent's share of all by ten rows, and never below LEAST_PROPENSITY (which bounds
    the variance, at the price of some bias).
    """
    seen = outcomes.seen
    recorded = outcomes.propensities
    single = (seen.sum(axis=1) <= 1).all()
    if single and recorded is not None and not np.isnan(recorded[seen.any(axis=1)]).any():
        known = np.where(np.isnan(recorded), 1.0, recorded)
        return np.where(seen, known[:, None], 1.0), "recorded"
    shares = seen.mean(axis=0)
    if len(requests) < LEAST_ROWS:
        return np.tile(np.maximum(shares, LEAST_PROPENSITY), (len(requests), 1)), "estimated"
    near = nearest(requests.embeddings, requests.embeddings, NEIGHBOURS, leave_self_out=True)
    counts = np.stack([column[near].sum(axis=1) for column in seen.T.astype(np.float64)], axis=1)
    estimated = (counts + 10 * shares) / (near.shape[1] + 10)
    return np.maximum(estimated, LEAST_PROPENSITY), "estimated"
