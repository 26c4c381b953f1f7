"""The copy of the tables that decisions read: what it holds, and how it is read.

Vectors that are missing, of another space or of a text that has changed since are made anew when
the copy is read; it serves them at once, and `Unsaved` says what is to be written back.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from time import monotonic

from tinydancer.agents.pool import Pool
from tinydancer.agents.registry import AgentTable
from tinydancer.embeddings.base import Embedder
from tinydancer.errors import NotReady
from tinydancer.semantic_routes.table import RouteTable
from tinydancer.store.agents import read_agents, read_performance
from tinydancer.store.database import Connection
from tinydancer.store.freshness import EVERYTHING, STALE_PARTS, Seen
from tinydancer.store.models import StoredClassifier, StoredQuality, read_classifier, read_quality
from tinydancer.store.routes import IndexedRoutes, StoredRoutes, read_routes
from tinydancer.store.served import Served, read_served
from tinydancer.store.settings import Settings, read_settings
from tinydancer.store.vectors import Unsaved

POSITION = "SELECT pg_current_snapshot()::text, 'tinydancer.changes'::regclass::oid"
OPEN_CIRCUITS = "SELECT agent, retry_at FROM tinydancer.open_circuits"
BUDGETED = "SELECT array_agg(DISTINCT scope) FROM tinydancer.budgets WHERE active"
CLAIM_SPACE = """
UPDATE tinydancer.settings SET embedding_model = %s, embedding_space = %s
WHERE embedding_space IS NULL
"""


@dataclass(frozen=True, eq=False)
class Snapshot:
    """What a decision reads: active agents and routes, settings, and the embedder they name.

    `served` is the database that it was read from, `seen` what it was read under, `read_at` the
    monotonic time before it was. `classifier` and `quality` are the active models; `budgets` are
    the scopes of active budgets, and `pool` is what bounds the calls to agents. `agents_unsaved` is
    whether vectors of agents were made that may not have been written back.
    """

    agents: AgentTable
    stored_routes: StoredRoutes
    settings: Settings
    embedder: Embedder
    served: Served
    seen: Seen
    read_at: float
    agents_unsaved: bool = False
    classifier: StoredClassifier | None = None
    quality: StoredQuality | None = None
    budgets: frozenset[str] = frozenset()
    pool: Pool = field(default_factory=Pool)

    @property
    def routes(self) -> RouteTable:
        """The active routes; without vectors where they are searched in the database."""
        return self.stored_routes.table

    @property
    def indexed(self) -> IndexedRoutes | None:
        """What is needed beside that search, where they are."""
        return self.stored_routes.indexed


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
    if previous is not None and previous.embedder is not embedder:
        previous = None
    with conn.transaction():
        conn.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        position = conn.execute(POSITION).fetchone()
        assert position is not None  # noqa: S101 - a SELECT without FROM has one row
        seen = Seen(*position)
        settings = read_settings(conn)
        _check_embedder(settings, embedder)
        stale = EVERYTHING
        if previous is not None:
            rows = conn.execute(STALE_PARTS, previous.seen.parameters()).fetchall()
            stale = frozenset(part for (part,) in rows)
        if previous is None or stale & {"agents", "performance", "settings", "*"}:
            agents, made_of_agents = read_agents(conn, embedder)
            agents_unsaved = bool(made_of_agents)
        else:
            agents, made_of_agents = previous.agents, ()
            agents_unsaved = previous.agents_unsaved
        if previous is None or stale & {"settings", "*"}:
            routes, made_of_routes = read_routes(conn, embedder, settings, seen, None)
        elif "routes" in stale:
            before = previous.stored_routes
            routes, made_of_routes = read_routes(conn, embedder, settings, seen, before)
        else:
            routes, made_of_routes = previous.stored_routes, ()
        classifier = None if previous is None else previous.classifier
        quality = None if previous is None else previous.quality
        if previous is None or stale & {"models", "*"}:
            classifier = read_classifier(conn, classifier)
            quality = read_quality(conn, embedder.space, quality)
        budgets = previous.budgets if previous is not None else frozenset()
        if previous is None or stale & {"budgets", "*"}:
            found = conn.execute(BUDGETED).fetchone()
            budgets = frozenset((found and found[0]) or ())
        pool = Pool() if previous is None else previous.pool
        if previous is None or stale & {"agents", "health", "settings", "*"}:
            pool = Pool.of(agents.agents, dict(conn.execute(OPEN_CIRCUITS).fetchall()))
    snapshot = Snapshot(
        agents,
        routes,
        settings,
        embedder,
        served,
        seen,
        read_at,
        agents_unsaved,
        classifier,
        quality,
        budgets,
        pool,
    )
    return snapshot, (*made_of_agents, *made_of_routes)


def remeasured(conn: Connection, previous: Snapshot) -> Snapshot | None:
    """The snapshot with the outcomes of by now, None where more than those has changed since.

    Vectors of agents that may still have to be written back are a task of `read_snapshot`.
    """
    read_at = monotonic()
    if previous.agents_unsaved:
        return None
    read = read_performance(conn, previous.agents, previous.seen)
    if read is None:
        return None
    agents, seen = read
    return replace(previous, agents=agents, seen=seen, read_at=read_at)


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
