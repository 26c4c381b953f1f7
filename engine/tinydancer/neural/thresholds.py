"""A route's similarity threshold, from similarities that should match and that should not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tinydancer.errors import InvalidInput, NumberOutOfRange


@dataclass(frozen=True)
class Costs:
    """What a wrong match and a missed match cost, in any one unit; both at least 0, not both 0."""

    wrong_match: float
    missed_match: float

    def __post_init__(self) -> None:
        for name in ("wrong_match", "missed_match"):
            value = getattr(self, name)
            if not (np.isfinite(value) and value >= 0):
                raise NumberOutOfRange(f"the cost {name} is {value}, not a number from 0 up")
        if self.wrong_match == self.missed_match == 0:
            raise InvalidInput("both costs are 0: every threshold would be as good")


@dataclass(frozen=True)
class FittedThreshold:
    """A threshold and its evidence, counted on the similarities that it was fitted to.

    A query matches when its similarity is at least `threshold`. cost: None when F1 was maximised.
    """

    threshold: float
    positives: int
    negatives: int
    precision: float
    recall: float
    f1: float
    cost: float | None


def fit_threshold(
    positives: Sequence[float], negatives: Sequence[float], costs: Costs | None = None
) -> FittedThreshold:
    """The threshold of greatest F1, or, with `costs`, of the least total cost.

    positives, negatives: cosine similarities of queries that should and should not match, in
    [-1, 1]. A query that is one of the route's own utterances is similar to it by construction:
    leave it out of its own comparison. The threshold lies in the middle of the gap between the
    similarities on its two sides; of equally good gaps the widest is taken, then the highest.
    Raises InvalidInput when either side is empty, NumberOutOfRange for what is no cosine.
    """
    for name, given in (("positive", positives), ("negative", negatives)):
        if len(given) == 0:
            raise InvalidInput(
                f"there is no {name} example to fit a threshold on",
                hint="Give queries that should match the route, and some that should not.",
            )
    yes, no = _cosines(positives), _cosines(negatives)
    values = np.unique(np.concatenate([yes, no]))
    # Candidate i accepts values[i:]; the last one accepts nothing.
    edges = np.concatenate([[-1.0], values, [1.0]])
    below, above = edges[:-1], edges[1:]
    accepted = len(yes) - np.searchsorted(yes, values, side="left")
    wrong = len(no) - np.searchsorted(no, values, side="left")
    accepted, wrong = np.append(accepted, 0), np.append(wrong, 0)
    f1 = 2 * accepted / (accepted + wrong + len(yes))
    if costs is None:
        merit = f1
    else:
        missed = len(yes) - accepted
        merit = -(costs.wrong_match * wrong + costs.missed_match * missed)
    best = max(range(len(merit)), key=lambda i: (merit[i], above[i] - below[i], above[i]))
    matched = int(accepted[best] + wrong[best])
    return FittedThreshold(
        threshold=float(_between(below[best], above[best])),
        positives=len(yes),
        negatives=len(no),
        precision=float(accepted[best] / matched) if matched else 0.0,
        recall=float(accepted[best] / len(yes)),
        f1=float(f1[best]),
        cost=None if costs is None else float(-merit[best]),
    )


def _between(below: float, above: float) -> float:
    """The middle, and never `below` itself, which the threshold has to leave out."""
    middle = (below + above) / 2
    return above if middle <= below else middle


def _cosines(values: Sequence[float]) -> NDArray[np.float64]:
    array = np.sort(np.asarray(values, np.float64))
    # Unit vectors in float32: a cosine may come out a rounding beyond 1.
    bad = ~(np.abs(array) <= 1 + 1e-5)
    if bad.any():
        raise NumberOutOfRange(f"a similarity is {array[bad][0]}, not a cosine in [-1, 1]")
    return np.clip(array, -1, 1)
