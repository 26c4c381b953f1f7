"""From labelled rows to a classifier: every row teaches, and nothing is calibrated on itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import reduce

import numpy as np

from tinydancer.errors import InvalidInput
from tinydancer.neural.calibration import (
    accuracy,
    area_under_roc,
    expected_calibration_error,
    fit_conformal,
    fit_mixture,
    fit_scope,
    log_loss,
    margins,
    mix,
    scope_signals,
    settle,
)
from tinydancer.neural.classifier import Calibration, RouteClassifier
from tinydancer.neural.dataset import Dataset, folds
from tinydancer.neural.lexical import LexicalModel, LexicalOptions, train_lexical
from tinydancer.neural.ragged import Floats, Integers, Ragged
from tinydancer.neural.training import OUTSIDE, Examples, Network, TrainingOptions, train

FEW_ROWS = 3000
"""Up to here, every row is held out once (FOLDS folds); beyond, one part in HELD_OUT_PARTS is."""
FOLDS = 5
HELD_OUT_PARTS = 8


def default_network(rows: int, seed: int = 0) -> TrainingOptions:
    """Options for so many sentence vectors: about 3,000 steps, in 25 to 80 epochs.

    Few rows gain from wider groups. U has no part in a sequence of one vector, so it gets the
    least rank.
    """
    epochs = min(80, max(25, 3000 * 64 // rows))
    hidden = 512 if rows <= FEW_ROWS else 384
    return TrainingOptions(hidden=hidden, rank_u=1, epochs=epochs, seed=seed)


@dataclass(frozen=True)
class FitOptions:
    """network: None for what `default_network` says. words: None leaves the words out.

    coverage: of the conformal sets. label_weight: how many rows a label's own name counts as,
    where names are given to `fit`.
    """

    network: TrainingOptions | None = None
    words: LexicalOptions | None = field(default_factory=LexicalOptions)
    coverage: float = 0.95
    label_weight: int = 2
    seed: int = 0


@dataclass(frozen=True, eq=False)
class Rows:
    """Texts with their vectors, (n, dimension), and labels, (n,)."""

    texts: tuple[str, ...]
    vectors: Floats
    labels: Integers
    capabilities: Integers

    def take(self, rows: Integers) -> Rows:
        """The rows at these places."""
        texts = tuple(self.texts[i] for i in rows)
        return Rows(texts, self.vectors[rows], self.labels[rows], self.capabilities[rows])

    def joined(self, other: Rows) -> Rows:
        """These rows, then the others."""
        return Rows(
            self.texts + other.texts,
            np.concatenate([self.vectors, other.vectors]),
            np.concatenate([self.labels, other.labels]),
            np.concatenate([self.capabilities, other.capabilities]),
        )


@dataclass(frozen=True)
class Metrics:
    """Measured on held-out rows, by parts trained without them.

    network, words, mixture: accuracies. ece, coverage and set_size belong to the mixture that is
    shipped, and are of the rows its calibration was fitted on. scope_auroc: None without examples
    from outside.
    """

    rows: int
    held_out: int
    network: float
    words: float | None
    mixture: float
    log_loss: float
    ece: float
    coverage: float
    set_size: float
    scope_auroc: float | None


@dataclass(frozen=True, eq=False)
class Fitted:
    """A classifier and its measurements."""

    classifier: RouteClassifier
    metrics: Metrics


@dataclass(frozen=True, eq=False)
class _Parts:
    network: Network
    lexical: LexicalModel | None
    prototypes: Floats

    def logits(self, rows: Rows) -> list[Floats]:
        parts = [self.network.logits(self.network.state(Ragged.of_vectors(rows.vectors)))]
        if self.lexical is not None:
            parts.append(self.lexical.logits(rows.texts))
        return parts

    def similarity(self, vectors: Floats) -> Floats:
        nearest: Floats = (vectors @ self.prototypes.T).max(axis=1)
        return nearest


Progress = Callable[[str, int, int], None]
"""Called with a stage, how many of its epochs are done, and how many there are."""


def fit(
    data: Dataset,
    vectors: Floats,
    space: str,
    options: FitOptions | None = None,
    *,
    label_names: tuple[tuple[str, ...], Floats] | None = None,
    held_out: Rows | None = None,
    calibrate_on: Rows | None = None,
    outside: tuple[tuple[str, ...], Floats] | None = None,
    taught_outside: tuple[tuple[str, ...], Floats] | None = None,
    fold: Integers | None = None,
    progress: Progress | None = None,
) -> Fitted:
    """Trains on `data`, whose texts have the unit `vectors` (n, dimension) in `space`.

    label_names: for each of data.names a readable text and its vector; few rows gain from it.
    held_out: rows to calibrate on and to stop early by; without, the rows are split, calibrated
    on parts trained without them, and then all used for the parts that are returned.
    calibrate_on: rows to calibrate on, and for nothing else: few rows keep all their epochs.
    outside: texts of no category, with vectors, to fit the scope rule on.
    taught_outside: others of no category, from which the network learns to be unsure.
    fold: (n,) the part, from 0 up, that each row is held out in, where it is not left to chance:
    rows that say nearly the same belong in one part, and a row of part -1 is never held out. No
    label may be in one part only.
    Raises InvalidInput for shapes that do not match, and what `train` raises.
    """
    options = options or FitOptions()
    if len(vectors) != len(data):
        raise InvalidInput(f"{len(vectors)} vectors were given for {len(data)} texts")
    rows = Rows(data.texts, np.asarray(vectors, np.float32), data.labels, data.capabilities)
    extra = _label_rows(label_names, data, options.label_weight)
    strange = _outside_rows(taught_outside, data) if taught_outside else None
    trainer = _Trainer(data, options, extra, strange, progress)
    outside_rows = _outside_rows(outside, data) if outside else None

    known = calibrate_on or held_out
    if known is not None:
        parts = trainer.parts(rows, "training", held_out)
        judged = _Judged.of(known, parts)
    else:
        judged = _judged_in_turn(trainer, rows, fold)
        parts = trainer.parts(rows, "training")

    vectors_alone = _calibrated(judged, 1, outside_rows, options.coverage)
    with_words = None
    if parts.lexical is not None:
        with_words = _calibrated(judged, 2, outside_rows, options.coverage)
    classifier = RouteClassifier(
        names=data.names,
        capability_names=data.capability_names,
        space=space,
        network=parts.network,
        prototypes=parts.prototypes,
        vector_only=vectors_alone.calibration,
        lexical=parts.lexical,
        with_words=with_words.calibration if with_words else None,
    )
    return Fitted(classifier, _measured(len(data), judged, with_words or vectors_alone))


@dataclass(frozen=True, eq=False)
class _Judged:
    """Rows as parts see them that were trained without them, which calibration goes by.

    `logits` has each part's, (n, classes); `similarity` is (n,). `apart` are such parts.
    """

    rows: Rows
    logits: list[Floats]
    similarity: Floats
    apart: _Parts

    @classmethod
    def of(cls, rows: Rows, apart: _Parts) -> _Judged:
        return cls(rows, apart.logits(rows), apart.similarity(rows.vectors), apart)

    def joined(self, other: _Judged) -> _Judged:
        """These rows, then the others; the parts are the others'."""
        return _Judged(
            self.rows.joined(other.rows),
            [np.concatenate(part) for part in zip(self.logits, other.logits, strict=True)],
            np.concatenate([self.similarity, other.similarity]),
            other.apart,
        )


def _judged_in_turn(trainer: _Trainer, rows: Rows, fold: Integers | None) -> _Judged:
    """Parts of the rows, each judged by what was trained on the others; of many rows one part."""
    every = len(rows.labels) <= FEW_ROWS or fold is not None
    if fold is None:
        fold = folds(rows.labels, FOLDS if every else HELD_OUT_PARTS, trainer.options.seed)
    pieces = []
    for number in range(int(fold.max()) + 1 if every else 1):
        inside = rows.take(np.flatnonzero(fold != number))
        apart = trainer.parts(inside, f"held-out part {number + 1}")
        pieces.append(_Judged.of(rows.take(np.flatnonzero(fold == number)), apart))
    return reduce(_Judged.joined, pieces)


@dataclass(frozen=True, eq=False)
class _Calibrated:
    """A calibration, with the logits of the mixture (n, classes) that it was fitted on, and the
    signals of scope of those rows and of texts from outside.
    """

    calibration: Calibration
    logits: Floats
    near: Floats
    far: Floats


def _calibrated(judged: _Judged, parts: int, outside: Rows | None, coverage: float) -> _Calibrated:
    """The calibration of the first so many parts together: the network, and the words."""
    weights = fit_mixture(judged.logits[:parts], judged.rows.labels)
    logits = mix(judged.logits[:parts], weights)
    settled = settle(logits)
    near = scope_signals(settled, judged.similarity)
    far = np.zeros((0, near.shape[1]), np.float32)
    if outside is not None:
        far_logits = mix(judged.apart.logits(outside)[:parts], weights)
        far = scope_signals(settle(far_logits), judged.apart.similarity(outside.vectors))
    calibration = Calibration(
        weights,
        fit_conformal(settled.probabilities, judged.rows.labels, coverage),
        fit_scope(near, far),
        _margin_percentiles(settled.probabilities),
    )
    return _Calibrated(calibration, logits, near, far)


def _measured(rows: int, judged: _Judged, shipped: _Calibrated) -> Metrics:
    labels, logits = judged.rows.labels, shipped.logits
    probabilities = settle(logits).probabilities
    sets = shipped.calibration.conformal.sets(probabilities)
    scope = shipped.calibration.scope
    return Metrics(
        rows=rows,
        held_out=len(labels),
        network=accuracy(judged.logits[0], labels),
        words=accuracy(judged.logits[1], labels) if len(judged.logits) > 1 else None,
        mixture=accuracy(logits, labels),
        log_loss=log_loss(logits, labels),
        ece=expected_calibration_error(probabilities, labels),
        coverage=float(np.mean(sets[np.arange(len(sets)), labels])),
        set_size=float(sets.sum(axis=1).mean()),
        scope_auroc=area_under_roc(scope.score(shipped.near), scope.score(shipped.far))
        if len(shipped.far)
        else None,
    )


@dataclass(frozen=True, eq=False)
class _Trainer:
    data: Dataset
    options: FitOptions
    extra: Rows | None
    strange: Rows | None
    progress: Progress | None

    def parts(self, rows: Rows, stage: str, held_out: Rows | None = None) -> _Parts:
        """The parts trained on these rows and the labels' names."""
        classes = len(self.data.names)
        taught = rows.joined(self.extra) if self.extra else rows
        network = self.options.network or default_network(len(taught.labels), self.options.seed)
        report, progress = None, self.progress
        if progress is not None:
            report = lambda epoch: progress(stage, epoch.number, network.epochs)  # noqa: E731
        trained = train(
            _examples(taught.joined(self.strange) if self.strange else taught),
            classes,
            network,
            held_out=_examples(held_out) if held_out else None,
            progress=report,
        )
        lexical = None
        if self.options.words is not None:
            lexical = train_lexical(taught.texts, taught.labels, classes, self.options.words)
        sums = np.zeros((classes, taught.vectors.shape[1]), np.float32)
        np.add.at(sums, taught.labels, taught.vectors)
        lengths = np.linalg.norm(sums, axis=1, keepdims=True)
        return _Parts(trained.network, lexical, sums / np.maximum(lengths, 1e-12))


def _margin_percentiles(probabilities: Floats) -> tuple[float, ...]:
    found = np.quantile(margins(probabilities), np.linspace(0, 1, 21))
    return tuple(float(value) for value in found)


def _examples(rows: Rows) -> Examples:
    return Examples(Ragged.of_vectors(rows.vectors), rows.labels, rows.capabilities)


def _label_rows(
    label_names: tuple[tuple[str, ...], Floats] | None, data: Dataset, weight: int
) -> Rows | None:
    """The labels' names as rows; each calls for what most rows of its label call for."""
    if label_names is None or weight == 0:
        return None
    texts, vectors = label_names
    if not len(texts) == len(vectors) == len(data.names):
        raise InvalidInput(f"{len(texts)} label texts were given for {len(data.names)} labels")
    classes = np.arange(len(data.names))
    usual = np.array([data.capabilities[data.labels == c].mean(axis=0) >= 0.5 for c in classes])
    rows = Rows(texts, np.asarray(vectors, np.float32), classes, usual.astype(np.int64))
    return rows.take(np.tile(classes, weight))


def _outside_rows(outside: tuple[tuple[str, ...], Floats], data: Dataset) -> Rows:
    texts, vectors = outside
    nothing = np.zeros((len(texts), data.capabilities.shape[1]), np.int64)
    labels = np.full(len(texts), OUTSIDE, np.int64)
    return Rows(texts, np.asarray(vectors, np.float32), labels, nothing)
