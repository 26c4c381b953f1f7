"""How likely each agent was to serve each request, where it was recorded and where it was not."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tinydancer.learning.estimators import LEAST_ROWS
from tinydancer.learning.outcomes import Doubles, Outcomes
from tinydancer.learning.requests import Requests
from tinydancer.learning.search import nearest

NEIGHBOURS = 100
LEAST_PROPENSITY = 0.02


def estimate_propensities(requests: Requests, outcomes: Outcomes) -> tuple[Doubles, str]:
    """(n, m) probabilities above 0 that an agent's reward is seen, and where they are from.

    'recorded' where every row has one reward and a recorded propensity, 'estimated' where none has,
    else 'partly recorded'. Estimated is the share of the NEIGHBOURS most similar requests on which
    the agent was seen, itself left out, drawn to the agent's share of all by ten rows, and never
    below LEAST_PROPENSITY (which bounds the variance, at the price of some bias). A propensity of 1
    counts as none: no dice were thrown, and what another agent would have earned on such a request
    can only be told from others like it.
    """
    seen = outcomes.seen
    known = np.full(len(requests), np.nan)
    if outcomes.propensities is not None:
        thrown = (seen.sum(axis=1) == 1) & (outcomes.propensities < 1)
        known = np.where(thrown, outcomes.propensities, np.nan)
    recorded, served = ~np.isnan(known), seen.any(axis=1)
    if recorded[served].all():
        return np.where(seen, np.where(recorded, known, 1.0)[:, None], 1.0), "recorded"
    estimated = _estimated(requests, seen)
    if not recorded.any():
        return estimated, "estimated"
    return np.where(recorded[:, None], known[:, None], estimated), "partly recorded"


def _estimated(requests: Requests, seen: NDArray[np.bool_]) -> Doubles:
    shares = seen.mean(axis=0)
    if len(requests) < LEAST_ROWS:
        return np.tile(np.maximum(shares, LEAST_PROPENSITY), (len(requests), 1))
    near = nearest(requests.embeddings, requests.embeddings, NEIGHBOURS, leave_self_out=True)
    counts = np.stack([column[near].sum(axis=1) for column in seen.T.astype(np.float64)], axis=1)
    return np.asarray(np.maximum((counts + 10 * shares) / (near.shape[1] + 10), LEAST_PROPENSITY))
