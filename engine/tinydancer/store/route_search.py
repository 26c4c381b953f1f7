"""The routes nearest to a query by pgvector's HNSW indexes, when there are very many of them.

The index holds what was written back; vectors still on their way there are compared in memory,
and a stored vector of a text that has changed since does not count.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from tinydancer.embeddings.base import Vectors
from tinydancer.semantic_routes.route import Hit
from tinydancer.store.database import Connection, Database
from tinydancer.store.settings import Settings
from tinydancer.store.snapshot import Snapshot

# Routes in the first page of a search, and how much longer each further page is.
FIRST_PAGE = 64
GROWTH = 8
# Pages up to this length come from the index; pgvector's own limit of hnsw.ef_search.
MOST_EF_SEARCH = 1000

NEAREST = """
SELECT route, similarity, own, fresh FROM (
    SELECT name AS route, 1 - (embedding <=> %(query)s) AS similarity, true AS own,
        embedding_source IS NULL OR embedding_source = digest(route_text(name, description))
            AS fresh
    FROM tinydancer.routes WHERE active AND embedding_space = %(space)s
    ORDER BY embedding <=> %(query)s LIMIT %(limit)s
) AS routes
UNION ALL
SELECT route, similarity, own, fresh FROM (
    SELECT route, 1 - (embedding <=> %(query)s) AS similarity, false AS own,
        embedding_source IS NULL OR embedding_source = digest(utterance) AS fresh
    FROM tinydancer.route_utterances WHERE embedding_space = %(space)s
    ORDER BY embedding <=> %(query)s LIMIT %(limit)s
) AS examples
"""
EF_SEARCH = "SELECT set_config('hnsw.ef_search', %s, true)"
# From pgvector 0.8 on, a search goes on where a filter has left it short.
CAN_ITERATE = "SELECT current_setting('hnsw.iterative_scan', true) IS NOT NULL"
ITERATE = "SET LOCAL hnsw.iterative_scan = strict_order"
NO_INDEX = "SET LOCAL enable_indexscan = off"


def ranked_routes(database: Database, snapshot: Snapshot, queries: Vectors) -> list[Iterator[Hit]]:
    """For each query (unit rows) all routes with their cosines, best first, ties by name.

    The first page of every query is fetched at once; further ones as they are read. Raises
    Unavailable where the database can't be reached.
    """
    pages = _search(database, snapshot, queries, FIRST_PAGE)
    return [
        _ranked(database, snapshot, query, page) for query, page in zip(queries, pages, strict=True)
    ]


@dataclass(frozen=True)
class _Page:
    """Routes found, best first; any that was not found is at most as near as `rest`."""

    hits: list[Hit]
    rest: float


def _ranked(database: Database, snapshot: Snapshot, query: Vectors, page: _Page) -> Iterator[Hit]:
    limit = FIRST_PAGE
    given: set[str] = set()
    while True:
        for route, similarity in page.hits:
            if similarity <= page.rest:
                break
            if route.name not in given:
                given.add(route.name)
                yield route, similarity
        if page.rest <= -1.0:
            return
        limit *= GROWTH
        (page,) = _search(database, snapshot, query[None, :], limit)


def _search(database: Database, snapshot: Snapshot, queries: Vectors, limit: int) -> list[_Page]:
    rows = database.run(lambda conn: _fetch(conn, snapshot.settings, queries, limit))
    return [_page(snapshot, query, hits, limit) for query, hits in zip(queries, rows, strict=True)]


def _fetch(
    conn: Connection, settings: Settings, queries: Vectors, limit: int
) -> list[list[tuple[str, float, bool, bool]]]:
    can_iterate = conn.execute(CAN_ITERATE).fetchone() == (True,)
    with conn.pipeline(), conn.transaction():
        if limit > MOST_EF_SEARCH:
            conn.execute(NO_INDEX)
        else:
            conn.execute(EF_SEARCH, (str(max(settings.route_index_ef_search, limit)),))
            if can_iterate:
                conn.execute(ITERATE)
        cursors = [
            conn.execute(
                NEAREST, {"query": query, "space": settings.embedding_space, "limit": limit}
            )
            for query in queries
        ]
        return [cursor.fetchall() for cursor in cursors]


def _page(
    snapshot: Snapshot, query: Vectors, rows: list[tuple[str, float, bool, bool]], limit: int
) -> _Page:
    indexed = snapshot.indexed
    assert indexed is not None  # noqa: S101 - only then routes are searched here
    best: dict[int, float] = {}
    for name, similarity, _, fresh in rows:
        position = indexed.positions.get(name)
        if fresh and position is not None:
            best[position] = max(similarity, best.get(position, -1.0))
    if len(indexed.pending):
        for position, similarity in zip(
            indexed.owners.tolist(), (indexed.pending @ query).tolist(), strict=True
        ):
            best[position] = max(similarity, best.get(position, -1.0))
    routes = snapshot.routes.routes
    hits = [
        (routes[position], similarity)
        for position, similarity in sorted(best.items(), key=lambda item: (-item[1], item[0]))
    ]
    # A list that is full has more behind its last; one that is not has shown all.
    lasts = [
        min(part)
        for part in (
            [similarity for _, similarity, own, _ in rows if own],
            [similarity for _, similarity, own, _ in rows if not own],
        )
        if len(part) >= limit
    ]
    return _Page(hits, max(lasts, default=-1.0))
