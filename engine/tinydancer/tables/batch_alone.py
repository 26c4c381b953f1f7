"""A batch whose requests are decided one by one, each for its own objective."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any
from uuid import UUID

import numpy as np
from numpy.typing import NDArray

from tinydancer.agents.cost import DECIMALS
from tinydancer.agents.registry import Floats
from tinydancer.errors import InvalidInput
from tinydancer.policies import Policy
from tinydancer.tables.context import Context
from tinydancer.tables.inputs import Question
from tinydancer.tables.route_decisions import Answered, answer_texts, chunk_size

# What the decision on each request shows, and so has to be worked out.
FIGURES = frozenset({"similarity", "expected_quality", "confidence", "reasoning"})
# Limits that hold for a batch as a whole.
LIMITS = ("min_batch_quality", "total_budget", "agent_capacity")


@dataclass(frozen=True, eq=False)
class Alone:
    """The decisions, a piece of the batch each."""

    parts: Sequence[Answered]

    @property
    def ids(self) -> list[UUID] | None:
        """The id of each decision; None where they are not kept."""
        found = [id_ for part in self.parts if part.ids is not None for id_ in part.ids]
        return found or None

    @cached_property
    def _costs(self) -> Floats:
        """Of the requests served."""
        return np.concatenate([[], *(_chosen(p.decisions.estimates.cost, p) for p in self.parts)])

    @property
    def total_cost(self) -> float:
        """What the requests served cost."""
        return float(self._costs.round(DECIMALS).sum())

    @property
    def unserved(self) -> int:
        """How many requests no agent may serve."""
        return sum(len(part.evidence.tokens_in) for part in self.parts) - len(self._costs)

    @property
    def mean_quality(self) -> float | None:
        """Of the requests served."""
        if not len(self._costs):
            return None
        found = [_chosen(part.decisions.estimates.quality, part) for part in self.parts]
        return float(np.concatenate(found).mean())

    @property
    def least_cost(self) -> float | None:
        """Not known: what is optimised is not the cost of the batch."""
        return None

    @property
    def quality_price(self) -> float | None:
        """None: no floor holds for the batch."""
        return None

    def capacity_prices(self) -> Mapping[str, float | None]:
        """None at all: no agent is full."""
        return {}

    def decisions(self) -> Iterator[dict[str, Any]]:
        """The decision on each request."""
        for part in self.parts:
            yield from _shown(part)


def decide_alone(
    context: Context, question: Question, policy: Policy, requests: Sequence[str], *, kept: bool
) -> Alone:
    """Decide each request by itself: one that occurs twice is decided twice.

    Where they are `kept` each has an id and reserves its cost. Raises InvalidInput where a limit of
    the whole batch is given.
    """
    for name in LIMITS:
        if name in question.arguments:
            raise InvalidInput(
                f"{name} needs optimize_for = total_cost, not {policy.name}",
                hint="Only total_cost decides the batch as a whole.",
            )
    columns = FIGURES | ({"decision_id"} if kept else set())
    size = chunk_size(context)
    return Alone(
        [
            answer_texts(context, question, policy, requests[at : at + size], columns)
            for at in range(0, len(requests), size)
        ]
    )


def _order(part: Answered) -> NDArray[np.intp]:
    """(n,) the agent of each request, -1 where none may serve it."""
    order = part.decisions.order
    return order[:, 0] if order.shape[1] else np.full(len(order), -1)


def _at(values: Floats, part: Answered) -> Floats:
    """(n,) the figure of each request's agent, of an array that is (a,), (1, a) or (n, a)."""
    order = _order(part)
    shape = (len(order), values.shape[-1])
    found: Floats = np.broadcast_to(values, shape)[np.arange(len(order)), order]
    return found


def _chosen(values: Floats, part: Answered) -> Floats:
    """The figures of the agents chosen, of the requests served."""
    order = _order(part)
    return _at(values, part)[order >= 0] if part.decisions.order.shape[1] else np.zeros(0)


def _shown(part: Answered) -> Iterator[dict[str, Any]]:
    order = _order(part).tolist()
    explainer, names = part.explainer, part.decisions.agents.names
    if max(order, default=-1) < 0:
        yield from (
            {"agent_name": None, "reasoning": explainer.reasoning(row, 1)}
            for row in range(len(order))
        )
        return
    estimates = part.decisions.estimates
    figures = {
        "confidence": estimates.confidence,
        "estimated_cost": estimates.cost.round(DECIMALS),
        "estimated_latency_ms": estimates.latency_ms,
        "expected_quality": estimates.quality,
        "score": explainer.scores,
    }
    if part.evidence.similarity is not None:
        figures["similarity"] = part.evidence.similarity
    columns = [_at(values, part).tolist() for values in figures.values()]
    for row, (position, *line) in enumerate(zip(order, *columns, strict=True)):
        shown: dict[str, Any] = {"agent_name": None}
        if position >= 0:
            shown = {"agent_name": names[position], **dict(zip(figures, line, strict=True))}
        shown["reasoning"] = explainer.reasoning(row, 1)
        yield shown
