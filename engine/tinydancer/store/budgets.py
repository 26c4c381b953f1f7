"""Budgets as a decision sees them: what remains, and reserving it exactly.

What remains is only advice, since other sessions spend at the same time: `reserve` is what holds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from uuid import UUID

from tinydancer.store.database import Database

REMAINING = """
SELECT budget.name, agents.name,
    limit_amount - coalesce(spent, 0) - coalesce(reserved, 0),
    coalesce(spent, 0) + coalesce(reserved, 0) >= limit_amount * soft_threshold::numeric
FROM unnest(%(agents)s::text[]) AS agents (name)
CROSS JOIN LATERAL tinydancer.budgets_of(
    %(tenant)s, agents.name, %(route)s, %(user_tier)s) AS budget
LEFT JOIN tinydancer.budget_periods ON budget = budget.name
    AND period_start = tinydancer.period_start(budget.period, now())
ORDER BY 3, 1
"""
RESERVE = "SELECT tinydancer.reserve_budget(%s, %s, %s, %s, %s, %s)"
RELEASE = "SELECT tinydancer.release_reservations(%s)"


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


class Budgets:
    """The budgets of the database. Thread-safe."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def remaining(self, payer: Payer, agents: Sequence[str]) -> dict[str, Remaining]:
        """For each agent that comes under a budget the one that has least left.

        Raises Unavailable where the database can't be reached.
        """
        rows = self._database.run(
            lambda conn: conn.execute(
                REMAINING,
                {
                    "agents": list(agents),
                    "tenant": payer.tenant,
                    "route": payer.route,
                    "user_tier": payer.user_tier,
                },
            ).fetchall()
        )
        tightest: dict[str, Remaining] = {}
        for budget, agent, amount, runs_low in rows:
            tightest.setdefault(agent, Remaining(budget, agent, amount, runs_low))
        return tightest

    def reserve(self, decision: UUID, payer: Payer, agent: str, amount: Decimal) -> str | None:
        """Reserve an amount in every budget that applies; the name of the one that refuses it.

        Nothing is reserved where one refuses. Not repeated when the connection breaks: what was
        reserved meanwhile is given back when it expires. Raises Unavailable.
        """
        with self._database.connection() as conn:
            row = conn.execute(
                RESERVE, (decision, payer.tenant, agent, payer.route, payer.user_tier, amount)
            ).fetchone()
        return None if row is None else row[0]

    def release(self, decisions: Sequence[UUID]) -> None:
        """Give back what decisions have reserved. Raises Unavailable."""
        self._database.run(lambda conn: conn.execute(RELEASE, (list(decisions),)))
