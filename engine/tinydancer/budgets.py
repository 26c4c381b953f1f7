"""What a decision says to the budgets and agents that it needs, and they to it."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from uuid import UUID


@dataclass(frozen=True)
class Remaining:
    """What a budget has left for an agent in its present period; `runs_low` past its threshold."""

    budget: str
    agent: str
    amount: Decimal
    runs_low: bool


@dataclass(frozen=True)
class Payer:
    """On whose behalf a request is decided."""

    tenant: str = "default"
    route: str | None = None
    user_tier: str | None = None


@dataclass(frozen=True)
class Claim:
    """A place at its agent, and an amount, that a decision would have reserved."""

    decision: UUID
    payer: Payer
    agent: str
    amount: Decimal


@dataclass(frozen=True)
class Refusal:
    """Why nothing was reserved: budget, concurrency_limit or circuit_breaker, and its limit.

    The limit is the name of the budget, the most calls at once, or the state of the circuit.
    """

    constraint: str
    limit: str
