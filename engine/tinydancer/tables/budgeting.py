"""Decisions within budgets: what they cost is reserved, and who has nothing left is passed over."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from decimal import Decimal
from uuid import UUID

import numpy as np

from tinydancer.agents.registry import AgentTable, Floats
from tinydancer.budgets import Claim, Payer, Remaining
from tinydancer.errors import TinyDancerError
from tinydancer.explanation import Evidence, Explainer
from tinydancer.policies.estimates import Mask
from tinydancer.router import Barrier, Decisions
from tinydancer.tables import text
from tinydancer.tables.context import Budgets

# The decisions under barriers beside those that the request itself has.
Choose = Callable[[Sequence[Barrier]], Decisions]


class _Refusals:
    """Which agents each budget refuses to which requests."""

    def __init__(self, agents: AgentTable, cost: Floats) -> None:
        self._agents = agents
        self._cost = cost
        self._refused: dict[str, Mask] = {}

    def add(self, budget: str, row: int, position: int) -> None:
        mask = self._refused.setdefault(budget, np.zeros(self._cost.shape, np.bool_))
        mask[row, position] = True

    def add_remaining(self, found: Iterable[Remaining], rows: Sequence[int]) -> None:
        """Refuse these requests every agent that costs more than what a budget has left for it."""
        for left in found:
            position = self._agents.positions[left.agent]
            for row in rows:
                if _amount(self._cost, row, position) > left.amount:
                    self.add(left.budget, row, position)

    def barriers(self) -> list[Barrier]:
        return [
            Barrier("budget", budget, refused, self._cost)
            for budget, refused in sorted(self._refused.items())
        ]


def decide_within_budgets(
    budgets: Budgets,
    choose: Choose,
    agents: AgentTable,
    cost: Floats,
    evidence: Evidence,
    payer: Payer,
    ids: Sequence[UUID] | None,
    *,
    look_first: bool = False,
) -> Decisions:
    """The decisions, each for an agent whose `cost` (n, a) no budget refuses.

    With `ids`, the cost of each is reserved under its id: one round trip for all requests, and
    another as long as a budget refuses one, which then goes to its next best agent. Without, what
    the budgets have left is only looked at; those of routes are not, since no route is taken.
    With `look_first` it is looked at as well: where dice are thrown, who has nothing left must not
    be among those for whom they are.
    """
    refusals = _Refusals(agents, cost)
    looked = ids is None or look_first
    if looked:
        found = budgets.remaining(payer, agents.names)
        refusals.add_remaining(found.values(), range(len(cost)))
    decisions = choose(refusals.barriers())
    if ids is None:
        return decisions
    waiting = _chosen(decisions, range(len(cost)))
    reserved: list[UUID] = []
    try:
        while waiting:
            claims = claims_of(decisions, evidence, payer, ids, waiting)
            refusing = budgets.reserve(claims)
            reserved += [
                claim.decision for claim, by in zip(claims, refusing, strict=True) if not by
            ]
            refused = [(row, by) for row, by in zip(waiting, refusing, strict=True) if by]
            if not refused:
                break
            for row, budget in refused:
                refusals.add(budget, row, int(decisions.order[row, 0]))
            rows = [row for row, _ in refused]
            if not looked:
                # The first refusal is a reason to see who else has nothing left.
                refusals.add_remaining(budgets.remaining(payer, agents.names).values(), rows)
                looked = True
            decisions = choose(refusals.barriers())
            waiting = _chosen(decisions, rows)
    except TinyDancerError:
        if reserved:
            budgets.release(reserved)
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
