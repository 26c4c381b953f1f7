"""Teams within budgets and limits: all that the whole team needs is reserved, or nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from uuid import UUID

import numpy as np

from tinydancer.agents.registry import Floats
from tinydancer.budgets import Claim, Payer, Remaining
from tinydancer.tables import text
from tinydancer.tables.context import Context, Reservations
from tinydancer.teams.formation import Team, no_team

# How often a team is planned again where it is refused: others reserve at the same time.
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
            covered.setdefault(one.budget, set()).add(one.subject)
        affordable = np.full(len(agents), np.inf)
        positions = {name: position for position, name in enumerate(agents)}
        budget, amount, short = None, None, {}
        for one in left:
            least = max(float(one.amount), 0.0)
            if covered[one.budget].issuperset(agents):
                if amount is None or least < amount:
                    budget, amount = one.budget, least
            elif least < affordable[positions[one.subject]]:
                affordable[positions[one.subject]] = least
                short[one.subject] = one.budget
        return cls(affordable, budget, amount, short)

    def without(self, agents: Sequence[str], full: Iterable[str]) -> Purse:
        """The same, with nothing left for agents that can't be called."""
        affordable = self.affordable.copy()
        affordable[[agents.index(name) for name in full]] = -1.0
        return replace(self, affordable=affordable)


def team_within_budgets(
    context: Context,
    reservations: Reservations,
    plan: Callable[[Purse | None], Team],
    payer: Payer,
    ids: Callable[[int], Sequence[UUID]] | None,
) -> tuple[Team, Sequence[UUID]]:
    """The team that `plan` finds within what budgets and agents have left, and its members' ids.

    With `ids`, which makes so many, the cost and the place of each member are reserved under its
    own: all of them in one transaction, or none. Without, what is left is only looked at.
    """
    names, budgeted = context.snapshot.agents.names, context.snapshot.budgets
    guarded = context.snapshot.pool.guarded.intersection(names)

    def look() -> Purse:
        purse = Purse.of(reservations.left(payer, names) if budgeted else (), names)
        return purse.without(names, reservations.refusing(sorted(guarded))) if guarded else purse

    if ids is None:
        return plan(look()), ()
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
        if not budgeted:
            claims = [claim for claim in claims if claim.agent in guarded]
        refused = reservations.reserve_team(claims) if claims else ()
        if not any(refused):
            return team, made
        refusing = next(filter(None, refused))
        purse = look()
    assert refusing is not None  # noqa: S101 - or the team would have been returned
    return no_team(
        team.strategy,
        f"{refusing.constraint} {refusing.limit!r} refuses the team, as others reserve at the "
        "same time",
    ), ()
