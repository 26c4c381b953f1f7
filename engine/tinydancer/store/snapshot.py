"""The copy of the tables that decisions read: what it holds, and how it is read.

Vectors that are missing, of another space or of a text that has changed since are made anew when
the copy is read; it serves them at once, and `Unsaved` says what is to be written back.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from time import monotonic
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinydancer.agents.model import Agent, Performance, Prices
from tinydancer.agents.pool import Pool
from tinydancer.agents.registry import AgentTable
from tinydancer.embeddings.base import Embedder, Vectors
from tinydancer.errors import NotReady
from tinydancer.semantic_routes.conditions import Conditions
from tinydancer.semantic_routes.route import Route
from tinydancer.semantic_routes.table import RouteTable
from tinydancer.semantic_routes.words import Words
from tinydancer.store.database import Connection
from tinydancer.store.freshness import EVERYTHING, STALE_PARTS, Seen
from tinydancer.store.models import StoredClassifier, StoredQuality, read_classifier, read_quality
from tinydancer.store.served import Served, read_served
from tinydancer.store.settings import Settings, read_settings

POSITION = "SELECT pg_current_snapshot()::text, 'tinydancer.changes'::regclass::oid"

# What Python has no value for must not reach it, or nobody is answered: prices below the least
# float are 0, and 24:00 is NULL, which is midnight too. Metadata is not read at all.
#
# In each, `stale` is whether the vector must be made anew: there is none, it lies in another
# space than %(space)s, or it was made from another text. A vector that was given has no source.
AGENTS = """
SELECT name, type, capabilities,
       round(cost_per_1k_input_tokens, 30)::float8, round(cost_per_1k_output_tokens, 30)::float8,
       round(cost_per_call, 30)::float8, round(cost_per_second, 30)::float8,
       stats.latency_ms, p99_latency_ms, stats.quality, stats.output_tokens, stats.outcomes,
       concurrency_limit,
       embedding IS NULL OR embedding_space <> %(space)s
           OR coalesce(embedding_source <> digest(agent_text(name, capabilities)), false),
       vector_send(embedding)
FROM tinydancer.agents JOIN tinydancer.agent_stats AS stats ON stats.agent = name
WHERE active ORDER BY name COLLATE "C"
"""
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
WHERE active ORDER BY name COLLATE "C"
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
      WHERE active) AS _
ORDER BY route COLLATE "C", utterance COLLATE "C"
"""
COUNT_ROUTE_VECTORS = """
SELECT (SELECT count(*) FROM tinydancer.routes WHERE active)
     + (SELECT count(*) FROM tinydancer.route_utterances
        JOIN tinydancer.routes ON routes.name = route WHERE active)
"""
OPEN_CIRCUITS = "SELECT agent, retry_at FROM tinydancer.open_circuits"
BUDGETED = "SELECT array_agg(DISTINCT scope) FROM tinydancer.budgets WHERE active"
CLAIM_SPACE = """
UPDATE tinydancer.settings SET embedding_model = %s, embedding_space = %s
WHERE embedding_space IS NULL
"""


@dataclass(frozen=True, eq=False)
class Unsaved:
    """Vectors made while reading: rows of a table, each with the text its vector is of.

    `keys` are the primary keys: (name,) of agents and routes, (route, utterance) of utterances.
    """

    table: str
    keys: tuple[tuple[str, ...], ...]
    texts: tuple[str, ...]
    vectors: Vectors


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
class Snapshot:
    """What a decision reads: active agents and routes, settings, and the embedder they name.

    `served` is the database that it was read from, `seen` what it was read under, `read_at` the
    monotonic time before it was. Where routes are searched in the database, `routes` has no
    vectors, and `indexed` is not None. `classifier` and `quality` are the active models; `budgets`
    are the scopes of active budgets, and `pool` is what bounds the calls to agents.
    """

    agents: AgentTable
    routes: RouteTable
    settings: Settings
    embedder: Embedder
    served: Served
    seen: Seen
    read_at: float
    indexed: IndexedRoutes | None = None
    classifier: StoredClassifier | None = None
    quality: StoredQuality | None = None
    budgets: frozenset[str] = frozenset()
    pool: Pool = field(default_factory=Pool)


def claim_space(conn: Connection, embedder: Embedder) -> None:
    """Make the embedder's space that of the database, where no vector was ever stored."""
    conn.execute(CLAIM_SPACE, (embedder.model, embedder.space))


def read_snapshot(
    conn: Connection, embedder: Embedder, previous: Snapshot | None
) -> tuple[Snapshot, tuple[Unsaved, ...]]:
    """Read what has changed since `previous` (or everything) in one consistent view.

    Raises NotReady where the embedder does not fit the database's vectors.
    """
    read_at = monotonic()
    served = read_served(conn)
    with conn.transaction():
        conn.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        position = conn.execute(POSITION).fetchone()
        assert position is not None  # noqa: S101 - a SELECT without FROM has one row
        seen = Seen(*position)
        settings = read_settings(conn)
        _check_embedder(settings, embedder)
        stale = EVERYTHING
        if previous is not None and previous.embedder is embedder:
            rows = conn.execute(STALE_PARTS, previous.seen.parameters()).fetchall()
            stale = frozenset(part for (part,) in rows)
        if previous is None or not stale.isdisjoint({"agents", "performance", "settings", "*"}):
            agents, unsaved_agents = _read_agents(conn, embedder)
        else:
            agents, unsaved_agents = previous.agents, ()
        if previous is None or not stale.isdisjoint({"routes", "settings", "*"}):
            routes, indexed, unsaved_routes = _read_routes(conn, embedder, settings)
        else:
            routes, indexed, unsaved_routes = previous.routes, previous.indexed, ()
        classifier = None if previous is None else previous.classifier
        quality = None if previous is None else previous.quality
        if previous is None or not stale.isdisjoint({"models", "*"}):
            classifier = read_classifier(conn, classifier)
            quality = read_quality(conn, embedder.space, quality)
        budgets = previous.budgets if previous is not None else frozenset()
        if previous is None or not stale.isdisjoint({"budgets", "*"}):
            found = conn.execute(BUDGETED).fetchone()
            budgets = frozenset((found and found[0]) or ())
        pool = Pool() if previous is None else previous.pool
        if previous is None or not stale.isdisjoint({"agents", "health", "settings", "*"}):
            pool = Pool.of(agents.agents, dict(conn.execute(OPEN_CIRCUITS).fetchall()))
    snapshot = Snapshot(
        agents,
        routes,
        settings,
        embedder,
        served,
        seen,
        read_at,
        indexed,
        classifier,
        quality,
        budgets,
        pool,
    )
    return snapshot, (*unsaved_agents, *unsaved_routes)


def route_text(name: str, description: str) -> str:
    """What a route's own vector is made from: its description, or its name without one."""
    return description or name


def _check_embedder(settings: Settings, embedder: Embedder) -> None:
    if embedder.dimension != settings.dimension:
        raise NotReady(
            f"embedder {embedder.model!r} makes vectors of dimension {embedder.dimension},"
            f" but this database has {settings.dimension}",
            hint="Choose an embedder of that dimension, or install into a new database.",
        )
    if settings.embedding_space not in (None, embedder.space):
        raise NotReady(
            f"the stored vectors are of {settings.embedding_model!r}, which those of"
            f" {embedder.model!r} can't be compared with",
            hint="Run the engine with the embedder that made them, or re-embed the tables.",
        )


def _read_agents(conn: Connection, embedder: Embedder) -> tuple[AgentTable, tuple[Unsaved, ...]]:
    with conn.cursor(binary=True) as cursor:
        rows = cursor.execute(AGENTS, {"space": embedder.space}).fetchall()
    agents = [
        Agent(
            name=row[0],
            type=row[1],
            capabilities=tuple(row[2]),
            prices=Prices(*row[3:7]),
            performance=Performance(
                avg_latency_ms=row[7],
                p99_latency_ms=row[8],
                quality=row[9],
                output_tokens=row[10],
                outcomes=row[11],
            ),
            concurrency_limit=row[12],
        )
        for row in rows
    ]
    vectors, made = _vectors(
        embedder, [None if row[13] else row[14] for row in rows], [agent.text for agent in agents]
    )
    unsaved = _unsaved(
        "agents", made, [(a.name,) for a in agents], [a.text for a in agents], vectors
    )
    return AgentTable.build(agents, vectors), unsaved


def _read_routes(
    conn: Connection, embedder: Embedder, settings: Settings
) -> tuple[RouteTable, IndexedRoutes | None, tuple[Unsaved, ...]]:
    count = conn.execute(COUNT_ROUTE_VECTORS).fetchone()
    assert count is not None  # noqa: S101 - a SELECT without FROM has one row
    indexed = settings.indexed_routes(count[0])
    parameters = {"space": embedder.space, "vectors": not indexed}
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
    owners = np.array(
        [*wanted_routes, *(positions[utterance_rows[i][0]] for i in wanted_utterances)], np.int64
    )
    vectors, made = _vectors(embedder, stored, texts)
    split = len(wanted_routes)
    unsaved = (
        *_unsaved(
            "routes",
            made[made < split],
            [(routes[i].name,) for i in wanted_routes],
            texts,
            vectors,
        ),
        *_unsaved(
            "route_utterances",
            made[made >= split] - split,
            [(utterance_rows[i][0], utterance_rows[i][1]) for i in wanted_utterances],
            texts[split:],
            vectors[split:],
        ),
    )
    if indexed:
        none = np.zeros((0, embedder.dimension), np.float32)
        table = RouteTable.build(routes, none, np.zeros(0, np.int64))
        return table, IndexedRoutes(positions, vectors, owners), unsaved
    return RouteTable.build(routes, vectors, owners), None, unsaved


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


def _vectors(
    embedder: Embedder, stored: Sequence[bytes | None], texts: Sequence[str]
) -> tuple[Vectors, NDArray[np.intp]]:
    """(n, d) unit rows, and which of them had to be made from their texts."""
    vectors = np.empty((len(stored), embedder.dimension), np.float32)
    missing = np.array([i for i, data in enumerate(stored) if data is None], np.intp)
    present = np.array([i for i, data in enumerate(stored) if data is not None], np.intp)
    if len(present):
        # vector_send: u16 dimension, u16 unused, then that many big-endian float32.
        data = np.frombuffer(b"".join(data for data in stored if data is not None), np.uint8)
        rows = data.reshape(len(present), 4 + 4 * embedder.dimension)[:, 4:]
        vectors[present] = np.ascontiguousarray(rows).view(">f4")
        vectors[present] = _unit_rows(vectors[present])
    if len(missing):
        vectors[missing] = embedder.embed([texts[i] for i in missing])
    return vectors, missing


def _unit_rows(rows: Vectors) -> Vectors:
    """Rows of any length but 0 as unit rows; squares of the longest and shortest are no float32."""
    with np.errstate(over="ignore", under="ignore"):
        lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    odd = ~((lengths > 1e-15) & (lengths < 1e15))[:, 0]
    if odd.any():
        rows[odd] = rows[odd] / np.abs(rows[odd]).max(axis=1, keepdims=True)
        lengths[odd] = np.linalg.norm(rows[odd], axis=1, keepdims=True)
    unit: Vectors = rows / lengths
    return unit


def _unsaved(
    table: str,
    made: NDArray[np.intp],
    keys: Sequence[tuple[str, ...]],
    texts: Sequence[str],
    vectors: Vectors,
) -> tuple[Unsaved, ...]:
    if not len(made):
        return ()
    return (
        Unsaved(
            table,
            tuple(keys[i] for i in made),
            tuple(texts[i] for i in made),
            vectors[made],
        ),
    )
