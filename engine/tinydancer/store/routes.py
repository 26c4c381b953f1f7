"""The routes of the tables `routes` and `route_utterances`: all, or those that have changed.

A row that was written since a snapshot was taken has an `xmin` that is none of the ids below the
snapshot's own. There may be tens of thousands of routes, and whoever asks next after one of them
has changed waits for what is read here.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinydancer.embeddings.base import Embedder, Vectors
from tinydancer.semantic_routes.conditions import Conditions
from tinydancer.semantic_routes.route import Route
from tinydancer.semantic_routes.table import RouteTable
from tinydancer.semantic_routes.words import Words
from tinydancer.store.database import Connection
from tinydancer.store.freshness import Seen
from tinydancer.store.settings import Settings
from tinydancer.store.vectors import Unsaved, stored_vectors, unsaved

# Each active route, the number of its utterances, and the names of those of which a row was written
# since a snapshot, or in one of its unfinished transactions. Ids count in circles: the last column
# is how far the snapshot lies back, in ids, and half a circle is too far.
WRITTEN = """
SELECT array_agg(name), array_agg(utterances),
       array_agg(name) FILTER (WHERE least(written, said) <= age(xmin_then::xid)),
       pg_snapshot_xmax(pg_current_snapshot())::text::bigint - xmin_then::text::bigint
FROM (
    SELECT name, coalesce(utterances, 0) AS utterances, age(routes.xmin) AS written, said
    FROM tinydancer.routes LEFT JOIN (
        SELECT route, count(*)::integer AS utterances, min(age(xmin)) AS said
        FROM tinydancer.route_utterances GROUP BY route
    ) AS utterances ON route = name
    WHERE active
) AS present, pg_snapshot_xmin(%(snapshot)s::pg_snapshot) AS xmin_then
GROUP BY xmin_then
"""
MOST_IDS = 1 << 30
# Rather all of them than more than this share by name.
MOST_WRITTEN = 0.25

# What Python has no value for must not reach it, or nobody is answered: 24:00 is NULL, which is
# midnight too. `stale` is whether the vector must be made anew, as with agents; %(names)s is NULL
# for all routes.
ROUTES = """
SELECT name, description, target_agent, priority, threshold,
       nullif(time_from, '24:00'), nullif(time_to, '24:00'), time_zone, user_tiers,
       rate_limit_per_minute,
       stale, CASE WHEN %(vectors)s AND NOT stale THEN vector_send(embedding) END,
       CASE WHEN matching = 'hybrid'
           THEN tsvector_to_array(to_tsvector('pg_catalog.simple', route_text(name, description)))
       END
FROM tinydancer.routes,
     LATERAL (
         SELECT embedding IS NULL OR embedding_space <> %(space)s
             OR coalesce(embedding_source <> digest(route_text(name, description)), false) AS stale
     ) AS _
WHERE active AND (%(names)s::text[] IS NULL OR name = ANY(%(names)s))
ORDER BY name COLLATE "C"
"""
UTTERANCES = """
SELECT route, utterance, stale, CASE WHEN %(vectors)s AND NOT stale THEN vector_send(embedding) END,
       CASE WHEN matching = 'hybrid'
           THEN tsvector_to_array(to_tsvector('pg_catalog.simple', utterance))
       END
FROM (SELECT route, utterance, matching, route_utterances.embedding,
             route_utterances.embedding IS NULL OR route_utterances.embedding_space <> %(space)s
                 OR coalesce(route_utterances.embedding_source <> digest(utterance), false)
                 AS stale
      FROM tinydancer.route_utterances JOIN tinydancer.routes ON routes.name = route
      WHERE active AND (%(names)s::text[] IS NULL OR route = ANY(%(names)s))) AS _
ORDER BY route COLLATE "C", utterance COLLATE "C"
"""
COUNT_VECTORS = """
SELECT (SELECT count(*) FROM tinydancer.routes WHERE active)
     + (SELECT count(*) FROM tinydancer.route_utterances
        JOIN tinydancer.routes ON routes.name = route WHERE active)
"""


@dataclass(frozen=True, eq=False)
class IndexedRoutes:
    """What a search in the database needs beside it.

    `positions` finds a route in the table by its name. `pending` has the vectors that were not in
    the database when it was read: (k, d) unit rows, and `owners` (k,) the position of each one's
    route.
    """

    positions: Mapping[str, int]
    pending: Vectors
    owners: NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class StoredRoutes:
    """The active routes, as they were read under `seen`. Where they are searched in the database,
    `table` has no vectors, and `indexed` is not None. `unsaved` are the names of those of which
    vectors were made that may not have been written back.
    """

    seen: Seen
    table: RouteTable
    indexed: IndexedRoutes | None
    unsaved: frozenset[str]

    def written_since(self, conn: Connection) -> Changes | None:
        """What has become of the routes since they were read.

        None where all of them had better be read again.
        """
        row = conn.execute(WRITTEN, self.seen.parameters()).fetchone()
        if row is None:
            return None
        names, utterances, written, ids = row
        if ids > MOST_IDS:
            return None
        now = dict(zip(names, utterances, strict=True))
        renewed = {*(written or ()), *self.unsaved}
        renewed |= {
            route.name
            for route in self.table.routes
            if len(route.utterances) != now.get(route.name, -1)
        }
        if len(renewed) > MOST_WRITTEN * len(names):
            return None
        return Changes(frozenset(renewed), len(names) + sum(utterances))


@dataclass(frozen=True)
class Changes:
    """The names of routes that were added, changed or removed; how many vectors all have by now."""

    names: Collection[str]
    vectors: int


def read_routes(
    conn: Connection,
    embedder: Embedder,
    settings: Settings,
    seen: Seen,
    previous: StoredRoutes | None,
) -> tuple[StoredRoutes, tuple[Unsaved, ...]]:
    """The active routes under `seen`, and the vectors that had to be made of them.

    Where there are `previous` ones, only what has changed since is read.
    """
    changes = None if previous is None else previous.written_since(conn)
    indexed = settings.indexed_routes(_count_vectors(conn) if changes is None else changes.vectors)
    kept, names = RouteTable.build([], _no_vectors(embedder), _NO_OWNERS), None
    if previous is not None and changes is not None and (previous.indexed is not None) == indexed:
        kept, names = previous.table, changes.names
    read = _read(conn, embedder, indexed, names)
    made_of = frozenset(key[0] for part in read.made for key in part.keys)
    if not indexed:
        table = kept.replaced(names or (), read.routes, read.vectors, read.owners)
        return StoredRoutes(seen, table, None, made_of), read.made
    table = kept.replaced(names or (), read.routes, _no_vectors(embedder), _NO_OWNERS)
    positions = {route.name: position for position, route in enumerate(table.routes)}
    owners = [positions[read.routes[owner].name] for owner in read.owners.tolist()]
    pending = IndexedRoutes(positions, read.vectors, np.array(owners, np.int64))
    return StoredRoutes(seen, table, pending, made_of), read.made


@dataclass(frozen=True, eq=False)
class _Rows:
    """Routes as they were read, and the vectors wanted of them: row i is of route `owners[i]`."""

    routes: Sequence[Route]
    vectors: Vectors
    owners: NDArray[np.int64]
    made: tuple[Unsaved, ...]


def _read(
    conn: Connection, embedder: Embedder, indexed: bool, names: Collection[str] | None
) -> _Rows:
    parameters = {
        "space": embedder.space,
        "vectors": not indexed,
        "names": None if names is None else list(names),
    }
    with conn.cursor(binary=True) as cursor:
        route_rows = cursor.execute(ROUTES, parameters).fetchall()
        utterance_rows = cursor.execute(UTTERANCES, parameters).fetchall()
    utterances: dict[str, list[str]] = {}
    words = {row[0]: [frozenset(row[12])] for row in route_rows if row[12] is not None}
    for row in utterance_rows:
        utterances.setdefault(row[0], []).append(row[1])
        if row[4] is not None:
            words[row[0]].append(frozenset(row[4]))
    routes = [_route(row, utterances.get(row[0], ()), words.get(row[0], ())) for row in route_rows]
    positions = {route.name: position for position, route in enumerate(routes)}

    # Rows whose vectors are wanted: all, or only those that the index can't have yet.
    wanted_routes = [i for i, row in enumerate(route_rows) if row[10] or not indexed]
    wanted_utterances = [i for i, row in enumerate(utterance_rows) if row[2] or not indexed]
    texts = [route_text(routes[i].name, routes[i].description) for i in wanted_routes]
    texts += [utterance_rows[i][1] for i in wanted_utterances]
    stored = [route_rows[i][11] for i in wanted_routes]
    stored += [utterance_rows[i][3] for i in wanted_utterances]
    owners = [*wanted_routes, *(positions[utterance_rows[i][0]] for i in wanted_utterances)]
    vectors, missing = stored_vectors(embedder, stored, texts)
    split = len(wanted_routes)
    made = (
        *unsaved(
            "routes",
            missing[missing < split],
            [(routes[i].name,) for i in wanted_routes],
            texts,
            vectors,
        ),
        *unsaved(
            "route_utterances",
            missing[missing >= split] - split,
            [(utterance_rows[i][0], utterance_rows[i][1]) for i in wanted_utterances],
            texts[split:],
            vectors[split:],
        ),
    )
    return _Rows(routes, vectors, np.array(owners, np.int64), made)


def route_text(name: str, description: str) -> str:
    """What a route's own vector is made from: its description, or its name without one."""
    return description or name


_NO_OWNERS = np.zeros(0, np.int64)


def _no_vectors(embedder: Embedder) -> Vectors:
    return np.zeros((0, embedder.dimension), np.float32)


def _count_vectors(conn: Connection) -> int:
    row = conn.execute(COUNT_VECTORS).fetchone()
    assert row is not None  # noqa: S101 - a SELECT without FROM has one row
    return int(row[0])


def _route(row: Sequence[Any], utterances: Sequence[str], words: Sequence[Words]) -> Route:
    return Route(
        name=row[0],
        description=row[1],
        target_agent=row[2],
        priority=row[3],
        threshold=row[4],
        conditions=Conditions(
            time_from=row[5],
            time_to=row[6],
            time_zone=row[7],
            user_tiers=tuple(row[8]),
            rate_limit_per_minute=row[9],
        ),
        utterances=tuple(utterances),
        words=tuple(words),
    )
