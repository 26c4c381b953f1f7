"""The foreign table request_classifications: texts to what they are about."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from tinydancer.embeddings.base import Embedder, Vectors
from tinydancer.embeddings.cascade import embed_requests
from tinydancer.errors import NotReady
from tinydancer.neural.classifier import Classification
from tinydancer.tables import text
from tinydancer.tables.context import ActiveClassifier, Context
from tinydancer.tables.inputs import chunks, questions
from tinydancer.tables.rows import constant, rows
from tinydancer_fdw.contract import REQUEST_CLASSIFICATIONS
from tinydancer_fdw.frames import Input, Row

# The text and what is known of it.
Answer = tuple[str, Classification]

CHUNK = 1024
DIGITS = 6
ESCALATED = 0.28
"""Share of requests like those the classifier was calibrated on that a cascade hands over."""


def scan(
    context: Context, inputs: Sequence[Input], columns: Sequence[str], limit: int
) -> Iterator[Row]:
    """The rows of a scan: one for each text."""
    asked = questions(REQUEST_CLASSIFICATIONS, inputs, context.snapshot.settings)
    active = _active(context)
    cells = _cells(active.name)
    for question in asked:
        for texts in chunks(question.texts, limit, CHUNK):
            found = active.classifier.classify(_vectors(context.embedder, active, texts), texts)
            yield from rows(zip(texts, found, strict=True), cells, columns)


def _vectors(embedder: Embedder, active: ActiveClassifier, texts: Sequence[str]) -> Vectors:
    """The texts' vectors; a cascade hands over where the classifier's two best are close."""
    classifier = active.classifier
    calibration = classifier.with_words or classifier.vector_only
    return embed_requests(
        embedder,
        texts,
        lambda vectors: classifier.score(vectors, texts).margins,
        calibration.margin_below(ESCALATED),
    )


def _active(context: Context) -> ActiveClassifier:
    active = context.classifier
    if active is None:
        raise NotReady(
            "no classifier is active",
            hint="Train one with ruvector_train_classifier, or make one of tinydancer.models "
            "active.",
        )
    if active.classifier.space != context.embedder.space:
        raise NotReady(
            f"the classifier {active.name!r} reads vectors of {active.classifier.space!r}, "
            f"but the embedder makes those of {context.embedder.space!r}",
            hint="Train a classifier again after a change of embedder, or make an older one "
            "active.",
        )
    return active


def _cells(model: str) -> Mapping[str, Callable[[Answer], str | None]]:
    return {
        "content": lambda answer: answer[0],
        "category": lambda answer: None if answer[1].out_of_scope else answer[1].top_category,
        "confidence": lambda answer: text.double(round(answer[1].confidence, DIGITS)),
        "out_of_scope": lambda answer: text.boolean(answer[1].out_of_scope),
        "plausible": lambda answer: text.array(answer[1].plausible),
        "capabilities": lambda answer: text.array([name for name, _ in answer[1].capabilities]),
        "classification": lambda answer: text.jsonb(_whole(answer[1], model)),
        "model": constant(model),
    }


def _whole(found: Classification, model: str) -> dict[str, Any]:
    """What ruvector_classify_request returns: the likeliest category, also where out of scope."""
    return {
        "classifications": _pairs(found.classifications),
        "top_category": found.top_category,
        "confidence": round(found.confidence, DIGITS),
        "out_of_scope": found.out_of_scope,
        "plausible": found.plausible,
        "capabilities": _pairs(found.capabilities),
        "model": model,
    }


def _pairs(pairs: Sequence[tuple[str, float]]) -> list[tuple[str, float]]:
    return [(name, round(probability, DIGITS)) for name, probability in pairs]
