"""Decisions that reserve what they need: money in budgets, and places at agents.

Whose budget has nothing left, or who has as many calls as it takes, is passed over.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from decimal import Decimal
from uuid import UUID

import numpy as np

from tinydancer.agents.pool import Pool
from tinydancer.agents.registry import AgentTable, Floats
from tinydancer.budgets import Claim, Payer, Refusal, Remaining
from tinydancer.explanation import Evidence, Explainer, routes_taken
from tinydancer.policies.estimates import Estimates, Mask
from tinydancer.router import Barrier, Decisions
from tinydancer.tables import text
from tinydancer.tables.context import Context, Reservations

# The decisions under barriers beside those that the request itself has.
Choose = Callable[[Sequence[Barrier]], Decisions]
# A request, an agent, and the route by which it would go there.
Routed = tuple[int, int, str]


def open_circuits(pool: Pool, agents: AgentTable, now: datetime) -> list[Barrier]:
    """Those agents refused whose circuit is open."""
    found = []
    for name, until in pool.open(now):
        if name in agents.positions:
            refused = np.zeros(len(agents), np.bool_)
            refused[agents.positions[name]] = True
            limit = f"open until {until.isoformat(sep=' ', timespec='seconds')}"
            found.append(Barrier("circuit_breaker", limit, refused))
    return found


class _Refusals:
    """Which agents are refused to which requests, and by what."""

    def __init__(self, agents: AgentTable, cost: Floats) -> None:
        self._agents = agents
        self._cost = cost
        self._refused: dict[Refusal, Mask] = {}

    def add(self, refusal: Refusal, row: int, position: int) -> None:
        mask = self._refused.setdefault(refusal, np.zeros(self._cost.shape, np.bool_))
        mask[row, position] = True

    def add_remaining(self, found: Iterable[Remaining], rows: Sequence[int]) -> None:
        """Refuse these requests every agent that costs more than what a budget has left for it."""
        for left in found:
            position = self._agents.positions[left.subject]
            for row in rows:
                self._add_where_dearer(left, row, position)

    def add_routes(self, found: Sequence[Remaining], routed: Iterable[Routed]) -> None:
        """Refuse requests the agents to which a route leads whose budget has not so much left."""
        for row, position, route in routed:
            for left in found:
                if left.subject == route:
                    self._add_where_dearer(left, row, position)

    def _add_where_dearer(self, left: Remaining, row: int, position: int) -> None:
        if left.refuses(_amount(self._cost, row, position)):
            self.add(Refusal("budget", left.budget), row, position)

    def add_refusing(self, found: Mapping[str, Refusal], rows: Sequence[int]) -> None:
        """Refuse these requests the agents that can't be called."""
        for name, refusal in found.items():
            for row in rows:
                self.add(refusal, row, self._agents.positions[name])

    def barriers(self) -> list[Barrier]:
        return [
            _barrier(refusal, refused, self._cost)
            for refusal, refused in sorted(
                self._refused.items(), key=lambda item: (item[0].constraint, item[0].limit)
            )
        ]


def _barrier(refusal: Refusal, refused: Mask, cost: Floats) -> Barrier:
    if refusal.constraint == "budget":
        return Barrier("budget", refusal.limit, refused, cost)
    if refusal.constraint == "concurrency_limit":
        return Barrier("concurrency_limit", int(refusal.limit), refused)
    return Barrier(refusal.constraint, refusal.limit, refused)


class _Needs:
    """Which decisions have anything to reserve: with budgets all, else those for guarded agents."""

    def __init__(self, context: Context) -> None:
        agents, guarded = context.snapshot.agents, context.snapshot.pool.guarded
        self.budgets = bool(context.snapshot.budgets)
        self.routes = "route" in context.snapshot.budgets
        self.names = [name for name in sorted(guarded) if name in agents.positions]
        self._positions = [agents.positions[name] for name in self.names]

    def guards_any(self, decisions: Decisions) -> bool:
        """Whether an agent that is to be shown is guarded."""
        return bool(self._positions) and bool(np.isin(decisions.order, self._positions).any())

    def waiting(self, decisions: Decisions, rows: Iterable[int]) -> list[int]:
        """Those of some requests whose agent is still to be reserved."""
        return [
            row
            for row in _chosen(decisions, rows)
            if self.budgets or decisions.order[row, 0] in self._positions
        ]


def decide_and_reserve(
    context: Context,
    reservations: Reservations,
    choose: Choose,
    estimates: Estimates,
    evidence: Evidence,
    payer: Payer,
    ids: Sequence[UUID] | None,
    *,
    look_first: bool = False,
) -> Decisions:
    """The decisions, each for an agent whose cost no budget refuses, and who has a place.

    With `ids`, the cost and the place of each are reserved under its id: one round trip for all
    requests, and another as long as one is refused, which then goes to its next best agent.
    Without, what is left is only looked at, for each request as if it were the only one.
    With `look_first` it is looked at as well: where dice are thrown, who has nothing left must not
    be among those for whom they are.
    """
    agents, cost = context.snapshot.agents, estimates.cost
    refusals, needs = _Refusals(agents, cost), _Needs(context)
    every = range(len(cost))

    def look(rows: Sequence[int]) -> None:
        if needs.budgets:
            refusals.add_remaining(reservations.remaining(payer, agents.names).values(), rows)
        if needs.routes:
            found = reservations.left_of_routes(payer.tenant)
            refusals.add_routes(found, routes_taken(evidence, estimates.fit, rows))
        if needs.names:
            refusals.add_refusing(reservations.refusing(needs.names), rows)

    looked = look_first or (ids is None and needs.budgets)
    if looked:
        look(every)
    decisions = choose(refusals.barriers())
    if ids is None:
        if not looked and needs.guards_any(decisions):
            look(every)
            decisions = choose(refusals.barriers())
        return decisions
    waiting = needs.waiting(decisions, every)
    reserved: list[UUID] = []
    try:
        while waiting:
            claims = claims_of(decisions, evidence, payer, ids, waiting)
            refusing = reservations.reserve(claims)
            reserved += [
                claim.decision for claim, by in zip(claims, refusing, strict=True) if not by
            ]
            refused = [(row, by) for row, by in zip(waiting, refusing, strict=True) if by]
            if not refused:
                break
            for row, refusal in refused:
                refusals.add(refusal, row, int(decisions.order[row, 0]))
            rows = [row for row, _ in refused]
            if not looked:
                # The first refusal is a reason to see who else has nothing left.
                look(rows)
                looked = True
            decisions = choose(refusals.barriers())
            waiting = needs.waiting(decisions, rows)
    except Exception:
        if reserved:
            reservations.release(reserved)
        raise
    return decisions


def _chosen(decisions: Decisions, rows: Iterable[int]) -> list[int]:
    """Those of some requests that an agent suits."""
    if not decisions.order.shape[1]:
        return []
    return [row for row in rows if decisions.order[row, 0] >= 0]


def claims_of(
    decisions: Decisions,
    evidence: Evidence,
    payer: Payer,
    ids: Sequence[UUID],
    rows: Sequence[int],
) -> list[Claim]:
    """What some requests would have reserved for the agents chosen for them."""
    explainer = Explainer(decisions, evidence)
    found = []
    for row in rows:
        position = int(decisions.order[row, 0])
        whose = replace(payer, route=explainer.route(row, position))
        amount = _amount(decisions.estimates.cost, row, position)
        found.append(Claim(ids[row], whose, decisions.agents.names[position], amount))
    return found


def _amount(cost: Floats, row: int, position: int) -> Decimal:
    """A cost to a billionth, as it is shown and kept."""
    return Decimal(text.money(cost.item(row, position)))
