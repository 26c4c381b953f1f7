"""How well the default model knows requests: hand-written ones that no template made.

data/requests.json holds them, written after the templates and compared with them; rows with an
empty label ask for nothing. The file was read to report, not to choose anything by, but for the
share that a category has in an agent's fit (specialists.py).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from tinydancer.embeddings.base import Embedder
from tinydancer.evaluation import specialists
from tinydancer.evaluation.intents import Result
from tinydancer.evaluation.tiers import installed_tiers
from tinydancer.neural.calibration import area_under_roc, expected_calibration_error
from tinydancer.neural.classifier import CAPABILITY_THRESHOLD, RouteClassifier
from tinydancer.neural.default_model import builtin

REQUESTS = Path(__file__).parent / "data" / "requests.json"
DATASET = "hand-written requests"


def run(
    embedders: Mapping[str, Embedder] | None = None, classifier: RouteClassifier | None = None
) -> list[Result]:
    """The figures of the default model, or of `classifier`, with the embedder of each tier."""
    classifier = classifier or builtin()
    embedders = embedders if embedders is not None else installed_tiers()
    rows = json.loads(REQUESTS.read_text("utf-8"))
    known = [row for row in rows if row["label"]]
    strange = [row["text"] for row in rows if not row["label"]]
    results: list[Result] = []
    for tier, embedder in embedders.items():
        for head in ("fastgrnn", "fastgrnn+words"):
            with_words = head == "fastgrnn+words"
            results += [
                Result(DATASET, "default model", tier, head, metric, value)
                for metric, value in _figures(
                    classifier, embedder, known, strange, with_words
                ).items()
            ]
        labels = [row["label"] for row in known]
        found = specialists.found(embedder, [row["text"] for row in known], labels)
        results += [
            Result(DATASET, "specialists", tier, f"category_share {share}", "accuracy", value)
            for share, value in found.items()
        ]
    return results


def _figures(
    classifier: RouteClassifier,
    embedder: Embedder,
    known: Sequence[Mapping[str, object]],
    strange: Sequence[str],
    with_words: bool,
) -> dict[str, float]:
    texts = [str(row["text"]) for row in known]
    inside = classifier.score(embedder.embed(texts), texts if with_words else None)
    outside = classifier.score(embedder.embed(strange), strange if with_words else None)
    labels = np.array([classifier.names.index(str(row["label"])) for row in known])
    order = np.argsort(-inside.probabilities, axis=1, kind="stable")
    wanted = np.array(
        [[name in _capabilities(row) for name in classifier.capability_names] for row in known]
    )
    likely = inside.capabilities >= CAPABILITY_THRESHOLD
    sure = inside.probabilities.max(axis=1) >= 0.8
    right = order[:, 0] == labels
    return {
        "accuracy": 100 * float(np.mean(right)),
        "top 3": 100 * float(np.mean((order[:, :3] == labels[:, None]).any(axis=1))),
        "accuracy at 0.8": 100 * float(np.mean(right[sure])) if sure.any() else float("nan"),
        "share at 0.8": 100 * float(np.mean(sure)),
        "ece": expected_calibration_error(inside.probabilities, labels),
        "coverage": 100 * float(np.mean(inside.plausible[np.arange(len(labels)), labels])),
        "capability precision": 100 * float((wanted & likely).sum() / max(likely.sum(), 1)),
        "capability recall": 100 * float((wanted & likely).sum() / wanted.sum()),
        "auroc": 100 * area_under_roc(inside.scope, outside.scope),
        "refused_known": 100 * float(np.mean(inside.scope > 0)),
        "refused_outside": 100 * float(np.mean(outside.scope > 0)),
        "confidence outside": float(outside.probabilities.max(axis=1).mean()),
    }


def _capabilities(row: Mapping[str, object]) -> list[str]:
    found = row["capabilities"]
    return [str(name) for name in found] if isinstance(found, list) else []
