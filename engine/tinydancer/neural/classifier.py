"""What category a request is of, what it calls for, and whether it is known at all.

A classifier mixes two parts: the network (a FastGRNN cell over the request's vector, or the
vectors of a sequence, with its heads) and, where the text is at hand, a linear model over its
words. The coefficients of the mixture, its temperature in them, the conformal floor and the
scope rule were fitted on held-out rows, for the mixture and for the network alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from math import isfinite
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tinydancer.errors import InvalidInput, NumberOutOfRange
from tinydancer.neural.calibration import (
    Conformal,
    ScopeRule,
    margins,
    mix,
    scope_signals,
    settle,
)
from tinydancer.neural.fastgrnn import sigmoid
from tinydancer.neural.lexical import LexicalModel
from tinydancer.neural.ragged import Floats, Ragged
from tinydancer.neural.training import Network

CAPABILITY_THRESHOLD = 0.5
MOST_LISTED = 10


@dataclass(frozen=True)
class Calibration:
    """What was fitted on held-out rows.

    weights: of the network's logits, then of the words'. margins: the 0th, 5th … 100th percentile
    of the margin between the two likeliest categories' probabilities.
    """

    weights: tuple[float, ...]
    conformal: Conformal
    scope: ScopeRule
    margins: tuple[float, ...]

    def margin_below(self, share: float) -> float:
        """The margin that a `share` of requests like the held-out ones stays below.

        It is where a cascade hands over: escalate what has a smaller margin. Raises
        NumberOutOfRange for a share outside [0, 1].
        """
        if not 0 <= share <= 1:
            raise NumberOutOfRange(f"the share is {share}, not in 0 to 1")
        return float(np.interp(share, np.linspace(0, 1, len(self.margins)), self.margins))


class Classification(NamedTuple):
    """What is known of one request.

    classifications: the likeliest categories with their probabilities, ties by name.
    plausible: the conformal set, likeliest first; may be empty. capabilities: those that are
    likelier than not, likeliest first.
    """

    classifications: tuple[tuple[str, float], ...]
    out_of_scope: bool
    plausible: tuple[str, ...]
    capabilities: tuple[tuple[str, float], ...]

    @property
    def top_category(self) -> str:
        """The likeliest category, also when the request is out of scope."""
        return self.classifications[0][0]

    @property
    def confidence(self) -> float:
        """The calibrated probability of the likeliest category."""
        return self.classifications[0][1]


class Scores(NamedTuple):
    """A batch, scored: logits and probabilities (n, classes), scope (n,), above 0 is outside;
    conformal, what makes the sets; capabilities (n, capabilities) probabilities."""

    logits: Floats
    probabilities: Floats
    scope: Floats
    conformal: Conformal
    capabilities: Floats

    @property
    def plausible(self) -> NDArray[np.bool_]:
        """(n, classes) which categories are in the conformal set."""
        return self.conformal.sets(self.probabilities)

    @property
    def margins(self) -> Floats:
        """(n,) the likeliest category's probability less the next one's."""
        return margins(self.probabilities)


@dataclass(frozen=True, eq=False)
class RouteClassifier:
    """A trained classifier. Frozen: a model is replaced, never changed.

    names: (classes,) sorted. space: the vector space that it was trained in. prototypes:
    (classes, inputs), the unit mean of each category's vectors. with_words, vector_only: the
    calibration for a request whose text is given, and for one that is a vector only.
    """

    names: tuple[str, ...]
    capability_names: tuple[str, ...]
    space: str
    network: Network = field(repr=False)
    prototypes: Floats = field(repr=False)
    vector_only: Calibration
    lexical: LexicalModel | None = field(repr=False, default=None)
    with_words: Calibration | None = None

    def __post_init__(self) -> None:
        classes, inputs = len(self.names), self.dimension
        if self.prototypes.shape != (classes, inputs):
            raise InvalidInput(
                f"prototypes have shape {self.prototypes.shape}, not {(classes, inputs)}"
            )
        if self.network.heads["c"].shape != (classes,):
            raise InvalidInput(
                f"the network tells {len(self.network.heads['c'])} categories apart, "
                f"{classes} are named"
            )
        if (self.lexical is None) != (self.with_words is None):
            raise InvalidInput("words and their calibration go together")

    @property
    def dimension(self) -> int:
        """Length of the vectors that it takes."""
        return self.network.cell.shape.inputs

    def probabilities(self, vectors: Floats, texts: Sequence[str] | None = None) -> Floats:
        """(n, classes) of each category; takes and raises what `score` does, and is quicker."""
        return settle(self._logits(vectors, texts)[0]).probabilities

    def score(self, vectors: Floats, texts: Sequence[str] | None = None) -> Scores:
        """(n, dimension) vectors in `space`, and the texts they were made of where known.

        Raises InvalidInput for another dimension or number of texts, NumberOutOfRange for a
        vector that is not finite.
        """
        logits, state, products, calibration = self._logits(vectors, texts)
        settled = settle(logits)
        # The cosine to the nearest prototype.
        signals = scope_signals(settled, np.maximum.reduce(products, 1))
        return Scores(
            logits=logits,
            probabilities=settled.probabilities,
            scope=calibration.scope.score(signals) - calibration.scope.threshold,
            conformal=calibration.conformal,
            capabilities=self._capabilities(state),
        )

    def _logits(
        self, vectors: Floats, texts: Sequence[str] | None
    ) -> tuple[Floats, Floats, Floats, Calibration]:
        """(n, classes) logits, (n, hidden) states, (n, classes) products with the prototypes, and
        the calibration that holds for them.

        Products are made row by row, not as one of matrices: BLAS sums that in another order for
        another n, and a request is to get the same figure alone and in a batch.
        """
        vectors = np.asarray(vectors, np.float32)
        if vectors.ndim == 1:
            vectors = vectors[None]
        if vectors.shape[1] != self.dimension:
            raise InvalidInput(
                f"the vectors have {vectors.shape[1]} dimensions, the classifier takes "
                f"{self.dimension} (space {self.space!r})",
                hint="Embed the request with the model the classifier was trained on.",
            )
        if texts is not None and len(texts) != len(vectors):
            raise InvalidInput(f"{len(texts)} texts were given for {len(vectors)} vectors")
        if not isfinite(np.add.reduce(vectors, axis=None)):
            Ragged.of_vectors(vectors).check_finite()
        products = np.matmul(vectors[:, None], self._first.T)[:, 0]
        size = len(self.names)
        state = self.network.cell.first_states(products[:, size:])
        logits = np.matmul(state[:, None], self.network.heads["V"].T)[:, 0]
        logits += self.network.heads["c"]
        calibration = self.vector_only
        if texts is not None and self.lexical is not None and self.with_words is not None:
            calibration = self.with_words
            logits = mix((logits, self.lexical.logits(texts)), calibration.weights)
        else:
            logits *= calibration.weights[0]
        return logits, state, products[:, :size], calibration

    def classify(
        self,
        vectors: Floats,
        texts: Sequence[str] | None = None,
        most: int = MOST_LISTED,
    ) -> list[Classification]:
        """As `score`, in words: one classification a row, of the `most` likeliest categories."""
        scores = self.score(vectors, texts)
        # Names are sorted, so a stable sort lets ties go by name.
        negative = -scores.probabilities
        order = negative.argsort(1, "stable")
        negative.sort(1)
        ranked = (-negative[:, :most]).tolist()
        sizes = [scores.conformal.size(row) for row in ranked]
        if most in sizes:
            # A set that may go on behind what is listed is counted whole.
            sizes = scores.plausible.sum(axis=1).tolist()
        widest = max(most, *sizes) if sizes else most
        names = self._name_array[order[:, :widest]].tolist()
        outside = (scores.scope > 0).tolist()
        return [
            Classification(
                classifications=tuple(zip(names[row], ranked[row], strict=False)),
                out_of_scope=outside[row],
                plausible=tuple(names[row][: sizes[row]]),
                capabilities=self._likely(scores.capabilities[row]),
            )
            for row in range(len(order))
        ]

    @cached_property
    def _first(self) -> Floats:
        """What a vector is multiplied by first, in one product: the prototypes above W."""
        return np.concatenate([self.prototypes, self.network.cell.input_weights])

    @cached_property
    def _name_array(self) -> NDArray[np.object_]:
        return np.array(self.names, object)

    def _capabilities(self, state: Floats) -> Floats:
        if not self.capability_names:
            return np.zeros((len(state), 0), np.float32)
        return sigmoid(self.network.capability_logits(state))

    def _likely(self, probabilities: Floats) -> tuple[tuple[str, float], ...]:
        if not self.capability_names:
            return ()
        pairs = zip(self.capability_names, probabilities.tolist(), strict=True)
        likely = [pair for pair in pairs if pair[1] >= CAPABILITY_THRESHOLD]
        return tuple(sorted(likely, key=lambda pair: (-pair[1], pair[0])))
