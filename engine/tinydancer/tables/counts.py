"""Inputs that count requests by name: 'gpt-4=100'."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite

import numpy as np

from tinydancer.agents.registry import AgentTable, Floats
from tinydancer.errors import InvalidInput, NotFound

MOST = 1_000_000_000


def counts(column: str, elements: Sequence[str], what: str) -> dict[str, float]:
    """The number of each name, 0 to MOST; of one that is given twice the least.

    Raises InvalidInput for an element that is no `what` with a number.
    """
    found: dict[str, float] = {}
    for element in elements:
        name, _, written = element.rpartition("=")
        try:
            number = float(written)
        except ValueError:
            number = -1.0
        if not name or not isfinite(number) or not 0 <= number <= MOST:
            raise InvalidInput(
                f"{column} has {element[:80]!r}, which is no {what} with a number of requests",
                hint=f"Write '{what}=100', with a number from 0 to {MOST}.",
            )
        found[name] = min(number, found.get(name, number))
    return found


def agent_capacity(elements: Sequence[str], agents: AgentTable) -> Floats:
    """(a,) whole requests that each agent can take, infinite where nothing is said of it.

    Raises InvalidInput, and NotFound for an agent that there is not.
    """
    capacity = np.full(len(agents), np.inf)
    for name, places in counts("agent_capacity", elements, "agent").items():
        if name not in agents.positions:
            raise NotFound(
                f"agent_capacity has {name!r}, which is no active agent",
                hint="See SELECT name FROM tinydancer.ruvector_list_agents();",
            )
        if places != int(places):
            raise InvalidInput(
                f"agent_capacity of {name!r} is {places:g}, which is no whole number",
                hint="Write 'agent=100'.",
            )
        capacity[agents.positions[name]] = places
    return capacity
