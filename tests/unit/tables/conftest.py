"""A snapshot of the plan's agents and routes, and a way to ask it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone

import numpy as np
import pytest

from tinydancer.agents.model import Agent, Performance, Prices
from tinydancer.agents.pool import Pool
from tinydancer.agents.registry import AgentTable
from tinydancer.embeddings.base import Embedder, Vectors
from tinydancer.embeddings.static import StaticEmbedder
from tinydancer.semantic_routes.route import Route
from tinydancer.semantic_routes.table import RouteTable
from tinydancer.tables import answer
from tinydancer.tables.context import ActiveClassifier, Context, Status
from tinydancer_fdw.contract import TABLES
from tinydancer_fdw.frames import ANY, EQUALS, Input, Scan, Value

AGENTS = (
    Agent(
        "gpt-4",
        "llm",
        ("reasoning", "code", "analysis", "creative"),
        Prices(0.03, 0.03),
        Performance(2500.0, 0.95),
    ),
    Agent(
        "claude-3-haiku",
        "llm",
        ("fast-response", "simple-tasks", "classification"),
        Prices(0.00025, 0.00025),
        Performance(400.0, 0.80),
    ),
    Agent(
        "code-specialist",
        "tool",
        ("code-execution", "debugging", "testing"),
        Prices(per_call=0.001),
        Performance(100.0, 0.90),
    ),
)
ROUTES = (
    Route("customer_support", "Customer support and help requests", "support-agent", 1),
    Route("technical_docs", "Technical documentation and API reference", "docs-agent", 2),
    Route("poems", "Write a poem", "gpt-4"),
)


@dataclass(frozen=True)
class Settings:
    default_output_tokens: int = 256
    route_threshold: float = 0.7
    category_share: float = 0.5
    max_text_bytes: int = 1000
    max_batch: int = 10_000
    exploration: str = "none"
    prior_weight: float = 10.0


@dataclass(frozen=True)
class Snapshot:
    agents: AgentTable
    routes: RouteTable
    settings: Settings = Settings()
    budgets: frozenset[str] = frozenset()
    pool: Pool = field(default_factory=Pool)


class Watched:
    """The built-in embedder, and a record of what it was asked for."""

    def __init__(self) -> None:
        self._embedder: Embedder = StaticEmbedder.builtin()
        self.model, self.space = self._embedder.model, self._embedder.space
        self.dimension = self._embedder.dimension
        self.embedded: list[str] = []

    def embed(self, texts: Sequence[str]) -> Vectors:
        self.embedded += texts
        return self._embedder.embed(texts)

    def count_tokens(self, texts: Sequence[str]) -> np.ndarray:
        return self._embedder.count_tokens(texts)


@dataclass
class Engine:
    """What answers scans in these tests; tests replace agents and routes at will."""

    embedder: Watched = field(default_factory=Watched)
    agents: tuple[Agent, ...] = AGENTS
    routes: tuple[Route, ...] = ROUTES
    settings: Settings = Settings()
    classifier: ActiveClassifier | None = None

    def context(self) -> Context:
        embed = self.embedder.embed
        agents = AgentTable.build(self.agents, embed([agent.text for agent in self.agents]))
        routes = RouteTable.build(
            self.routes,
            embed([route.description for route in self.routes]),
            np.arange(len(self.routes)),
        )
        self.embedder.embedded.clear()
        status = Status("1.2.3", 1, 42, timedelta(seconds=90), 7, 1, 0.5, 1.5, 2.5, 3, 4, 5, 6, 7)
        return Context(
            Snapshot(agents, routes, self.settings),
            self.embedder,
            datetime(2026, 1, 1, 12, tzinfo=timezone.utc),
            "native",
            lambda: status,
            classifier=self.classifier,
        )

    def ask(
        self, table: str, *, columns: Sequence[str] | None = None, limit: int = -1, **inputs: Value
    ) -> list[dict[str, str | None]]:
        """Rows by column. A list is matched by ANY, but where the column itself is an array."""
        wanted = (
            columns if columns is not None else [column.name for column in TABLES[table].columns]
        )
        quals = []
        for name, value in inputs.items():
            column = TABLES[table].column(name)
            listed = isinstance(value, list) and (column is None or column.type != "text[]")
            quals.append(Input(name, ANY if listed else EQUALS, value))
        scan = Scan(table, tuple(wanted), tuple(quals), limit=limit)
        return [dict(zip(wanted, row, strict=True)) for row in answer(self.context(), scan)]


@pytest.fixture(scope="module")
def watched() -> Watched:
    return Watched()


@pytest.fixture
def engine(watched: Watched) -> Engine:
    return Engine(watched)
