"""The foreign table semantic_matches: texts to the routes they mean."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import chain, islice

import numpy as np

from tinydancer.embeddings.base import Embedder, Vectors
from tinydancer.embeddings.cascade import CascadeEmbedder, embed_requests
from tinydancer.errors import NotReady
from tinydancer.semantic_routes.confidence import calibration
from tinydancer.semantic_routes.ranking import Match, Matching
from tinydancer.semantic_routes.route import Hit, RouteSearch
from tinydancer.semantic_routes.table import Similarities, margin_of
from tinydancer.semantic_routes.words import NO_WORDS, Words
from tinydancer.tables import text
from tinydancer.tables.context import Context
from tinydancer.tables.inputs import Question, chunks, questions
from tinydancer.tables.rows import echoes, rows
from tinydancer_fdw.contract import SEMANTIC_MATCHES
from tinydancer_fdw.frames import Input, Row

# The text, the rank and the match of a row.
Answer = tuple[str, int, Match]
Cell = Callable[[Answer], "str | None"]

DEFAULT_TOP_K = 3
CHUNK = 1024
CELLS = 5_000_000


def scan(
    context: Context, inputs: Sequence[Input], columns: Sequence[str], limit: int
) -> Iterator[Row]:
    """The rows of a scan: the matches of each text, none where no route fits."""
    asked = questions(SEMANTIC_MATCHES, inputs, context.snapshot.settings)
    size = max(1, min(CHUNK, CELLS // max(1, len(context.snapshot.routes.vectors))))
    for question in asked:
        cells = _cells(question)
        for texts in chunks(question.texts, limit, size):
            found = _match(context, question, texts)
            answers = (
                (query, rank, match)
                for query, matches in zip(texts, found, strict=True)
                for rank, match in enumerate(matches, 1)
            )
            yield from rows(answers, cells, columns)


def _match(context: Context, question: Question, texts: Sequence[str]) -> list[list[Match]]:
    routes, settings = context.snapshot.routes, context.snapshot.settings
    if not len(routes):
        return [[] for _ in texts]
    matching = Matching(
        top_k=question.integer("top_k") or DEFAULT_TOP_K,
        user_tier=question.text("user_tier"),
        now=context.now,
        default_threshold=settings.route_threshold,
        calibration=calibration(context.embedder.model),
        rates=context.rates,
    )
    words: Sequence[Words] = [NO_WORDS] * len(texts)
    if routes.word_index is not None and context.request_words is not None:
        words = context.request_words(texts)
    if not routes.searched_elsewhere:
        margins = partial(routes.margins, default_threshold=settings.route_threshold)
        queries = embed_requests(context.embedder, texts, margins)
        return routes.match(queries, matching, words)
    if context.route_search is None:
        raise NotReady(
            f"{len(routes)} routes are kept in the database only, but nothing searches it here",
            hint="UPDATE tinydancer.settings SET route_index = 'exact' keeps them in memory.",
        )
    searched = _searched(context.embedder, context.route_search, texts, settings.route_threshold)
    return [
        routes.match_found(found, matching, has) for found, has in zip(searched, words, strict=True)
    ]


def _searched(
    embedder: Embedder, search: RouteSearch, texts: Sequence[str], default_threshold: float
) -> Sequence[Iterable[Hit]]:
    """For each text the routes found; a cascade searches again for those that are in doubt."""
    if not isinstance(embedder, CascadeEmbedder):
        return search(embedder.embed(texts))
    found: list[Iterable[Hit]] = []

    def margins(vectors: Vectors) -> Similarities:
        gaps = []
        for hits in map(iter, search(vectors)):
            best = list(islice(hits, 2))
            found.append(chain(best, hits))
            gaps.append(margin_of(best, default_threshold))
        return np.array(gaps, np.float32)

    vectors, escalated = embedder.embed_with_margin(texts, margins)
    rows = np.flatnonzero(escalated)
    if len(rows):
        for row, hits in zip(rows.tolist(), search(vectors[rows]), strict=True):
            found[row] = hits
    return found


def _cells(question: Question) -> Mapping[str, Cell]:
    cells: dict[str, Cell] = {**echoes(question, SEMANTIC_MATCHES)}
    cells.update(
        query=lambda answer: answer[0],
        rank=lambda answer: str(answer[1]),
        route_name=lambda answer: answer[2].route.name,
        similarity=lambda answer: text.double(answer[2].similarity),
        target_agent=lambda answer: answer[2].route.target_agent,
        confidence=lambda answer: text.double(round(answer[2].confidence, 6)),
        priority=lambda answer: str(answer[2].route.priority),
    )
    return cells
