"""Writing vectors back that were made while reading: guarded, in small pieces, waiting for nobody.

A vector is written only if its row still has the text it was made from. Rows that somebody holds
are skipped: they are about to change, or another engine is writing the same; the next reading
brings them back. Any part of it may be lost at any moment.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg

from tinydancer.embeddings.base import Embedder, Vectors
from tinydancer.store.database import Database
from tinydancer.store.snapshot import Unsaved

ROWS_AT_ONCE = 500

# SKIP LOCKED, and rows locked before they are updated: this never waits, so it never deadlocks.
AGENTS = """
WITH made AS (
    SELECT * FROM unnest(%(keys)s::text[], %(texts)s::text[], %(vectors)s::text[])
        AS made (name, content, embedding)
), held AS (
    SELECT agents.name, made.content, made.embedding FROM tinydancer.agents JOIN made USING (name)
    WHERE agent_text(agents.name, capabilities) = made.content
    FOR NO KEY UPDATE OF agents SKIP LOCKED
)
UPDATE tinydancer.agents SET embedding = held.embedding::vector,
    embedding_model = %(model)s, embedding_space = %(space)s,
    embedding_source = digest(held.content)
FROM held WHERE agents.name = held.name
"""
ROUTES = """
WITH made AS (
    SELECT * FROM unnest(%(keys)s::text[], %(texts)s::text[], %(vectors)s::text[])
        AS made (name, content, embedding)
), held AS (
    SELECT routes.name, made.content, made.embedding FROM tinydancer.routes JOIN made USING (name)
    WHERE route_text(routes.name, description) = made.content
    FOR NO KEY UPDATE OF routes SKIP LOCKED
)
UPDATE tinydancer.routes SET embedding = held.embedding::vector,
    embedding_model = %(model)s, embedding_space = %(space)s,
    embedding_source = digest(held.content)
FROM held WHERE routes.name = held.name
"""
UTTERANCES = """
WITH made AS (
    SELECT * FROM unnest(%(keys)s::text[], %(texts)s::text[], %(vectors)s::text[])
        AS made (route, utterance, embedding)
), held AS (
    SELECT route, utterance, made.embedding
    FROM tinydancer.route_utterances JOIN made USING (route, utterance)
    FOR NO KEY UPDATE OF route_utterances SKIP LOCKED
)
UPDATE tinydancer.route_utterances SET embedding = held.embedding::vector,
    embedding_model = %(model)s, embedding_space = %(space)s,
    embedding_source = digest(held.utterance)
FROM held
WHERE route_utterances.route = held.route AND route_utterances.utterance = held.utterance
"""
STATEMENTS = {"agents": AGENTS, "routes": ROUTES, "route_utterances": UTTERANCES}


def write_back(database: Database, embedder: Embedder, unsaved: tuple[Unsaved, ...]) -> int:
    """Write the vectors that still fit their rows; the number of rows written."""
    written = 0
    for batch in (batch for whole in unsaved for batch in _batches(whole)):
        with database.connection() as conn:
            written += write_vectors(conn, embedder, batch)
    return written


def write_vectors(conn: psycopg.Connection[Any], embedder: Embedder, batch: Unsaved) -> int:
    """Write one batch in a transaction that engines need not hear of; the rows written."""
    with conn.transaction():
        conn.execute("SET LOCAL tinydancer.write_back = on")
        cursor = conn.execute(
            STATEMENTS[batch.table],
            {
                "keys": [key[0] for key in batch.keys],
                "texts": list(batch.texts),
                "vectors": vector_texts(batch.vectors),
                "model": embedder.model,
                "space": embedder.space,
            },
        )
    return cursor.rowcount


def vector_texts(vectors: Vectors) -> list[str]:
    """Each row as pgvector reads it, with all the digits a float32 has."""
    return ["[" + ",".join(map(repr, row)) + "]" for row in vectors.tolist()]


def _batches(unsaved: Unsaved) -> Iterator[Unsaved]:
    for start in range(0, len(unsaved.keys), ROWS_AT_ONCE):
        part = slice(start, start + ROWS_AT_ONCE)
        yield Unsaved(unsaved.table, unsaved.keys[part], unsaved.texts[part], unsaved.vectors[part])
