"""Writing vectors back that were made while reading: guarded, in small pieces, waiting for nobody.

A vector is written only if its row still has the text it was made from. Rows that somebody holds
are skipped: they are about to change, or another engine is writing the same; the next reading
brings them back. Any part of it may be lost at any moment.
"""

from __future__ import annotations

from collections.abc import Iterator

from psycopg import sql

from tinydancer.embeddings.base import Embedder, Vectors
from tinydancer.store.database import Connection, Database
from tinydancer.store.vectors import Unsaved

ROWS_AT_ONCE = 500

# Of each table, the column that a row is found by, and the text that its vector is made from.
SOURCES = {
    "agents": ("name", "agent_text(present.name, present.capabilities)"),
    "routes": ("name", "route_text(present.name, present.description)"),
    "route_utterances": ("route", "present.utterance"),
}
# SKIP LOCKED, and rows locked before they are updated: this never waits, so it never deadlocks.
STATEMENT = sql.SQL("""
WITH made AS (
    SELECT * FROM unnest(%(keys)s::text[], %(texts)s::text[], %(vectors)s::text[])
        AS made (key, content, embedding)
), held AS (
    SELECT made.* FROM tinydancer.{table} AS present
    JOIN made ON present.{key} = made.key AND {text} = made.content
    FOR NO KEY UPDATE OF present SKIP LOCKED
)
UPDATE tinydancer.{table} AS present SET embedding = held.embedding::vector,
    embedding_model = %(model)s, embedding_space = %(space)s,
    embedding_source = digest(held.content)
FROM held WHERE present.{key} = held.key AND {text} = held.content
""")


def write_back(database: Database, embedder: Embedder, unsaved: tuple[Unsaved, ...]) -> int:
    """Write the vectors that still fit their rows; the number of rows written."""
    written = 0
    for batch in (batch for whole in unsaved for batch in _batches(whole)):
        with database.connection() as conn:
            written += write_vectors(conn, embedder, batch)
    return written


def write_vectors(conn: Connection, embedder: Embedder, batch: Unsaved) -> int:
    """Write one batch in a transaction that engines need not hear of; the rows written."""
    key, text = SOURCES[batch.table]
    with conn.transaction():
        conn.execute("SET LOCAL tinydancer.write_back = on")
        cursor = conn.execute(
            STATEMENT.format(
                table=sql.Identifier(batch.table), key=sql.Identifier(key), text=sql.SQL(text)
            ),
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
