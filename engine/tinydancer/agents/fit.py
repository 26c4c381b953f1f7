"""How well an agent suits a request: by what it can do, and by the routes that lead to it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from tinydancer.agents.registry import AgentTable, Floats, Roster
from tinydancer.embeddings.base import Vectors
from tinydancer.embeddings.cascade import margins_of
from tinydancer.embeddings.cosine import cosines
from tinydancer.semantic_routes.route import DIGITS, RouteSearch
from tinydancer.semantic_routes.table import RouteTable

Positions = NDArray[np.intp]

# Of routes that are searched in the database, so many nearest ones count for a decision.
NEAREST = 32


# Of an agent that no route leads to for a request: less than any cosine.
NOTHING = -2.0


@dataclass(frozen=True)
class Lifts:
    """What the routes that n requests mean lend to the fit of the agents they lead to.

    `agents` is (p,), the positions of the agents that any route leads to; `lent` is (n, p), the
    similarity of the nearest such route, NOTHING where none fits. `route_of` tells which route
    that is: its position, for a request and a place in `agents`.
    """

    agents: Positions
    lent: Floats
    route_of: Callable[[int, int], int]


def similarity(requests: Vectors, agents: AgentTable) -> Floats:
    """(n, a) cosine of each request (unit rows) and each agent's capabilities, to DIGITS digits."""
    return _rounded(cosines(requests, agents.embeddings))


def lifts(
    requests: Vectors,
    agents: AgentTable,
    routes: RouteTable,
    *,
    user_tier: str | None,
    now: datetime,
    default_threshold: float,
    search: RouteSearch | None = None,
) -> Lifts | None:
    """The routes that each request passes the threshold of and may take, to active agents.

    None where no route leads to an active agent. Rates do not count here: a decision for an agent
    does not take a route. Of routes without vectors here, the nearest that `search` finds count.
    """
    leading = _leading(routes, agents.roster)
    if not len(leading.routes):
        return None
    least = routes.least(default_threshold)[leading.routes]
    refused = [
        place
        for place in leading.conditional
        if not routes.routes[leading.routes[place]].conditions.permit(user_tier, now)
    ]
    if routes.searched_elsewhere:
        least[refused] = np.inf
        return _lifts_found(requests, routes, leading, least, search)
    table = routes.similarities(requests).take(leading.routes, axis=1)
    table = np.where(table >= least, table, np.float32(NOTHING))
    if refused:
        table[:, refused] = NOTHING
    lent = _rounded(np.maximum.reduceat(table, leading.starts, axis=1))

    def route_of(row: int, place: int) -> int:
        start, end = leading.starts[place], leading.ends[place]
        return int(leading.routes[start + table[row, start:end].argmax()])

    return Lifts(leading.agents, lent, route_of)


def _lifts_found(
    requests: Vectors,
    routes: RouteTable,
    leading: Leading,
    least: NDArray[np.float32],
    search: RouteSearch | None,
) -> Lifts:
    """The lifts by the nearest few routes of each request, which the database finds."""
    lent = np.full((len(requests), len(leading.agents)), NOTHING)
    by: dict[tuple[int, int], int] = {}
    places = {routes.routes[at].name: place for place, at in enumerate(leading.routes.tolist())}
    for row, hits in enumerate(search(requests) if search is not None else ()):
        for route, similarity in islice(hits, NEAREST):
            place = places.get(route.name)
            if place is None or similarity < least[place]:
                continue
            agent = int(np.searchsorted(leading.starts, place, side="right")) - 1
            # The best comes first.
            if (row, agent) not in by:
                by[row, agent] = int(leading.routes[place])
                lent[row, agent] = round(similarity, DIGITS)
    return Lifts(leading.agents, lent, lambda row, place: by[row, place])


def fit(similarity: Floats, lifts: Lifts | None) -> Floats:
    """(n, a) the greatest of the cosine with the agent's capabilities and what routes lend it."""
    if lifts is None:
        return similarity
    lifted = np.array(similarity)
    lifted[:, lifts.agents] = np.maximum(similarity.take(lifts.agents, axis=1), lifts.lent)
    return lifted


def margins(similarity: Floats, lifts: Lifts | None) -> Floats:
    """(n,) by how much each request's best fit is above the next: what a cascade goes by."""
    return np.asarray(margins_of(fit(similarity, lifts)), np.float64)


def _rounded(values: NDArray[np.float32]) -> Floats:
    rounded: Floats = values.astype(np.float64).round(DIGITS)
    return rounded


@dataclass(frozen=True)
class Leading:
    """The routes that lead to an active agent, those to one agent side by side.

    `routes` is (l,) positions of routes; `agents` (p,) are positions of agents, rising, and
    `starts` and `ends` (p,) are where the routes of each begin and end. `conditional` are the
    places in `routes` of those whose conditions ask for a tier or a time of day.
    """

    routes: Positions
    agents: Positions
    starts: Positions
    ends: Positions
    conditional: tuple[int, ...]


@lru_cache(maxsize=2)
def _leading(routes: RouteTable, agents: Roster) -> Leading:
    """Worked out once for each pair of them; the second place is for the scans that still read
    those before.
    """
    pairs = sorted(
        (agents.positions[route.target_agent], position)
        for position, route in enumerate(routes.routes)
        if route.target_agent in agents.positions
    )
    targets, positions = np.array(pairs, np.intp).reshape(len(pairs), 2).T
    led, starts = np.unique(targets, return_index=True)
    conditional = np.flatnonzero(routes.conditional[positions])
    ends = np.append(starts[1:], len(pairs))
    return Leading(np.ascontiguousarray(positions), led, starts, ends, tuple(conditional.tolist()))
