"""Chances of ensembles whose errors go together."""

from __future__ import annotations

from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinydancer.teams.joint_success import (
    PRIOR_CORRELATION,
    PRIOR_WEIGHT,
    error_correlations,
    joint_success,
)

chances = st.lists(st.floats(0.01, 0.99), min_size=1, max_size=6).map(np.array)


@given(chances)
def test_independent_agents_are_a_product(given_chances: np.ndarray) -> None:
    joint = joint_success(given_chances, 0.0)
    assert joint.any == pytest.approx(1 - np.prod(1 - given_chances), abs=1e-9)
    assert joint.all == pytest.approx(np.prod(given_chances), abs=1e-9)


@given(chances, st.floats(0, 0.9))
def test_any_is_at_least_the_best_and_all_at_most_the_worst(
    given_chances: np.ndarray, correlation: float
) -> None:
    joint = joint_success(given_chances, correlation)
    assert joint.any >= given_chances.max() - 1e-3
    assert joint.all <= given_chances.min() + 1e-3
    assert joint.all - 1e-9 <= joint.most <= joint.any + 1e-9


def test_agents_that_fail_together_help_each_other_less() -> None:
    team = np.array([0.7, 0.7, 0.7])
    anys = [joint_success(team, rho).any for rho in (0.0, 0.3, 0.6, 0.9)]
    assert anys == sorted(anys, reverse=True)


def test_the_copula_agrees_with_simulation() -> None:
    rng = np.random.default_rng(0)
    team, rho = np.array([0.8, 0.6, 0.55]), 0.5
    thresholds = np.array([NormalDist().inv_cdf(p) for p in team])
    own = rng.normal(size=(200_000, 3))
    latent = np.sqrt(rho) * rng.normal(size=(200_000, 1)) + np.sqrt(1 - rho) * own
    succeeded = (latent < thresholds).sum(axis=1)
    joint = joint_success(team, rho)
    assert joint.any == pytest.approx((succeeded > 0).mean(), abs=0.005)
    assert joint.most == pytest.approx((succeeded > 1).mean(), abs=0.005)
    assert joint.all == pytest.approx((succeeded == 3).mean(), abs=0.005)


def test_correlation_is_found_in_outcomes_and_unseen_pairs_keep_the_prior() -> None:
    rng = np.random.default_rng(1)
    z = rng.normal(size=3000)
    alike = [np.sqrt(0.8) * z + np.sqrt(0.2) * rng.normal(size=3000) < 0.5 for _ in range(2)]
    apart = rng.normal(size=3000) < 0.5
    rewards = np.column_stack([*alike, apart, np.full(3000, np.nan)]).astype(float)
    found = error_correlations(rewards)
    assert found.values[0, 1] == pytest.approx(0.8, abs=0.08)
    assert found.values[0, 2] < 0.1
    assert found.values[0, 3] == PRIOR_CORRELATION
    assert found.requests[0, 3] == 0
    assert found.requests[0, 1] == 3000


def test_few_outcomes_are_drawn_to_the_prior() -> None:
    # Two agents that never failed together, on half as many requests as the prior counts for
    requests = int(PRIOR_WEIGHT) // 2
    turns = np.arange(requests) % 2
    found = error_correlations(np.column_stack([turns, 1 - turns]).astype(float))
    assert found.values[0, 1] == pytest.approx(PRIOR_CORRELATION * 2 / 3)
