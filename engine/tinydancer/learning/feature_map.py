"""One map from a request to the coordinates in which a ridge is linear: three kernels, added.

    k(x, y) = exp(-γ_s |s_x - s_y|² / columns) + exp(-γ_e |e_x - e_y|²) + t_x · t_y

s are the standardised surface features, e the centred unit embeddings, t the tf-idf terms. The
two Gaussian kernels are approximated by Nyström's method (Williams & Seeger 2001): with landmarks
L and K(L, L) = U diag(w) Uᵀ, the coordinates of x are K(x, L) U diag(w)^(-1/2).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tinydancer.learning.requests import Floats, Requests
from tinydancer.learning.terms import TermWeights, fit_term_weights

SURFACE_WIDTH = 0.5
EMBEDDING_WIDTH = 1.0
SURFACE_LANDMARKS = 300
EMBEDDING_LANDMARKS = 300
MOST_TERMS = 3000
CLIP = 4.0
"""Standard deviations at which a surface feature is cut: one odd text must not rule the kernel."""
SMALLEST_EIGENVALUE = 1e-4


@dataclass(frozen=True, eq=False)
class FeatureMap:
    """A fitted map. All arrays float32, but the buckets of the terms.

    surface_mean, surface_factor: (k,), the factor 0 for a column that says nothing;
    surface_landmarks: (a, k); embedding_mean: (d,); embedding_landmarks: (b, d);
    surface_whitening: (a, p) and embedding_whitening: (b, q) turn kernel values into coordinates.
    """

    surface_mean: Floats
    surface_factor: Floats
    surface_landmarks: Floats
    surface_whitening: Floats
    embedding_mean: Floats
    embedding_landmarks: Floats
    embedding_whitening: Floats
    terms: TermWeights

    def kernels(self, requests: Requests) -> Floats:
        """(n, a + b + v): kernel values to the landmarks, then the columns of the terms."""
        surface = _standardise(requests.surface, self.surface_mean, self.surface_factor)
        embeddings = _centre(requests.embeddings, self.embedding_mean)
        return np.hstack(
            [
                _gaussian(surface, self.surface_landmarks, SURFACE_WIDTH),
                _gaussian(embeddings, self.embedding_landmarks, EMBEDDING_WIDTH),
                self.terms.columns(requests.terms),
            ]
        )

    def whiten(self, kernels: Floats) -> Floats:
        """(n, p + q + v): the coordinates of requests whose kernel values are given."""
        a, b = len(self.surface_landmarks), len(self.embedding_landmarks)
        return np.hstack(
            [
                kernels[:, :a] @ self.surface_whitening,
                kernels[:, a : a + b] @ self.embedding_whitening,
                kernels[:, a + b :],
            ]
        )

    def unwhiten(self, weights: NDArray[np.float64]) -> NDArray[np.float64]:
        """(a + b + v, m): weights on kernel values for (p + q + v, m) weights on coordinates."""
        p, q = self.surface_whitening.shape[1], self.embedding_whitening.shape[1]
        return np.vstack(
            [
                self.surface_whitening @ weights[:p],
                self.embedding_whitening @ weights[p : p + q],
                weights[p + q :],
            ]
        )


def fit_feature_map(requests: Requests, seed: int = 0) -> FeatureMap:
    """Landmarks drawn without replacement by the seed; scales and term weights from all rows.

    Nothing here looks at an outcome, so rows that are held out later may take part.
    """
    rng = np.random.default_rng(seed)
    n = len(requests)
    mean = requests.surface.mean(axis=0)
    spread = requests.surface.std(axis=0)
    columns = max(int((spread > 1e-6).sum()), 1)
    safe = np.where(spread > 1e-6, spread, 1.0)
    factor = np.where(spread > 1e-6, 1 / (safe * np.sqrt(columns)), 0.0).astype(np.float32)
    centre = requests.embeddings.mean(axis=0)
    surface_rows = np.sort(rng.choice(n, min(n, SURFACE_LANDMARKS), replace=False))
    embedding_rows = np.sort(rng.choice(n, min(n, EMBEDDING_LANDMARKS), replace=False))
    surface = _standardise(requests.surface[surface_rows], mean, factor)
    embeddings = _centre(requests.embeddings[embedding_rows], centre)
    return FeatureMap(
        surface_mean=mean,
        surface_factor=factor,
        surface_landmarks=surface,
        surface_whitening=_whitening(_gaussian(surface, surface, SURFACE_WIDTH)),
        embedding_mean=centre,
        embedding_landmarks=embeddings,
        embedding_whitening=_whitening(_gaussian(embeddings, embeddings, EMBEDDING_WIDTH)),
        terms=fit_term_weights(requests.terms, MOST_TERMS),
    )


def _standardise(surface: Floats, mean: Floats, factor: Floats) -> Floats:
    columns = max(int(np.count_nonzero(factor)), 1)
    limit = np.float32(CLIP / np.sqrt(columns))
    standard: Floats = np.clip((surface - mean) * factor, -limit, limit)
    return standard


def _centre(embeddings: Floats, mean: Floats) -> Floats:
    centred = embeddings - mean
    lengths = np.sqrt(np.einsum("ij,ij->i", centred, centred))
    unit: Floats = centred / np.where(lengths > 1e-6, lengths, np.float32(1))[:, None]
    return unit


def _gaussian(left: Floats, right: Floats, width: float) -> Floats:
    squares = left @ right.T
    squares *= -2
    squares += np.einsum("ij,ij->i", left, left)[:, None]
    squares += np.einsum("ij,ij->i", right, right)
    np.maximum(squares, 0, out=squares)
    squares *= -width
    kernel: Floats = np.exp(squares, out=squares)
    return kernel


def _whitening(kernel: Floats) -> Floats:
    values, vectors = np.linalg.eigh(kernel.astype(np.float64))
    kept = values > SMALLEST_EIGENVALUE
    whitening: Floats = (vectors[:, kept] / np.sqrt(values[kept])).astype(np.float32)
    return whitening
