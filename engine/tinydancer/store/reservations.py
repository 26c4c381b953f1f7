"""What decisions reserve: money in budgets, and places at agents that take so many calls at once.

What is left of them is only advice, since other sessions reserve at the same time: `reserve` is
what holds.
"""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

import psycopg

from tinydancer.budgets import Claim, Payer, Refusal, Remaining
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
LEFT_OF_ROUTES = """
SELECT budget.name, subject, limit_amount - coalesce(spent, 0) - coalesce(reserved, 0),
    coalesce(spent, 0) + coalesce(reserved, 0) >= limit_amount * soft_threshold::numeric
FROM tinydancer.budgets AS budget
LEFT JOIN tinydancer.budget_periods ON budget = budget.name
    AND period_start = tinydancer.period_start(budget.period, now())
WHERE active AND scope = 'route' AND (tenant IS NULL OR tenant = %s)
ORDER BY 3, 1
"""
REFUSING = """
SELECT name, refusal[1], refusal[2]
FROM unnest(%s::text[]) AS name, tinydancer.call_refusal(name) AS refusal
WHERE refusal IS NOT NULL
"""
RESERVE = """
SELECT refusing, limits FROM tinydancer.reserve_calls(
    %s::uuid[], %s::text[], %s::text[], %s::text[], %s::text[], %s::numeric[])
"""
RESERVE_TEAM = RESERVE.replace("reserve_calls", "reserve_team")
RELEASE = "SELECT tinydancer.release_calls(%s)"


class Reservations:
    """The budgets of the database, and the calls in flight to its agents. Thread-safe.

    What is left is read from `database`; what waits for others who reserve goes to `contended`.
    """

    def __init__(self, database: Database, contended: Database) -> None:
        self._database = database
        self._contended = contended

    def remaining(self, payer: Payer, agents: Sequence[str]) -> dict[str, Remaining]:
        """For each agent that comes under a budget the one that has least left.

        Raises Unavailable where the database can't be reached.
        """
        tightest: dict[str, Remaining] = {}
        for left in self.left(payer, agents):
            tightest.setdefault(left.subject, left)
        return tightest

    def left(self, payer: Payer, agents: Sequence[str]) -> list[Remaining]:
        """What every budget has left for each agent that comes under it, the least first."""
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
        return [Remaining(*row) for row in rows]

    def left_of_routes(self, tenant: str) -> list[Remaining]:
        """What each budget of a route has left for a tenant. Raises Unavailable."""
        rows = self._database.run(lambda conn: conn.execute(LEFT_OF_ROUTES, (tenant,)).fetchall())
        return [Remaining(*row) for row in rows]

    def refusing(self, agents: Sequence[str]) -> dict[str, Refusal]:
        """Those of some agents that can't be called right now, and why. Raises Unavailable."""
        rows = self._database.run(lambda conn: conn.execute(REFUSING, (list(agents),)).fetchall())
        return {agent: Refusal(constraint, limit) for agent, constraint, limit in rows}

    def reserve(self, claims: Sequence[Claim]) -> Sequence[Refusal | None]:
        """Reserve for each claim a place at its agent and its amount in every budget it is under.

        For each what refuses it, which then has reserved nothing; None where it is reserved. All
        of them are reserved in one transaction. Raises Held, and Unavailable; it is not tried again
        then, and what was reserved all the same is given back when it expires.
        """
        return self._reserve(RESERVE, claims)

    def _reserve(self, statement: str, claims: Sequence[Claim]) -> Sequence[Refusal | None]:
        arguments = (
            [claim.decision for claim in claims],
            [claim.payer.tenant for claim in claims],
            [claim.agent for claim in claims],
            [claim.payer.route for claim in claims],
            [claim.payer.user_tier for claim in claims],
            [claim.amount for claim in claims],
        )
        with self._contended.connection() as conn:
            try:
                row = conn.execute(statement, arguments).fetchone()
            except psycopg.errors.DeadlockDetected:
                # Budgets were changed, or a period turned, between its locks; nothing is reserved.
                row = conn.execute(statement, arguments).fetchone()
        assert row is not None  # noqa: S101 - a SELECT without FROM has one row
        return [
            None if constraint is None else Refusal(constraint, limit)
            for constraint, limit in zip(*row, strict=True)
        ]

    def reserve_team(self, claims: Sequence[Claim]) -> Sequence[Refusal | None]:
        """Reserve all claims, or none where one is refused; for each what refuses it."""
        return self._reserve(RESERVE_TEAM, claims)

    def release(self, decisions: Sequence[UUID]) -> None:
        """Give back what decisions have reserved. Raises Held, Unavailable."""
        self._contended.run(lambda conn: conn.execute(RELEASE, (list(decisions),)))
