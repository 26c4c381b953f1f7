"""The chance that an ensemble succeeds, where its agents' errors go together.

A one-factor Gaussian copula (Vasicek 1987; Li 2000): agent i succeeds where √ρ z + √(1-ρ) ε_i is
below Φ⁻¹(p_i), with one z for the request (how hard it is for all) and an ε_i for each agent. Given
z the agents are independent, so that every chance is one integral over z, by Gauss and Hermite.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import erf, sqrt
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

Doubles = NDArray[np.float64]
PRIOR_CORRELATION = 0.5
"""Of two agents that were never seen on the same request: half way from independent to alike."""
PRIOR_WEIGHT = 20.0
"""Requests served by both agents that the prior counts for."""
LARGEST_CORRELATION = 0.999
LEAST_CHANCE = 1e-6
_NODES, _WEIGHTS = np.polynomial.hermite_e.hermegauss(64)
_WEIGHTS = _WEIGHTS / _WEIGHTS.sum()
_NORMAL = NormalDist()


@dataclass(frozen=True)
class JointSuccess:
    """Chances for one team: that any, that most (more than half), that all of its agents succeed.

    correlation: the latent ρ that was used.
    """

    any: float
    most: float
    all: float
    correlation: float


@dataclass(frozen=True, eq=False)
class Correlations:
    """Latent correlation of each two agents' errors. values, requests: (m, m), symmetric.

    requests: how many requests both served; 0 marks a value that is the prior alone.
    """

    values: Doubles
    requests: NDArray[np.int64]


def unknown_correlations(agents: int) -> Correlations:
    """The prior for every pair: nothing was seen."""
    values = np.full((agents, agents), PRIOR_CORRELATION)
    np.fill_diagonal(values, 1.0)
    return Correlations(values, np.zeros((agents, agents), dtype=np.int64))


def joint_success(chances: Doubles, correlation: float) -> JointSuccess:
    """For (k,) chances of success, each from 0 to 1, and ρ from 0 to 1."""
    given = _given_factor(chances, min(max(correlation, 0.0), LARGEST_CORRELATION))
    # Poisson binomial, given z: (nodes, k + 1) chances of so many successes.
    counts = np.zeros((len(_NODES), len(chances) + 1))
    counts[:, 0] = 1.0
    for success in given.T:
        counts[:, 1:] = counts[:, 1:] * (1 - success)[:, None] + counts[:, :-1] * success[:, None]
        counts[:, 0] *= 1 - success
    total = np.clip(_WEIGHTS @ counts, 0.0, 1.0)
    most = total[len(chances) // 2 + 1 :].sum()
    return JointSuccess(
        any=float(1 - total[0]),
        most=float(min(most, 1.0)),
        all=float(total[-1]),
        correlation=correlation,
    )


def error_correlations(rewards: Doubles) -> Correlations:
    """Correlations from (n, m) outcomes, success from 0.5 on, NaN where an agent was not seen.

    For each two agents the ρ at which the copula gives the share of requests on which both failed
    (tetrachoric correlation, Pearson 1900, at 0 or more), drawn to PRIOR_CORRELATION by
    PRIOR_WEIGHT requests.
    """
    m = rewards.shape[1]
    prior = unknown_correlations(m)
    values, requests = prior.values, prior.requests
    failed = rewards < 0.5
    seen = ~np.isnan(rewards)
    for i in range(m):
        for j in range(i + 1, m):
            both = seen[:, i] & seen[:, j]
            n = int(both.sum())
            if not n:
                continue
            rates = np.array([1 - failed[both, i].mean(), 1 - failed[both, j].mean()])
            fitted = _fit(rates, float((failed[both, i] & failed[both, j]).mean()))
            blended = (n * fitted + PRIOR_WEIGHT * PRIOR_CORRELATION) / (n + PRIOR_WEIGHT)
            values[i, j] = values[j, i] = blended
            requests[i, j] = requests[j, i] = n
    return Correlations(values, requests)


def _fit(chances: Doubles, both_fail: float) -> float:
    """ρ at which two agents of these chances fail together this often; by bisection."""
    first, second = _thresholds(chances)
    low, high = 0.0, LARGEST_CORRELATION
    if float(np.prod(1 - _inside(chances))) >= both_fail:
        return low
    for _ in range(20):
        middle = (low + high) / 2
        if _both_fail(first, second, middle) < both_fail:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def _both_fail(first: float, second: float, correlation: float) -> float:
    """The chance that two agents with these thresholds both fail."""
    shared, own = sqrt(correlation), sqrt(2 * (1 - correlation))
    total = 0.0
    for node, weight in zip(_NODES.tolist(), _WEIGHTS.tolist(), strict=True):
        z = shared * node
        total += weight * (1 - erf((first - z) / own)) * (1 - erf((second - z) / own))
    return total / 4


def _inside(chances: Doubles) -> Doubles:
    return np.clip(chances, LEAST_CHANCE, 1 - LEAST_CHANCE)


def _thresholds(chances: Doubles) -> list[float]:
    return [_NORMAL.inv_cdf(chance) for chance in _inside(chances).tolist()]


def _given_factor(chances: Doubles, correlation: float) -> Doubles:
    """(nodes, k) chances of success given the factor z at each node."""
    if correlation <= 0:
        return np.tile(_inside(chances), (len(_NODES), 1))
    thresholds = np.array(_thresholds(chances))
    at = (thresholds - sqrt(correlation) * _NODES[:, None]) / sqrt(1 - correlation)
    return np.asarray(np.vectorize(lambda x: 0.5 * (1 + erf(x / sqrt(2))))(at), np.float64)
