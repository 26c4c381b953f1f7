"""From labelled rows to a classifier: every row teaches, and nothing is calibrated on itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

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
        known_logits, similarity = parts.logits(known), parts.similarity(known.vectors)
        apart = parts
    else:
        every = len(data) <= FEW_ROWS or fold is not None
        if fold is None:
            fold = folds(data.labels, FOLDS if every else HELD_OUT_PARTS, options.seed)
        pieces = []
        for number in range(int(fold.max()) + 1 if every else 1):
            inside = rows.take(np.flatnonzero(fold != number))
            apart = trainer.parts(inside, f"held-out part {number + 1}")
            known = rows.take(np.flatnonzero(fold == number))
            pieces.append((known, apart.logits(known), apart.similarity(known.vectors)))
        known = pieces[0][0]
        for piece in pieces[1:]:
            known = known.joined(piece[0])
        known_logits = [np.concatenate(part) for part in zip(*(p[1] for p in pieces), strict=True)]
        similarity = np.concatenate([piece[2] for piece in pieces])
        parts = trainer.parts(rows, "training")

    def calibrate(use: slice) -> tuple[Calibration, Floats, Floats, Floats]:
        weights = fit_mixture(known_logits[use], known.labels)
        logits = mix(known_logits[use], weights)
        settled = settle(logits)
        probabilities = settled.probabilities
        near = scope_signals(settled, similarity)
        far = np.zeros((0, near.shape[1]), np.float32)
        if outside_rows is not None:
            far_logits = mix(apart.logits(outside_rows)[use], weights)
            far = scope_signals(settle(far_logits), apart.similarity(outside_rows.vectors))
        calibration = Calibration(
            weights,
            fit_conformal(probabilities, known.labels, options.coverage),
            fit_scope(near, far),
            _margin_percentiles(probabilities),
        )
        return calibration, logits, near, far

    vector_only, logits, near, far = calibrate(slice(0, 1))
    with_words = None
    if parts.lexical is not None:
        with_words, logits, near, far = calibrate(slice(0, 2))
    shipped = with_words or vector_only
    probabilities = settle(logits).probabilities
    sets = shipped.conformal.sets(probabilities)
    metrics = Metrics(
        rows=len(data),
        held_out=len(known.labels),
        network=accuracy(known_logits[0], known.labels),
        words=accuracy(known_logits[1], known.labels) if parts.lexical else None,
        mixture=accuracy(logits, known.labels),
        log_loss=log_loss(logits, known.labels),
        ece=expected_calibration_error(probabilities, known.labels),
        coverage=float(np.mean(sets[np.arange(len(sets)), known.labels])),
        set_size=float(sets.sum(axis=1).mean()),
        scope_auroc=area_under_roc(shipped.scope.score(near), shipped.scope.score(far))
        if len(far)
        else None,
    )
    classifier = RouteClassifier(
        names=data.names,
        capability_names=data.capability_names,
        space=space,
        network=parts.network,
        prototypes=parts.prototypes,
        vector_only=vector_only,
        lexical=parts.lexical,
        with_words=with_words,
    )
    return Fitted(classifier, metrics)


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
