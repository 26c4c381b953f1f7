"""A classifier from labelled requests."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, astuple
from time import monotonic

import numpy as np

from tinydancer.embeddings.base import Embedder, Vectors
from tinydancer.errors import InvalidInput
from tinydancer.neural import packing
from tinydancer.neural.classifier import RouteClassifier
from tinydancer.neural.dataset import Dataset, LabelledText, prepare
from tinydancer.neural.fitting import FitOptions, Rows, fit
from tinydancer.store import training_queue
from tinydancer.store.database import Connection
from tinydancer.store.settings import open_embedder, read_settings
from tinydancer.store.training_queue import LabelledRequest, Training
from tinydancer.trainings.heartbeat import beating

_SECONDS_BETWEEN_BEATS = 1.0


def train_classifier(conn: Connection, training: Training) -> None:
    """Do a training of a classifier. Raises InvalidInput for rows that none can be had from."""
    beat_at = 0.0

    def progress(stage: str, done: int, of: int) -> None:
        nonlocal beat_at
        if monotonic() - beat_at >= _SECONDS_BETWEEN_BEATS:
            beat_at = monotonic()
            training_queue.beat(conn, training, stage, done / max(1, of))

    rows = training_queue.read_rows(conn)
    data = prepare(_of(rows, "train"))
    embedder = open_embedder(read_settings(conn))
    progress("embedding", 0, 1)
    # A service may take minutes for as many texts.
    with beating(conn, training, "embedding", 0.0):
        vectors = embedder.embed(data.texts)
        held_out = _held_out(_of(rows, "valid"), data, embedder)
        outside = _outside(_of(rows, "out_of_scope"), embedder)
    fitted = fit(
        data,
        vectors,
        embedder.space,
        FitOptions(coverage=float(training.asked["coverage"]), seed=training.seed),
        held_out=held_out,
        outside=outside,
        progress=progress,
    )
    weights = packing.to_bytes(fitted.classifier)
    # What can't be read back is not stored, and what is stored is what was measured.
    classifier = packing.from_bytes(weights, f"model {training.model}")
    with beating(conn, training, "testing", 1.0):
        metrics = {**asdict(fitted.metrics), **_test(_of(rows, "test"), classifier, embedder)}
    about = {
        "rows": len(data),
        "merged": data.merged,
        "categories": len(data.names),
        "sha256": _digest(rows),
        "embedder": embedder.model,
    }
    training_queue.finish(conn, training, weights, embedder.space, about, metrics)


def _of(rows: Sequence[LabelledRequest], split: str) -> list[LabelledText]:
    return [
        LabelledText(row.request, row.category, row.capabilities, row.id)
        for row in rows
        if row.split == split
    ]


def _held_out(rows: Sequence[LabelledText], data: Dataset, embedder: Embedder) -> Rows | None:
    if not rows:
        return None
    unknown = sorted({row.label for row in rows} - set(data.names))
    if unknown:
        raise InvalidInput(
            f"{len(unknown)} categories are only in the valid split, first {unknown[0]!r}",
            hint="Give each category rows of the train split, or leave it out.",
        )
    number = {name: i for i, name in enumerate(data.names)}
    texts = tuple(row.text for row in rows)
    capabilities = [[name in row.capabilities for name in data.capability_names] for row in rows]
    return Rows(
        texts,
        embedder.embed(texts),
        np.array([number[row.label] for row in rows], np.int64),
        np.array(capabilities, np.int64).reshape(len(rows), len(data.capability_names)),
    )


def _outside(
    rows: Sequence[LabelledText], embedder: Embedder
) -> tuple[tuple[str, ...], Vectors] | None:
    texts = tuple(row.text for row in rows)
    return (texts, embedder.embed(texts)) if texts else None


def _test(
    rows: Sequence[LabelledText], classifier: RouteClassifier, embedder: Embedder
) -> dict[str, object]:
    """What the test rows say of the finished model; nothing without any."""
    if not rows:
        return {}
    texts = [row.text for row in rows]
    found = classifier.classify(embedder.embed(texts), texts)
    right = sum(answer.top_category == row.label for answer, row in zip(found, rows, strict=True))
    return {"test_rows": len(rows), "test_accuracy": right / len(rows)}


def _digest(rows: Sequence[LabelledRequest]) -> str:
    digest = hashlib.sha256()
    for row in rows:
        digest.update(json.dumps(astuple(row)[1:]).encode())  # the same rows, whatever their ids
    return digest.hexdigest()
