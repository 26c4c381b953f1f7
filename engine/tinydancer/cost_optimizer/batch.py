"""A batch decided as a whole: least total cost under a quality floor, a budget and capacities.

    minimise Σ c_i,x(i)   with   Σ q_i,x(i) ≥ floor n,   each agent at most its capacity

The floor is priced: with λ on quality what is left is an assignment (assignment.py), solved
exactly. λ comes from LARAC (Jüttner et al. 2001): the two best assignments so far, one below the
floor and one that holds it, are two lines of the Lagrangian dual, and where they cross is the next
λ. What rounding leaves is stated: `bound` is a cost that no assignment can be below.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tinydancer.agents.cost import DECIMALS
from tinydancer.cost_optimizer.assignment import Assignment, assign
from tinydancer.errors import BudgetExceeded, InvalidInput, NotReady, NumberOutOfRange

Doubles = NDArray[np.float64]
Mask = NDArray[np.bool_]
Rows = NDArray[np.int64]
MOST_STEPS = 50
MOST_MOVES = 1000
PRECISION = 1e-6
"""How near the best price of quality must be, as a share of the cost, for the search to end."""
SLACK = 1e-9
"""Rounding that is forgiven when quality is held against the floor, relative to it."""


@dataclass(frozen=True, eq=False)
class BatchPlan:
    """choice: (n,) the agent of each request.

    bound: no assignment under these limits costs less, so `total_cost - bound` is the most that
    could be saved. quality_price: money for one more unit of summed quality at the optimum.
    capacity_prices: (m,) money saved by one more place at each agent; infinite where it has none.
    """

    choice: Rows
    total_cost: float
    mean_quality: float
    bound: float
    quality_price: float
    capacity_prices: Doubles


def optimise_batch(
    costs: Doubles,
    quality: Doubles,
    *,
    allowed: Mask | None = None,
    min_mean_quality: float | None = None,
    budget: float | None = None,
    capacity: Rows | None = None,
) -> BatchPlan:
    """The cheapest agents for n requests as a batch. Deterministic; O(n m) a step.

    costs: (n, m) money; quality: (n, m), 0 to 1, or (m,); allowed: (n, m), which agents may serve
    which request; capacity: (m,) requests. Raises NotReady where a request has no agent, where
    capacities are too small or the floor is out of reach (it says what can be reached), and
    BudgetExceeded where even the cheapest assignment is dearer than the budget.
    """
    problem = _Problem.checked(costs, quality, allowed, capacity)
    if not len(costs):
        return BatchPlan(np.empty(0, np.int64), 0.0, 0.0, 0.0, 0.0, np.zeros(costs.shape[1]))
    cheapest = problem.solve(0.0)
    if min_mean_quality is None or problem.holds(cheapest.choice, min_mean_quality):
        plan = problem.plan(cheapest.choice, problem.cost(cheapest.choice), 0.0, cheapest.prices)
    else:
        plan = _with_floor(problem, cheapest, min_mean_quality)
    # Held to what is booked: money has DECIMALS digits, and a sum of doubles a rounding.
    if budget is not None and round(plan.total_cost, DECIMALS) > budget:
        floor = "" if min_mean_quality is None else f" at a mean quality of {min_mean_quality:g}"
        raise BudgetExceeded(
            f"the budget of {budget:g} is too small for {len(costs)} requests: the cheapest "
            f"assignment{floor} costs {plan.total_cost:.9g}",
            hint="Raise the budget, lower the quality floor, or route fewer requests.",
        )
    return plan


@dataclass(frozen=True, eq=False)
class _Problem:
    """Checked input; refused cells cost `refusal`, more than any assignment can save."""

    costs: Doubles
    quality: Doubles
    allowed: Mask
    capacity: Rows

    @classmethod
    def checked(
        cls, costs: Doubles, quality: Doubles, allowed: Mask | None, capacity: Rows | None
    ) -> _Problem:
        """Raises InvalidInput, NumberOutOfRange or NotReady."""
        n, m = costs.shape
        if not m:
            raise NotReady("there is no agent to assign requests to")
        quality = np.broadcast_to(quality, costs.shape)
        allowed = np.ones((n, m), np.bool_) if allowed is None else allowed
        if allowed.shape != costs.shape:
            raise InvalidInput(f"allowed is {allowed.shape}, costs are {costs.shape}")
        if not (np.isfinite(costs).all() and (costs >= 0).all()):
            raise NumberOutOfRange("costs must be finite and not negative")
        if not np.isfinite(quality).all():
            raise NumberOutOfRange("quality must be finite")
        capacity = np.full(m, n, np.int64) if capacity is None else capacity
        if capacity.shape != (m,) or (capacity < 0).any():
            raise NumberOutOfRange(f"capacity must be {m} whole numbers of 0 or more")
        if int(np.minimum(capacity, n).sum()) < n:
            raise NotReady(
                f"capacity binds: {int(capacity.sum())} places in all for {n} requests",
                hint="Raise the agents' capacities, or route fewer requests.",
            )
        alone = np.flatnonzero(~allowed.any(axis=1))
        if len(alone):
            raise NotReady(f"no agent may serve request {alone[0] + 1} ({len(alone)} such in all)")
        return cls(costs, quality, allowed, capacity)

    def cost(self, choice: Rows) -> float:
        """Money of an assignment."""
        return float(self.costs[np.arange(len(choice)), choice].sum())

    def total_quality(self, choice: Rows) -> float:
        """Summed quality of an assignment."""
        return float(self.quality[np.arange(len(choice)), choice].sum())

    def holds(self, choice: Rows, floor: float) -> bool:
        """Whether the mean quality is at least the floor."""
        return self.total_quality(choice) >= floor * len(choice) * (1 - SLACK)

    def solve(self, price: float, prices: Doubles | None = None) -> Assignment:
        """The assignment of least cost - price x quality."""
        return self._assign(self.costs - price * self.quality, prices)

    def best_quality(self) -> Assignment:
        """The assignment of greatest quality; among those, about the cheapest."""
        spread = float(np.ptp(self.costs)) or 1.0
        return self._assign(self.costs * (1e-7 / spread) - self.quality, None)

    def plan(self, choice: Rows, bound: float, price: float, prices: Doubles) -> BatchPlan:
        """The plan that an assignment is."""
        cost = self.cost(choice)
        return BatchPlan(
            choice=choice,
            total_cost=cost,
            mean_quality=self.total_quality(choice) / len(choice),
            bound=min(bound, cost),
            quality_price=price,
            capacity_prices=prices,
        )

    def _assign(self, values: Doubles, prices: Doubles | None) -> Assignment:
        if self.allowed.all():
            return assign(values, self.capacity, prices)
        refusal = (float(np.ptp(values)) + 1e-9) * (len(values) + 1) + float(values.max())
        found = assign(np.where(self.allowed, values, refusal), self.capacity, prices)
        if not self.allowed[np.arange(len(values)), found.choice].all():
            raise NotReady(
                "capacity binds: the agents that may serve some of the requests are full",
                hint="Raise their capacities, or allow other agents.",
            )
        return found


def _with_floor(problem: _Problem, cheapest: Assignment, floor: float) -> BatchPlan:
    best = problem.best_quality()
    needed = floor * len(best.choice)
    if not problem.holds(best.choice, floor):
        reached = problem.total_quality(best.choice) / len(best.choice)
        raise NotReady(
            f"the quality floor of {floor:g} is out of reach: the best assignment has a mean "
            f"quality of {reached:.4f}",
            hint="Lower the floor, or raise the capacity of better agents.",
        )
    below, above = cheapest, best
    price, bound = 0.0, problem.cost(cheapest.choice)
    prices: Doubles | None = cheapest.prices
    for _ in range(MOST_STEPS):
        gained = problem.total_quality(above.choice) - problem.total_quality(below.choice)
        step = (problem.cost(above.choice) - problem.cost(below.choice)) / gained
        found = problem.solve(step, prices)
        lagrangian = problem.cost(found.choice) + step * (
            needed - problem.total_quality(found.choice)
        )
        prices = found.prices
        corner = problem.cost(below.choice) + step * (needed - problem.total_quality(below.choice))
        if lagrangian > bound:
            price, bound = step, lagrangian
        if lagrangian >= corner - PRECISION * abs(corner):
            break
        if problem.holds(found.choice, floor):
            above = found
        else:
            below = found
    candidates = [
        _spend_slack(problem, above.choice, needed),
        _spend_slack(problem, _reach_floor(problem, below.choice, needed), needed),
    ]
    choice = min((c for c in candidates if problem.holds(c, floor)), key=problem.cost)
    return problem.plan(choice, bound, price, above.prices if prices is None else prices)


def _reach_floor(problem: _Problem, start: Rows, needed: float) -> Rows:
    """Single moves that gain quality at the least money for it, until the floor holds."""
    moves = _Moves(problem, start)
    # Moves only gain: no later one gains more than the greatest of the first.
    most = float(moves.gained.max())
    missing = needed - problem.total_quality(moves.choice)
    rate = moves.rate(missing)
    best = rate.min(axis=1)
    for _ in range(MOST_MOVES):
        if missing <= SLACK * abs(needed):
            break
        row = int(best.argmin())
        column = int(rate[row].argmin())
        if not np.isfinite(rate[row, column]):
            break
        others_too = moves.move(row, column)
        missing = needed - problem.total_quality(moves.choice)
        if others_too or missing < most:
            rate = moves.rate(missing)
            best = rate.min(axis=1)
        else:
            rate[row] = moves.rate(missing, row)
            best[row] = rate[row].min()
    return moves.choice


def _spend_slack(problem: _Problem, start: Rows, needed: float) -> Rows:
    """Single moves that save money while the floor still holds, the largest saving first."""
    moves = _Moves(problem, start)
    for _ in range(MOST_MOVES):
        slack = problem.total_quality(moves.choice) - needed
        possible = (moves.gained >= -slack) & (moves.spent < 0)
        if slack < 0 or not possible.any():
            break
        saving = np.where(possible, moves.spent, 0.0)
        row, column = np.unravel_index(int(np.argmin(saving)), saving.shape)
        moves.move(int(row), int(column))
    return moves.choice


class _Moves:
    """All moves of one request: (n, m) money `spent`, inf where closed, and quality `gained`."""

    def __init__(self, problem: _Problem, start: Rows) -> None:
        self._problem = problem
        self.choice: Rows = start.copy()
        self._counts = np.bincount(start, minlength=len(problem.capacity))
        self._look()

    def move(self, row: int, column: int) -> bool:
        """Make a move; whether it changed what other requests may do, as an agent filled or not."""
        before = self._counts < self._problem.capacity
        self._counts[self.choice[row]] -= 1
        self._counts[column] += 1
        self.choice[row] = column
        if (before != (self._counts < self._problem.capacity)).any():
            self._look()
            return True
        self.spent[row], self.gained[row] = self._of(np.array([row]))
        return False

    def rate(self, missing: float, row: int | slice = slice(None)) -> Doubles:
        """Money for each unit of quality that is missing; inf where a move gains none."""
        useful = np.minimum(self.gained[row], missing)
        with np.errstate(divide="ignore", invalid="ignore"):
            rate: Doubles = np.where(useful > 0, self.spent[row] / useful, np.inf)
        return rate

    def _look(self) -> None:
        self.spent, self.gained = self._of(np.arange(len(self.choice)))

    def _of(self, rows: Rows) -> tuple[Doubles, Doubles]:
        problem, chosen = self._problem, self.choice[rows]
        open_to = problem.allowed[rows] & (self._counts < problem.capacity)
        costs, quality = problem.costs[rows], problem.quality[rows]
        places = np.arange(len(rows))
        spent = np.where(open_to, costs - costs[places, chosen][:, None], np.inf)
        return spent, quality - quality[places, chosen][:, None]
