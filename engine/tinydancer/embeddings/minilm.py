"""The accurate encoder: all-MiniLM-L6-v2 by onnxruntime. Milliseconds a sentence."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tinydancer.embeddings.base import Vectors
from tinydancer.embeddings.tokens import WordPieces
from tinydancer.errors import NotReady

if TYPE_CHECKING:
    import onnxruntime

MODEL = "all-MiniLM-L6-v2"
MAX_TOKENS = 256
"""Tokens of a text that the model reads, [CLS] and [SEP] among them; the rest is left out."""
BLOCK_TOKENS = 2048
"""Tokens that go through the network at one time: bounds its memory."""

FETCH = "fetch the model with: tinydancer models fetch minilm"
GRAPH_FILE = "model.onnx"
VOCABULARY_FILE = "vocab.txt"


class MiniLMEmbedder:
    """Sentence vectors of all-MiniLM-L6-v2 (384 dimensions) from a directory made by a fetch.

    A text's vector does not depend on the texts beside it: texts of one length form a batch, and
    nothing is padded. Texts are cut at MAX_TOKENS, the model's own limit. Thread-safe.
    """

    def __init__(self, directory: Path) -> None:
        vocabulary_file, graph_file = directory / VOCABULARY_FILE, directory / GRAPH_FILE
        for file in (vocabulary_file, graph_file):
            if not file.is_file():
                raise NotReady(f"there is no {file}", hint=FETCH)
        vocabulary = vocabulary_file.read_text("utf-8").rstrip("\n").split("\n")
        self.vocabulary = tuple(vocabulary)
        self._pieces = WordPieces(vocabulary)
        try:
            self._ends = vocabulary.index("[CLS]"), vocabulary.index("[SEP]")
        except ValueError as error:
            raise NotReady(f"{vocabulary_file}: {error}", hint=FETCH) from None
        self._session = _session(graph_file)
        self._dimension = _dimension(graph_file, self._session)
        if not np.isfinite(self.embed_ids(np.empty((1, 0), dtype=np.int64))).all():
            raise NotReady(f"{graph_file} gives vectors that are not finite numbers", hint=FETCH)

    @property
    def model(self) -> str:
        """Name of the model."""
        return MODEL

    @property
    def space(self) -> str:
        """The model's own space, which the static table is made for."""
        return MODEL

    @property
    def dimension(self) -> int:
        """Length of each vector."""
        return self._dimension

    def embed(self, texts: Sequence[str]) -> Vectors:
        """(n, dimension) float32, rows of unit length. Raises InvalidText."""
        ids = [self._pieces.ids(text)[: MAX_TOKENS - 2] for text in texts]
        vectors = np.empty((len(ids), self._dimension), dtype=np.float32)
        by_length: dict[int, list[int]] = {}
        for row, tokens in enumerate(ids):
            by_length.setdefault(len(tokens), []).append(row)
        for length, rows in by_length.items():
            step = max(1, BLOCK_TOKENS // (length + 2))
            for first in range(0, len(rows), step):
                block = rows[first : first + step]
                batch = np.array([ids[row] for row in block], dtype=np.int64)
                vectors[block] = self.embed_ids(batch)
        return vectors

    def count_tokens(self, texts: Sequence[str]) -> NDArray[np.int64]:
        """(n,) tokens of each text, those beyond MAX_TOKENS too. Raises InvalidText."""
        return self._pieces.counts(texts)

    def embed_ids(self, batch: NDArray[np.int64]) -> Vectors:
        """(n, tokens) ids without [CLS] and [SEP] → (n, dimension), rows of unit length."""
        whole = np.pad(batch, ((0, 0), (1, 1)), constant_values=((0, 0), self._ends))
        vectors: Vectors = self._session.run(["vectors"], {"input_ids": whole})[0]
        return vectors


def _session(graph_file: Path) -> onnxruntime.InferenceSession:
    try:
        import onnxruntime
    except ImportError:
        raise NotReady(
            "MiniLM needs onnxruntime, which is not installed",
            hint="pip install 'tinydancer-router[minilm]'",
        ) from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    try:
        return onnxruntime.InferenceSession(
            str(graph_file), options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:  # onnxruntime's errors share no base class
        raise NotReady(
            f"{graph_file} can't be run: truncated, damaged or of another kind",
            detail=str(error),
            hint=FETCH,
        ) from error


def _dimension(graph_file: Path, session: onnxruntime.InferenceSession) -> int:
    outputs = {output.name: output.shape for output in session.get_outputs()}
    shape = outputs.get("vectors")
    if shape is None or len(shape) != 2 or not isinstance(shape[1], int):
        raise NotReady(f"{graph_file} has no output `vectors` of a fixed dimension", hint=FETCH)
    return int(shape[1])
