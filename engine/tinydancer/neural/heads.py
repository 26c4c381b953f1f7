"""What stands on the cell's state: a softmax over categories, sigmoids over capabilities.

They are two tasks. A request has one category; it may call for several capabilities or none. So
each has weights of its own and is trained on labels of its own.
"""

from __future__ import annotations

import numpy as np

from tinydancer.neural.fastgrnn import sigmoid
from tinydancer.neural.ragged import Floats


def softmax(logits: Floats) -> Floats:
    """(…, classes) probabilities, rows that add up to 1."""
    shifted = np.exp(logits - logits.max(axis=-1, keepdims=True))
    result: Floats = shifted / shifted.sum(axis=-1, keepdims=True)
    return result


def log_softmax(logits: Floats) -> Floats:
    """(…, classes) logarithms of the softmax."""
    shifted = logits - logits.max(axis=-1, keepdims=True)
    result: Floats = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return result


def cross_entropy(logits: Floats, targets: Floats, weights: Floats) -> tuple[float, Floats]:
    """The weighted mean cross-entropy, and its gradient with respect to the logits.

    targets: (n, classes), rows that add up to 1 (one-hot, smoothed or mixed). weights: (n,).
    """
    logs = log_softmax(logits)
    share = (weights / weights.sum())[:, None]
    loss = -float(np.sum(share * targets * logs))
    return loss, share * (np.exp(logs) - targets)


def binary_cross_entropy(logits: Floats, targets: Floats) -> tuple[float, Floats]:
    """The mean over rows of the summed binary cross-entropies, and its gradient.

    targets: (n, labels) in [0, 1]. The loss is max(a, 0) - a t + ln(1 + e^-|a|), which does not
    overflow.
    """
    losses = np.maximum(logits, 0) - logits * targets + np.log1p(np.exp(-np.abs(logits)))
    count = np.float32(len(logits))
    return float(losses.sum() / count), (sigmoid(logits) - targets) / count
