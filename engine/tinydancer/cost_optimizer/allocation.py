"""How to spend a budget: a linear programme over categories of requests and agents.

    maximise    Σ q_ca x_ca
    subject to  Σ_a x_ca = demand_c        every request is served
                Σ c_ca x_ca ≤ budget
                Σ_c x_ca ≤ capacity_a
                x ≥ 0, and x_ca = 0 where agent a misses a threshold for category c

x_ca is how many requests of category c go to agent a, c the cost of one and q its expected
quality. Solved by HiGHS (Huangfu & Hall 2018) through scipy. The duals are the shadow prices.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinydancer.errors import BudgetExceeded, InvalidInput, NotReady, NumberOutOfRange

Doubles = NDArray[np.float64]
Mask = NDArray[np.bool_]
SLACK = 1e-9
MOST_ASSUMED = 1e9
"""Requests a category that are assumed at most, where next to nothing is charged for one."""
TIE = 1e-5
"""Quality that the dearest request costs in the objective: of equal plans the cheaper one wins."""


@dataclass(frozen=True, eq=False)
class Market:
    """What is on offer, for k categories of requests and m agents.

    cost: (k, m) money for one request; quality: (k, m), 0 to 1; latency_ms: (m,); capacity: (m,)
    requests in the period, infinite where there is no limit.
    """

    agents: tuple[str, ...]
    categories: tuple[str, ...]
    cost: Doubles
    quality: Doubles
    latency_ms: Doubles
    capacity: Doubles

    def __post_init__(self) -> None:
        shape = (len(self.categories), len(self.agents))
        for name, array, expected in (
            ("cost", self.cost, shape),
            ("quality", self.quality, shape),
            ("latency_ms", self.latency_ms, shape[1:]),
            ("capacity", self.capacity, shape[1:]),
        ):
            if array.shape != expected:
                raise InvalidInput(f"{name} is {array.shape}, not {expected}")
            if np.isnan(array).any() or (array < 0).any():
                raise NumberOutOfRange(f"{name} has a value that is negative or not a number")
        if not (np.isfinite(self.cost).all() and np.isfinite(self.quality).all()):
            raise NumberOutOfRange("cost and quality must be finite")


@dataclass(frozen=True)
class AgentShare:
    """What one agent gets.

    share: of the requests; allocation: money; expected_requests; expected_quality: mean over its
    requests, None where it gets none. shadow_price: quality gained in total by one more request
    of its capacity (0 where the capacity does not bind). shortfall: quality that a request served
    by it is short of being worth its place, for an agent that gets none; 0 otherwise.
    """

    agent: str
    share: float
    allocation: float
    expected_requests: float
    expected_quality: float | None
    shadow_price: float
    shortfall: float


@dataclass(frozen=True, eq=False)
class Allocation:
    """The plan. budget_shadow_price: quality gained in total by one more unit of money.

    requests: (k, m) of each category to each agent. demand_source: 'given' or 'assumed'.
    """

    agents: tuple[AgentShare, ...]
    requests: Doubles
    demand: Doubles
    demand_source: str
    budget: float
    spent: float
    expected_quality: float
    budget_shadow_price: float


def allocate_budget(
    market: Market,
    budget: float,
    *,
    demand: Doubles | None = None,
    quality_threshold: float = 0.0,
    latency_threshold_ms: float = float("inf"),
) -> Allocation:
    """The allocation of greatest expected quality that serves all the demand.

    demand: (k,) requests of each category in the period, from history or a forecast. Without one
    (no history) it is assumed: as many requests as the budget pays for at the mean cost of the
    agents within the thresholds, spread evenly over the categories (one a category where those
    are free), less where capacities make that dearer. Both thresholds hold for each agent that
    serves a category.

    Raises NotReady where no agent is within the thresholds or capacity binds, BudgetExceeded
    where serving the demand costs more than the budget; each says what would be enough.
    """
    _check_limits(budget, quality_threshold, latency_threshold_ms)
    if not market.agents or not market.categories:
        raise NotReady("there is no agent to allocate a budget to", hint="Register one first.")
    eligible = (market.quality >= quality_threshold) & (market.latency_ms <= latency_threshold_ms)
    _check_eligible(market, eligible, demand, quality_threshold, latency_threshold_ms)
    source = "given" if demand is not None else "assumed"
    demand = _assumed_demand(market, eligible, budget) if demand is None else demand
    if demand.shape != (len(market.categories),) or not np.isfinite(demand).all():
        raise InvalidInput(f"demand must be {len(market.categories)} finite numbers")
    if (demand < 0).any():
        raise NumberOutOfRange("demand must not be negative")
    programme = _Programme(market, eligible, demand)
    solution = programme.solve(budget)
    if solution is None and source == "assumed":
        demand = _affordable(programme, market, eligible, demand, budget)
        programme = _Programme(market, eligible, demand)
        solution = programme.solve(budget)
    if solution is None:
        raise _binding(programme, market, demand, budget)
    return _allocation(market, eligible, demand, source, budget, solution)


@dataclass(frozen=True, eq=False)
class _Solution:
    """requests: (k, m); the duals: (k,) of demand, (m,) of capacity, one of the budget, all ≥ 0
    but the first.
    """

    requests: Doubles
    demand_price: Doubles
    capacity_price: Doubles
    budget_price: float


class _Programme:
    """The linear programme over the eligible pairs of category and agent."""

    def __init__(self, market: Market, eligible: Mask, demand: Doubles) -> None:
        self._market = market
        self._demand = demand
        self._categories, self._agents = np.nonzero(eligible)
        self._quality = market.quality[eligible]
        self._cost = market.cost[eligible]

    def solve(self, budget: float) -> _Solution | None:
        """The best plan, or None where there is none."""
        tie = TIE * self._cost / max(float(self._cost.max()), 1e-300)
        found = self._highs(tie - self._quality, budget=budget)
        if found is None:
            return None
        requests = np.zeros_like(self._market.cost)
        requests[self._categories, self._agents] = np.maximum(found.x, 0.0)
        limits = -found.ineqlin.marginals
        capacity = np.zeros(len(self._market.agents))
        capacity[self._limited] = np.maximum(limits[1:], 0.0)
        return _Solution(requests, -found.eqlin.marginals, capacity, max(float(limits[0]), 0.0))

    def least_cost(self) -> float | None:
        """What serving the demand costs at least; None where capacity does not allow it."""
        found = self._highs(self._cost, budget=None)
        return None if found is None else float(found.fun)

    def most_served(self) -> tuple[float, list[str]]:
        """How many requests can be served at most, whatever they cost, and who is full then."""
        found = self._highs(-np.ones(len(self._cost)), budget=None, serve_all=False)
        prices = -found.ineqlin.marginals[1 : 1 + len(self._limited)]
        return float(-found.fun), [self._market.agents[a] for a in self._limited[prices > SLACK]]

    @property
    def _limited(self) -> NDArray[np.int64]:
        return np.flatnonzero(np.isfinite(self._market.capacity))

    def _highs(self, objective: Doubles, *, budget: float | None, serve_all: bool = True) -> Any:
        linprog, csr, vstack = _scipy()
        pairs = np.arange(len(self._cost))
        ones = np.ones(len(pairs))
        shape = (len(self._demand), len(pairs))
        served = csr((ones, (self._categories, pairs)), shape=shape)
        by_agent = csr((ones, (self._agents, pairs)), shape=(len(self._market.agents), len(pairs)))
        limited = self._limited
        money = csr(self._cost[None] * (budget is not None))
        found = linprog(
            objective,
            A_ub=vstack([money, by_agent[limited], *([] if serve_all else [served])], format="csr"),
            b_ub=np.concatenate(
                [
                    [budget or 0.0],
                    self._market.capacity[limited],
                    *([] if serve_all else [self._demand]),
                ]
            ),
            A_eq=served if serve_all else None,
            b_eq=self._demand if serve_all else None,
            bounds=(0, None),
            method="highs",
        )
        if found.status == 2:
            return None
        if found.status != 0:
            raise NotReady(f"the linear programme was not solved: {found.message}")
        return found


def _scipy() -> tuple[Callable[..., Any], Callable[..., Any], Callable[..., Any]]:
    try:
        from scipy.optimize import linprog
        from scipy.sparse import csr_matrix, vstack
    except ImportError as error:
        raise NotReady(
            "allocating a budget needs scipy, and the engine's Python does not have it",
            hint="Install it where the engine runs: pip install 'tinydancer-router[optimize]'",
        ) from error
    return linprog, csr_matrix, vstack


def _check_limits(budget: float, quality: float, latency: float) -> None:
    if not (np.isfinite(budget) and budget > 0):
        raise NumberOutOfRange(f"a budget must be a finite amount above 0, not {budget}")
    if not 0 <= quality <= 1:
        raise NumberOutOfRange(f"quality_threshold must be from 0 to 1, not {quality}")
    if not latency > 0:
        raise NumberOutOfRange(f"latency_threshold_ms must be above 0, not {latency}")


def _check_eligible(
    market: Market,
    eligible: Mask,
    demand: Doubles | None,
    quality_threshold: float,
    latency_threshold_ms: float,
) -> None:
    wanted = np.ones(len(market.categories), np.bool_) if demand is None else demand > 0
    for row in np.flatnonzero(wanted & ~eligible.any(axis=1)):
        fast = market.latency_ms <= latency_threshold_ms
        good = market.quality[row] >= quality_threshold
        category = market.categories[row]
        if not good.any():
            best = int(np.argmax(market.quality[row]))
            raise NotReady(
                f"quality_threshold binds: no agent reaches {quality_threshold:g} for "
                f"{category!r}; the best is {market.agents[best]} "
                f"with {market.quality[row, best]:.3f}",
                hint="Lower quality_threshold, or register a better agent.",
            )
        if not fast.any():
            quickest = int(np.argmin(market.latency_ms))
            raise NotReady(
                f"latency_threshold_ms binds: no agent is within {latency_threshold_ms:g} ms; "
                f"the quickest is {market.agents[quickest]} with "
                f"{market.latency_ms[quickest]:g} ms",
                hint="Raise latency_threshold_ms, or register a quicker agent.",
            )
        quickest = int(np.argmin(np.where(good, market.latency_ms, np.inf)))
        raise NotReady(
            f"quality_threshold and latency_threshold_ms bind together for {category!r}: of the "
            f"agents that reach {quality_threshold:g} the quickest is {market.agents[quickest]} "
            f"with {market.latency_ms[quickest]:g} ms, above {latency_threshold_ms:g} ms",
            hint="Lower quality_threshold or raise latency_threshold_ms.",
        )


def _assumed_demand(market: Market, eligible: Mask, budget: float) -> Doubles:
    k = len(market.categories)
    mean_costs = (market.cost * eligible).sum(axis=1) / eligible.sum(axis=1)
    total = float(mean_costs.sum())
    affordable = budget / max(total, budget / MOST_ASSUMED) if total > 0 else 1.0
    room = np.where(eligible.any(axis=0), market.capacity, 0.0).sum() / k
    return np.full(k, min(affordable, float(room)))


def _affordable(
    programme: _Programme, market: Market, eligible: Mask, demand: Doubles, budget: float
) -> Doubles:
    """The assumed demand, scaled to what capacities and budget allow.

    The least cost is convex in the scale and 0 at 0, so a share of the demand costs at most that
    share of its cost.
    """
    least = programme.least_cost()
    while least is None and demand.any():
        demand = np.where(demand > SLACK, demand / 2, 0.0)
        least = _Programme(market, eligible, demand).least_cost()
    if least is not None and least > budget:
        demand = demand * (budget / least) * (1 - SLACK)
    return demand


def _binding(
    programme: _Programme, market: Market, demand: Doubles, budget: float
) -> BudgetExceeded | NotReady:
    """Which constraint makes it infeasible, found by relaxing the budget, then the capacities."""
    least = programme.least_cost()
    if least is not None:
        return BudgetExceeded(
            f"budget binds: serving {demand.sum():g} requests within the thresholds and "
            f"capacities costs at least {least:.9g}, above the budget of {budget:g}",
            hint="Raise the budget, lower the thresholds, or forecast fewer requests.",
        )
    served, full = programme.most_served()
    return NotReady(
        f"capacity binds: of {demand.sum():g} requests the agents within the thresholds can serve "
        f"{served:g}; {', '.join(full[:5])} would have to take more",
        hint="Raise capacities, lower the thresholds, or forecast fewer requests.",
    )


def _allocation(
    market: Market,
    eligible: Mask,
    demand: Doubles,
    source: str,
    budget: float,
    solution: _Solution,
) -> Allocation:
    requests = solution.requests
    money = market.cost * requests
    total = max(float(requests.sum()), 1e-300)
    # What serving a request by this agent is worth, less what it takes from the others.
    worth = (
        market.quality
        - solution.budget_price * market.cost
        - solution.capacity_price
        - solution.demand_price[:, None]
    )
    shortfall = -np.where(eligible, worth, -np.inf).max(axis=0)
    agents = []
    for column, agent in enumerate(market.agents):
        served = float(requests[:, column].sum())
        quality = float((market.quality[:, column] * requests[:, column]).sum())
        used = served > SLACK * total
        agents.append(
            AgentShare(
                agent=agent,
                share=served / total,
                allocation=float(money[:, column].sum()),
                expected_requests=served,
                expected_quality=quality / served if used else None,
                shadow_price=float(solution.capacity_price[column]),
                shortfall=0.0 if used else max(float(shortfall[column]), 0.0),
            )
        )
    return Allocation(
        agents=tuple(agents),
        requests=requests,
        demand=demand,
        demand_source=source,
        budget=budget,
        spent=float(money.sum()),
        expected_quality=float((market.quality * requests).sum() / total),
        budget_shadow_price=solution.budget_price,
    )
