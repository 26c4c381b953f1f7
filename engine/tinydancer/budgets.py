"""What a decision says to the budgets and agents that it needs, and they to it."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from uuid import UUID


@dataclass(frozen=True)
class Remaining:
    """What a budget has left for an agent, or a route, in its present period.

    It is less than nothing where outcomes were dearer than was reserved for them; `runs_low` past
    its threshold.
    """

    budget: str
    subject: str
    amount: Decimal
    runs_low: bool

    def refuses(self, cost: Decimal) -> bool:
        """Whether so much is more than it has left. What costs nothing takes nothing from it."""
        return 0 < cost > self.amount


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
