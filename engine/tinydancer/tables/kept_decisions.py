"""What is kept of decisions: enough to find their outcomes' agent, and to replay another policy."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from decimal import Decimal
from typing import Any
from uuid import UUID

from tinydancer.agents.registry import Floats
from tinydancer.budgets import Payer
from tinydancer.decisions import Decision
from tinydancer.explanation import DIGITS, Evidence, Explainer
from tinydancer.router import Decisions, of_row
from tinydancer.tables import text
from tinydancer.tables.context import Context
from tinydancer.tables.inputs import Question
from tinydancer.teams.formation import Team
from tinydancer_fdw.contract import ROUTE_DECISIONS

DEFAULT_TENANT = "default"
# Inputs that say who asks or how much is shown bar no agent.
NO_CONSTRAINTS = frozenset(
    {"request", "optimize_for", "user_tier", "tenant", "top_k", "session_key"}
)
CONSTRAINTS = tuple(
    column.name for column in ROUTE_DECISIONS.inputs if column.name not in NO_CONSTRAINTS
)


def kept_decisions(
    context: Context,
    decisions: Decisions,
    evidence: Evidence,
    explainer: Explainer,
    question: Question,
    texts: Sequence[str],
    ids: Sequence[UUID],
) -> Iterator[Decision]:
    """A decision for each request, under its id."""
    estimates, names = decisions.estimates, decisions.agents.names
    models = {"embedder": evidence.embedder, "quality": estimates.source}
    constraints = {
        name: question.arguments[name].value for name in CONSTRAINTS if name in question.arguments
    }
    whose = payer(question)
    for row, (request, id_) in enumerate(zip(texts, ids, strict=True)):
        position = int(decisions.order[row, 0]) if decisions.order.shape[1] else -1
        chosen = position >= 0
        yield Decision(
            id=id_,
            request=request,
            optimize_for=decisions.policy.name,
            agent=names[position] if chosen else None,
            tenant=whose.tenant,
            embedding=None if evidence.vectors is None else evidence.vectors[row],
            embedding_model=None if evidence.vectors is None else evidence.embedder,
            embedding_space=None if evidence.vectors is None else context.embedder.space,
            route=explainer.route(row, position) if chosen else None,
            user_tier=whose.user_tier,
            session_key=question.text("session_key"),
            constraints=constraints,
            candidates=_candidates(decisions, explainer, row),
            propensity=1.0 if decisions.propensity is None else float(decisions.propensity[row]),
            confidence=_of(estimates.confidence, row, position),
            estimated_cost=_money(estimates.cost, row, position),
            estimated_latency_ms=_of(estimates.latency_ms, row, position),
            expected_quality=_of(estimates.quality, row, position),
            models=models,
        )


def kept_members(
    context: Context, question: Question, team: Team, ids: Sequence[UUID]
) -> Iterator[Decision]:
    """A decision for each member of a team, under its id; what it decides is its part."""
    whose, agents, quality = payer(question), context.snapshot.agents, context.quality
    vectors = context.embedder.embed([member.part.text for member in team.members])
    constraints = {
        name: argument.value
        for name, argument in question.arguments.items()
        if name not in NO_CONSTRAINTS
    }
    for member, id_, vector in zip(team.members, ids, vectors, strict=True):
        yield Decision(
            id=id_,
            request=member.part.text,
            optimize_for=question.text("optimize_for") or "balanced",
            agent=agents.names[member.agent],
            tenant=whose.tenant,
            embedding=vector,
            embedding_model=context.embedder.model,
            embedding_space=context.embedder.space,
            user_tier=whose.user_tier,
            constraints={"strategy": team.strategy, **constraints},
            # Who else could have been chosen depends on the others: none to replay it with.
            candidates=(),
            confidence=member.success,
            estimated_cost=Decimal(text.money(member.cost)),
            estimated_latency_ms=member.latency_ms,
            expected_quality=member.success,
            models={
                "embedder": context.embedder.model,
                "quality": "registered" if quality is None else quality.name,
            },
            team=ids[0],
        )


def payer(question: Question) -> Payer:
    """On whose behalf a question is asked; which route it takes is not known yet."""
    tenant = question.text("tenant") or DEFAULT_TENANT
    return Payer(tenant=tenant, user_tier=question.text("user_tier"))


def _candidates(decisions: Decisions, explainer: Explainer, row: int) -> list[dict[str, Any]]:
    """The agents that could be chosen, best first, with what was expected of each."""
    estimates = decisions.estimates
    best = explainer.ranked(row)
    if not len(best):
        return []
    columns = {
        "score": explainer.scores,
        "cost": estimates.cost,
        "latency_ms": estimates.latency_ms,
        "quality": estimates.quality,
    }
    if estimates.fit is not None:
        columns["fit"] = estimates.fit
    figures = [of_row(values, row)[best].round(DIGITS + 3).tolist() for values in columns.values()]
    found: list[dict[str, Any]] = [
        {"agent": decisions.agents.names[at], **dict(zip(columns, line, strict=True))}
        for at, *line in zip(best.tolist(), *figures, strict=True)
    ]
    # Budgets of routes hold for a fallback as well.
    for at in explainer.lifted(row, best):
        found[at]["route"] = explainer.route(row, int(best[at]))
    return found


def _of(values: Floats, row: int, position: int) -> float | None:
    return None if position < 0 else float(of_row(values, row)[position])


def _money(values: Floats, row: int, position: int) -> Decimal | None:
    return None if position < 0 else Decimal(text.money(of_row(values, row)[position]))
