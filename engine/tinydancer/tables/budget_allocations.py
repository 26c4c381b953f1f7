"""The foreign table budget_allocations: a budget to what each agent should get of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from math import isfinite

import numpy as np

from tinydancer.agents.cost import cost, output_tokens
from tinydancer.cost_optimizer import AgentShare, Allocation, Market, allocate_budget
from tinydancer.tables import text
from tinydancer.tables.context import Context
from tinydancer.tables.inputs import Question, questions
from tinydancer.tables.rows import constant, echoes, rows
from tinydancer_fdw.contract import BUDGET_ALLOCATIONS
from tinydancer_fdw.frames import Input, Row

DEFAULT_INPUT_TOKENS = 256
# Requests that nobody has sorted yet are of one category.
ALL = "all requests"
DIGITS = 6


def scan(
    context: Context, inputs: Sequence[Input], columns: Sequence[str], limit: int
) -> Iterator[Row]:
    """The rows of a scan: one for each active agent and budget."""
    for question in questions(BUDGET_ALLOCATIONS, inputs, context.snapshot.settings):
        market = _market(context, question)
        for budget in question.texts:
            plan = _plan(market, float(budget), question)
            yield from rows(plan.agents, _cells(plan, budget, question), columns)


def _market(context: Context, question: Question) -> Market:
    agents = context.snapshot.agents
    expected = question.integer("expected_output_tokens")
    tokens_in = question.integer("expected_input_tokens")
    costs = cost(
        agents.prices,
        np.array([[DEFAULT_INPUT_TOKENS if tokens_in is None else tokens_in]]),
        output_tokens(agents, expected, context.snapshot.settings.default_output_tokens),
        agents.latency_ms,
    )
    return Market(
        agents=agents.names,
        categories=(ALL,),
        cost=costs,
        quality=agents.quality[None, :],
        latency_ms=agents.latency_ms,
        capacity=np.full(len(agents), np.inf),
    )


def _plan(market: Market, budget: float, question: Question) -> Allocation:
    allocate = partial(allocate_budget, market, budget)
    requests = question.number("expected_requests")
    if requests is not None:
        allocate = partial(allocate, demand=np.array([requests]))
    if (quality := question.number("quality_threshold")) is not None:
        allocate = partial(allocate, quality_threshold=quality)
    if (latency := question.number("latency_threshold_ms")) is not None:
        allocate = partial(allocate, latency_threshold_ms=latency)
    return allocate()


def _cells(
    plan: Allocation, budget: str, question: Question
) -> Mapping[str, Callable[[AgentShare], str | None]]:
    whole: dict[str, str] = {
        "budget": budget,
        "spent": text.money(plan.spent),
        "plan_quality": _number(plan.expected_quality),
        "budget_shadow_price": _number(plan.budget_shadow_price),
        "demand": _number(float(plan.demand.sum())),
        "demand_source": plan.demand_source,
    }
    cells: dict[str, Callable[[AgentShare], str | None]] = {**echoes(question, BUDGET_ALLOCATIONS)}
    cells.update({name: constant(value) for name, value in whole.items()})
    cells.update(
        agent_name=lambda share: share.agent,
        share=lambda share: _number(share.share),
        allocation=lambda share: text.money(share.allocation),
        expected_requests_served=lambda share: _number(share.expected_requests),
        expected_quality=lambda share: (
            None if share.expected_quality is None else _number(share.expected_quality)
        ),
        shadow_price=lambda share: _number(share.shadow_price),
        # An agent beyond a threshold is no matter of quality that it lacks.
        shortfall=lambda share: _number(share.shortfall) if isfinite(share.shortfall) else None,
    )
    return cells


def _number(value: float) -> str:
    return text.double(round(value, DIGITS))
