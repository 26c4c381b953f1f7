"""Two encoders of one space: the quick one first, the accurate one where it is in doubt."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from threading import Lock
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tinydancer.embeddings.base import Embedder, Vectors
from tinydancer.errors import InvalidInput

Margin = Callable[[Vectors], NDArray[np.floating]]
"""(n, dimension) vectors → (n,) score of the best choice less that of the second."""


class Cascaded(NamedTuple):
    """Vectors (n, dimension) float32, and which of them (n,) bool the accurate encoder made."""

    vectors: Vectors
    escalated: NDArray[np.bool_]


class CascadeEmbedder:
    """The accurate encoder for what is stored, the quick one for requests that are clear.

    `embed` is the accurate encoder's: routes and agents are embedded once, so they get its vectors
    and its provenance. `embed_with_margin` serves requests: each is embedded by the quick encoder,
    and again by the accurate one where the margin is below `threshold`. The threshold is fixed, not
    a share of each batch, so a request's answer does not depend on the requests beside it;
    `threshold_for_share` finds the one that escalates a wanted share. `escalated` and `total` count
    requests since the start.
    """

    def __init__(self, quick: Embedder, accurate: Embedder, threshold: float) -> None:
        if quick.space != accurate.space or quick.dimension != accurate.dimension:
            raise InvalidInput(
                f"{quick.model} ({quick.space}, {quick.dimension} dimensions) and {accurate.model} "
                f"({accurate.space}, {accurate.dimension} dimensions) can't be compared",
                hint="a cascade needs two encoders of one space",
            )
        if not threshold >= 0:
            raise InvalidInput(f"the cascade's threshold must be 0 or more, not {threshold}")
        self._quick = quick
        self._accurate = accurate
        self._threshold = threshold
        self._lock = Lock()
        self._total = 0
        self._escalated = 0

    @property
    def model(self) -> str:
        """Name of the accurate encoder's model, which makes what is stored."""
        return self._accurate.model

    @property
    def space(self) -> str:
        """The space of both."""
        return self._accurate.space

    @property
    def dimension(self) -> int:
        """Length of each vector."""
        return self._accurate.dimension

    @property
    def total(self) -> int:
        """Requests embedded with a margin."""
        return self._total

    @property
    def escalated(self) -> int:
        """Those of them that the accurate encoder took over."""
        return self._escalated

    @property
    def quick(self) -> Embedder:
        """The encoder that each request meets first."""
        return self._quick

    @property
    def accurate(self) -> Embedder:
        """The encoder of what is stored and of what is in doubt."""
        return self._accurate

    def embed(self, texts: Sequence[str]) -> Vectors:
        """(n, dimension) float32 by the accurate encoder, rows of unit length."""
        return self._accurate.embed(texts)

    def embed_with_margin(
        self, texts: Sequence[str], margin: Margin, threshold: float | None = None
    ) -> Cascaded:
        """The texts' vectors, by the accurate encoder where `margin` says they are in doubt.

        threshold: of margins that are no cosines, in place of the cascade's own; a cascade whose
        own is 0 hands nothing over all the same.
        Raises InvalidInput where `margin` gives something else than one number a vector.
        """
        vectors = self._quick.embed(texts)
        margins = np.asarray(margin(vectors))
        if margins.shape != (len(texts),) or np.isnan(margins).any():
            raise InvalidInput(
                f"the margins of {len(texts)} vectors must be as many numbers, "
                f"not {margins.shape} or NaN"
            )
        if threshold is None or not self._threshold:
            threshold = self._threshold
        escalated = margins < threshold
        rows = np.flatnonzero(escalated)
        if len(rows):
            vectors[rows] = self._accurate.embed([texts[row] for row in rows.tolist()])
        with self._lock:
            self._total += len(texts)
            self._escalated += len(rows)
        return Cascaded(vectors, escalated)

    def count_tokens(self, texts: Sequence[str]) -> NDArray[np.int64]:
        """(n,) tokens of each text."""
        return self._quick.count_tokens(texts)


def embed_requests(
    embedder: Embedder, texts: Sequence[str], margin: Margin, threshold: float | None = None
) -> Vectors:
    """(n, dimension) float32 of requests: by a cascade with this margin, by any other as it is."""
    if isinstance(embedder, CascadeEmbedder):
        return embedder.embed_with_margin(texts, margin, threshold).vectors
    return embedder.embed(texts)


def margins_of(scores: NDArray[np.floating]) -> NDArray[np.floating]:
    """(n, choices) scores → (n,) the best less the second; infinite where there is no second."""
    if scores.shape[1] < 2:
        return np.full(len(scores), np.inf)
    best = np.partition(scores, -2, axis=1)[:, -2:]
    return np.asarray(best[:, 1] - best[:, 0])


def threshold_for_share(margins: NDArray[np.floating], share: float) -> float:
    """The largest threshold that escalates at most `share` of these margins.

    Fit it on margins of requests like those to come. Raises InvalidInput outside 0 to 1.
    """
    if not 0 <= share <= 1:
        raise InvalidInput(f"the share to escalate must be from 0 to 1, not {share}")
    if not len(margins):
        raise InvalidInput("a threshold needs margins to be fitted on, and there are none")
    ranked = np.sort(margins)
    count = int(share * len(ranked))
    if count == len(ranked):
        return float(np.nextafter(ranked[-1], np.inf))
    return float(ranked[count])
