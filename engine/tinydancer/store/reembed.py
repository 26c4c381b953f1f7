"""A change of embedder: every stored vector made anew, then one switch.

First the new vectors are collected in `staged_embeddings`, in small commits, while engines go on
with the old ones; an interrupted run is resumed where it stopped. Then one transaction replaces
all vectors and the settings: a scan sees the old embedder or the new one, never a mixture.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tinydancer.embeddings.base import Embedder
from tinydancer.errors import NotReady
from tinydancer.store.database import Connection, Database
from tinydancer.store.settings import read_settings
from tinydancer.store.write_back import vector_texts

# One commit's worth: what an interruption loses at most.
TEXTS_AT_ONCE = 256
TEXTS_READ_AT_ONCE = 10_000
LOCK = 0x7464_7265_656D_6264

TEXTS = """
SELECT agent_text(name, capabilities) AS content FROM tinydancer.agents
UNION SELECT route_text(name, description) FROM tinydancer.routes
UNION SELECT utterance FROM tinydancer.route_utterances
"""
MISSING = f"""
SELECT content FROM ({TEXTS}) AS texts WHERE NOT EXISTS (
    SELECT FROM tinydancer.staged_embeddings
    WHERE space = %(space)s AND model = %(model)s AND source = digest(content))
"""  # noqa: S608 - our own constant
COUNT_MISSING = f"SELECT count(*) FROM ({MISSING}) AS missing"  # noqa: S608
STAGE = """
INSERT INTO tinydancer.staged_embeddings (space, model, source, embedding)
SELECT %(space)s, %(model)s, digest(content), embedding::vector
FROM unnest(%(texts)s::text[], %(vectors)s::text[]) AS made (content, embedding)
ON CONFLICT DO NOTHING
"""
# Vectors that were given are of no text we know: the row's own text replaces them.
GIVEN = """
SELECT (SELECT count(*) FROM tinydancer.agents
        WHERE embedding IS NOT NULL AND embedding_source IS NULL)
     + (SELECT count(*) FROM tinydancer.routes
        WHERE embedding IS NOT NULL AND embedding_source IS NULL)
     + (SELECT count(*) FROM tinydancer.route_utterances
        WHERE embedding IS NOT NULL AND embedding_source IS NULL)
"""
HOLD_STILL = """
LOCK TABLE tinydancer.agents, tinydancer.routes, tinydancer.route_utterances
IN SHARE ROW EXCLUSIVE MODE
"""
SWITCH = (
    """
UPDATE tinydancer.agents SET embedding = staged.embedding, embedding_model = staged.model,
    embedding_space = staged.space, embedding_source = staged.source
FROM tinydancer.staged_embeddings AS staged
WHERE staged.space = %(space)s AND staged.model = %(model)s
    AND staged.source = digest(agent_text(agents.name, capabilities))
""",
    """
UPDATE tinydancer.routes SET embedding = staged.embedding, embedding_model = staged.model,
    embedding_space = staged.space, embedding_source = staged.source
FROM tinydancer.staged_embeddings AS staged
WHERE staged.space = %(space)s AND staged.model = %(model)s
    AND staged.source = digest(route_text(routes.name, description))
""",
    """
UPDATE tinydancer.route_utterances SET embedding = staged.embedding,
    embedding_model = staged.model, embedding_space = staged.space,
    embedding_source = staged.source
FROM tinydancer.staged_embeddings AS staged
WHERE staged.space = %(space)s AND staged.model = %(model)s AND staged.source = digest(utterance)
""",
    """
UPDATE tinydancer.settings SET embedder = %(embedder)s, embedder_model = %(embedder_model)s,
    embedder_url = %(embedder_url)s, embedding_model = %(model)s, embedding_space = %(space)s
""",
    "DELETE FROM tinydancer.staged_embeddings",
)


@dataclass(frozen=True)
class Choice:
    """The embedder that the settings are to name: the columns embedder, _model and _url."""

    embedder: str
    model: str | None = None
    url: str | None = None


@dataclass(frozen=True)
class Report:
    """What a change of embedder did: texts embedded now, and given vectors that it replaced."""

    embedded: int
    given_replaced: int


def reembed(
    database: Database,
    embedder: Embedder,
    choice: Choice,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Report:
    """Make every stored vector anew with `embedder`, which the settings then name as `choice`.

    `progress` is told how many texts of how many are done. May be interrupted at any moment and
    run again. Raises NotReady where the dimension differs from the database's, or where another
    change of embedder is running.
    """
    names = {"space": embedder.space, "model": embedder.model}
    with database.connection() as conn:
        settings = read_settings(conn)
        if embedder.dimension != settings.dimension:
            raise NotReady(
                f"embedder {embedder.model!r} makes vectors of dimension {embedder.dimension},"
                f" but this database has {settings.dimension}",
                hint="The dimension is fixed at install; choose an embedder that has it.",
            )
        if _value(conn, "SELECT pg_try_advisory_lock(%s)", (LOCK,)) is not True:
            raise NotReady(
                "another change of embedder is running in this database",
                hint="Wait for it, or stop it: see pg_stat_activity for application tinydancer.",
            )
        try:
            embedded = _stage(conn, embedder, names, progress)
            with conn.transaction():
                conn.execute(HOLD_STILL)
                # What was written since; nobody writes from here on.
                embedded += _stage(conn, embedder, names, progress)
                given = _value(conn, GIVEN)
                for statement in SWITCH:
                    conn.execute(
                        statement,
                        names
                        | {
                            "embedder": choice.embedder,
                            "embedder_model": choice.model,
                            "embedder_url": choice.url,
                        },
                    )
        finally:
            if not conn.closed:
                conn.execute("SELECT pg_advisory_unlock(%s)", (LOCK,))
    return Report(embedded, given)


def _stage(
    conn: Connection,
    embedder: Embedder,
    names: dict[str, str],
    progress: Callable[[int, int], None],
) -> int:
    total = _value(conn, COUNT_MISSING, names)
    done = 0
    while True:
        rows = conn.execute(MISSING + " LIMIT %(limit)s", names | {"limit": TEXTS_READ_AT_ONCE})
        missing = [content for (content,) in rows.fetchall()]
        if not missing:
            return done
        for start in range(0, len(missing), TEXTS_AT_ONCE):
            texts = missing[start : start + TEXTS_AT_ONCE]
            vectors = embedder.embed(texts)
            conn.execute(STAGE, names | {"texts": texts, "vectors": vector_texts(vectors)})
            done += len(texts)
            progress(done, max(done, total))


def _value(conn: Connection, query: str, parameters: Any = None) -> Any:
    row = conn.execute(query, parameters).fetchone()
    assert row is not None  # noqa: S101 - each has one row
    return row[0]
