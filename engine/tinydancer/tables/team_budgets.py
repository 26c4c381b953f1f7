"""Teams within budgets: the whole team's cost is reserved, or nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from uuid import UUID

import numpy as np

from tinydancer.agents.registry import Floats
from tinydancer.budgets import Claim, Payer, Remaining
from tinydancer.tables import text
from tinydancer.tables.context import Budgets
from tinydancer.teams import Team, no_team

# How often a team is planned again where a budget refuses it: others spend at the same time.
MOST_PLANS = 10


@dataclass(frozen=True, eq=False)
class Purse:
    """What budgets have left: `affordable` (a,) for each agent, and for the team as a whole.

    `budget` and `amount` are of the budget of all agents that has least left; `short` is the budget
    of each agent that has one of its own.
    """

    affordable: Floats
    budget: str | None
    amount: float | None
    short: dict[str, str]

    @classmethod
    def of(cls, left: Sequence[Remaining], agents: Sequence[str]) -> Purse:
        """From what every budget has left for each agent, the least first."""
        covered: dict[str, set[str]] = {}
        for one in left:
            covered.setdefault(one.budget, set()).add(one.agent)
        affordable = np.full(len(agents), np.inf)
        positions = {name: position for position, name in enumerate(agents)}
        budget, amount, short = None, None, {}
        for one in left:
            least = max(float(one.amount), 0.0)
            if covered[one.budget].issuperset(agents):
                if amount is None or least < amount:
                    budget, amount = one.budget, least
            elif least < affordable[positions[one.agent]]:
                affordable[positions[one.agent]] = least
                short[one.agent] = one.budget
        return cls(affordable, budget, amount, short)


def team_within_budgets(
    budgets: Budgets,
    plan: Callable[[Purse | None], Team],
    names: Sequence[str],
    payer: Payer,
    ids: Callable[[int], Sequence[UUID]] | None,
) -> tuple[Team, Sequence[UUID]]:
    """The team that `plan` finds within what budgets have left, and the ids of its members.

    With `ids`, which makes so many, the cost of each member is reserved under its own: all of them
    in one transaction, or none. Without, what is left is only looked at.
    """
    if ids is None:
        return plan(Purse.of(budgets.left(payer, names), names)), ()
    purse, refusing = None, None
    for _ in range(MOST_PLANS):
        team = plan(purse)
        if not team.members:
            return team, ()
        made = ids(len(team.members))
        claims = [
            Claim(id_, payer, names[member.agent], Decimal(text.money(member.cost)))
            for id_, member in zip(made, team.members, strict=True)
        ]
        refused = budgets.reserve_team(claims)
        if not any(refused):
            return team, made
        refusing = next(filter(None, refused))
        purse = Purse.of(budgets.left(payer, names), names)
    return no_team(
        team.strategy, f"budget {refusing!r} refuses the team, as others spend at the same time"
    ), ()
