"""What the words of a request say by themselves: a sparse linear model over words and pairs.

A sentence vector blurs rare and exact words; a linear model over the words that were trained on
does not. Its mistakes are others than those of the network, and so their mixture is better than
either.

A text becomes its words and its neighbouring pairs of words (the two ends of the text count as
words), weighed by inverse document frequency, at unit length. Features that no training text had
are left out.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain

import numpy as np

from tinydancer.errors import InvalidInput
from tinydancer.neural.fastgrnn import check_parameters
from tinydancer.neural.heads import cross_entropy
from tinydancer.neural.ragged import Floats, Integers, ranges

MOST_WORDS = 512
"""Words of a text that are looked at; the rest of a long text is left to the sentence vector."""
MOST_FEATURES = 200_000
_BLOCK = 64

# A word; or one character of a script that puts no spaces between words; or one other sign.
_WORDS = re.compile(r"[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff]|[^\W_]+|[^\w\s]")


def features(text: str) -> list[str]:
    """Words, and "word word" pairs with an empty word for either end of the text."""
    words = _WORDS.findall(text.casefold())[:MOST_WORDS]
    if not words:
        return []
    return words + [f"{a} {b}" for a, b in zip(["", *words], [*words, ""], strict=True)]


@dataclass(frozen=True, eq=False)
class Sparse:
    """n rows of (feature, value) pairs, one row after another.

    columns, values: (sum of lengths,) int64 and float32. lengths: (n,) int64, 0 allowed.
    """

    columns: Integers
    values: Floats
    lengths: Integers

    def __len__(self) -> int:
        return len(self.lengths)

    @cached_property
    def starts(self) -> Integers:
        """(n,) where each row begins."""
        return np.cumsum(self.lengths) - self.lengths

    def dot(self, matrix: Floats) -> Floats:
        """(n, classes): the rows times a (features, classes) matrix."""
        result = np.zeros((len(self), matrix.shape[1]), np.float32)
        some = np.flatnonzero(self.lengths)
        # In blocks, so that what is gathered stays in the cache.
        for at in range(0, len(some), _BLOCK):
            block = some[at : at + _BLOCK]
            first, last = self.starts[block[0]], self.starts[block[-1]] + self.lengths[block[-1]]
            terms = matrix[self.columns[first:last]]
            terms *= self.values[first:last, None]
            result[block] = np.add.reduceat(terms, self.starts[block] - first, axis=0)
        return result


@dataclass(frozen=True, eq=False)
class LexicalModel:
    """A linear model over the features of training texts.

    names: the features, sorted. parameters: idf (features,), L (features, classes), d (classes,).
    Raises InvalidInput or NumberOutOfRange for parameters that do not fit.
    """

    names: tuple[str, ...]
    parameters: dict[str, Floats] = field(repr=False)

    def __post_init__(self) -> None:
        classes = self.parameters["d"].shape[0] if "d" in self.parameters else 0
        shapes = {
            "idf": (len(self.names),),
            "L": (len(self.names), classes),
            "d": (classes,),
        }
        check_parameters(self.parameters, shapes, "lexical model")
        if len(self._columns) != len(self.names):
            raise InvalidInput("the lexical model has a feature twice")

    @cached_property
    def _columns(self) -> dict[str, int]:
        return {name: column for column, name in enumerate(self.names)}

    def rows(self, texts: Sequence[str]) -> Sparse:
        """The known features of each text, weighed, at unit length; none is an empty row."""
        return _rows(map(features, texts), self._columns, self.parameters["idf"])

    def logits(self, texts: Sequence[str]) -> Floats:
        """(n, classes) before the softmax. A text of unknown words gets the classes' offsets."""
        result: Floats = self.rows(texts).dot(self.parameters["L"]) + self.parameters["d"]
        return result


@dataclass(frozen=True)
class LexicalOptions:
    """rate: Adagrad's. decay: what is taken off a weight, as a share, each time it is touched."""

    epochs: int = 20
    batch: int = 128
    rate: float = 0.5
    decay: float = 0.0
    seed: int = 0


def train_lexical(
    texts: Sequence[str],
    labels: Integers,
    classes: int,
    options: LexicalOptions,
    *,
    progress: Callable[[int, float], None] | None = None,
) -> LexicalModel:
    """Multinomial logistic regression by Adagrad over the rows of L that each batch touches.

    `progress` gets the number of each epoch and its mean loss. Features beyond MOST_FEATURES are
    left out, rarest first.
    """
    found = [features(text) for text in texts]
    document_counts = Counter(chain.from_iterable(map(set, found)))
    common = sorted(document_counts.items(), key=lambda pair: (-pair[1], pair[0]))[:MOST_FEATURES]
    names = tuple(sorted(name for name, _ in common))
    if not names:
        raise InvalidInput("no training text has a word in it")
    counts = np.array([document_counts[name] for name in names], np.float32)
    idf = (np.log((1 + len(texts)) / (1 + counts)) + 1).astype(np.float32)
    columns = {name: column for column, name in enumerate(names)}
    data = _rows(found, columns, idf)

    weights = np.zeros((len(names), classes), np.float32)
    offsets = np.zeros(classes, np.float32)
    squares = np.full((len(names), 1), 1e-8, np.float32)
    offset_squares = np.full(classes, 1e-8, np.float32)
    rng = np.random.default_rng(options.seed)
    for epoch in range(1, options.epochs + 1):
        order = rng.permutation(len(texts))
        total = 0.0
        for start in range(0, len(order), options.batch):
            batch = order[start : start + options.batch]
            part = _take(data, batch)
            targets = np.zeros((len(batch), classes), np.float32)
            targets[np.arange(len(batch)), labels[batch]] = 1
            logits = part.dot(weights) + offsets
            loss, slope = cross_entropy(logits, targets, np.ones(len(batch), np.float32))
            slope *= len(batch)
            total += loss * len(batch)
            touched, gradient = _transposed_dot(part, slope)
            squares[touched, 0] += (gradient * gradient).mean(axis=1)
            weights[touched] -= (
                options.rate * gradient / np.sqrt(squares[touched])
                + options.decay * weights[touched]
            )
            offset_gradient = slope.sum(axis=0)
            offset_squares += offset_gradient**2
            offsets -= options.rate * 0.1 * offset_gradient / np.sqrt(offset_squares)
        if progress:
            progress(epoch, total / len(order))
    return LexicalModel(names, {"idf": idf, "L": weights, "d": offsets})


def _rows(texts: Iterable[list[str]], columns: Mapping[str, int], idf: Floats) -> Sparse:
    found: list[int] = []
    lengths: list[int] = []
    for names in texts:
        row = [column for column in map(columns.get, names) if column is not None]
        found += row
        lengths.append(len(row))
    flat = np.array(found, np.int64)
    values = idf[flat]
    sparse = Sparse(flat, values, np.array(lengths, np.int64))
    norms = np.sqrt(_sums(values * values, sparse))
    return Sparse(flat, values / np.repeat(norms, sparse.lengths), sparse.lengths)


def _sums(values: Floats, rows: Sparse) -> Floats:
    """(n,) the sum of each row's values, 0 for an empty one."""
    sums = np.zeros(len(rows), np.float32)
    some = np.flatnonzero(rows.lengths)
    if len(some):
        sums[some] = np.add.reduceat(values, rows.starts[some])
    return sums


def _take(data: Sparse, rows: Integers) -> Sparse:
    lengths = data.lengths[rows]
    source = ranges(data.starts[rows], lengths)
    return Sparse(data.columns[source], data.values[source], lengths)


def _transposed_dot(part: Sparse, slope: Floats) -> tuple[Integers, Floats]:
    """The columns that a batch has, and (columns, classes) the batch's transpose times `slope`."""
    order = np.argsort(part.columns, kind="stable")
    row = np.repeat(np.arange(len(part)), part.lengths)[order]
    touched, starts = np.unique(part.columns[order], return_index=True)
    terms = slope[row] * part.values[order][:, None]
    return touched, np.add.reduceat(terms, starts, axis=0)
