"""A batch decided as a whole: the least total cost under limits that hold for all of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any
from uuid import UUID

import numpy as np
from numpy.typing import NDArray

from tinydancer.agents.cost import DECIMALS
from tinydancer.agents.registry import AgentTable, Floats
from tinydancer.budgets import Claim, Refusal
from tinydancer.cost_optimizer.batch import BatchPlan, Rows, optimise_batch
from tinydancer.decisions import Decision, new_decision_id
from tinydancer.errors import BudgetExceeded, NotReady, TooLarge
from tinydancer.explanation import Evidence, Explainer
from tinydancer.policies import POLICIES
from tinydancer.policies.estimates import Mask
from tinydancer.router import Decisions
from tinydancer.tables import text
from tinydancer.tables.batch_alone import FIGURES
from tinydancer.tables.context import Context
from tinydancer.tables.counts import agent_capacity
from tinydancer.tables.inputs import Question
from tinydancer.tables.kept_decisions import kept_decisions, payer
from tinydancer.tables.reserving import claims_of
from tinydancer.tables.route_decisions import chunk_size, decide_texts, keep_or_release

# Requests times agents that are decided at once: about a gigabyte at the peak.
MOST_CELLS = 10_000_000
# How often a batch is planned again where budgets or agents refuse a part of it.
MOST_PLANS = 20


def decide_as_a_whole(
    context: Context, question: Question, requests: Sequence[str], *, kept: bool
) -> Planned:
    """Decide a batch for the least total cost; where it is `kept`, each request has its own id.

    Raises BudgetExceeded, InvalidInput, NotFound, NotReady and TooLarge.
    """
    batch = Planned.of(context, question, requests)
    if context.keep is None or not kept:
        return batch
    batch = _reserved(context, batch, question)
    keep_or_release(
        context.keep, context.reservations, list(batch.kept(context, question, requests))
    )
    return batch


@dataclass(frozen=True, eq=False)
class Planned:
    """A batch, each request by itself and all together.

    Arrays are (n, a); `served` are the requests that some agent may serve, `plan` is about those,
    None where there are none.
    """

    names: Sequence[str]
    parts: Sequence[tuple[Decisions, Evidence, Explainer]]
    size: int
    cost: Floats
    latency_ms: Floats
    quality: Floats
    confidence: Floats
    similarity: Floats
    allowed: Mask
    served: NDArray[np.intp]
    plan: BatchPlan | None
    capacity: Rows | None
    ids: Sequence[UUID] | None = None

    @classmethod
    def of(cls, context: Context, question: Question, requests: Sequence[str]) -> Planned:
        """Decides. Raises what optimise_batch does, NotFound, InvalidInput and TooLarge."""
        agents = context.snapshot.agents
        if len(requests) * len(agents) > MOST_CELLS:
            raise TooLarge(
                f"{len(requests)} requests for {len(agents)} agents are over the limit of "
                f"{MOST_CELLS} pairs in one batch",
                hint="Split the batch.",
            )
        capacity = _capacity(question, agents, len(requests))
        size = chunk_size(context)
        shape = (len(requests), len(agents))
        cost, quality, confidence, similarity = (np.empty(shape) for _ in range(4))
        allowed = np.ones(shape, np.bool_)
        parts = []
        for at in range(0, len(requests), size):
            part = slice(at, at + size)
            decisions, evidence = decide_texts(
                context, question, POLICIES["total_cost"], requests[part], FIGURES, None
            )
            cost[part] = decisions.estimates.cost
            quality[part] = decisions.estimates.quality
            confidence[part] = decisions.estimates.confidence
            if evidence.similarity is not None:
                similarity[part] = evidence.similarity
            if decisions.candidates is not None:
                allowed[part] = decisions.candidates
            parts.append((decisions, evidence, Explainer(decisions, evidence)))
        answer = cls(
            names=agents.names,
            parts=parts,
            size=size,
            cost=cost,
            latency_ms=agents.latency_ms,
            quality=quality,
            confidence=confidence,
            similarity=similarity,
            allowed=allowed,
            served=np.flatnonzero(allowed.any(axis=1)),
            plan=None,
            capacity=capacity,
        )
        return answer.planned(question, capacity)

    def planned(self, question: Question, capacity: Rows | None) -> Planned:
        """The batch planned under these capacities. Raises what optimise_batch does."""
        if not len(self.served):
            return self
        plan = optimise_batch(
            self.cost[self.served],
            self.quality[self.served],
            allowed=self.allowed[self.served],
            min_mean_quality=question.number("min_batch_quality"),
            budget=question.number("total_budget"),
            capacity=capacity,
        )
        return replace(self, plan=plan, capacity=capacity)

    @cached_property
    def choice(self) -> list[int]:
        """The agent of each request, -1 where none may serve it."""
        choice = np.full(len(self.cost), -1)
        if self.plan is not None:
            choice[self.served] = self.plan.choice
        return [int(position) for position in choice]

    def pieces(self) -> Iterator[tuple[slice, Decisions, Evidence, Explainer]]:
        """The rows decided at a time, the agents chosen being those of the batch."""
        for number, (decisions, evidence, explainer) in enumerate(self.parts):
            piece = slice(number * self.size, (number + 1) * self.size)
            order = np.array(self.choice[piece], np.intp)[:, None]
            yield piece, replace(decisions, order=order), evidence, explainer

    def claims(self, question: Question, ids: Sequence[UUID]) -> list[Claim]:
        """What the requests served would have reserved under these ids, in their order."""
        found: list[Claim] = []
        for piece, decisions, evidence, _ in self.pieces():
            rows = np.flatnonzero(decisions.order[:, 0] >= 0).tolist()
            found += claims_of(decisions, evidence, payer(question), ids[piece], rows)
        return found

    def kept(
        self, context: Context, question: Question, requests: Sequence[str]
    ) -> Iterator[Decision]:
        """A decision for each request, under its id."""
        ids = self.ids or ()
        for piece, decisions, evidence, explainer in self.pieces():
            yield from kept_decisions(
                context, decisions, evidence, explainer, question, requests[piece], ids[piece]
            )

    def decisions(self) -> Iterator[dict[str, Any]]:
        """The decision on each request."""
        return (self._decision(row, position) for row, position in enumerate(self.choice))

    def _decision(self, row: int, position: int) -> dict[str, Any]:
        *_, explainer = self.parts[row // self.size]
        place = row % self.size
        if position < 0:
            return {"agent_name": None, "reasoning": explainer.reasoning(place, 1)}
        return {
            "agent_name": self.names[position],
            "confidence": self.confidence.item(row, position),
            "estimated_cost": round(self.cost.item(row, position), DECIMALS),
            "estimated_latency_ms": self.latency_ms.item(position),
            "expected_quality": self.quality.item(row, position),
            "similarity": self.similarity.item(row, position),
            "score": explainer.scores.item(place, position),
            "reasoning": self._reasoning(row, position),
        }

    def _reasoning(self, row: int, position: int) -> str:
        figures = (
            f"cost {text.money(self.cost[row, position])}, {self.latency_ms[position]:g} ms, "
            f"quality {self.quality[row, position]:.2f}"
        )
        cheapest = int(np.where(self.allowed[row], self.cost[row], np.inf).argmin())
        if self.cost[row, position] <= self.cost[row, cheapest]:
            return f"{self.names[position]} is as cheap as any agent that qualifies: {figures}."
        return (
            f"{self.names[position]} for the batch's sake: {figures}. {self.names[cheapest]} would "
            f"cost {text.money(self.cost[row, cheapest])}, but {self._limits(cheapest)}."
        )

    def _limits(self, cheapest: int) -> str:
        limits = []
        if self.plan is not None and self.capacity is not None:
            taken = int((self.plan.choice == cheapest).sum())
            if taken >= self.capacity[cheapest]:
                limits.append(f"it has no more than {self.capacity[cheapest]} places")
        if self.plan is not None and self.plan.quality_price > 0:
            limits.append("the batch's quality floor would not hold")
        return " and ".join(limits) or "the batch as a whole is no cheaper with it"

    @property
    def total_cost(self) -> float:
        """What the requests served cost."""
        return self.plan.total_cost if self.plan else 0.0

    @property
    def least_cost(self) -> float | None:
        """What no assignment can be below."""
        return self.plan.bound if self.plan else 0.0

    @property
    def mean_quality(self) -> float | None:
        """Of the requests served."""
        return self.plan.mean_quality if self.plan else None

    @property
    def quality_price(self) -> float | None:
        """Money for one more unit of summed quality."""
        return self.plan.quality_price if self.plan else None

    @property
    def unserved(self) -> int:
        """How many requests no agent may serve."""
        return len(self.cost) - len(self.served)

    def capacity_prices(self) -> Mapping[str, float | None]:
        """Money that one more place saves, by agent; None for an agent without any place."""
        if self.plan is None or self.capacity is None:
            return {}
        return {
            name: round(price, DECIMALS) if np.isfinite(price) else None
            for name, price in zip(self.names, self.plan.capacity_prices.tolist(), strict=True)
            if price > 0
        }


def _reserved(context: Context, batch: Planned, question: Question) -> Planned:
    """The batch under new ids, with what it needs reserved: what is refused is planned again.

    An agent gets no more requests than its budgets and its limit of calls took. Raises
    BudgetExceeded where that leaves no plan; nothing is reserved then.
    """
    budgeted, guarded = context.snapshot.budgets, context.snapshot.pool.guarded
    refusing: Sequence[Refusal | None] = ()
    for _ in range(MOST_PLANS):
        ids = [new_decision_id(context.now) for _ in batch.choice]
        if context.reservations is None:
            return replace(batch, ids=ids)
        claims = batch.claims(question, ids)
        if not budgeted:
            claims = [claim for claim in claims if claim.agent in guarded]
        refusing = context.reservations.reserve(claims) if claims else ()
        if not any(refusing):
            return replace(batch, ids=ids)
        taken = [claim for claim, by in zip(claims, refusing, strict=True) if not by]
        if taken:
            context.reservations.release([claim.decision for claim in taken])
        names = list(batch.names)
        capacity = np.full(len(names), len(ids), np.int64)
        if batch.capacity is not None:
            capacity = batch.capacity.copy()
        for agent in {claim.agent for claim, by in zip(claims, refusing, strict=True) if by}:
            capacity[names.index(agent)] = sum(claim.agent == agent for claim in taken)
        try:
            batch = batch.planned(question, capacity)
        except NotReady as error:
            raise _refused(refusing) from error
    raise _refused(refusing)


def _refused(refusing: Sequence[Refusal | None]) -> BudgetExceeded:
    named = ", ".join(sorted({f"{by.constraint} {by.limit!r}" for by in refusing if by}))
    return BudgetExceeded(
        f"the batch does not fit into what is left of {named}",
        hint="Route fewer requests, lower min_batch_quality, or raise the limit.",
    )


def _capacity(question: Question, agents: AgentTable, n: int) -> Rows | None:
    """(a,) places at each agent: as given, n where it is not. None where none is given."""
    given = question.names("agent_capacity")
    return np.minimum(agent_capacity(given, agents), n).astype(np.int64) if given else None
