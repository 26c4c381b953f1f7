"""Scores made into probabilities, sets and a way out."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinydancer.errors import InvalidInput, NumberOutOfRange
from tinydancer.neural.calibration import (
    LEAST_OUTSIDE,
    SCOPE_SIGNALS,
    Conformal,
    area_under_roc,
    expected_calibration_error,
    fit_conformal,
    fit_mixture,
    fit_scope,
    log_loss,
    mix,
    scope_signals,
    settle,
)
from tinydancer.neural.heads import softmax


def drawn(rows: int, classes: int = 5, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Logits that are true: labels are drawn from their softmax."""
    rng = np.random.default_rng(seed)
    logits = (rng.normal(size=(rows, classes)) * 2).astype(np.float32)
    shares = softmax(logits).cumsum(axis=1)
    labels = (rng.random((rows, 1)) > shares).sum(axis=1)
    return logits, np.minimum(labels, classes - 1)


@pytest.mark.parametrize("temperature", [0.25, 1.0, 3.0])
def test_the_temperature_is_found_again(temperature: float) -> None:
    logits, labels = drawn(8000)
    (weight,) = fit_mixture([logits * np.float32(temperature)], labels)
    assert weight * temperature == pytest.approx(1, rel=0.06)
    assert expected_calibration_error(softmax(logits), labels) < 0.03


def test_a_part_that_is_noise_gets_almost_nothing() -> None:
    logits, labels = drawn(4000)
    noise = np.random.default_rng(1).normal(size=logits.shape).astype(np.float32)
    weights = fit_mixture([logits, noise], labels)
    assert weights[0] == pytest.approx(1, rel=0.1)
    assert weights[1] < 0.08


def test_two_parts_that_know_different_things_are_better_than_either() -> None:
    logits, labels = drawn(4000)
    rng = np.random.default_rng(2)
    parts = [logits + 2 * rng.normal(size=logits.shape).astype(np.float32) for _ in range(2)]
    both = log_loss(mix(parts, fit_mixture(parts, labels)), labels)
    alone = [log_loss(mix([p], fit_mixture([p], labels)), labels) for p in parts]
    assert both < min(alone) - 0.02


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000))
def test_no_nearby_coefficients_have_a_lower_loss(seed: int) -> None:
    logits, labels = drawn(200, seed=seed)
    other = np.roll(logits, 1, axis=0)
    weights = np.array(fit_mixture([logits, other], labels))
    assert (weights >= 0).all()
    least = log_loss(mix([logits, other], weights), labels)
    for step in ([0.02, 0], [-0.02, 0], [0, 0.02], [0, -0.02]):
        moved = np.maximum(weights + step, 0)
        assert log_loss(mix([logits, other], moved), labels) >= least - 1e-5


def test_parts_that_are_wrong_throughout_are_refused() -> None:
    logits, labels = drawn(500)
    with pytest.raises(InvalidInput, match="no part of the classifier is better than chance"):
        fit_mixture([-logits], labels)
    with pytest.raises(InvalidInput, match="nothing to calibrate on"):
        fit_mixture([logits[:0]], labels[:0])


def test_the_calibration_error_of_known_bins() -> None:
    shares = np.array([[0.9, 0.1]] * 10 + [[0.6, 0.4]] * 10)
    labels = np.array([0] * 9 + [1] + [0] * 4 + [1] * 6)
    # Bin of 0.9: right 0.9 of the time. Bin of 0.6: right 0.4 of the time.
    assert expected_calibration_error(shares, labels) == pytest.approx(0.5 * 0 + 0.5 * 0.2)


@pytest.mark.parametrize("coverage", [0.8, 0.95])
def test_conformal_sets_cover_new_rows_as_stated(coverage: float) -> None:
    logits, labels = drawn(2000)
    conformal = fit_conformal(softmax(logits), labels, coverage)
    new_logits, new_labels = drawn(20000, seed=9)
    sets = conformal.sets(softmax(new_logits))
    covered = sets[np.arange(len(new_labels)), new_labels].mean()
    assert covered == pytest.approx(coverage, abs=0.015)
    assert 1 < sets.sum(axis=1).mean() < 5


def test_too_few_rows_for_a_coverage_leave_every_label_in() -> None:
    logits, labels = drawn(10)
    assert fit_conformal(softmax(logits), labels, 0.95).sets(softmax(logits)).all()
    with pytest.raises(NumberOutOfRange, match="the coverage is 1"):
        fit_conformal(softmax(logits), labels, 1.0)


def signals(rows: int, shift: float, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (rng.normal(size=(rows, len(SCOPE_SIGNALS))) + shift * np.array([0, 1, 2])).astype(
        np.float32
    )


def test_the_scope_rule_finds_the_signals_that_tell() -> None:
    rule = fit_scope(signals(500, 0, 0), signals(100, 1.5, 1))
    inside, outside = rule.score(signals(2000, 0, 2)), rule.score(signals(2000, 1.5, 3))
    assert area_under_roc(inside, outside) > 0.98
    assert abs(rule.weights[0]) < 0.4 * rule.weights[2]
    assert np.mean(inside > rule.threshold) < 0.12
    assert np.mean(outside > rule.threshold) > 0.88
    assert (rule.outside, rule.caught is not None) == (100, True)


def test_without_examples_from_outside_a_twentieth_is_refused() -> None:
    rule = fit_scope(signals(400, 0, 0), signals(0, 0, 0))
    assert rule.refused == pytest.approx(0.05, abs=0.005)
    assert (rule.outside, rule.caught) == (0, None)


def test_a_few_examples_from_outside_move_the_threshold_only() -> None:
    few = fit_scope(signals(400, 0, 0), signals(LEAST_OUTSIDE - 1, 3, 1))
    none = fit_scope(signals(400, 0, 0), signals(0, 0, 0))
    assert few.weights == none.weights
    assert few.threshold != none.threshold


def test_signals_stay_finite_at_the_extremes() -> None:
    logits = np.array([[1000.0, 0, 0], [0, 0, 0], [-1000, -1000, -999]], np.float32)
    found = scope_signals(settle(logits), np.array([1.0, 0.0, -1.0], np.float32))
    assert np.isfinite(found).all()
    assert found[0, 0] < found[1, 0]


def test_the_area_under_roc_counts_pairs() -> None:
    inside, outside = np.array([0.1, 0.4, 0.4]), np.array([0.4, 0.9])
    wins = [(o > i) + 0.5 * (o == i) for i in inside for o in outside]
    assert area_under_roc(inside, outside) == pytest.approx(np.mean(wins))


@settings(max_examples=50)
@given(st.lists(st.floats(0, 1, width=32), min_size=1, max_size=20), st.floats(0, 1, width=32))
def test_the_size_of_a_set_is_the_number_of_its_members(found: list[float], floor: float) -> None:
    rule = Conformal(0.95, floor, 100)
    probabilities = np.array([found], np.float32)
    assert rule.size(sorted(found, reverse=True)) == rule.sets(probabilities).sum()
