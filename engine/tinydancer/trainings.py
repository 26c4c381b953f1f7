"""One training, from the queue to a model: a process of its own, at low priority.

    TINYDANCER_DSN=... python -m tinydancer.trainings

does the oldest training that nobody is doing, and ends. Engines start it; a person may.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, astuple
from time import monotonic
from uuid import uuid4

import numpy as np
import psycopg

from tinydancer.embeddings.base import Embedder, Vectors
from tinydancer.errors import InvalidInput, TinyDancerError
from tinydancer.learning.quality import MOST_ROWS
from tinydancer.learning.quality_file import pack
from tinydancer.neural import packing
from tinydancer.neural.classifier import RouteClassifier
from tinydancer.neural.dataset import Dataset, LabelledText, prepare
from tinydancer.neural.fitting import FitOptions, Rows, fit
from tinydancer.neural.model_file import to_bytes
from tinydancer.quality_training import Refresh, fit_ledger
from tinydancer.store import training_queue
from tinydancer.store.database import Connection, Database
from tinydancer.store.rewards import latest_outcomes, outcomes_of_decisions
from tinydancer.store.settings import open_embedder, read_settings
from tinydancer.store.training_queue import LabelledRequest, Training

DSN_VARIABLE = "TINYDANCER_DSN"
_NICENESS = 10
_SECONDS_BETWEEN_BEATS = 1.0
_SECONDS_BETWEEN_SIGNS = 20.0

logger = logging.getLogger(__name__)


def main() -> None:
    """Do one training of the database that the environment names."""
    logging.basicConfig(level=logging.INFO)
    os.nice(_NICENESS)
    database = Database(os.environ[DSN_VARIABLE])
    try:
        with database.connection() as conn:
            train_next(conn)
    finally:
        database.close()


def train_next(conn: Connection) -> bool:
    """Do the oldest training that nobody is doing; False where there is none.

    What is wrong with its rows is recorded with the training; the active model is untouched.
    """
    training = training_queue.claim(conn, uuid4())
    if training is None:
        return False
    try:
        _train(conn, training)
    except TinyDancerError as error:
        text = " ".join(filter(None, (error.message, error.detail, error.hint)))
        logger.warning("the training of model %d failed: %s", training.model, text)
        training_queue.fail(conn, training, text)
    except Exception as error:
        training_queue.fail(
            conn, training, f"{type(error).__name__}: the engine's log has the traceback"
        )
        raise
    return True


def _train(conn: Connection, training: Training) -> None:
    if training.kind == "quality":
        _train_quality(conn, training)
    else:
        _train_classifier(conn, training)


def _train_quality(conn: Connection, training: Training) -> None:
    embedder = open_embedder(read_settings(conn))
    decided = outcomes_of_decisions(conn)
    judged = latest_outcomes(conn, embedder.space, MOST_ROWS)
    refresh = Refresh.of(conn, embedder) if training.asked.get("refresh") else None
    with _beating(conn, training):
        model = fit_ledger(judged, embedder, training.seed)
        if refresh is not None:
            refresh = refresh.judged(model, judged, embedder, training.seed)
    about = {
        "rows": len(judged),
        "agents": list(model.agents),
        "embedder": embedder.model,
        "until": judged[-1].decided_at.isoformat(),
        "decided": decided,
    }
    metrics: dict[str, object] = {
        **asdict(model.evidence),
        "sentence": model.evidence.sentence,
    }
    weights = to_bytes(pack(model, embedder.space))
    message = None
    if refresh is not None:
        message = refresh.message
        if refresh.verdict is not None:
            metrics["against_the_model_in_use"] = asdict(refresh.verdict)
    training_queue.finish(conn, training, weights, embedder.space, about, metrics, message)
    if refresh is not None and refresh.better:
        training_queue.switch_on(conn, training.model, refresh.instead_of, refresh.message)
    if message is not None:
        logger.info("model %d of quality: %s", training.model, message)


@contextmanager
def _beating(conn: Connection, training: Training) -> Iterator[None]:
    """Says that the work goes on while it has no steps to say so itself."""
    done = threading.Event()

    def beat() -> None:
        # Where the training was taken over, storing its result says so.
        with suppress(TinyDancerError, psycopg.Error):
            while not done.wait(_SECONDS_BETWEEN_SIGNS):
                training_queue.beat(conn, training, "fitting", 0.5)

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def _train_classifier(conn: Connection, training: Training) -> None:
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
    fitted = fit(
        data,
        embedder.embed(data.texts),
        embedder.space,
        FitOptions(coverage=float(training.asked["coverage"]), seed=training.seed),
        held_out=_held_out(_of(rows, "valid"), data, embedder),
        outside=_outside(_of(rows, "out_of_scope"), embedder),
        progress=progress,
    )
    weights = packing.to_bytes(fitted.classifier)
    # What can't be read back is not stored, and what is stored is what was measured.
    classifier = packing.from_bytes(weights, f"model {training.model}")
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
        LabelledText(row.request, row.category, row.capabilities)
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
        digest.update(json.dumps(astuple(row)).encode())
    return digest.hexdigest()


if __name__ == "__main__":
    main()
