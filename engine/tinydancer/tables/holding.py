"""Decisions of a session: they go to its agent as long as that suits."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

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
    _before: list[str | None] = field(default_factory=list)

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
        self._before.append(before)
        position = decisions.agents.positions[agent]
        order = np.array(decisions.order)
        propensity = None if decisions.propensity is None else np.array(decisions.propensity)
        for row in served:
            if order[row, 0] != position and np.isfinite(of_row(decisions.key, row)[position]):
                rest = order[row][order[row] != position]
                order[row] = np.concatenate([[position], rest])[: order.shape[1]]
                if propensity is not None:
                    propensity[row] = 1.0  # no dice were thrown for it
        session = Session(self.key, self._before[0], agent)
        return replace(decisions, order=order, propensity=propensity, session=session)
