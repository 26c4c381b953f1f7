"""How good a routing is, as the field measures it. Pure functions of scores and costs.

APGR, CPT: Ong et al. 2024, "RouteLLM: Learning to Route LLMs with Preference Data", section 3.
AIQ: Hu et al. 2024, "RouterBench: A Benchmark for Multi-LLM Routing System", section 3.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Doubles = NDArray[np.float64]
GRID = 201
"""Costs at which paths of several folds are averaged."""


@dataclass(frozen=True, eq=False)
class Curve:
    """Points from cheap to dear, joined by lines. x: share of strong calls or mean cost; y: mean.

    A line between two points is what a router reaches by tossing a coin between them.
    """

    x: Doubles
    y: Doubles

    def at(self, x: float) -> float:
        """The value at x."""
        return float(np.interp(x, self.x, self.y))

    @property
    def area(self) -> float:
        """The mean height: the area under the curve over its width."""
        width = self.x[-1] - self.x[0]
        if width <= 0:
            return float(self.y[-1])
        return float(np.sum(np.diff(self.x) * (self.y[1:] + self.y[:-1]) / 2) / width)


def strong_call_curve(preference: Doubles, weak: Doubles, strong: Doubles) -> Curve:
    """Mean score against the share of requests sent to the strong model, most preferred first.

    All (n,). Requests of equal preference go together, so that their order can't matter.
    """
    n = len(preference)
    order = np.argsort(-preference, kind="stable")
    scores = weak.sum() + np.concatenate([[0.0], np.cumsum((strong - weak)[order])])
    ends = np.flatnonzero(np.diff(preference[order], append=np.nan) != 0) + 1
    kept = np.concatenate([[0], ends])
    return Curve(kept / n, scores[kept] / n)


def gap_recovered(curve: Curve) -> Curve | None:
    """The curve with y as the share of the gap between weak and strong (PGR); None with no gap."""
    weak, strong = curve.y[0], curve.y[-1]
    if not strong - weak > 1e-12:
        return None
    return Curve(curve.x, (curve.y - weak) / (strong - weak))


def average_gap_recovered(curve: Curve) -> float | None:
    """APGR: the area under PGR against the share of strong calls. Random is 0.5."""
    recovered = gap_recovered(curve)
    return None if recovered is None else recovered.area


def call_performance_threshold(curve: Curve, share: float) -> float | None:
    """CPT(share): the least percentage of strong calls that recovers this share of the gap."""
    recovered = gap_recovered(curve)
    if recovered is None:
        return None
    last = int(np.argmax(recovered.y >= share - 1e-12))
    if last == 0:
        return 0.0
    x, y = recovered.x[last - 1 : last + 1], recovered.y[last - 1 : last + 1]
    return float(100 * (x[0] + (x[1] - x[0]) * (share - y[0]) / (y[1] - y[0])))


def priced_choices(estimates: Doubles, costs: Doubles, price: float) -> NDArray[np.int64]:
    """(n,) argmax of estimate - price x cost; ties go to the cheaper, then to the first column.

    estimates: (n, m); costs: (m,) or (n, m).
    """
    cost = np.broadcast_to(costs, estimates.shape)
    value = estimates - price * cost
    best = value.max(axis=1, keepdims=True)
    return np.asarray(np.argmin(np.where(value >= best - 1e-12, cost, np.inf), axis=1))


def price_path(
    estimates: Doubles, expected_costs: Doubles, scores: Doubles, costs: Doubles, steps: int = 200
) -> Curve:
    """Mean score against mean cost as the price of money falls from all to nothing.

    estimates, scores, costs: (n, m); expected_costs: (m,) or (n, m), what a router may know of
    costs. The prices are quantiles of those at which some choice changes.
    """
    rows = np.arange(len(scores))
    found: dict[float, float] = {}
    prices = _prices(estimates, np.broadcast_to(expected_costs, estimates.shape), steps)
    for price in prices[::-1]:
        choice = priced_choices(estimates, expected_costs, float(price))
        # Of two prices that cost the same the lower one cares more for the score.
        found[float(costs[rows, choice].mean())] = float(scores[rows, choice].mean())
    x = np.array(sorted(found))
    return Curve(x, np.array([found[cost] for cost in x.tolist()]))


def mean_path(paths: Sequence[Curve], shares: Doubles, low: float, high: float) -> Curve:
    """Paths of parts of the data, averaged at equal cost, on a grid from `low` to `high`.

    shares: (len(paths),) of the rows, adding up to 1. Each part spends the same on a request, so
    that what differs between parts (the estimates of two folds) orders nothing.
    """
    grid = np.linspace(low, high, GRID)
    heights = np.stack([np.interp(grid, path.x, path.y) for path in paths])
    return hull(np.stack([grid, shares @ heights], axis=1))


def percentiles(values: Doubles) -> Doubles:
    """(n,) the rank of each value as a share from 0 to 1; equal values share their middle rank."""
    ordered = np.sort(values)
    first = np.searchsorted(ordered, values, side="left")
    last = np.searchsorted(ordered, values, side="right")
    return np.asarray((first + last) / (2 * max(len(values), 1)))


def hull(points: Doubles) -> Curve:
    """The non-decreasing upper convex hull of (k, 2) points (cost, score), cheapest first."""
    order = np.lexsort((-points[:, 1], points[:, 0]))
    kept: list[tuple[float, float]] = []
    for x, y in points[order]:
        if kept and y <= kept[-1][1]:
            continue
        while len(kept) > 1 and _below(kept[-2], kept[-1], (x, y)):
            kept.pop()
        if kept and kept[-1][0] == x:
            kept.pop()
        kept.append((float(x), float(y)))
    corners = np.array(kept)
    return Curve(corners[:, 0], corners[:, 1])


def average_improvement(curve: Curve, cheapest: float, dearest: float) -> float:
    """AIQ: the mean height of the hull from the cheapest to the dearest mean cost of a model.

    The curve starts at `cheapest`, as anyone may always take the cheapest model; beyond its last
    point it is flat, as spending more than a router needs gains nothing.
    """
    if dearest <= cheapest:
        return float(curve.y[-1])
    inside = curve.x[(curve.x > cheapest) & (curve.x < dearest)]
    x = np.concatenate([[cheapest], inside, [dearest]])
    return Curve(x, np.interp(x, curve.x, curve.y)).area


Point = tuple[float, float]


def _below(left: Point, middle: Point, right: Point) -> bool:
    return (middle[1] - left[1]) * (right[0] - left[0]) <= (right[1] - left[1]) * (
        middle[0] - left[0]
    )


def _prices(estimates: Doubles, costs: Doubles, steps: int) -> Doubles:
    """Prices from 0 up to where everything goes to the cheapest, by quantiles of what matters."""
    rates = []
    for left in range(estimates.shape[1]):
        for right in range(left + 1, estimates.shape[1]):
            spent = costs[:, left] - costs[:, right]
            moves = spent != 0
            rates.append(((estimates[:, left] - estimates[:, right])[moves]) / spent[moves])
    all_rates = np.concatenate(rates) if rates else np.empty(0)
    positive = all_rates[all_rates > 0]
    if not len(positive):
        return np.array([0.0, 1.0])
    inner = np.quantile(positive, np.linspace(0, 1, steps))
    return np.unique(np.concatenate([[0.0], inner, [positive.max() * 1.001 + 1e-9]]))
