"""Makes the static table from MiniLM: each token of its vocabulary, embedded once."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from tinydancer.embeddings.minilm import MODEL, MiniLMEmbedder
from tinydancer.embeddings.static import StaticTable, quantise
from tinydancer.embeddings.tokens import UNKNOWN

STATIC_MODEL = "static-minilm-v1"
SIF_A = 1e-4
"""The constant a of smooth inverse frequency, a / (a + p(w)) (Arora et al. 2017, section 3)."""
BATCH = 256

Progress = Callable[[int, int], None]
"""Called with how many are done and of how many."""


def build_static_table(teacher: MiniLMEmbedder, progress: Progress | None = None) -> StaticTable:
    """The table of every token's own sentence vector, weighted by smooth inverse frequency.

    Tokens that no text has ([PAD], [CLS], unused ones) are zero. [UNK] is the vector of the empty
    text at a small weight: it says nothing, but keeps texts of unknown characters defined.
    """
    vocabulary = teacher.vocabulary
    tokens = [number for number, token in enumerate(vocabulary) if not _is_special(token)]
    vectors = np.zeros((len(vocabulary), teacher.dimension), dtype=np.float32)
    for first in range(0, len(tokens), BATCH):
        block = np.array(tokens[first : first + BATCH], dtype=np.int64)
        vectors[block] = teacher.embed_ids(block[:, None])
        if progress:
            progress(min(first + BATCH, len(tokens)), len(tokens))
    vectors *= _sif_weights(vocabulary)[:, None]
    unknown = vocabulary.index(UNKNOWN)
    vectors[unknown] = 1e-3 * teacher.embed_ids(np.empty((1, 0), dtype=np.int64))[0]
    codes, scales = quantise(vectors)
    return StaticTable(
        model=STATIC_MODEL,
        space=MODEL,
        vocabulary=vocabulary,
        codes=codes,
        scales=scales,
        notes={"teacher": MODEL, "method": f"one vector a token, SIF a={SIF_A}"},
    )


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
