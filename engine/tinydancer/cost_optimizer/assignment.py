"""The cheapest assignment of requests to agents of limited capacity: exact, in memory.

A transportation problem: each request to one agent, agent a at most capacity_a requests, least
total cost. Prices on capacity come near the dual's optimum by annealing (requests choose by softmin
at a falling temperature, prices follow the logarithm of load over capacity; Kosowsky & Yuille 1994)
and by coordinate ascent (each price to the value at which just as many requests want the agent as
it can take). What is still over is moved along cheapest paths between agents, which keeps the
assignment optimal for the loads it has (Ahuja, Magnanti & Orlin 1993, section 9.7): the result is
exact whatever the prices were. With few agents and many requests that takes a second where a
general linear programme takes minutes.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

Doubles = NDArray[np.float64]
Rows = NDArray[np.int64]
TEMPERATURES = 10
STEPS = 12
COOLING = 2.5
SWEEPS = 3


@dataclass(frozen=True, eq=False)
class Assignment:
    """choice: (n,) the agent of each request.

    prices: (m,), what one more of each capacity would save; infinite where it is 0.
    """

    choice: Rows
    prices: Doubles
    cost: float


def assign(costs: Doubles, capacity: Rows, prices: Doubles | None = None) -> Assignment:
    """The cheapest assignment. costs: (n, m), finite; capacity: (m,) whole, adding up to n or more.

    `prices` is where to start from: those of a similar problem. Deterministic: of equal agents the
    first column is taken. Raises ValueError where the capacities are too small together.
    """
    n, m = costs.shape
    limit = np.minimum(capacity, n)
    if limit.sum() < n:
        raise ValueError(f"capacities add up to {int(limit.sum())}, for {n} requests")
    if (limit == n).all():
        choice = np.argmin(costs, axis=1)
        return Assignment(choice, np.zeros(m), float(costs[np.arange(n), choice].sum()))
    used = np.flatnonzero(limit > 0)
    inner, room = costs[:, used], limit[used]
    start = _annealed_prices(inner, room) if prices is None else prices[used]
    charged = _capacity_prices(inner, room, start)
    choice = _move_excess(inner, room, np.argmin(inner + charged, axis=1), charged)
    final = np.full(m, np.inf)
    final[used] = _prices_of(inner, room, choice)
    return Assignment(used[choice], final, float(inner[np.arange(n), choice].sum()))


def _annealed_prices(costs: Doubles, limit: Rows) -> Doubles:
    """Prices at which the softmin loads are within the capacities, as the temperature falls."""
    prices: Doubles = np.zeros(len(limit))
    # A typical difference, whatever the outliers: a refused agent may cost a million times more.
    differences = costs - costs.min(axis=1, keepdims=True)
    positive = differences[differences > 0]
    temperature = float(np.median(positive)) if len(positive) else 0.0
    for _ in range(TEMPERATURES if temperature > 0 else 0):
        for _ in range(STEPS):
            shares = (costs + prices) / -temperature
            shares -= shares.max(axis=1, keepdims=True)
            np.exp(shares, out=shares)
            shares /= shares.sum(axis=1, keepdims=True)
            load = np.maximum(shares.sum(axis=0), 1e-9)
            prices = np.maximum(0.0, prices + temperature * np.log(load / limit))
        temperature /= COOLING
    return prices


def _capacity_prices(costs: Doubles, limit: Rows, start: Doubles) -> Doubles:
    """Coordinate ascent on the dual: each price in turn to where demand meets the capacity."""
    n, m = costs.shape
    prices: Doubles = start.copy()
    charged = costs + prices
    for _ in range(SWEEPS):
        before = prices.copy()
        for agent in range(m):
            if limit[agent] >= n and not prices[agent]:
                continue
            charged[:, agent] = np.inf
            # What each request would lose by going elsewhere.
            margin = charged.min(axis=1) - costs[:, agent]
            if limit[agent] >= n:
                price = 0.0
            else:
                place = n - 1 - int(limit[agent])
                price = max(0.0, float(np.partition(margin, place)[place]))
            prices[agent] = price
            charged[:, agent] = costs[:, agent] + price
        if np.allclose(prices, before, rtol=1e-9, atol=0):
            break
    return prices


def _move_excess(costs: Doubles, limit: Rows, choice: Rows, prices: Doubles) -> Rows:
    """Move requests from agents above their capacity, along cheapest paths, until none is.

    Unused capacity is filled with dummies that cost nothing anywhere; at the start they stand
    where the price is least, so that requests and dummies are all where they are cheapest.
    """
    n, m = costs.shape
    choice = choice.copy()
    counts = np.bincount(choice, minlength=m)
    dummies = _place_dummies(limit, counts, prices, int(limit.sum()) - n)
    moves = np.full((m, m), np.inf)
    stale = set(range(m))
    while True:
        surplus = counts + dummies - limit
        if not (surplus > 0).any():
            return choice
        for agent in sorted(stale):
            moves[agent] = _cheapest_moves(costs, choice, agent, dummies[agent] > 0)
        path = _cheapest_path(moves, surplus)
        amount = int(min(surplus[path[0]], -surplus[path[-1]]))
        stale = set(path)
        edges = list(pairwise(path))
        ready = [_movers(costs, choice, a, b, moves[a, b]) for a, b in edges]
        spare = [int(dummies[a]) if moves[a, b] >= 0 else 0 for a, b in edges]
        amount = max(1, min(amount, *(len(r) + s for r, s in zip(ready, spare, strict=True))))
        for (a, b), rows in zip(edges, ready, strict=True):
            moved = rows[:amount]
            choice[moved] = b
            counts[a] -= len(moved)
            counts[b] += len(moved)
            dummies[a] -= amount - len(moved)
            dummies[b] += amount - len(moved)


def _place_dummies(limit: Rows, counts: Rows, prices: Doubles, amount: int) -> Rows:
    dummies = np.zeros(len(limit), dtype=np.int64)
    cheapest = np.flatnonzero(prices <= prices.min())
    for agent in cheapest:
        dummies[agent] = min(amount, max(int(limit[agent] - counts[agent]), 0))
        amount -= int(dummies[agent])
    dummies[cheapest[0]] += amount
    return dummies


def _cheapest_moves(costs: Doubles, choice: Rows, agent: int, dummy: bool) -> Doubles:
    """(m,) the least that moving one request (or a dummy, for 0) away from an agent costs."""
    members = np.flatnonzero(choice == agent)
    least = np.full(costs.shape[1], 0.0 if dummy else np.inf)
    if len(members):
        own = costs[members]
        np.minimum(least, (own - own[:, agent : agent + 1]).min(axis=0), out=least)
    least[agent] = np.inf
    return least


def _movers(costs: Doubles, choice: Rows, origin: int, target: int, price: float) -> Rows:
    """The requests that move for the least price, first rows first."""
    members = np.flatnonzero(choice == origin)
    differences = costs[members, target] - costs[members, origin]
    return np.asarray(members[differences <= price])


def _cheapest_path(moves: Doubles, surplus: Rows) -> list[int]:
    """Agents from one above its capacity to one below it (Bellman & Ford: a move may save)."""
    m = len(moves)
    distance = np.where(surplus > 0, 0.0, np.inf)
    before = np.full(m, -1)
    for _ in range(m):
        through = distance[:, None] + moves
        best = np.argmin(through, axis=0)
        reached = through[best, np.arange(m)]
        nearer = reached < distance - 1e-12 * (1 + np.abs(reached))
        if not nearer.any():
            break
        distance[nearer], before[nearer] = reached[nearer], best[nearer]
    free = np.where(surplus < 0, distance, np.inf)
    path = [int(np.argmin(free))]
    while before[path[-1]] >= 0 and len(path) <= m:
        path.append(int(before[path[-1]]))
    return path[::-1]


def _prices_of(costs: Doubles, limit: Rows, choice: Rows) -> Doubles:
    """Prices that prove the assignment: the longest saving by freeing a place at each agent."""
    m = len(limit)
    counts = np.bincount(choice, minlength=m)
    # An agent with a place for every request needs no more, though all of them go to it.
    free = (counts < limit) | (limit >= len(choice))
    moves = np.stack(
        [_cheapest_moves(costs, choice, agent, bool(free[agent])) for agent in range(m)]
    )
    # Cost of pushing one more request out of agent a to any agent with room.
    away = np.where(free, 0.0, np.inf)
    for _ in range(m):
        shorter = np.minimum(away, (moves + away[None, :]).min(axis=1))
        if np.array_equal(shorter, away):
            break
        away = shorter
    if not free.any():
        return _prices_when_full(moves)
    return np.where(np.isfinite(away), np.maximum(away, 0.0), 0.0)


def _prices_when_full(moves: Doubles) -> Doubles:
    """Every capacity is used: prices up to a constant, with the least of them at 0."""
    m = len(moves)
    away = np.zeros(m)
    for _ in range(m):
        shorter = np.minimum(away, (moves + away[None, :]).min(axis=1))
        if np.array_equal(shorter, away):
            break
        away = shorter
    return np.asarray(away - away.min())
