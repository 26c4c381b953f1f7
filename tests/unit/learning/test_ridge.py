"""Ridge, its leave-one-out predictions, and the stack of estimators."""

from __future__ import annotations

import numpy as np
import pytest

from tinydancer.learning.calibration import fit_isotonic
from tinydancer.learning.feature_map import fit_feature_map
from tinydancer.learning.requests import describe
from tinydancer.learning.ridge import RidgePath
from tinydancer.learning.search import nearest
from tinydancer.learning.stacking import non_negative_least_squares


@pytest.mark.parametrize(("rows", "width"), [(40, 6), (12, 30)])
def test_a_ridge_is_the_solution_of_its_normal_equations(rows: int, width: int) -> None:
    rng = np.random.default_rng(0)
    features = rng.normal(size=(rows, width)).astype(np.float32)
    targets = rng.normal(size=(rows, 2))
    ridge = RidgePath(features, targets).fit(3.0)
    centred = features - features.mean(axis=0)
    expected = np.linalg.solve(
        centred.T @ centred + 3.0 * np.eye(width), centred.T @ (targets - targets.mean(axis=0))
    )
    assert np.allclose(ridge.weights, expected, atol=1e-4)


@pytest.mark.parametrize(("rows", "width"), [(30, 5), (15, 40)])
def test_leave_one_out_is_what_refitting_without_the_row_predicts(rows: int, width: int) -> None:
    rng = np.random.default_rng(1)
    features = rng.normal(size=(rows, width)).astype(np.float32)
    targets = rng.normal(size=(rows, 1))
    closed_form = RidgePath(features, targets).leave_one_out(2.0)
    for row in range(rows):
        rest = np.arange(rows) != row
        refitted = RidgePath(features[rest], targets[rest]).fit(2.0)
        assert closed_form[row] == pytest.approx(refitted.predict(features[[row]])[0], abs=2e-4)


def test_weights_of_a_stack_are_never_negative_and_optimal() -> None:
    rng = np.random.default_rng(2)
    design = rng.normal(size=(200, 4))
    target = design @ np.array([0.7, 0.0, -0.5, 0.2]) + rng.normal(0, 0.1, 200)
    weights = non_negative_least_squares(design.T @ design, design.T @ target)
    gradient = design.T @ (design @ weights - target)
    assert (weights >= 0).all()
    assert weights[2] == 0
    # The conditions of Karush, Kuhn and Tucker.
    assert np.allclose(gradient[weights > 0], 0, atol=1e-5)
    assert (gradient[weights == 0] >= -1e-5).all()


def test_a_stack_of_nothing_useful_is_nothing() -> None:
    assert not non_negative_least_squares(np.eye(3), np.array([-1.0, -0.1, 0.0])).any()


def test_nearest_neighbours_are_the_exact_ones_without_themselves() -> None:
    rng = np.random.default_rng(4)
    vectors = rng.normal(size=(700, 8)).astype(np.float32)
    found = nearest(vectors, vectors, 5, leave_self_out=True)
    similarity = vectors @ vectors.T
    np.fill_diagonal(similarity, -np.inf)
    assert np.array_equal(found, np.argsort(-similarity, axis=1, kind="stable")[:, :5])


def test_nystrom_is_exact_where_every_row_is_a_landmark() -> None:
    rng = np.random.default_rng(5)
    texts = [f"question {i} about {i * i} things, is it {i % 3}?" for i in range(40)]
    vectors = rng.normal(size=(40, 16)).astype(np.float32)
    requests = describe(texts, vectors / np.linalg.norm(vectors, axis=1, keepdims=True))
    feature_map = fit_feature_map(requests)
    kernels = feature_map.kernels(requests)
    features = feature_map.whiten(kernels)
    surface, embedding, terms = kernels[:, :40], kernels[:, 40:80], kernels[:, 80:]
    order = np.arange(40)
    exact = surface[:, order] + embedding[:, order] + terms @ terms.T
    assert np.allclose(features @ features.T, exact, atol=0.02)


def test_calibration_never_falls_and_repairs_overconfidence() -> None:
    rng = np.random.default_rng(6)
    true = rng.random(4000)
    outcomes = (rng.random(4000) < true).astype(np.float64)
    overconfident = true**3
    fit, held_out = slice(0, 2000), slice(2000, None)
    calibration = fit_isotonic(overconfident[fit], outcomes[fit])
    assert (np.diff(calibration.rates) >= 0).all()
    before = np.abs(overconfident - true)[held_out].mean()
    after = np.abs(calibration.apply(overconfident) - true)[held_out].mean()
    assert after < 0.05 < before


def test_calibration_without_evidence_only_keeps_within_bounds() -> None:
    calibration = fit_isotonic(np.array([0.3]), np.array([1.0]))
    assert calibration.apply(np.array([-0.2, 0.4, 1.7])).tolist() == [0.0, 0.4, 1.0]
