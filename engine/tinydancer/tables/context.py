"""What a scan may use: the snapshot, the embedder, the time, and what the server and store lend."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol
from uuid import UUID

from tinydancer.agents.pool import Pool
from tinydancer.agents.registry import AgentTable
from tinydancer.budgets import Claim, Payer, Refusal, Remaining
from tinydancer.cost_optimizer.demand import PastDemand
from tinydancer.decisions import Decision
from tinydancer.embeddings.base import Embedder
from tinydancer.learning.hindsight import Outcome
from tinydancer.learning.quality import QualityModel
from tinydancer.neural.classifier import RouteClassifier
from tinydancer.semantic_routes.ranking import Rates
from tinydancer.semantic_routes.route import RouteSearch
from tinydancer.semantic_routes.table import RouteTable
from tinydancer.semantic_routes.words import RequestWords
from tinydancer.tables.inputs import Limits
from tinydancer.teams.joint_success import Correlations
from tinydancer_fdw.frames import Row


class Settings(Limits, Protocol):
    """What a scan reads of the table `settings`."""

    @property
    def default_output_tokens(self) -> int:
        """Tokens that an answer has where nothing better is known."""

    @property
    def route_threshold(self) -> float:
        """The threshold of a route without its own."""

    @property
    def category_share(self) -> float:
        """What the category of a request counts in an agent's fit, 0 to 1."""

    @property
    def exploration(self) -> str:
        """Whether kept decisions try other agents than the best: none, epsilon or thompson."""

    @property
    def exploration_rate(self) -> float:
        """With epsilon, the share of kept decisions that go to any agent that qualifies."""

    @property
    def exploration_seed(self) -> int | None:
        """Where given, dice are thrown by it and the request, not by the decision's id."""

    @property
    def prior_weight(self) -> float:
        """Outcomes that an agent's registered figures count for."""


class Snapshot(Protocol):
    """The copy of the tables that every request of a scan reads."""

    @property
    def agents(self) -> AgentTable:
        """The active agents."""

    @property
    def routes(self) -> RouteTable:
        """The active routes."""

    @property
    def settings(self) -> Settings:
        """How this database routes."""

    @property
    def budgets(self) -> Collection[str]:
        """The scopes of active budgets."""

    @property
    def pool(self) -> Pool:
        """What bounds the calls to agents."""


@dataclass(frozen=True)
class Status:
    """The engine as `engine_status` shows it. Latencies are milliseconds, None before a scan."""

    version: str
    protocol: int
    pid: int
    uptime: timedelta
    scans: int
    errors: int
    latency_p50_ms: float | None = None
    latency_p95_ms: float | None = None
    latency_p99_ms: float | None = None
    cache_hits: int = 0
    cache_misses: int = 0
    escalated: int = 0
    decisions_kept: int = 0
    decisions_lost: int = 0


class ActiveClassifier(Protocol):
    """The classifier in use, under the name that the table `models` has for it."""

    @property
    def name(self) -> str:
        """Its name."""

    @property
    def classifier(self) -> RouteClassifier:
        """Itself. Raises InvalidInput where it can't be read."""


class ActiveQuality(Protocol):
    """The quality model in use, under the name that the table `models` has for it."""

    @property
    def name(self) -> str:
        """Its name."""

    @property
    def model(self) -> QualityModel:
        """Itself. Raises InvalidInput where it can't be read."""


# For a time range and a grouping, the rows of the ledger's sums, each in PostgreSQL's text forms
# in the order of the outputs of routing_analytics.
Analytics = Callable[[str, str], Sequence[Row]]


# What was asked lately, by category; None where nothing was.
PastDemands = Callable[[], PastDemand | None]


# For a time range, the kept decisions whose outcome is known.
Outcomes = Callable[[str], Sequence[Outcome]]


class Reservations(Protocol):
    """What decisions reserve: money in budgets, and places at agents."""

    def remaining(self, payer: Payer, agents: Sequence[str]) -> Mapping[str, Remaining]:
        """For each agent that comes under a budget the one that has least left."""

    def left(self, payer: Payer, agents: Sequence[str]) -> Sequence[Remaining]:
        """What every budget has left for each agent that comes under it, the least first."""

    def left_of_routes(self, tenant: str) -> Sequence[Remaining]:
        """What each budget of a route has left for a tenant."""

    def refusing(self, agents: Sequence[str]) -> Mapping[str, Refusal]:
        """Those of some agents that can't be called right now, and why."""

    def reserve(self, claims: Sequence[Claim]) -> Sequence[Refusal | None]:
        """For each claim what refuses it, or None where it is reserved."""

    def reserve_team(self, claims: Sequence[Claim]) -> Sequence[Refusal | None]:
        """The same, but nothing is reserved where one of them is refused."""

    def release(self, decisions: Sequence[UUID]) -> None:
        """Give back what decisions have reserved."""


class Sessions(Protocol):
    """Which agent serves each session."""

    def hold(
        self, tenant: str, key: str, chosen: str, suitable: Sequence[str]
    ) -> tuple[str, str | None]:
        """The session's agent from now on, and the one before, None for a new session.

        `chosen` becomes its agent where it has none yet, or one that is not among the `suitable`.
        """


# For the agents of a snapshot, how far their errors go together.
ErrorCorrelations = Callable[[AgentTable], Correlations]


# Keeps decisions; raises Unavailable where that is to be certain and can't be.
Keep = Callable[[Sequence[Decision]], None]


@dataclass(frozen=True)
class Context:
    """One scan's surroundings. `now` must know its zone; `status` reads the engine's figures.

    Without `route_search` routes must have their vectors in the snapshot; without
    `request_words` hybrid routes are matched as dense ones; without `rates` no rate limit
    holds; without `classifier` nothing can be classified; without `quality` the quality of an
    agent is its own figure, whatever the request; without `analytics`, `outcomes` and
    `past_demand` there is no looking back; without `correlations` errors go together as is
    assumed; without `keep` no decision has an id; without `reservations` no budget holds, and
    no limit of calls; without `sessions` no session keeps its agent.
    """

    snapshot: Snapshot
    embedder: Embedder
    now: datetime
    front_door: str
    status: Callable[[], Status]
    route_search: RouteSearch | None = None
    request_words: RequestWords | None = None
    rates: Rates | None = None
    classifier: ActiveClassifier | None = None
    quality: ActiveQuality | None = None
    analytics: Analytics | None = None
    outcomes: Outcomes | None = None
    past_demand: PastDemands | None = None
    correlations: ErrorCorrelations | None = None
    keep: Keep | None = None
    reservations: Reservations | None = None
    sessions: Sessions | None = None
