"""The foreign table request_embeddings: texts to their vectors."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tinydancer.embeddings.base import Vectors
from tinydancer.tables import text
from tinydancer.tables.context import Context
from tinydancer.tables.inputs import chunks, questions
from tinydancer.tables.rows import constant, rows
from tinydancer_fdw.contract import REQUEST_EMBEDDINGS
from tinydancer_fdw.frames import Input, Row

CHUNK = 256


def scan(
    context: Context, inputs: Sequence[Input], columns: Sequence[str], limit: int
) -> Iterator[Row]:
    """The rows of a scan: one for each text."""
    asked = questions(REQUEST_EMBEDDINGS, inputs, context.snapshot.settings)
    cells = {
        "content": lambda answer: answer[0],
        "embedding": lambda answer: text.vector(answer[1]),
        "model": constant(context.embedder.model),
    }
    for question in asked:
        for texts in chunks(question.texts, limit, CHUNK):
            vectors: Sequence[Vectors] = list(context.embedder.embed(texts))
            yield from rows(zip(texts, vectors, strict=True), cells, columns)
