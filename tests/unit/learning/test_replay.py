"""Another policy judged on the log of the one that ran."""

from __future__ import annotations

import numpy as np
import pytest

from tinydancer.errors import InvalidInput, NotReady, NumberOutOfRange
from tinydancer.learning.replay import DecisionLog, deterministic, replay

RATES = np.array([[0.9, 0.5, 0.2], [0.2, 0.5, 0.9]])
LOGGING = np.array([0.5, 0.3, 0.2])


def simulate(rows: int, seed: int) -> tuple[DecisionLog, np.ndarray]:
    """A log of a policy that chooses at random, and the kind of each request."""
    rng = np.random.default_rng(seed)
    kinds = rng.integers(0, 2, rows)
    chosen = rng.choice(3, rows, p=LOGGING)
    outcomes = (rng.random(rows) < RATES[kinds, chosen]).astype(np.float64)
    return DecisionLog(chosen, LOGGING[chosen], outcomes), kinds


def target(kinds: np.ndarray) -> np.ndarray:
    """The policy in question: agent 0 for one kind, agent 2 for the other. It earns 0.9."""
    return deterministic(np.where(kinds == 0, 0, 2), 3)


def test_all_three_estimates_are_unbiased_and_their_intervals_cover() -> None:
    found: dict[str, list[float]] = {"ips": [], "snips": [], "dr": []}
    covered = dict.fromkeys(found, 0)
    for seed in range(300):
        log, kinds = simulate(400, seed)
        wrong_model = np.full((400, 3), 0.4)
        result = replay(log, target(kinds), wrong_model)
        for name in found:
            estimate = getattr(result, name)
            found[name].append(estimate.value)
            covered[name] += estimate.low <= 0.9 <= estimate.high
    for name, values in found.items():
        error = np.std(values) / np.sqrt(len(values))
        assert abs(np.mean(values) - 0.9) < 4 * error + 0.003, name
        assert covered[name] / 300 > 0.9, name


def test_a_good_model_makes_the_doubly_robust_interval_narrower() -> None:
    log, kinds = simulate(2000, 5)
    with_model = replay(log, target(kinds), RATES[kinds])
    assert with_model.dr.standard_error < 0.7 * with_model.ips.standard_error
    assert with_model.dr.value == pytest.approx(0.9, abs=0.06)


def test_the_policy_that_ran_earns_what_was_logged() -> None:
    log, kinds = simulate(500, 6)
    policy = np.tile(LOGGING, (500, 1))
    result = replay(log, policy, RATES[kinds])
    assert result.ips.value == pytest.approx(result.logged.value)
    assert result.mean_weight == pytest.approx(1)
    assert result.effective_sample_size == pytest.approx(500)


def test_a_log_without_exploration_supports_no_other_policy() -> None:
    rng = np.random.default_rng(7)
    chosen = np.zeros(500, dtype=np.int64)
    log = DecisionLog(chosen, np.ones(500), rng.random(500))
    other = deterministic(rng.integers(0, 2, 500), 3)
    with pytest.raises(NotReady, match="could not have made") as caught:
        replay(log, other, np.zeros((500, 3)))
    assert "exploration" in caught.value.hint


def test_decisions_without_a_propensity_are_refused_and_counted() -> None:
    log, kinds = simulate(100, 8)
    propensities = log.propensities.copy()
    propensities[:7] = np.nan
    broken = DecisionLog(log.chosen, propensities, log.outcomes)
    with pytest.raises(NotReady, match="7 of 100"):
        replay(broken, target(kinds), RATES[kinds])


def test_too_small_an_effective_sample_is_refused() -> None:
    log, kinds = simulate(40, 9)
    with pytest.raises(NotReady, match="effective sample of"):
        replay(log, target(kinds), RATES[kinds])


def test_an_empty_log_is_refused() -> None:
    empty = DecisionLog(np.empty(0, np.int64), np.empty(0), np.empty(0))
    with pytest.raises(NotReady, match="no decision"):
        replay(empty, np.empty((0, 3)), np.empty((0, 3)))


def test_what_is_no_policy_or_no_log_is_refused() -> None:
    log, kinds = simulate(50, 10)
    with pytest.raises(NumberOutOfRange, match="add up to 1"):
        replay(log, np.full((50, 3), 0.5), RATES[kinds])
    with pytest.raises(InvalidInput, match="do not fit"):
        replay(log, np.ones((10, 3)) / 3, RATES[kinds])
    with pytest.raises(NumberOutOfRange, match="propensity"):
        DecisionLog(np.zeros(1, np.int64), np.array([1.5]), np.zeros(1))
    with pytest.raises(NumberOutOfRange, match="outcome"):
        DecisionLog(np.zeros(1, np.int64), np.ones(1), np.array([np.nan]))
