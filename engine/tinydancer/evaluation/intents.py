"""How well requests are classified: intent data sets, full and few-shot, tier by tier.

A data set is a folder with train.jsonl.gz, test.jsonl.gz and, where it has them, valid.jsonl.gz
and oos_train, oos_valid, oos_test.jsonl.gz; each line is {"text": …, "label": …}. The test files
are read once, to report. Few-shot training rows are the first k of each label after
`random.Random(0).shuffle`; where there are valid rows the classifier is calibrated on them (the
mixture's weights and its conformal floor), since the static table was fitted on the training texts
of the data sets in hand, and rows held out of those are easier than new ones.
"""

from __future__ import annotations

import gzip
import json
import random
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tinydancer.embeddings.base import Embedder
from tinydancer.errors import InvalidInput, NotFound, NotReady
from tinydancer.evaluation.baselines import centroids, logistic_regression, nearest_neighbours
from tinydancer.evaluation.tiers import installed_tiers
from tinydancer.neural.calibration import area_under_roc, expected_calibration_error
from tinydancer.neural.classifier import Calibration, RouteClassifier, Scores
from tinydancer.neural.dataset import LabelledText, prepare
from tinydancer.neural.fitting import Rows, fit
from tinydancer.neural.ragged import Floats, Integers

SHOTS = 10
ESCALATED = 0.28
"""Share that the cascade aims to hand to the accurate tier; the figure to stay within is 0.30."""
STRENGTH = {"static": 30.0, "minilm": 10.0}
"""C of the logistic regression, chosen on slices of the training rows."""


@dataclass(frozen=True)
class Result:
    """One figure. accuracy, auroc, coverage and escalated are per cent; ece is a share."""

    dataset: str
    setting: str
    tier: str
    head: str
    metric: str
    value: float


@dataclass(frozen=True, eq=False)
class _Split:
    """Texts with label numbers and, tier by tier, unit vectors."""

    texts: tuple[str, ...]
    labels: Integers
    vectors: Mapping[str, Floats]


@dataclass(frozen=True, eq=False)
class _Answers:
    """What a tier's classifier says of the test rows, and how it was calibrated."""

    scores: Scores
    calibration: Calibration


def run(
    data: Path,
    embedders: Mapping[str, Embedder] | None = None,
    *,
    progress: Callable[[str], None] | None = None,
) -> list[Result]:
    """All figures of every data set under `data`, with the embedder of each tier.

    embedders: by tier; None is what `installed_tiers` finds. With the tiers "static" and
    "minilm" both given, the cascade of the two is measured too.
    Raises NotFound where `data` holds no data set, InvalidInput for a file that is none.
    """
    folders = sorted(path.parent for path in data.glob("*/train.jsonl.gz"))
    if not folders:
        raise NotFound(
            f"there is no data set under {str(data)!r}",
            hint="Give a directory that holds <data set>/train.jsonl.gz and test.jsonl.gz.",
        )
    embedders = embedders if embedders is not None else installed_tiers()
    results: list[Result] = []
    for folder in folders:
        results += _evaluate(folder, embedders, progress or (lambda _: None))
    return results


def few_shot(labels: Sequence[str], shots: int) -> list[int]:
    """The first `shots` rows of each label, in the order of `random.Random(0).shuffle`."""
    order = list(range(len(labels)))
    random.Random(0).shuffle(order)  # noqa: S311 - the published split, not a secret
    seen: dict[str, int] = {}
    chosen = []
    for row in order:
        if seen.get(labels[row], 0) < shots:
            seen[labels[row]] = seen.get(labels[row], 0) + 1
            chosen.append(row)
    return chosen


def readable(label: str) -> str:
    """A label's name as a text: "card_arrival" reads "card arrival"."""
    return re.sub(r"[^\w]+|_+", " ", label).strip() or label


def _evaluate(
    folder: Path, embedders: Mapping[str, Embedder], progress: Callable[[str], None]
) -> list[Result]:
    train_texts, train_labels = _read(folder, "train")
    names = tuple(sorted(set(train_labels)))
    load = _Loader(folder, names, embedders)
    progress(f"{folder.name}: encoding")
    valid = load.split("valid") if (folder / "valid.jsonl.gz").is_file() else None
    inside_out = [n for n in ("oos_train", "oos_valid") if (folder / f"{n}.jsonl.gz").is_file()]
    outside = load.outside(*inside_out) if inside_out else None
    results: list[Result] = []
    for setting, chosen in (
        ("full", list(range(len(train_texts)))),
        (f"{SHOTS}-shot", few_shot(train_labels, SHOTS)),
    ):
        full = setting == "full"
        rows = [LabelledText(train_texts[i], train_labels[i]) for i in chosen]
        train = load.rows(rows)
        classifiers: dict[str, RouteClassifier] = {}
        for tier in embedders:
            progress(f"{folder.name}, {setting}, {tier}: training")
            started = time.monotonic()
            classifiers[tier] = _fit(train, tier, load, valid, outside, full)
            seconds = time.monotonic() - started
            results.append(
                Result(folder.name, setting, tier, "fastgrnn+words", "train_seconds", seconds)
            )
        progress(f"{folder.name}, {setting}: testing")
        test = load.split("test")
        answers: dict[str, _Answers] = {}
        for tier, classifier in classifiers.items():
            strength = STRENGTH.get(tier, STRENGTH["minilm"])
            key = (folder.name, setting, tier)
            results += _baselines(key, train, test, strength)
            figures, answers[tier] = _classifier_figures(key, classifier, test)
            results += figures
            if full and (folder / "oos_test.jsonl.gz").is_file():
                strange = load.outside("oos_test")
                results += _scope_figures(key, classifier, answers[tier], strange)
        if {"static", "minilm"} <= set(answers):
            results += _cascade_figures((folder.name, setting, "cascade"), answers, test.labels)
    return results


def _fit(
    train: _Split,
    tier: str,
    load: _Loader,
    valid: _Split | None,
    outside: _Split | None,
    full: bool,
) -> RouteClassifier:
    """Trained on `train`. Of few shots only the calibration sees the valid rows, not the epochs."""
    data = prepare(
        LabelledText(text, load.names[label])
        for text, label in zip(train.texts, train.labels, strict=True)
    )
    place = {text: row for row, text in enumerate(train.texts)}
    vectors = train.vectors[tier][[place[text] for text in data.texts]]
    label_texts = tuple(readable(name) for name in data.names)
    known = None
    if valid is not None:
        nothing = np.zeros((len(valid.texts), 0), np.int64)
        known = Rows(valid.texts, valid.vectors[tier], valid.labels, nothing)
    return fit(
        data,
        vectors,
        load.embedders[tier].space,
        label_names=(label_texts, load.embedders[tier].embed(label_texts)),
        held_out=known if full else None,
        calibrate_on=None if full else known,
        outside=(outside.texts, outside.vectors[tier]) if full and outside is not None else None,
    ).classifier


def _baselines(
    key: tuple[str, str, str], train: _Split, test: _Split, strength: float
) -> list[Result]:
    known, asked = train.vectors[key[2]], test.vectors[key[2]]
    classes = int(train.labels.max()) + 1
    found = {
        "centroid": centroids(known, train.labels, asked),
        "knn-10": nearest_neighbours(known, train.labels, asked, 10),
        "logistic": logistic_regression(known, train.labels, asked, classes, strength),
    }
    return [
        Result(*key, head, "accuracy", _per_cent(labels == test.labels))
        for head, labels in found.items()
    ]


def _classifier_figures(
    key: tuple[str, str, str], classifier: RouteClassifier, test: _Split
) -> tuple[list[Result], _Answers]:
    vectors = test.vectors[key[2]]
    results = []
    alone = classifier.score(vectors)
    both = classifier.score(vectors, test.texts)
    if classifier.lexical is not None:
        words = classifier.lexical.logits(test.texts).argmax(axis=1)
        results.append(Result(*key, "words", "accuracy", _per_cent(words == test.labels)))
    rows = np.arange(len(test.labels))
    for head, scores in (("fastgrnn", alone), ("fastgrnn+words", both)):
        right = scores.probabilities.argmax(axis=1) == test.labels
        ece = expected_calibration_error(scores.probabilities, test.labels)
        covered = scores.plausible[rows, test.labels]
        results += [
            Result(*key, head, "accuracy", _per_cent(right)),
            Result(*key, head, "ece", ece),
            Result(*key, head, "coverage", _per_cent(covered)),
            Result(*key, head, "set_size", float(scores.plausible.sum(axis=1).mean())),
        ]
    return results, _Answers(both, classifier.with_words or classifier.vector_only)


def _scope_figures(
    key: tuple[str, str, str], classifier: RouteClassifier, answers: _Answers, strange: _Split
) -> list[Result]:
    found = classifier.score(strange.vectors[key[2]], strange.texts)
    auroc = 100 * area_under_roc(answers.scores.scope, found.scope)
    return [
        Result(*key, "fastgrnn+words", "auroc", auroc),
        Result(*key, "fastgrnn+words", "refused_known", _per_cent(answers.scores.scope > 0)),
        Result(*key, "fastgrnn+words", "refused_outside", _per_cent(found.scope > 0)),
    ]


def _cascade_figures(
    key: tuple[str, str, str], answers: Mapping[str, _Answers], labels: Integers
) -> list[Result]:
    """The accurate tier takes over where the static one's margin is among the smallest."""
    first, second = answers["static"], answers["minilm"]
    escalated = first.scores.margins < first.calibration.margin_below(ESCALATED)
    probabilities = np.where(
        escalated[:, None], second.scores.probabilities, first.scores.probabilities
    )
    right = probabilities.argmax(axis=1) == labels
    ece = expected_calibration_error(probabilities, labels)
    return [
        Result(*key, "fastgrnn+words", "accuracy", _per_cent(right)),
        Result(*key, "fastgrnn+words", "ece", ece),
        Result(*key, "fastgrnn+words", "escalated", _per_cent(escalated)),
    ]


class _Loader:
    """Reads splits of one data set and embeds each once."""

    def __init__(
        self, folder: Path, names: tuple[str, ...], embedders: Mapping[str, Embedder]
    ) -> None:
        self.folder = folder
        self.names = names
        self.embedders = embedders
        self._numbers = {name: number for number, name in enumerate(names)}
        self._vectors: dict[tuple[str, str], Floats] = {}

    def split(self, name: str) -> _Split:
        texts, labels = _read(self.folder, name)
        unknown = sorted(set(labels) - set(self.names))
        if unknown:
            raise InvalidInput(f"{self.folder / name} has labels that train lacks: {unknown[:5]}")
        return self._embedded(texts, [self._numbers[label] for label in labels])

    def outside(self, *names: str) -> _Split:
        texts = [text for name in names for text in _read(self.folder, name)[0]]
        return self._embedded(texts, [0] * len(texts))

    def rows(self, rows: Sequence[LabelledText]) -> _Split:
        return self._embedded(
            [row.text for row in rows], [self._numbers[row.label] for row in rows]
        )

    def _embedded(self, texts: Sequence[str], labels: Sequence[int]) -> _Split:
        for tier, embedder in self.embedders.items():
            new = sorted({text for text in texts if (tier, text) not in self._vectors})
            if new:
                made = embedder.embed(new)
                self._vectors |= {(tier, t): v for t, v in zip(new, made, strict=True)}
        vectors = {
            tier: np.array([self._vectors[tier, text] for text in texts], np.float32)
            for tier in self.embedders
        }
        return _Split(tuple(texts), np.array(labels, np.int64), vectors)


def _read(folder: Path, name: str) -> tuple[list[str], list[str]]:
    path = folder / f"{name}.jsonl.gz"
    texts, labels = [], []
    try:
        with gzip.open(path, "rt", encoding="utf-8") as lines:
            for line in lines:
                row = json.loads(line)
                texts.append(str(row["text"]))
                labels.append(str(row["label"]))
    except FileNotFoundError:
        raise NotFound(f"there is no {str(path)!r}") from None
    except (OSError, EOFError, ValueError, KeyError, TypeError) as error:
        raise InvalidInput(
            f"{str(path)!r}, row {len(texts) + 1}: {type(error).__name__}: {error}",
            hint='Each line is {"text": …, "label": …}, the file gzipped.',
        ) from error
    if not texts:
        raise NotReady(f"{str(path)!r} has no rows")
    return texts, labels


def _per_cent(right: NDArray[np.bool_]) -> float:
    return 100 * float(np.mean(right))
