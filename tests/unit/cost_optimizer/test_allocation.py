"""A budget allocated by linear programme."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinydancer.cost_optimizer.allocation import Allocation, Market, allocate_budget
from tinydancer.errors import BudgetExceeded, NotReady, NumberOutOfRange

pytest.importorskip("scipy")


def market(
    cost: list[float],
    quality: list[float],
    latency: list[float] | None = None,
    capacity: list[float] | None = None,
) -> Market:
    m = len(cost)
    return Market(
        agents=tuple("abcdefgh"[:m]),
        categories=("all",),
        cost=np.array([cost]),
        quality=np.array([quality]),
        latency_ms=np.array(latency or [100.0] * m),
        capacity=np.array(capacity or [np.inf] * m),
    )


def requests_of(plan: Allocation) -> dict[str, float]:
    return {share.agent: round(share.expected_requests, 6) for share in plan.agents}


def test_a_rich_budget_buys_the_best_for_every_request() -> None:
    plan = allocate_budget(market([0.03, 0.001], [0.95, 0.8]), 100, demand=np.array([1000.0]))
    assert requests_of(plan) == {"a": 1000, "b": 0}
    assert plan.budget_shadow_price == pytest.approx(0, abs=1e-6)
    assert plan.spent == pytest.approx(30)


def test_a_tight_budget_mixes_and_its_price_is_what_more_money_buys() -> None:
    # 1000 requests, 10 of money: x at 0.03 and 1000 - x at 0.001 spend it at x = 9 / 0.029.
    offers, demand = market([0.03, 0.001], [0.95, 0.8]), np.array([1000.0])
    plan = allocate_budget(offers, 10, demand=demand)
    assert requests_of(plan)["a"] == pytest.approx(9 / 0.029)
    richer = allocate_budget(offers, 11, demand=demand)
    gained = 1000 * (richer.expected_quality - plan.expected_quality)
    assert plan.budget_shadow_price == pytest.approx(gained, rel=1e-4)


def test_a_full_agent_has_the_price_of_one_more_place() -> None:
    demand = np.array([1000.0])
    plans = [
        allocate_budget(
            market([0.01, 0.01], [0.9, 0.5], capacity=[room, np.inf]), 100, demand=demand
        )
        for room in (200.0, 201.0)
    ]
    gained = 1000 * (plans[1].expected_quality - plans[0].expected_quality)
    assert plans[0].agents[0].shadow_price == pytest.approx(gained, rel=1e-4)
    assert plans[0].agents[1].shadow_price == 0


def test_an_agent_that_gets_nothing_says_how_much_quality_it_is_short_of() -> None:
    plan = allocate_budget(market([0.01, 0.01], [0.9, 0.7]), 100, demand=np.array([10.0]))
    assert plan.agents[1].expected_quality is None
    assert plan.agents[1].shortfall == pytest.approx(0.2, abs=1e-5)


def test_each_category_goes_to_who_is_good_at_it() -> None:
    offers = Market(
        agents=("coder", "writer"),
        categories=("code", "prose"),
        cost=np.full((2, 2), 0.01),
        quality=np.array([[0.9, 0.4], [0.3, 0.8]]),
        latency_ms=np.full(2, 100.0),
        capacity=np.full(2, np.inf),
    )
    plan = allocate_budget(offers, 10, demand=np.array([60.0, 40.0]))
    assert np.allclose(plan.requests, [[60, 0], [0, 40]])
    assert [share.share for share in plan.agents] == pytest.approx([0.6, 0.4])


def test_of_equal_agents_the_cheaper_one_is_used() -> None:
    plan = allocate_budget(market([0.02, 0.01], [0.8, 0.8]), 100, demand=np.array([50.0]))
    assert requests_of(plan) == {"a": 0, "b": 50}


def test_without_history_the_plan_is_defined_and_says_what_it_assumed() -> None:
    plan = allocate_budget(
        market([0.03, 0.00025, 0.001], [0.95, 0.8, 0.9], [2500, 400, 100]),
        100,
        quality_threshold=0.85,
        latency_threshold_ms=2000,
    )
    assert plan.demand_source == "assumed"
    assert [share.share for share in plan.agents] == pytest.approx([0, 0, 1])
    assert sum(share.allocation for share in plan.agents) <= 100 + 1e-9


def test_without_history_free_agents_and_scarce_capacity_are_defined_too() -> None:
    free = allocate_budget(market([0.0], [0.8]), 5)
    assert free.agents[0].share == pytest.approx(1)
    scarce = allocate_budget(market([1, 9], [0.5, 0.9], capacity=[1, np.inf]), 50)
    assert 0 < scarce.spent <= 50 + 1e-6


@pytest.mark.parametrize(
    ("kwargs", "error", "says"),
    [
        ({"quality_threshold": 0.99}, NotReady, "quality_threshold binds.*0.950"),
        ({"latency_threshold_ms": 50}, NotReady, "latency_threshold_ms binds.*b with 100 ms"),
        (
            {"quality_threshold": 0.9, "latency_threshold_ms": 500},
            NotReady,
            "bind together.*a with 2000 ms",
        ),
        ({"demand": np.array([1e6])}, BudgetExceeded, "budget binds.*at least"),
    ],
)
def test_what_cannot_be_done_names_the_limit_that_binds(
    kwargs: dict[str, object], error: type[Exception], says: str
) -> None:
    offers = market([0.03, 0.001], [0.95, 0.8], [2000, 100])
    with pytest.raises(error, match=says):
        allocate_budget(offers, 10, **{"demand": np.array([100.0]), **kwargs})  # type: ignore[arg-type]


def test_capacity_that_binds_says_how_much_can_be_served() -> None:
    with pytest.raises(NotReady, match=r"capacity binds: of 100 requests .* can serve 30"):
        allocate_budget(market([0.1], [0.9], capacity=[30]), 1000, demand=np.array([100.0]))


@pytest.mark.parametrize("budget", [0, -5, float("nan"), float("inf")])
def test_a_budget_that_is_none_is_refused(budget: float) -> None:
    with pytest.raises(NumberOutOfRange, match="budget"):
        allocate_budget(market([0.1], [0.9]), budget)


@settings(max_examples=100, deadline=None)
@given(
    st.lists(
        st.tuples(st.floats(0, 1), st.floats(0, 1), st.one_of(st.just(np.inf), st.floats(0, 50))),
        min_size=1,
        max_size=6,
    ),
    st.floats(0.1, 50),
    st.one_of(st.none(), st.floats(0, 100)),
)
def test_no_plan_spends_above_the_budget_or_fills_above_capacity(
    agents: list[tuple[float, float, float]], budget: float, demand: float | None
) -> None:
    cost, quality, capacity = (list(column) for column in zip(*agents, strict=True))
    offers = market(cost, quality, capacity=capacity)
    try:
        plan = allocate_budget(
            offers, budget, demand=None if demand is None else np.array([demand])
        )
    except (BudgetExceeded, NotReady):
        # Whoever refuses must be right: given demand can't be met even by the cheapest places.
        assert demand is not None
        left, least = demand, 0.0
        for price, room in sorted(zip(cost, capacity, strict=True)):
            served = min(left, room)
            least, left = least + served * price, left - served
        assert left > -1e-6 if left > 1e-9 else least > budget - 1e-6
        return
    assert plan.spent <= budget * (1 + 1e-6)
    assert (plan.requests.sum(axis=0) <= np.array(capacity) + 1e-5).all()
    assert plan.requests.sum() == pytest.approx(plan.demand.sum(), abs=1e-5)


def test_without_scipy_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "scipy.optimize", None)
    with pytest.raises(NotReady, match="scipy") as caught:
        allocate_budget(market([0.1], [0.9]), 10)
    assert "tinydancer-router[optimize]" in caught.value.hint
