"""Several agents for one request: in a row, side by side, or all on the same task.

pipeline: each stage works on what the one before made; cost and latency add up.
parallel: independent parts at once; cost adds up, latency is the slowest member's.
ensemble: all members on the same task; cost adds up, latency is the slowest member's, and the
team succeeds where any member does (the chance that most do is given beside it).

A pipeline or a parallel team succeeds where every member does. Limits hold for the whole team.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from math import comb

import numpy as np
from numpy.typing import NDArray

from tinydancer.cost_optimizer.assignment import assign
from tinydancer.errors import InvalidInput
from tinydancer.teams.decomposition import Part
from tinydancer.teams.joint_success import Correlations, JointSuccess, joint_success

Doubles = NDArray[np.float64]
Mask = NDArray[np.bool_]

STRATEGIES = ("pipeline", "parallel", "ensemble")
MOST_AGENTS = 16
SHORTLIST = 10
"""Agents of each kind (best, cheapest, fastest, surest) that a place is filled from."""
MOST_STEPS = 200_000
"""Partial teams that are looked at; beyond, the best team so far is given and `exact` is false."""
MOST_ENSEMBLES = 5_000
SLACK = 1e-9


@dataclass(frozen=True, eq=False)
class Bids:
    """What each of m agents would do for each of k places.

    All (k, m): cost in money, latency_ms, success from 0 to 1, score (what the policy maximises,
    larger is better), allowed. Agents are in the order of their names, which breaks ties.
    """

    cost: Doubles
    latency_ms: Doubles
    success: Doubles
    score: Doubles
    allowed: Mask


@dataclass(frozen=True)
class Limits:
    """What the team as a whole must keep to; None where there is no limit.

    `budget` is what limits the cost, in words, where that is no max_cost of the request.
    """

    max_cost: float | None = None
    max_latency_ms: float | None = None
    min_quality: float | None = None
    budget: str | None = None


@dataclass(frozen=True)
class Member:
    """An agent at its place. agent: column of the bids."""

    part: Part
    agent: int
    cost: float
    latency_ms: float
    success: float
    score: float


@dataclass(frozen=True)
class Team:
    """The plan. quality: chance that the team succeeds. refusal: why there is no team, or ''.

    joint: for an ensemble, with its correlation. exact: every team was considered.
    """

    strategy: str
    members: tuple[Member, ...]
    cost: float
    latency_ms: float
    quality: float
    joint: JointSuccess | None
    exact: bool
    refusal: str


def check_request(strategy: str, num_agents: int, available: int) -> None:
    """Raises InvalidInput for a strategy that is none and a number of agents that can't be.

    Where no agent is available any number is too many: that is a refusal and no wrong argument.
    """
    if strategy not in STRATEGIES:
        raise InvalidInput(
            f"unknown strategy {strategy!r}", hint=f"Use one of: {', '.join(STRATEGIES)}."
        )
    most = min(available, MOST_AGENTS) if available else MOST_AGENTS
    if not 1 <= num_agents <= most:
        raise InvalidInput(
            f"num_agents must be from 1 to {most}, not {num_agents}",
            detail=f"{available} agents can serve; a team has at most {MOST_AGENTS}.",
            hint="Ask for fewer agents, or register more.",
        )


def form_team(strategy: str, parts: Sequence[Part], bids: Bids, limits: Limits) -> Team:
    """A pipeline or a parallel team: a different agent for each part, greatest sum of scores.

    Branch and bound over a shortlist for each place (the agents with the best score, least cost,
    least latency and greatest success). Deterministic; of equal teams the first by name.
    """
    search = _Search(strategy, bids, limits)
    chosen = search.run()
    if chosen is None:
        return _refused(strategy, bids, limits, search.exact)
    rows = np.arange(len(chosen))
    picked = np.array(chosen)
    members = tuple(
        Member(
            part,
            agent,
            float(bids.cost[row, agent]),
            float(bids.latency_ms[row, agent]),
            float(bids.success[row, agent]),
            float(bids.score[row, agent]),
        )
        for row, (part, agent) in enumerate(zip(parts, chosen, strict=True))
    )
    latencies = bids.latency_ms[rows, picked]
    return Team(
        strategy=strategy,
        members=members,
        cost=float(bids.cost[rows, picked].sum()),
        latency_ms=float(latencies.sum() if strategy == "pipeline" else latencies.max()),
        quality=float(bids.success[rows, picked].prod()),
        joint=None,
        exact=search.exact,
        refusal="",
    )


def form_ensemble(
    part: Part, size: int, bids: Bids, correlations: Correlations, limits: Limits
) -> Team:
    """`size` different agents on one task with the greatest chance that any succeeds.

    bids: (1, m). The correlation of a team is the mean of its pairs'. All teams of the shortlist
    are compared where there are at most MOST_ENSEMBLES, else members are added one by one, each
    time the one that helps most.
    """
    cost, latency, success = bids.cost[0], bids.latency_ms[0], bids.success[0]
    allowed = bids.allowed[0].copy()
    if limits.max_latency_ms is not None:
        allowed &= latency <= limits.max_latency_ms * (1 + SLACK)
    pool = _shortlist(cost, latency, success, bids.score[0], allowed, size)
    exact = len(pool) == int(allowed.sum()) and comb(len(pool), size) <= MOST_ENSEMBLES
    best: tuple[float, float, tuple[int, ...]] | None = None
    for team in _ensembles(pool, size, cost, success, correlations, limits.max_cost):
        spent = float(cost[list(team)].sum())
        if limits.max_cost is not None and spent > limits.max_cost * (1 + SLACK):
            continue
        chance = _joint(team, success, correlations).any
        rank = (-round(chance, 9), spent, team)
        best = rank if best is None else min(best, rank)
    if best is None:
        return _refused("ensemble", bids, limits, exact, size)
    team = best[2]
    joint = _joint(team, success, correlations)
    if limits.min_quality is not None and joint.any < limits.min_quality - SLACK:
        refusal = f"min_quality {limits.min_quality:g}: the best ensemble reaches {joint.any:.4f}"
        return Team("ensemble", (), 0.0, 0.0, joint.any, joint, exact, refusal)
    members = tuple(
        Member(
            part,
            agent,
            float(cost[agent]),
            float(latency[agent]),
            float(success[agent]),
            float(bids.score[0, agent]),
        )
        for agent in sorted(team, key=lambda agent: (-success[agent], agent))
    )
    return Team(
        strategy="ensemble",
        members=members,
        cost=float(cost[list(team)].sum()),
        latency_ms=float(latency[list(team)].max()),
        quality=joint.any,
        joint=joint,
        exact=exact,
        refusal="",
    )


class _Search:
    """Depth first over the places, in order, with a bound on what the rest can still add."""

    def __init__(self, strategy: str, bids: Bids, limits: Limits) -> None:
        self._bids = bids
        self._adds_latency = strategy == "pipeline"
        self._cost = np.inf if limits.max_cost is None else limits.max_cost * (1 + SLACK)
        latency = np.inf if limits.max_latency_ms is None else limits.max_latency_ms
        self._latency = latency * (1 + SLACK)
        self._quality = 0.0 if limits.min_quality is None else limits.min_quality * (1 - SLACK)
        allowed = bids.allowed & (bids.latency_ms <= self._latency) & (bids.cost <= self._cost)
        places = len(bids.cost)
        self._lists = [
            _shortlist(
                bids.cost[row],
                bids.latency_ms[row],
                bids.success[row],
                bids.score[row],
                allowed[row],
                places,
            )
            for row in range(places)
        ]
        self.exact = all(
            len(listed) == int(row.sum()) for listed, row in zip(self._lists, allowed, strict=True)
        )
        self._rest = self._bounds()
        self._best: tuple[float, tuple[int, ...]] | None = None
        self._steps = 0

    def run(self) -> tuple[int, ...] | None:
        """The agents in the order of the places, or None."""
        if all(self._lists):
            self._extend((), 0.0, 0.0, 1.0, 0.0)
        return None if self._best is None else self._best[1]

    def _bounds(self) -> list[tuple[float, float, float, float]]:
        """After each place: the least cost and latency, the greatest success and score to come."""
        bounds = [(0.0, 0.0, 1.0, 0.0)]
        for row in range(len(self._lists) - 1, -1, -1):
            listed = self._lists[row]
            if not listed:
                return [(np.inf, np.inf, 0.0, -np.inf)] * (len(self._lists) + 1)
            cost, latency, success, score = bounds[0]
            least = float(self._bids.latency_ms[row, listed].min())
            bounds.insert(
                0,
                (
                    cost + float(self._bids.cost[row, listed].min()),
                    latency + least if self._adds_latency else max(latency, least),
                    success * float(self._bids.success[row, listed].max()),
                    score + float(self._bids.score[row, listed].max()),
                ),
            )
        return bounds

    def _extend(
        self, team: tuple[int, ...], cost: float, latency: float, success: float, score: float
    ) -> None:
        row = len(team)
        if row == len(self._lists):
            if self._best is None or score > self._best[0] + 1e-12:
                self._best = (score, team)
            return
        rest_cost, rest_latency, rest_success, rest_score = self._rest[row + 1]
        for agent in self._lists[row]:
            if agent in team:
                continue
            self._steps += 1
            if self._steps > MOST_STEPS:
                self.exact = False
                return
            own = float(self._bids.latency_ms[row, agent])
            new_cost = cost + float(self._bids.cost[row, agent])
            new_latency = latency + own if self._adds_latency else max(latency, own)
            new_success = success * float(self._bids.success[row, agent])
            new_score = score + float(self._bids.score[row, agent])
            longest = new_latency + rest_latency if self._adds_latency else new_latency
            if (
                new_cost + rest_cost > self._cost
                or longest > self._latency
                or new_success * rest_success < self._quality
                or (self._best is not None and new_score + rest_score <= self._best[0] + 1e-12)
            ):
                continue
            self._extend((*team, agent), new_cost, new_latency, new_success, new_score)


def _shortlist(
    cost: Doubles, latency: Doubles, success: Doubles, score: Doubles, allowed: Mask, places: int
) -> list[int]:
    """Columns worth considering for a place, best score first; at least `places` of each kind."""
    count = max(SHORTLIST, places)
    kept: set[int] = set()
    for key in (-score, cost, latency, -success):
        ranked = np.argsort(np.where(allowed, key, np.inf), kind="stable")[:count]
        kept.update(int(column) for column in ranked if allowed[column])
    return sorted(kept, key=lambda column: (-score[column], column))


def _ensembles(
    pool: Sequence[int],
    size: int,
    cost: Doubles,
    success: Doubles,
    correlations: Correlations,
    max_cost: float | None,
) -> list[tuple[int, ...]]:
    """Teams of the pool to compare, as sorted columns."""
    if comb(len(pool), size) <= MOST_ENSEMBLES:
        return [tuple(sorted(team)) for team in combinations(pool, size)]
    budget = np.inf if max_cost is None else max_cost * (1 + SLACK)
    team: tuple[int, ...] = ()
    while len(team) < size:
        left = size - len(team) - 1
        options = []
        for agent in pool:
            others = sorted(cost[a] for a in pool if a not in team and a != agent)
            if agent in team or len(others) < left:
                continue
            if cost[[*team, agent]].sum() + sum(others[:left]) > budget:
                continue
            joined = (*team, agent)
            options.append((-_joint(joined, success, correlations).any, cost[agent], agent))
        if not options:
            return []
        team = (*team, min(options)[2])
    return [tuple(sorted(team))]


def _joint(team: Sequence[int], success: Doubles, correlations: Correlations) -> JointSuccess:
    columns = list(team)
    pairs = correlations.values[np.ix_(columns, columns)]
    above = pairs[np.triu_indices(len(columns), 1)]
    return joint_success(success[columns], float(above.mean()) if len(above) else 0.0)


def no_team(strategy: str, refusal: str, *, exact: bool = True) -> Team:
    """A team without members, and why."""
    return Team(strategy, (), 0.0, 0.0, 0.0, None, exact, refusal)


def _refused(
    strategy: str, bids: Bids, limits: Limits, exact: bool, size: int | None = None
) -> Team:
    """No team, and the first limit that no team can keep to when it stands alone."""
    size = len(bids.cost) if size is None else size
    empty = np.flatnonzero(~bids.allowed.any(axis=1))
    if len(empty):
        reason = f"no agent may take place {empty[0] + 1}"
    else:
        reason = _binding(strategy, bids, limits, size)
    return no_team(strategy, reason, exact=exact)


def _binding(strategy: str, bids: Bids, limits: Limits, size: int) -> str:
    rows = [0] * size if strategy == "ensemble" else list(range(size))
    cheapest = _least_sum(bids.cost, bids.allowed, rows)
    if limits.max_cost is not None and cheapest > limits.max_cost:
        limit = limits.budget or f"max_cost {limits.max_cost:g}"
        return f"{limit}: the cheapest team costs at least {cheapest:.9g}"
    if strategy == "pipeline":
        least = _least_sum(bids.latency_ms, bids.allowed, rows)
    else:
        quickest = np.where(bids.allowed, bids.latency_ms, np.inf)
        least = float(max(np.sort(quickest[row])[rows.count(row) - 1] for row in rows))
    if limits.max_latency_ms is not None and least > limits.max_latency_ms:
        return (
            f"max_latency_ms {limits.max_latency_ms:g}: the quickest team takes at least "
            f"{least:g} ms"
        )
    if limits.min_quality is not None and strategy != "ensemble":
        chances = np.maximum(bids.success, 1e-12)
        surest = float(np.exp(-_least_sum(-np.log(chances), bids.allowed, rows)))
        if surest < limits.min_quality:
            return (
                f"min_quality {limits.min_quality:g}: the chance that all members succeed is at "
                f"most {surest:.4f}"
            )
    return "no team of different agents keeps to all limits together"


def _least_sum(values: Doubles, allowed: Mask, rows: Sequence[int]) -> float:
    """The least sum over different agents, one a row; infinite where there are too few."""
    refused = (float(np.ptp(values)) + 1.0) * (len(rows) + 1) + float(values.max())
    costs = np.where(allowed, values, refused)[list(rows)]
    if costs.shape[1] < len(rows):
        return float("inf")
    found = assign(costs, np.ones(costs.shape[1], np.int64))
    places = np.arange(len(rows))
    possible = allowed[list(rows)][places, found.choice].all()
    return found.cost if possible else float("inf")
