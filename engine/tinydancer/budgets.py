"""What a decision and its budgets say to each other."""

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
    """An amount that a decision would have reserved for its agent."""

    decision: UUID
    payer: Payer
    agent: str
    amount: Decimal
