"""From scores to what they are worth: probabilities, sets with a stated coverage, a way out.

All of it is fitted on rows that the scores were not trained on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tinydancer.errors import InvalidInput, NumberOutOfRange
from tinydancer.neural.heads import log_softmax
from tinydancer.neural.ragged import Floats, Integers

BINS = 15


def fit_mixture(logits: Sequence[Floats], labels: Integers) -> tuple[float, ...]:
    """The coefficient of each set of logits in the sum whose softmax has the least log loss.

    logits: one (n, classes) array a part. The loss is convex in the coefficients, which are held
    at 0 or above; their scale is the temperature of Guo et al. 2017 (one part: 1 / temperature).
    Damped Newton steps; a part that does not help gets 0.
    """
    if not logits or len(labels) == 0:
        raise InvalidInput("there is nothing to calibrate on")
    rows = np.arange(len(labels))
    # (parts, n, classes), each centred on the true label: the loss is mean log Σ exp(w · margins).
    margins = np.stack([part - part[rows, labels][:, None] for part in logits]).astype(np.float64)
    parts = len(logits)
    weights = np.full(parts, 1.0 / parts)
    damping = 1e-3
    loss, gradient, curvature = _mixture_loss(margins, weights)
    for _ in range(100):
        free = (weights > 0) | (gradient < 0)
        if not free.any() or np.abs(gradient[free]).max() < 1e-7:
            break
        system = curvature[np.ix_(free, free)] + damping * np.eye(int(free.sum()))
        moved = weights.copy()
        moved[free] -= np.linalg.solve(system, gradient[free])
        moved = np.maximum(moved, 0)
        new_loss, new_gradient, new_curvature = _mixture_loss(margins, moved)
        if new_loss <= loss:
            weights, loss = moved, new_loss
            gradient, curvature = new_gradient, new_curvature
            damping = max(damping / 4, 1e-9)
        else:
            damping *= 8
            if damping > 1e12:
                break
    if not weights.any():
        raise InvalidInput("no part of the classifier is better than chance on the held-out rows")
    return tuple(float(weight) for weight in weights)


def _mixture_loss(
    margins: NDArray[np.float64], weights: NDArray[np.float64]
) -> tuple[float, NDArray[np.float64], NDArray[np.float64]]:
    mixed = np.tensordot(weights, margins, axes=1)
    top = mixed.max(axis=1, keepdims=True)
    shares = np.exp(mixed - top)
    sums = shares.sum(axis=1, keepdims=True)
    shares /= sums
    means = np.einsum("nc,pnc->pn", shares, margins)
    second = np.einsum("nc,pnc,qnc->pq", shares, margins, margins, optimize=True)
    loss = float(np.mean(top[:, 0] + np.log(sums[:, 0])))
    count = margins.shape[1]
    return loss, means.mean(axis=1), (second - means @ means.T) / count


def mix(logits: Sequence[Floats], weights: Sequence[float]) -> Floats:
    """Σ weight × logits."""
    total: Floats = logits[0] * np.float32(weights[0])
    for part, weight in zip(logits[1:], weights[1:], strict=True):
        total += np.float32(weight) * part
    return total


def expected_calibration_error(probabilities: Floats, labels: Integers) -> float:
    """Σ share of rows × |accuracy - mean confidence| over BINS of equal width (Guo et al. 2017)."""
    confidence = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == labels
    place = np.minimum((confidence * BINS).astype(np.int64), BINS - 1)
    gaps = np.zeros(BINS)
    np.add.at(gaps, place, right - confidence.astype(np.float64))
    return float(np.abs(gaps).sum() / len(labels))


@dataclass(frozen=True)
class Conformal:
    """Split-conformal sets: the labels whose probability is at least `floor`.

    Over exchangeable requests of the known categories the set holds the true one with probability
    `coverage` (Sadinle, Lei, Wasserman 2019). A set may be empty: then no label is plausible at
    that coverage, and the request is best treated as unknown.
    """

    coverage: float
    floor: float
    rows: int

    def sets(self, probabilities: Floats) -> NDArray[np.bool_]:
        """(…, classes) which labels are in the set."""
        members: NDArray[np.bool_] = probabilities >= self.floor
        return members

    def size(self, ranked: Sequence[float]) -> int:
        """How many of these probabilities, in falling order, are in the set."""
        count = 0
        for probability in ranked:
            if probability < self.floor:
                break
            count += 1
        return count


def fit_conformal(probabilities: Floats, labels: Integers, coverage: float) -> Conformal:
    """The floor that gives `coverage`: the ⌊(n + 1)(1 - coverage)⌋-th least true probability.

    With too few rows for the coverage asked (n + 1 < 1 / (1 - coverage)) every label is in
    every set. Raises NumberOutOfRange for a coverage outside (0, 1).
    """
    if not 0 < coverage < 1:
        raise NumberOutOfRange(f"the coverage is {coverage}, not between 0 and 1")
    true = np.sort(probabilities[np.arange(len(labels)), labels])
    rank = int(np.floor((len(true) + 1) * (1 - coverage) + 1e-9))
    return Conformal(coverage, float(true[rank - 1]) if rank else 0.0, len(true))


@dataclass(frozen=True)
class ScopeRule:
    """A request is out of scope when the weighted sum of its signals is above `threshold`.

    weights: one for each of SCOPE_SIGNALS. outside: how many examples from outside they were
    fitted on. With none, the weights are fixed ones that did well on public data, and the
    threshold is the one that refuses `refused` of the held-out requests of the known categories.
    refused, caught: the shares of known and of outside requests that the rule refuses.
    """

    weights: tuple[float, ...]
    threshold: float
    refused: float
    caught: float | None
    outside: int

    def score(self, signals: Floats) -> Floats:
        """(n,) from (n, signals); higher is further out."""
        result: Floats = signals @ self._weights
        return result

    @cached_property
    def _weights(self) -> Floats:
        return np.array(self.weights, np.float32)


SCOPE_SIGNALS = ("doubt", "energy", "distance")
DEFAULT_SCOPE_WEIGHTS = (0.25, 0.25, 5.0)
DEFAULT_REFUSED = 0.05
_ONE = np.float32(1)
# For the odds, held within e^±8, and for the sums, which are 1 at least.
_LESS = np.array([[1], [0]], np.float32)
_AT_LEAST = np.array([[np.exp(-8)], [0]], np.float32)
_AT_MOST = np.array([[np.exp(8)], [np.inf]], np.float32)
LEAST_OUTSIDE = 20
"""Examples from outside below which their weights are not fitted, only their threshold."""


class Settled(NamedTuple):
    """Logits, settled: probabilities (n, classes), and of each row the greatest logit and the sum
    of the exponentials of the logits less that (n,)."""

    probabilities: Floats
    top: Floats
    sums: Floats


def settle(logits: Floats) -> Settled:
    """The softmax of (n, classes) logits with its by-products."""
    top = np.maximum.reduce(logits, 1)
    shares = logits - top[:, None]
    np.exp(shares, shares)
    sums = np.add.reduce(shares, 1)
    shares /= sums[:, None]
    return Settled(shares, top, sums)


def scope_signals(settled: Settled, similarity: Floats) -> Floats:
    """(n, 3): what speaks for a request being of no known category.

    doubt: the log-odds against the likeliest category, within ±8. energy: minus the logarithm of
    the sum of the exponentials of the logits (Liu et al. 2020). distance: 1 - the cosine to the
    nearest prototype, (n,) `similarity`.
    """
    signals = np.empty((len(SCOPE_SIGNALS), len(similarity)), np.float32)
    # The likeliest category has 1 / sums: the odds against it are sums - 1. Both logs at once.
    logs = np.subtract(settled.sums, _LESS, out=signals[:2])
    np.maximum(logs, _AT_LEAST, out=logs)
    np.minimum(logs, _AT_MOST, out=logs)
    np.log(logs, logs)
    signals[1] = -settled.top - logs[1]
    np.subtract(_ONE, similarity, out=signals[2])
    rows: Floats = signals.T
    return rows


def fit_scope(inside: Floats, outside: Floats) -> ScopeRule:
    """A rule from the signals of held-out known requests and of requests from outside.

    From LEAST_OUTSIDE outside examples on, weights by logistic regression, both sides weighing
    the same; and the threshold of the greatest mean of refused outside and accepted inside
    (Youden's J). With none, see ScopeRule.
    """
    weights = np.array(DEFAULT_SCOPE_WEIGHTS, np.float32)
    if len(outside) >= LEAST_OUTSIDE:
        weights = _logistic_weights(inside, outside)
        while (weights < 0).any():
            # Each signal is one of strangeness: a negative weight only corrects another's.
            used = np.flatnonzero(weights > 0)
            if len(used) == 0:
                weights = np.array(DEFAULT_SCOPE_WEIGHTS, np.float32)
                break
            weights = np.zeros_like(weights)
            weights[used] = _logistic_weights(inside[:, used], outside[:, used])
    near, far = np.sort(inside @ weights), np.sort(outside @ weights)
    if len(far):
        edges = np.unique(np.concatenate([near, far]))
        kept = np.searchsorted(near, edges, side="right") / len(near)
        caught = 1 - np.searchsorted(far, edges, side="right") / len(far)
        threshold = float(edges[int(np.argmax(kept + caught))])
    else:
        threshold = float(np.quantile(near, 1 - DEFAULT_REFUSED))
    return ScopeRule(
        weights=tuple(float(weight) for weight in weights),
        threshold=threshold,
        refused=float(np.mean(near > threshold)),
        caught=float(np.mean(far > threshold)) if len(far) else None,
        outside=len(far),
    )


def _logistic_weights(inside: Floats, outside: Floats) -> Floats:
    """Newton's method on a class-balanced, slightly penalised logistic loss."""
    signals = np.concatenate([inside, outside]).astype(np.float64)
    centre, spread = signals.mean(axis=0), signals.std(axis=0) + 1e-9
    X = np.column_stack([(signals - centre) / spread, np.ones(len(signals))])
    y = np.repeat([0.0, 1.0], [len(inside), len(outside)])
    share = np.where(y > 0, 0.5 / len(outside), 0.5 / len(inside))
    penalty = np.diag([1e-3] * signals.shape[1] + [0.0])
    w = np.zeros(X.shape[1])
    for _ in range(50):
        p = 1 / (1 + np.exp(-np.clip(X @ w, -30, 30)))
        gradient = X.T @ (share * (p - y)) + penalty @ w
        curvature = (X * (share * p * (1 - p))[:, None]).T @ X + penalty + 1e-9 * np.eye(len(w))
        step = np.linalg.solve(curvature, gradient)
        w -= step
        if np.abs(step).max() < 1e-9:
            break
    weights: Floats = (w[:-1] / spread).astype(np.float32)
    return weights


def area_under_roc(inside: Floats, outside: Floats) -> float:
    """The probability that a score from outside is above one from inside, ties counting half."""
    ordered = np.sort(inside)
    below = np.searchsorted(ordered, outside, side="left")
    upto = np.searchsorted(ordered, outside, side="right")
    return float((below + upto).sum() / (2 * len(inside) * len(outside)))


def margins(probabilities: Floats) -> Floats:
    """(n,) the greatest probability less the next, from (n, classes), two classes at least."""
    top = np.partition(probabilities, -2, axis=1)
    gap: Floats = top[:, -1] - top[:, -2]
    return gap


def log_loss(logits: Floats, labels: Integers) -> float:
    """Mean negative log probability of the true labels."""
    return -float(log_softmax(logits)[np.arange(len(labels)), labels].mean())


def accuracy(logits: Floats, labels: Integers) -> float:
    """Share of rows whose greatest logit is the true label's."""
    return float(np.mean(logits.argmax(axis=1) == labels))
