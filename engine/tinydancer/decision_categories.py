"""What kept decisions were about: their categories, by the active classifier, a batch at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from tinydancer.decisions import Decision
from tinydancer.embeddings.base import Vectors
from tinydancer.neural.classifier import RouteClassifier

# A batch at a time: more at once is hardly faster, and would hold up the scans of the engine.
BATCH = 256


def with_categories(
    decisions: Sequence[Decision], classifier: RouteClassifier, name: str
) -> list[Decision]:
    """The decisions, each with the category of its request, and the classifier among its models.

    Without a category stays what the classifier finds out of its scope, and what has no vector or
    one of another space: those it can't speak of, and they do not name it.
    """
    found = list(decisions)
    known = [row for row, kept in enumerate(found) if kept.embedding_space == classifier.space]
    for at in range(0, len(known), BATCH):
        rows = known[at : at + BATCH]
        scores = classifier.score(
            np.stack([_vector(found[row]) for row in rows]), [found[row].request for row in rows]
        )
        # The names are sorted, so that the first of equals goes by name.
        likeliest = scores.probabilities.argmax(axis=1).tolist()
        outside = (scores.scope > 0).tolist()
        for row, category, unknown in zip(rows, likeliest, outside, strict=True):
            found[row] = replace(
                found[row],
                category=None if unknown else classifier.names[category],
                models={**found[row].models, "classifier": name},
            )
    return found


def _vector(decision: Decision) -> Vectors:
    assert decision.embedding is not None  # noqa: S101 - it has the space of one
    return decision.embedding
