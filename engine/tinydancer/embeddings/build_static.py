"""Makes the static table: the vectors of tokens whose sums come nearest to MiniLM's sentences.

Each token starts as its own sentence vector at the weight of smooth inverse frequency (Arora et al.
2017). Then all vectors are fitted together, so that the sum over a text points where MiniLM's
vector of the text does: the loss is 1 - cosine, the method Adam (Kingma & Ba 2015) on the rows that
a batch has. Pairs of tokens that often follow each other get vectors of their own ("top up").
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from itertools import chain

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from tinydancer.embeddings.base import Vectors
from tinydancer.embeddings.corpus import Corpus, vary
from tinydancer.embeddings.minilm import MODEL, MiniLMEmbedder
from tinydancer.embeddings.static_table import StaticTable, quantise
from tinydancer.embeddings.tokens import UNKNOWN, WordPieces, reached_tokens

STATIC_MODEL = "static-minilm-v2"
SIF_A = 1e-4
"""The constant a of smooth inverse frequency, a / (a + p(w)) (Arora et al. 2017, section 3)."""
UNKNOWN_WEIGHT = 1e-3
"""The weight of [UNK] beside known tokens: it says nothing, but is never nothing."""
VARIANTS = 60_000
REQUEST_WEIGHT = 3
"""How often a request is seen for each time that a variant or a sentence is."""
PAIRS = 4096
EPOCHS = 6
BATCH = 1024
LEARNING_RATE = 3e-3
BETA_1, BETA_2, EPSILON = 0.9, 0.99, 1e-9
ENCODED_AT_ONCE = 1024

Progress = Callable[[int, int], None]
"""Called with how many steps of a stage are done, and of how many."""
Stage = Callable[[str, str], AbstractContextManager[Progress]]
"""Called with a stage's name and the unit of its steps, at its beginning."""


def build_static_table(
    teacher: MiniLMEmbedder, corpus: Corpus, stage: Stage, *, seed: int = 0
) -> StaticTable:
    """The table that copies the teacher on the corpus and its variants.

    The same corpus and seed give the same table, up to the rounding of the machine's arithmetic.
    Encoding takes the most time: about 3 ms a text.
    """
    reached = reached_tokens(teacher.vocabulary)
    vocabulary = tuple(teacher.vocabulary[token] for token in reached)
    with stage("Encoding tokens", "tokens") as progress:
        start = token_vectors(teacher, progress)[reached]
    variants = vary(corpus.requests, VARIANTS, seed)
    others = tuple(dict.fromkeys(chain(variants, corpus.sentences)))
    texts = (*corpus.requests, *others)
    with stage("Encoding texts", "texts") as progress:
        targets = _encode(teacher, texts, progress)
    seen = np.repeat([REQUEST_WEIGHT, 1], [len(corpus.requests), len(others)])

    pieces = WordPieces(vocabulary)
    ids = [pieces.ids(text) for text in texts]
    pairs = frequent_pairs(ids, len(vocabulary))
    counts = row_counts(ids, pairs, len(vocabulary))
    start = np.concatenate([start, np.zeros((len(pairs), teacher.dimension), dtype=np.float32)])
    order = np.repeat(np.arange(len(texts)), seen)
    with stage("Fitting", "batches") as progress:
        vectors = fit(start, counts[order], targets[order], progress, seed=seed)
    codes, scales = quantise(vectors)
    return StaticTable(
        model=STATIC_MODEL,
        space=MODEL,
        vocabulary=vocabulary,
        pairs=pairs,
        codes=codes,
        scales=scales,
        notes={
            "teacher": MODEL,
            "requests": str(len(corpus.requests)),
            "sentences": str(len(corpus.sentences)),
            "variants": str(len(variants)),
            "seed": str(seed),
        },
    )


def token_vectors(teacher: MiniLMEmbedder, progress: Progress) -> Vectors:
    """(tokens, dimension) float32: each token's own sentence vector, at its weight.

    Tokens that no text has ([PAD], [CLS], unused ones) are zero. [UNK] is the vector of the empty
    text at a small weight.
    """
    vocabulary = teacher.vocabulary
    tokens = [number for number, token in enumerate(vocabulary) if not _is_special(token)]
    vectors = np.zeros((len(vocabulary), teacher.dimension), dtype=np.float32)
    for first in range(0, len(tokens), ENCODED_AT_ONCE):
        block = np.array(tokens[first : first + ENCODED_AT_ONCE], dtype=np.int64)
        vectors[block] = teacher.embed_ids(block[:, None])
        progress(first + len(block), len(tokens))
    vectors *= _sif_weights(vocabulary)[:, None]
    empty = teacher.embed_ids(np.empty((1, 0), dtype=np.int64))[0]
    vectors[vocabulary.index(UNKNOWN)] = UNKNOWN_WEIGHT * empty
    return vectors


def frequent_pairs(ids: Iterable[Sequence[int]], tokens: int) -> NDArray[np.int64]:
    """Up to PAIRS keys `first * tokens + second` in ascending order, those in the most texts."""
    keys = [
        np.unique(np.asarray(text[:-1], dtype=np.int64) * tokens + np.asarray(text[1:]))
        for text in ids
        if len(text) > 1
    ]
    found, counts = np.unique(np.concatenate(keys), return_counts=True)
    most = np.argsort(-counts, kind="stable")[:PAIRS]
    return np.sort(found[most])


def row_counts(
    ids: Sequence[Sequence[int]], pairs: NDArray[np.int64], tokens: int
) -> sparse.csr_matrix:
    """(texts, tokens + pairs) float32: how often each text has each row of the table."""
    lengths = np.fromiter(map(len, ids), dtype=np.int64, count=len(ids))
    flat = np.fromiter(chain.from_iterable(ids), dtype=np.int64)
    text_of = np.repeat(np.arange(len(ids)), lengths)
    keys = flat[:-1] * tokens + flat[1:]
    found = np.minimum(np.searchsorted(pairs, keys), len(pairs) - 1)
    known = (pairs[found] == keys) & (text_of[:-1] == text_of[1:])
    columns = np.concatenate([flat, tokens + found[known]])
    rows = np.concatenate([text_of, text_of[1:][known]])
    ones = np.ones(len(columns), dtype=np.float32)
    counts = sparse.csr_matrix((ones, (rows, columns)), shape=(len(ids), tokens + len(pairs)))
    counts.sum_duplicates()
    return counts


def fit(
    start: Vectors,
    counts: sparse.csr_matrix,
    targets: Vectors,
    progress: Progress,
    *,
    seed: int,
) -> Vectors:
    """(rows, dimension) float32: least mean of 1 - cos(counts @ vectors, targets).

    `start` (rows, dimension), `counts` (texts, rows), `targets` (texts, dimension) of unit length.
    Only the rows of a batch are moved, with their own Adam moments; the rate falls to 0 linearly.
    """
    vectors = start.copy()
    first, second = np.zeros_like(vectors), np.zeros_like(vectors)
    generator = np.random.default_rng(seed)
    batches = max(1, len(targets) // BATCH)
    steps = EPOCHS * batches
    for epoch in range(EPOCHS):
        order = generator.permutation(len(targets))
        for batch in range(batches):
            chosen = order[batch * BATCH : (batch + 1) * BATCH]
            rows, gradient = _gradient(vectors, counts[chosen], targets[chosen])
            step = epoch * batches + batch
            first[rows] = BETA_1 * first[rows] + (1 - BETA_1) * gradient
            second[rows] = BETA_2 * second[rows] + (1 - BETA_2) * gradient**2
            mean = first[rows] / (1 - BETA_1 ** (step + 1))
            spread = np.sqrt(second[rows] / (1 - BETA_2 ** (step + 1))) + EPSILON
            vectors[rows] -= LEARNING_RATE * (1 - step / steps) * mean / spread
            progress(step + 1, steps)
    return np.asarray(vectors)


def _gradient(
    vectors: Vectors, counts: sparse.csr_matrix, targets: Vectors
) -> tuple[NDArray[np.integer], Vectors]:
    """The rows that a batch has, and the gradient of its mean of 1 - cosine by their vectors."""
    rows, columns = np.unique(counts.indices, return_inverse=True)
    present = sparse.csr_matrix(
        (counts.data, columns, counts.indptr), shape=(counts.shape[0], len(rows))
    )
    sums = present @ vectors[rows]
    lengths = np.linalg.norm(sums, axis=1, keepdims=True) + 1e-6
    units = sums / lengths
    cosines = np.einsum("ij,ij->i", units, targets)[:, None]
    by_sum = (cosines * units - targets) / (lengths * len(targets))
    return rows, np.asarray(present.T @ by_sum, dtype=np.float32)


def _encode(teacher: MiniLMEmbedder, texts: Sequence[str], progress: Progress) -> Vectors:
    vectors = np.empty((len(texts), teacher.dimension), dtype=np.float32)
    for first in range(0, len(texts), ENCODED_AT_ONCE):
        block = texts[first : first + ENCODED_AT_ONCE]
        vectors[first : first + len(block)] = teacher.embed(block)
        progress(first + len(block), len(texts))
    return vectors


def _is_special(token: str) -> bool:
    return len(token) > 2 and token.startswith("[") and token.endswith("]")


def _sif_weights(vocabulary: tuple[str, ...]) -> NDArray[np.float32]:
    """(tokens,) a / (a + p), with p by Zipf's law over the rank of a token.

    BERT's vocabulary lists its words by frequency from "the" on. Before them stand characters, in
    the order of Unicode: those of ASCII get the rank of a frequent word, the others of a rare one.
    """
    start = vocabulary.index("the") if "the" in vocabulary else 0
    ranks = np.empty(len(vocabulary))
    for number, token in enumerate(vocabulary):
        if number >= start:
            ranks[number] = number - start + 1
        elif token.isascii():
            ranks[number] = 100 if token.isalnum() else 10
        else:
            ranks[number] = 10_000
    frequency = 1 / (ranks * (1 / np.arange(1, len(vocabulary) + 1)).sum())
    weights: NDArray[np.float32] = (SIF_A / (SIF_A + frequency)).astype(np.float32)
    return weights
