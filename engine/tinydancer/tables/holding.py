"""Decisions of a session: they go to its agent as long as that suits."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from tinydancer.router import Decisions, Session, of_row
from tinydancer.tables.context import Sessions


@dataclass(eq=False)
class Holder:
    """Holds the agent of a session, as often as the decisions for it are taken.

    They are taken again where the agent has nothing left to reserve: then it no longer suits.
    """

    sessions: Sessions
    tenant: str
    key: str
    _first: Session | None = None

    def held(self, decisions: Decisions) -> Decisions:
        """The decisions, for the session's agent wherever it suits.

        A new session, or one whose agent does not suit the first request, goes to the agent that
        is chosen for that. Raises Unavailable.
        """
        chosen = decisions.order[:, 0] if decisions.order.shape[1] else np.zeros(0, np.intp)
        served = np.flatnonzero(chosen >= 0).tolist()
        if not served:
            return decisions
        names = decisions.agents.names
        suitable = decisions.best(served[0], len(names)).tolist()
        agent, before = self.sessions.hold(
            self.tenant, self.key, names[chosen[served[0]]], [names[at] for at in suitable]
        )
        session = Session(self.key, before, agent)
        self._first = self._first or session
        position = decisions.agents.positions[agent]
        order = np.array(decisions.order)
        propensity = None if decisions.propensity is None else np.array(decisions.propensity)
        for row in served:
            if not np.isfinite(of_row(decisions.key, row)[position]):
                continue
            rest = order[row][order[row] != position]
            order[row] = np.concatenate([[position], rest])[: order.shape[1]]
            # Whatever the dice said, the session would have had it so; but who begins one.
            if propensity is not None and (before == agent or row != served[0]):
                propensity[row] = 1.0
        session = replace(session, before=self._first.before)
        return replace(decisions, order=order, propensity=propensity, session=session)
