"""The foreign table batch_decisions: a batch of requests to the agents that serve them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol
from uuid import UUID

from tinydancer.agents.cost import DECIMALS
from tinydancer.policies import POLICIES
from tinydancer.tables import text
from tinydancer.tables.batch_alone import decide_alone
from tinydancer.tables.batch_planned import decide_as_a_whole
from tinydancer.tables.context import Context
from tinydancer.tables.inputs import Question, questions
from tinydancer.tables.rows import constant, echoes, rows
from tinydancer_fdw.contract import BATCH_DECISIONS
from tinydancer_fdw.frames import Input, Row

AS_A_WHOLE = "total_cost"
DIGITS = 6


class Batch(Protocol):
    """A batch that is decided: what each request got, and what it comes to."""

    @property
    def ids(self) -> Sequence[UUID] | None:
        """The id of each decision; None where they are not kept."""

    @property
    def total_cost(self) -> float:
        """What the requests served cost."""

    @property
    def least_cost(self) -> float | None:
        """What no assignment can be below, where that is known."""

    @property
    def mean_quality(self) -> float | None:
        """Of the requests served."""

    @property
    def quality_price(self) -> float | None:
        """Money for one more unit of summed quality."""

    @property
    def unserved(self) -> int:
        """How many requests no agent may serve."""

    def capacity_prices(self) -> Mapping[str, float | None]:
        """Money that one more place saves, by agent."""

    def decisions(self) -> Iterable[dict[str, Any]]:
        """The decision on each request."""


def scan(
    context: Context, inputs: Sequence[Input], columns: Sequence[str], limit: int
) -> Iterator[Row]:
    """The rows of a scan: one for each batch."""
    # Decisions whose ids nobody asks for can have no outcomes: they are not kept.
    kept = "decision_ids" in columns
    for question in questions(BATCH_DECISIONS, inputs, context.snapshot.settings):
        objective = question.text("optimize_for") or AS_A_WHOLE
        for echo, requests in zip(question.texts, question.lists, strict=True):
            batch: Batch
            if objective == AS_A_WHOLE:
                batch = decide_as_a_whole(context, question, requests, kept=kept)
            else:
                batch = decide_alone(context, question, POLICIES[objective], requests, kept=kept)
            yield from rows([batch], _cells(echo, question), columns)


def _cells(echo: str, question: Question) -> Mapping[str, Callable[[Batch], str | None]]:
    cells: dict[str, Callable[[Batch], str | None]] = {**echoes(question, BATCH_DECISIONS)}
    cells.update(
        requests=constant(echo),
        decisions=lambda batch: text.jsonb(list(batch.decisions())),
        total_cost=lambda batch: text.money(batch.total_cost),
        least_cost=lambda batch: None if batch.least_cost is None else text.money(batch.least_cost),
        mean_quality=lambda batch: _figure(batch.mean_quality, DIGITS),
        quality_price=lambda batch: _figure(batch.quality_price, DECIMALS),
        capacity_prices=lambda batch: text.jsonb(batch.capacity_prices()),
        unserved=lambda batch: str(batch.unserved),
        decision_ids=lambda batch: (
            None if batch.ids is None else text.jsonb(list(map(str, batch.ids)))
        ),
    )
    return cells


def _figure(value: float | None, digits: int) -> str | None:
    return None if value is None else text.double(round(value, digits))
