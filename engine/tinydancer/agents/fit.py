"""How well an agent suits a request: by what it can do, and by the routes that lead to it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from tinydancer.agents.registry import AgentTable, Floats
from tinydancer.embeddings.base import Vectors
from tinydancer.embeddings.cosine import cosines
from tinydancer.semantic_routes import DIGITS, RouteSearch, RouteTable

Positions = NDArray[np.intp]

# Of routes that are searched in the database, so many nearest ones count for a decision.
NEAREST = 32


@dataclass(frozen=True)
class Lifts:
    """The routes that n requests mean and that lead to an agent: parallel arrays, rows rising.

    `rows` is which request, `routes` and `agents` are positions in their tables, `similarities`
    is what the route lends to the fit of its agent.
    """

    rows: Positions
    routes: Positions
    agents: Positions
    similarities: Floats


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
    leading, targets = _leading(routes, agents)
    if not len(leading):
        return None
    if routes.searched_elsewhere:
        rows, found, similarities = _search(requests, routes, leading, search)
        passing = similarities >= routes.least(default_threshold)[leading[found]]
        rows, found, values = rows[passing], found[passing], similarities[passing]
    else:
        table = routes.similarities(requests)[:, leading]
        rows, found = np.nonzero(table >= routes.least(default_threshold)[leading])
        values = table[rows, found]
    # Most routes have no conditions: only the others are asked, each once.
    held = [
        place
        for place in dict.fromkeys(found[routes.conditional[leading[found]]].tolist())
        if not routes.routes[leading[place]].conditions.permit(user_tier, now)
    ]
    if held:
        kept = ~np.isin(found, held)
        rows, found, values = rows[kept], found[kept], values[kept]
    return Lifts(rows, leading[found], targets[found], _rounded(values))


def _search(
    requests: Vectors, routes: RouteTable, leading: Positions, search: RouteSearch | None
) -> tuple[Positions, Positions, NDArray[np.float32]]:
    """Which request, which of the leading routes, and their similarity, for the nearest few."""
    places = {routes.routes[at].name: place for place, at in enumerate(leading.tolist())}
    triples = [
        (row, places[route.name], similarity)
        for row, hits in enumerate(search(requests) if search is not None else ())
        for route, similarity in islice(hits, NEAREST)
        if route.name in places
    ]
    rows, found, similarities = zip(*triples, strict=True) if triples else ((), (), ())
    return (
        np.array(rows, np.intp),
        np.array(found, np.intp),
        np.array(similarities, np.float32),
    )


def fit(similarity: Floats, lifts: Lifts | None) -> Floats:
    """(n, a) the greatest of the cosine with the agent's capabilities and what routes lend it."""
    if lifts is None or not len(lifts.rows):
        return similarity
    lifted = np.array(similarity)
    np.maximum.at(lifted, (lifts.rows, lifts.agents), lifts.similarities)
    return lifted


def _rounded(values: NDArray[np.float32]) -> Floats:
    rounded: Floats = values.astype(np.float64).round(DIGITS)
    return rounded


@lru_cache(maxsize=2)
def _leading(routes: RouteTable, agents: AgentTable) -> tuple[Positions, Positions]:
    """Positions of the routes that lead to an active agent, and of those agents.

    Worked out once for each pair of tables; the second place is for the scans that still read
    the tables before.
    """
    pairs = [
        (position, agents.positions[route.target_agent])
        for position, route in enumerate(routes.routes)
        if route.target_agent in agents.positions
    ]
    positions = np.array(pairs, np.intp).reshape(len(pairs), 2)
    return np.ascontiguousarray(positions[:, 0]), np.ascontiguousarray(positions[:, 1])
