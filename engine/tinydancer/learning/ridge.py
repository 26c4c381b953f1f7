"""Ridge regression with its leave-one-out predictions in closed form, for many strengths at once.

With centred X = U diag(s) Vᵀ and strength λ the fitted values are U diag(s²/(s² + λ)) Uᵀ y, and
the prediction for row i by the ridge that never saw row i is y_i - e_i / (1 - h_i), where e are
the residuals and h the diagonal of that matrix plus 1/n for the intercept (Allen 1974, PRESS).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Doubles = NDArray[np.float64]
Floats = NDArray[np.float32]
LARGEST_LEVERAGE = 1 - 1e-6


@dataclass(frozen=True, eq=False)
class Ridge:
    """weights: (D, m), intercepts: (m,), float64. Predicts features @ weights + intercepts."""

    weights: Doubles
    intercepts: Doubles

    def predict(self, features: Floats) -> Doubles:
        """(n, D) → (n, m)."""
        return features @ self.weights + self.intercepts


class RidgePath:
    """The ridges of one design for every strength: one eigendecomposition, then each is cheap.

    features: (n, D) float32; targets: (n, m). Works on the smaller of DxD and nxn.
    """

    def __init__(self, features: Floats, targets: Doubles) -> None:
        self._mean = features.mean(axis=0, dtype=np.float64)
        self._target_mean = targets.mean(axis=0)
        self._targets = targets
        centred = features - self._mean.astype(np.float32)
        residue = (targets - self._target_mean).astype(np.float32)
        n, width = centred.shape
        small = centred @ centred.T if n <= width else centred.T @ centred
        values, vectors = np.linalg.eigh(small)
        kept = values > max(float(values[-1]), 1e-12) * 1e-7
        self._squares = values[kept].astype(np.float64)
        basis = vectors[:, kept]
        singular = np.sqrt(values[kept])
        # left: U (n, r); right: V (D, r)
        self._left = basis if n <= width else (centred @ basis) / singular
        self._right = (centred.T @ basis) / singular if n <= width else basis
        self._projected = (self._left.T @ residue).astype(np.float64)
        self._left_squares = np.square(self._left)

    def fit(self, strength: float) -> Ridge:
        """The ridge of one strength, over all rows."""
        shrink = np.sqrt(self._squares) / (self._squares + strength)
        weights = self._right.astype(np.float64) @ (shrink[:, None] * self._projected)
        return Ridge(weights, self._target_mean - self._mean @ weights)

    def leave_one_out(self, strength: float) -> Doubles:
        """(n, m): the prediction for each row by the ridge of all the others."""
        n = len(self._targets)
        shrink = self._squares / (self._squares + strength)
        coordinates = (shrink[:, None] * self._projected).astype(np.float32)
        fitted = self._left @ coordinates + self._target_mean
        leverage = self._left_squares @ shrink.astype(np.float32) + 1 / n
        residuals = self._targets - fitted
        kept = 1 - np.minimum(leverage, LARGEST_LEVERAGE)
        return np.asarray(self._targets - residuals / kept[:, None], dtype=np.float64)
