"""A batch decided as a whole, against every assignment there is."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from tinydancer.cost_optimizer.assignment import assign
from tinydancer.cost_optimizer.batch import optimise_batch
from tinydancer.errors import BudgetExceeded, NotReady, NumberOutOfRange

shapes = st.tuples(st.integers(1, 5), st.integers(1, 3))


@st.composite
def batches(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Costs, quality and capacities; whole and broken costs, so that ties are common."""
    shape = draw(shapes)
    costs = draw(arrays(np.float64, shape, elements=st.integers(0, 8).map(lambda x: x / 4)))
    quality = draw(arrays(np.float64, shape, elements=st.integers(0, 20).map(lambda x: x / 20)))
    capacity = draw(arrays(np.int64, shape[1], elements=st.integers(0, shape[0])))
    return costs, quality, capacity


def cheapest_by_trying_all(
    costs: np.ndarray, quality: np.ndarray, capacity: np.ndarray, floor: float
) -> float:
    n, m = costs.shape
    rows, best = np.arange(n), np.inf
    for choice in product(range(m), repeat=n):
        columns = np.array(choice)
        fits = (np.bincount(columns, minlength=m) <= capacity).all()
        if fits and quality[rows, columns].mean() >= floor - 1e-9:
            best = min(best, float(costs[rows, columns].sum()))
    return best


@settings(max_examples=200, deadline=None)
@given(batches())
def test_without_a_floor_the_assignment_is_the_cheapest_there_is(
    batch: tuple[np.ndarray, np.ndarray, np.ndarray],
) -> None:
    costs, quality, capacity = batch
    best = cheapest_by_trying_all(costs, quality, capacity, -1.0)
    if best == np.inf:
        with pytest.raises(NotReady, match="capacity binds"):
            optimise_batch(costs, quality, capacity=capacity)
        return
    plan = optimise_batch(costs, quality, capacity=capacity)
    assert plan.total_cost == pytest.approx(best, abs=1e-9)
    assert (np.bincount(plan.choice, minlength=len(capacity)) <= capacity).all()


@settings(max_examples=200, deadline=None)
@given(batches(), st.integers(0, 20).map(lambda x: x / 20))
def test_with_a_floor_no_limit_is_broken_and_the_bound_is_true(
    batch: tuple[np.ndarray, np.ndarray, np.ndarray], floor: float
) -> None:
    costs, quality, capacity = batch
    best = cheapest_by_trying_all(costs, quality, capacity, floor)
    if best == np.inf:
        with pytest.raises(NotReady):
            optimise_batch(costs, quality, min_mean_quality=floor, capacity=capacity)
        return
    plan = optimise_batch(costs, quality, min_mean_quality=floor, capacity=capacity)
    assert plan.mean_quality >= floor - 1e-6
    assert (np.bincount(plan.choice, minlength=len(capacity)) <= capacity).all()
    assert plan.bound <= best + 1e-9 <= plan.total_cost + 2e-9


@settings(max_examples=200)
@given(batches(), st.data())
def test_who_may_serve_and_how_many_hold_together(
    batch: tuple[np.ndarray, np.ndarray, np.ndarray], data: st.DataObject
) -> None:
    costs, quality, capacity = batch
    allowed = data.draw(arrays(np.bool_, costs.shape))
    best = cheapest_by_trying_all(np.where(allowed, costs, np.inf), quality, capacity, -1.0)
    if best == np.inf:
        with pytest.raises(NotReady):
            optimise_batch(costs, quality, allowed=allowed, capacity=capacity)
        return
    plan = optimise_batch(costs, quality, allowed=allowed, capacity=capacity)
    assert plan.total_cost == pytest.approx(best, abs=1e-9)
    assert allowed[np.arange(len(costs)), plan.choice].all()


@settings(max_examples=200)
@given(
    seed=st.integers(0, 2**32 - 1),
    shape=st.tuples(st.integers(1, 25), st.integers(1, 6)),
    spare=st.integers(0, 4),
    steps=st.sampled_from([2, 5, 1000]),
    start=st.sampled_from([0.0, 1.0, 10.0]),
)
def test_whatever_prices_it_starts_from_the_assignment_is_the_cheapest_there_is(
    seed: int, shape: tuple[int, int], spare: int, steps: int, start: float
) -> None:
    assigned = pytest.importorskip("scipy.optimize").linear_sum_assignment
    # Given costs of few or many values, places for all and `spare` more, and prices out of the air
    rng = np.random.default_rng(seed)
    (n, m), column = shape, np.arange(shape[1])
    costs = rng.integers(0, steps, shape) / steps
    capacity = np.bincount(rng.integers(0, m, n + spare), minlength=m)
    # When the requests are assigned
    found = assign(costs, capacity, start * rng.random(m))
    # Then scipy finds nothing cheaper, with each place a column of its own
    places = np.repeat(column, capacity)
    rows, taken = assigned(costs[:, places])
    assert found.cost == pytest.approx(costs[rows, places[taken]].sum(), abs=1e-9)
    assert found.cost == pytest.approx(costs[np.arange(n), found.choice].sum(), abs=1e-9)
    assert (np.bincount(found.choice, minlength=m) <= capacity).all()
    # And the prices prove it: what the dual comes to is no less
    used = capacity > 0
    dual = (costs[:, used] + found.prices[used]).min(axis=1).sum()
    assert found.cost == pytest.approx(dual - found.prices[used] @ capacity[used], abs=1e-9)
    assert (found.prices >= 0).all()
    assert np.isinf(found.prices[~used]).all()


def test_prices_on_capacity_prove_the_assignment() -> None:
    rng = np.random.default_rng(0)
    costs, capacity = rng.random((300, 6)), np.full(6, 55)
    found = assign(costs, capacity)
    dual = (costs + found.prices).min(axis=1).sum() - found.prices @ capacity
    assert found.cost == pytest.approx(dual, abs=1e-9)
    assert (found.prices >= 0).all()


def test_one_more_place_at_an_agent_that_has_one_for_every_request_saves_nothing() -> None:
    costs = np.tile([1.0, 3.0], (5, 1))
    plan = optimise_batch(costs, np.ones(2), capacity=np.array([5, 2]))
    assert plan.choice.tolist() == [0] * 5
    assert plan.capacity_prices.tolist() == [0, 0]


def test_a_large_batch_is_within_a_thousandth_of_the_bound() -> None:
    rng = np.random.default_rng(1)
    quality = rng.uniform(0.3, 1.0, 12)
    costs = np.exp(3 * quality) * rng.lognormal(0, 1, (2000, 1)) / 1000
    plan = optimise_batch(
        costs, quality, min_mean_quality=0.7, capacity=np.full(12, 300, dtype=np.int64)
    )
    assert plan.mean_quality >= 0.7 - 1e-9
    assert plan.total_cost <= plan.bound * 1.001
    assert plan.quality_price > 0


def test_equal_requests_are_spread_when_the_cheapest_is_full() -> None:
    costs = np.tile([1.0, 2.0, 3.0], (1000, 1))
    plan = optimise_batch(costs, np.ones(3), capacity=np.array([400, 400, 400]))
    assert np.bincount(plan.choice).tolist() == [400, 400, 200]


def test_the_same_batch_is_decided_the_same_way() -> None:
    rng = np.random.default_rng(2)
    costs, quality = rng.integers(1, 4, (200, 5)) / 10, rng.random((200, 5)).round(1)
    first, second = (optimise_batch(costs, quality, min_mean_quality=0.7) for _ in range(2))
    assert np.array_equal(first.choice, second.choice)


def test_a_refused_agent_is_never_chosen() -> None:
    allowed = np.array([[False, True], [True, False]])
    plan = optimise_batch(np.array([[0.0, 9.0], [0.0, 0.0]]), np.ones((2, 2)), allowed=allowed)
    assert plan.choice.tolist() == [1, 0]


def test_a_request_that_nobody_may_serve_is_named() -> None:
    allowed = np.array([[True, True], [False, False]])
    with pytest.raises(NotReady, match="request 2"):
        optimise_batch(np.ones((2, 2)), np.ones((2, 2)), allowed=allowed)


def test_a_floor_out_of_reach_says_what_can_be_reached() -> None:
    with pytest.raises(NotReady, match=r"mean quality of 0\.7000"):
        optimise_batch(np.ones((2, 2)), np.array([0.5, 0.7]), min_mean_quality=0.9)


def test_a_budget_below_the_cheapest_says_what_that_costs() -> None:
    with pytest.raises(BudgetExceeded, match="costs 3"):
        optimise_batch(np.array([[1.0, 2.0], [2.0, 4.0]]), np.ones(2), budget=2.5)


def test_money_that_is_none_is_refused() -> None:
    with pytest.raises(NumberOutOfRange, match="costs"):
        optimise_batch(np.array([[-1.0]]), np.ones(1))
    with pytest.raises(NumberOutOfRange, match="quality"):
        optimise_batch(np.array([[1.0]]), np.array([np.nan]))


def test_an_empty_batch_costs_nothing() -> None:
    assert optimise_batch(np.empty((0, 2)), np.ones(2)).total_cost == 0.0
