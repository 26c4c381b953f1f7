"""The foreign table budget_allocations: a budget to what each agent should get of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from math import isfinite

import numpy as np

from tinydancer.agents.cost import cost, output_tokens
from tinydancer.agents.registry import Floats
from tinydancer.cost_optimizer.allocation import AgentShare, Allocation, Market, allocate_budget
from tinydancer.cost_optimizer.demand import PastDemand
from tinydancer.errors import InvalidInput
from tinydancer.tables import text
from tinydancer.tables.context import Context
from tinydancer.tables.counts import agent_capacity, counts
from tinydancer.tables.inputs import Question, questions
from tinydancer.tables.rows import constant, echoes, rows
from tinydancer_fdw.contract import BUDGET_ALLOCATIONS
from tinydancer_fdw.frames import Input, Row

DEFAULT_INPUT_TOKENS = 256
# Where nobody has asked anything yet, all requests are of one category.
ALL = "all requests"
DIGITS = 6

Cell = Callable[[AgentShare], "str | None"]


def scan(
    context: Context, inputs: Sequence[Input], columns: Sequence[str], limit: int
) -> Iterator[Row]:
    """The rows of a scan: one for each active agent and budget."""
    past = None
    for number, question in enumerate(
        questions(BUDGET_ALLOCATIONS, inputs, context.snapshot.settings)
    ):
        if not number and context.past_demand is not None:
            past = context.past_demand()
        demand = _demand(question, past)
        market = _market(context, question, demand, past)
        for budget in question.texts:
            plan = _plan(market, float(budget), question, demand)
            yield from rows(plan.agents, _cells(plan, budget, question, market, demand), columns)


@dataclass(frozen=True, eq=False)
class _Demand:
    """Requests of each category, (k,), or None where they are to be assumed, and their source."""

    categories: tuple[str, ...]
    requests: Floats | None
    source: str


def _demand(question: Question, past: PastDemand | None) -> _Demand:
    """What is stated, else what the ledger says, else nothing."""
    total = question.number("expected_requests")
    stated = counts("expected_by_category", question.names("expected_by_category"), "category")
    if stated:
        if total is not None:
            raise InvalidInput(
                "expected_requests and expected_by_category are both given",
                hint="Give the one or the other.",
            )
        return _Demand(tuple(stated), np.array(list(stated.values())), "given")
    if past is None or (total is None and not past.says_enough):
        return _Demand((ALL,), None if total is None else np.array([total]), "given")
    expected = past.in_period()
    requests = np.array(list(expected.values()))
    if total is None:
        return _Demand(tuple(expected), requests, "history")
    # So many in all, mixed as they were.
    return _Demand(tuple(expected), requests * (total / requests.sum()), "given")


def _market(
    context: Context, question: Question, demand: _Demand, past: PastDemand | None
) -> Market:
    agents, settings = context.snapshot.agents, context.snapshot.settings
    known = {} if past is None else past.categories
    tokens_in = [
        round(known[name].input_tokens or DEFAULT_INPUT_TOKENS)
        if name in known
        else DEFAULT_INPUT_TOKENS
        for name in demand.categories
    ]
    if (stated := question.integer("expected_input_tokens")) is not None:
        tokens_in = [stated] * len(tokens_in)
    expected = question.integer("expected_output_tokens")
    quality = [
        agents.quality if past is None else past.quality(name, agents, settings.prior_weight)
        for name in demand.categories
    ]
    return Market(
        agents=agents.names,
        categories=demand.categories,
        cost=cost(
            agents.prices,
            np.array(tokens_in)[:, None],
            output_tokens(agents, expected, settings.default_output_tokens),
            agents.latency_ms,
        ),
        quality=np.stack(quality),
        latency_ms=agents.latency_ms,
        capacity=agent_capacity(question.names("agent_capacity"), agents),
    )


def _plan(market: Market, budget: float, question: Question, demand: _Demand) -> Allocation:
    allocate = partial(allocate_budget, market, budget, demand=demand.requests)
    if (quality := question.number("quality_threshold")) is not None:
        allocate = partial(allocate, quality_threshold=quality)
    if (latency := question.number("latency_threshold_ms")) is not None:
        allocate = partial(allocate, latency_threshold_ms=latency)
    return allocate()


def _cells(
    plan: Allocation, budget: str, question: Question, market: Market, demand: _Demand
) -> Mapping[str, Cell]:
    whole: dict[str, str] = {
        "budget": budget,
        "spent": text.money(plan.spent),
        "plan_quality": _number(plan.expected_quality),
        "budget_shadow_price": _number(plan.budget_shadow_price),
        "demand": _number(float(plan.demand.sum())),
        "demand_source": demand.source if plan.demand_source == "given" else plan.demand_source,
        "demand_by_category": _by_category(market, plan.demand),
    }
    served = {
        agent: _by_category(market, requests)
        for agent, requests in zip(market.agents, plan.requests.T, strict=True)
    }
    cells: dict[str, Cell] = {**echoes(question, BUDGET_ALLOCATIONS)}
    cells.update({name: constant(value) for name, value in whole.items()})
    cells.update(
        agent_name=lambda share: share.agent,
        share=lambda share: _number(share.share),
        allocation=lambda share: text.money(share.allocation),
        expected_requests_served=lambda share: _number(share.expected_requests),
        requests_by_category=lambda share: served[share.agent],
        expected_quality=lambda share: (
            None if share.expected_quality is None else _number(share.expected_quality)
        ),
        shadow_price=lambda share: _number(share.shadow_price),
        # An agent beyond a threshold is no matter of quality that it lacks.
        shortfall=lambda share: _number(share.shortfall) if isfinite(share.shortfall) else None,
    )
    return cells


def _by_category(market: Market, requests: Floats) -> str:
    """Requests of each category, (k,), without those that have none."""
    numbers = zip(market.categories, requests.round(DIGITS).tolist(), strict=True)
    return text.jsonb({name: number for name, number in numbers if number})


def _number(value: float) -> str:
    return text.double(round(value, DIGITS))
