"""The simple ways to classify a vector, for a figure beside the network's."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tinydancer.errors import NotReady
from tinydancer.neural.ragged import Floats, Integers


def centroids(known: Floats, labels: Integers, asked: Floats) -> Integers:
    """(n,) the label whose mean vector has the greatest cosine."""
    sums = np.zeros((int(labels.max()) + 1, known.shape[1]), np.float32)
    np.add.at(sums, labels, known)
    sums /= np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), 1e-12)
    nearest: Integers = (asked @ sums.T).argmax(axis=1)
    return nearest


def nearest_neighbours(known: Floats, labels: Integers, asked: Floats, k: int) -> Integers:
    """(n,) the label with the greatest sum of cosines among the k nearest rows."""
    classes = int(labels.max()) + 1
    votes = np.zeros((len(asked), classes), np.float32)
    for start in range(0, len(asked), 512):
        here = slice(start, start + 512)
        cosines = asked[here] @ known.T
        near = np.argpartition(-cosines, min(k, len(known)) - 1, axis=1)[:, :k]
        rows = np.arange(len(near))[:, None]
        np.add.at(votes[here], (rows, labels[near]), cosines[rows, near])
    best: Integers = votes.argmax(axis=1)
    return best


def logistic_regression(
    known: Floats, labels: Integers, asked: Floats, classes: int, strength: float
) -> Integers:
    """(n,) by multinomial logistic regression, L-BFGS; `strength` is C, as in scikit-learn.

    Raises NotReady where scipy is not installed.
    """
    try:
        from scipy.optimize import minimize
    except ImportError:
        raise NotReady(
            "logistic regression needs scipy, which is not installed",
            hint="pip install 'tinydancer-router[optimize]'",
        ) from None
    inputs = known.shape[1]
    rows = np.arange(len(labels))

    def loss(flat: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        weights = flat.reshape(classes, inputs + 1).astype(np.float32)
        matrix, offsets = weights[:, :inputs], weights[:, inputs]
        logits = known @ matrix.T + offsets
        logits -= logits.max(axis=1, keepdims=True)
        shares = np.exp(logits)
        sums = shares.sum(axis=1, keepdims=True)
        total = float(np.log(sums).sum() - logits[rows, labels].sum())
        shares /= sums
        shares[rows, labels] -= 1
        gradient = np.column_stack([shares.T @ known + matrix / strength, shares.sum(axis=0)])
        penalty = 0.5 * float(np.sum(matrix.astype(np.float64) ** 2)) / strength
        return total + penalty, gradient.astype(np.float64).ravel()

    start = np.zeros(classes * (inputs + 1))
    found = minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": 200})
    weights = found.x.reshape(classes, inputs + 1).astype(np.float32)
    best: Integers = (asked @ weights[:, :inputs].T + weights[:, inputs]).argmax(axis=1)
    return best
