"""Stacked regression: a sum of estimators with weights that can't be negative (Breiman 1996).

estimate = mean + Σ w_j (prediction_j - mean), with w ≥ 0 the least squares solution over held-out
predictions. All w are 0 where nothing predicts better than the mean.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tinydancer.learning.estimators import Estimator
from tinydancer.learning.outcomes import Doubles, Outcomes
from tinydancer.learning.requests import Requests

FOLDS = 5
SWEEPS = 1000
TOLERANCE = 1e-9


@dataclass(frozen=True, eq=False)
class StackedEstimator:
    """means: (m,), of each agent; parts: estimators whose weights are inside; total: their sum.

    With no parts it is each agent's mean, whatever the request.
    """

    means: Doubles
    parts: tuple[Estimator, ...] = ()
    total: float = 0.0

    def estimate(self, requests: Requests) -> Doubles:
        """(n, m)."""
        estimates: Doubles = np.tile((1 - self.total) * self.means, (len(requests), 1))
        for part in self.parts:
            estimates += part.estimate(requests)
        return estimates


def stacked_predictions(means: Doubles, held_out: Sequence[Doubles], weights: Doubles) -> Doubles:
    """(n, m): means + Σ w (held_out - means)."""
    total: Doubles = means.copy()
    for weight, predictions in zip(weights, held_out, strict=True):
        if weight:
            total += weight * (predictions - means)
    return total


def contrasts(values: Doubles, outcomes: Outcomes) -> Doubles:
    """(n, m): values less their mean over the agents seen on the row, where there are several.

    Choosing needs the differences between agents: that a request is hard for all of them does not
    help. 0 where an agent was not seen.
    """
    seen = outcomes.seen
    counts = seen.sum(axis=1, keepdims=True)
    kept = np.where(seen, values, 0.0)
    shared = np.where(counts > 1, kept.sum(axis=1, keepdims=True) / np.maximum(counts, 1), 0.0)
    return np.where(seen, kept - shared, 0.0)


def fit_weights(means: Doubles, held_out: Sequence[Doubles], outcomes: Outcomes) -> Doubles:
    """(j,) weights over all rows."""
    grams, products = _moments(means, held_out, outcomes)
    return non_negative_least_squares(grams.sum(axis=0), products.sum(axis=0))


def cross_fitted(means: Doubles, held_out: Sequence[Doubles], outcomes: Outcomes) -> Doubles:
    """(n, m) stacked predictions, each row's weights fitted on the other folds: for evidence."""
    grams, products = _moments(means, held_out, outcomes)
    total = np.empty_like(means)
    for fold in range(FOLDS):
        rest = np.arange(FOLDS) != fold
        weights = non_negative_least_squares(grams[rest].sum(axis=0), products[rest].sum(axis=0))
        rows = slice(fold, None, FOLDS)
        total[rows] = stacked_predictions(means[rows], [p[rows] for p in held_out], weights)
    return total


def non_negative_least_squares(gram: Doubles, product: Doubles) -> Doubles:
    """argmin over w ≥ 0 of wᵀ gram w / 2 - productᵀ w, by cyclic coordinate descent."""
    weights = np.zeros(len(product))
    gradient = -product.astype(np.float64)
    scale = float(np.abs(product).max(initial=0.0)) + 1e-300
    for _ in range(SWEEPS):
        largest = 0.0
        for j, curvature in enumerate(np.diag(gram)):
            if curvature <= 0:
                continue
            step = max(-weights[j], -gradient[j] / curvature)
            if step:
                weights[j] += step
                gradient += step * gram[:, j]
                largest = max(largest, abs(step) * curvature)
        if largest <= TOLERANCE * scale:
            break
    return weights


def _moments(
    means: Doubles, held_out: Sequence[Doubles], outcomes: Outcomes
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Per fold the (j, j) Gram matrix of the contrasts and their (j,) product with the target.

    Each row counts once, however many agents were seen on it.
    """
    scale = 1 / np.sqrt(np.maximum(outcomes.seen.sum(axis=1, keepdims=True), 1))
    target = contrasts(outcomes.rewards - means, outcomes) * scale
    columns = [contrasts(predictions - means, outcomes) * scale for predictions in held_out]
    grams, products = [], []
    for fold in range(FOLDS):
        rows = slice(fold, None, FOLDS)
        design = np.stack([column[rows].ravel() for column in columns], axis=1)
        grams.append(design.T @ design)
        products.append(design.T @ target[rows].ravel())
    return np.array(grams), np.array(products)
