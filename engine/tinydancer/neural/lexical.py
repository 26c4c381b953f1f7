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
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain, repeat

import numpy as np

from tinydancer.errors import InvalidInput
from tinydancer.neural.fastgrnn import check_parameters
from tinydancer.neural.heads import cross_entropy
from tinydancer.neural.ragged import Floats, Integers, ranges

MOST_WORDS = 512
"""Words of a text that are looked at; the rest of a long text is left to the sentence vector."""
MOST_FEATURES = 200_000
_BLOCK = 4096

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
        # Rows of one length are one product, in blocks, so that what is gathered stays in cache.
        for length in np.unique(self.lengths[self.lengths > 0]).tolist():
            rows = np.flatnonzero(self.lengths == length)
            step = max(1, _BLOCK // length)
            for at in range(0, len(rows), step):
                block = rows[at : at + step]
                places = self.starts[block][:, None] + np.arange(length)
                terms = matrix.take(self.columns[places], axis=0)
                result[block] = np.matmul(self.values[places][:, None], terms)[:, 0]
        return result


@dataclass(frozen=True, eq=False)
class _Places:
    """Where each feature has its column, found by the numbers of its words.

    numbers: of the words that features are made of, and of the empty word, 0. words: (numbers + 1,)
    the column of each, -1 where it is no feature alone; the last is for any other word. pairs: the
    keys of pairs, sorted, and pair_columns their columns.
    """

    numbers: Mapping[str, int]
    words: Integers
    pairs: Integers
    pair_columns: Integers

    @staticmethod
    def of(names: Sequence[str]) -> _Places:
        """The places of features, whose columns are their places in `names`."""
        numbers = {"": 0}
        found = []
        for name in names:
            first, space, second = name.partition(" ")
            one = numbers.setdefault(first, len(numbers))
            found.append((one, numbers.setdefault(second, len(numbers)) if space else -1))
        table = np.array(found, np.int64).reshape(-1, 2)
        alone = np.flatnonzero(table[:, 1] < 0)
        words = np.full(len(numbers) + 1, -1, np.int64)
        words[table[alone, 0]] = alone
        both = np.flatnonzero(table[:, 1] >= 0)
        keys = table[both, 0] * len(words) + table[both, 1]
        order = np.argsort(keys)
        return _Places(numbers, words, keys[order], both[order])

    def rows(self, texts: Sequence[str], idf: Floats) -> Sparse:
        """The features of each text, weighed by `idf`, at unit length; none is an empty row."""
        other = len(self.words) - 1
        flat: list[int] = []
        sizes: list[int] = []
        for text in texts:
            words = _WORDS.findall(text.casefold())[:MOST_WORDS]
            if words:
                flat.append(0)
                flat += map(self.numbers.get, words, repeat(other))
                flat.append(0)
            sizes.append(len(words) + 2 if words else 0)
        numbers = np.array(flat, np.int64)
        owners = np.repeat(np.arange(len(texts)), sizes)
        alone = self.words[numbers]
        known = np.flatnonzero(alone >= 0)
        # From the end of one text to the begin of the next is a pair of empty words, no feature.
        keys = numbers[:-1] * len(self.words) + numbers[1:]
        paired = np.searchsorted(self.pairs, keys)
        paired[paired == len(self.pairs)] = 0
        places = np.flatnonzero(self.pairs[paired] == keys) if len(self.pairs) else known[:0]
        owner = np.concatenate([owners[known], owners[places]])
        order = np.argsort(owner, kind="stable")
        columns = np.concatenate([alone[known], self.pair_columns[paired[places]]])[order]
        lengths = np.bincount(owner, minlength=len(texts))
        values = idf[columns]
        sparse = Sparse(columns, values, lengths)
        norms = np.sqrt(_sums(values * values, sparse))
        return Sparse(columns, values / np.repeat(norms, lengths), lengths)


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
        if len(set(self.names)) != len(self.names):
            raise InvalidInput("the lexical model has a feature twice")

    @cached_property
    def _places(self) -> _Places:
        return _Places.of(self.names)

    def rows(self, texts: Sequence[str]) -> Sparse:
        """The known features of each text, weighed, at unit length; none is an empty row."""
        return self._places.rows(texts, self.parameters["idf"])

    def logits(self, texts: Sequence[str]) -> Floats:
        """(n, classes) before the softmax. A text of unknown words gets the classes' offsets."""
        if len(texts) == 1:
            return self._logits_of(texts[0])
        result: Floats = self.rows(texts).dot(self.parameters["L"]) + self.parameters["d"]
        return result

    @cached_property
    def _columns(self) -> Mapping[str, int]:
        return {name: column for column, name in enumerate(self.names)}

    def _logits_of(self, text: str) -> Floats:
        """(1, classes) the same of one text, which needs no book-keeping about many."""
        known = self._columns
        columns = [known[feature] for feature in features(text) if feature in known]
        if not columns:
            return self.parameters["d"][None]
        places = np.array(columns)
        values = self.parameters["idf"].take(places)
        # The sum that rows of a batch have, which is not np.sum's to the last bit.
        values /= np.sqrt(np.add.reduceat(values * values, (0,)))
        terms = self.parameters["L"].take(places, axis=0)
        result: Floats = np.matmul(values[None], terms) + self.parameters["d"]
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
    document_counts = Counter(chain.from_iterable(set(features(text)) for text in texts))
    common = sorted(document_counts.items(), key=lambda pair: (-pair[1], pair[0]))[:MOST_FEATURES]
    names = tuple(sorted(name for name, _ in common))
    if not names:
        raise InvalidInput("no training text has a word in it")
    counts = np.array([document_counts[name] for name in names], np.float32)
    idf = (np.log((1 + len(texts)) / (1 + counts)) + 1).astype(np.float32)
    data = _Places.of(names).rows(texts, idf)

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
