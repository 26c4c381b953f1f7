"""The foreign table agent_plans: requests to teams of agents."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import combinations
from typing import Any
from uuid import UUID

import numpy as np

from tinydancer.agents.cost import output_tokens
from tinydancer.agents.registry import AgentTable
from tinydancer.decisions import new_decision_id
from tinydancer.embeddings.base import Vectors
from tinydancer.errors import NotReady
from tinydancer.learning.expected import with_learned
from tinydancer.learning.requests import describe
from tinydancer.policies import POLICIES, Policy
from tinydancer.policies.estimates import Estimates
from tinydancer.tables import text
from tinydancer.tables.context import ActiveQuality, Context
from tinydancer.tables.inputs import Question, questions
from tinydancer.tables.kept_decisions import kept_members, payer
from tinydancer.tables.route_decisions import keep_or_release
from tinydancer.tables.rows import constant, echoes, rows
from tinydancer.tables.team_budgets import Purse, team_within_budgets
from tinydancer.teams.formation import Limits, Member, Team
from tinydancer.teams.joint_success import Correlations, unknown_correlations
from tinydancer.teams.planning import Learn, plan_team
from tinydancer_fdw.contract import AGENT_PLANS
from tinydancer_fdw.frames import Input, Row

# The place and the member; without one where no team suits.
Answer = tuple[int, "Member | None"]
Cell = Callable[[Answer], "str | None"]

DEFAULT_AGENTS = 3
DIGITS = 6


def scan(
    context: Context, inputs: Sequence[Input], columns: Sequence[str], limit: int
) -> Iterator[Row]:
    """The rows of a scan: one for each member, or one with agent_name NULL."""
    for question in questions(AGENT_PLANS, inputs, context.snapshot.settings):
        for request in question.texts:
            # A team whose ids nobody asks for can have no outcome: it is not kept.
            keep = context.keep if "decision_id" in columns else None
            plan, ids = _decide(context, question, request, reserve=keep is not None)
            if keep is not None and ids:
                kept = list(kept_members(context, question, plan.team, ids))
                keep_or_release(keep, context.reservations, kept)
            members: list[Answer] = list(enumerate(plan.team.members, 1)) or [(1, None)]
            yield from rows(members, _cells(context, question, request, plan, ids), columns)


@dataclass(frozen=True, eq=False)
class _Plan:
    """A team, with what budgets had left when it was planned and what it was judged by."""

    team: Team
    purse: Purse | None
    correlations: Correlations | None


def _decide(
    context: Context, question: Question, request: str, *, reserve: bool
) -> tuple[_Plan, Sequence[UUID]]:
    """The plan, and the ids of its members where they are to be kept."""
    plan = _planner(context, question, request)
    if context.reservations is None:
        made = plan(None)
        return made, _ids(context, len(made.team.members)) if reserve else ()
    plans: list[_Plan] = []

    def team(purse: Purse | None) -> Team:
        plans.append(plan(purse))
        return plans[-1].team

    ids = partial(_ids, context) if reserve else None
    found, made_ids = team_within_budgets(context, context.reservations, team, payer(question), ids)
    return replace(plans[-1], team=found), made_ids


def _ids(context: Context, count: int) -> list[UUID]:
    return [new_decision_id(context.now) for _ in range(count)]


def _planner(context: Context, question: Question, request: str) -> Callable[[Purse | None], _Plan]:
    """What makes the team within what budgets have left."""
    agents, settings = context.snapshot.agents, context.snapshot.settings
    excluded = {*question.names("excluded_agents")}
    excluded.update(name for name, _ in context.snapshot.pool.open(context.now))
    candidates = np.array([name not in excluded for name in agents.names], np.bool_)
    available = int(candidates.sum())
    if not available:
        raise NotReady(
            "there is no agent to make a team of",
            hint="Register some with ruvector_register_agent; they are seen once committed.",
        )
    strategy = question.text("strategy") or "pipeline"
    policy = POLICIES[question.text("optimize_for") or "balanced"]
    expected = question.integer("expected_output_tokens")
    correlations = None
    if strategy == "ensemble" and context.correlations is not None:
        correlations = context.correlations(agents)

    def plan(purse: Purse | None) -> _Plan:
        team = plan_team(
            request,
            strategy,
            question.integer("num_agents") or min(DEFAULT_AGENTS, available),
            agents,
            context.embedder,
            policy,
            output_tokens(agents, expected, settings.default_output_tokens),
            _limits(question, purse),
            candidates=candidates,
            affordable=None if purse is None else purse.affordable,
            learn=None if context.quality is None else _learn(context.quality, agents, policy),
            correlations=correlations,
        )
        return _Plan(team, purse, correlations)

    return plan


def _limits(question: Question, purse: Purse | None) -> Limits:
    """What the request asks of the team, and what the budgets of all agents have left for it."""
    limits = Limits(
        max_cost=question.number("max_cost"),
        max_latency_ms=question.number("max_latency_ms"),
        min_quality=question.number("min_quality"),
    )
    if purse is None or purse.amount is None:
        return limits
    if limits.max_cost is not None and limits.max_cost <= purse.amount:
        return limits
    return replace(
        limits,
        max_cost=purse.amount,
        budget=f"budget {purse.budget!r} has {text.money(purse.amount)} left",
    )


def _learn(quality: ActiveQuality, agents: AgentTable, policy: Policy) -> Learn:
    def learn(estimates: Estimates, texts: Sequence[str], vectors: Vectors) -> Estimates:
        requests = describe(texts, vectors)
        alone = policy.name == "quality"
        return with_learned(estimates, quality.model, quality.name, requests, agents, alone=alone)

    return learn


def _cells(
    context: Context, question: Question, request: str, plan: _Plan, ids: Sequence[UUID]
) -> Mapping[str, Cell]:
    names, team = context.snapshot.agents.names, plan.team
    cells: dict[str, Cell] = {**echoes(question, AGENT_PLANS)}
    formed = bool(team.members)
    cells.update(
        request=constant(request),
        team_cost=constant(text.money(team.cost) if formed else None),
        team_latency_ms=constant(text.double(team.latency_ms) if formed else None),
        team_quality=constant(_number(team.quality) if formed else None),
        place=lambda answer: str(answer[0]),
        agent_name=_of_member(lambda member: names[member.agent]),
        part=_of_member(lambda member: member.part.text),
        capability=_of_member(lambda member: member.part.capability),
        estimated_cost=_of_member(lambda member: text.money(member.cost)),
        estimated_latency_ms=_of_member(lambda member: text.double(member.latency_ms)),
        expected_quality=_of_member(lambda member: _number(member.success)),
        reasoning=lambda answer: _reasoning(team, answer, names, request),
        explanation=lambda _: text.jsonb(_explanation(context, plan)),
        decision_id=lambda answer: str(ids[answer[0] - 1]) if ids else None,
    )
    return cells


def _of_member(form: Callable[[Member], str | None]) -> Cell:
    return lambda answer: None if answer[1] is None else form(answer[1])


def _reasoning(team: Team, answer: Answer, names: Sequence[str], request: str) -> str:
    place, member = answer
    if member is None:
        return f"No team suits: {team.refusal}."
    of = f"number {place} of {len(team.members)}"
    if team.strategy == "ensemble":
        task = "works on the whole request, beside the others"
    elif place > 1 and member.part.text == request:
        # More members than pieces of work were found.
        task = "goes over the whole request"
    else:
        task = f"takes {member.part.text[:80]!r}"
    why = f", which calls for {member.part.capability}" if member.part.capability else ""
    return (
        f"{names[member.agent]}, {of}, {task}{why}: cost {text.money(member.cost)}, "
        f"{member.latency_ms:g} ms, chance of success {member.success:.2f}."
    )


def _explanation(context: Context, plan: _Plan) -> dict[str, Any]:
    agents, team, quality = context.snapshot.agents, plan.team, context.quality
    learned = frozenset() if quality is None else frozenset(quality.model.agents)

    def standing(agent: int) -> str:
        if agents.names[agent] in learned:
            return "learned"
        return "measured" if agents.outcomes[agent] else "prior"

    found: dict[str, Any] = {
        "strategy": team.strategy,
        "members": [
            {
                "agent": agents.names[member.agent],
                "part": member.part.text,
                "found_by": member.part.reason,
                "capability": member.part.capability,
                "similarity": round(member.part.similarity, DIGITS),
                "estimated_cost": member.cost,
                "estimated_latency_ms": member.latency_ms,
                "expected_quality": round(member.success, DIGITS),
                "quality_is": standing(member.agent),
                "score": round(member.score, DIGITS),
            }
            for member in team.members
        ],
        # Whether every team was compared, or the best of the most promising ones is given.
        "exact": team.exact,
        "refusal": team.refusal or None,
        "models": {
            "embedder": context.embedder.model,
            "quality": "registered" if quality is None else quality.name,
        },
    }
    if quality is not None:
        found["quality_evidence"] = quality.model.evidence.sentence
    if plan.purse is not None and plan.purse.short:
        found["budgets_of_agents"] = plan.purse.short
    if team.joint is not None:
        found["joint_success"] = {
            "any": round(team.joint.any, DIGITS),
            "most": round(team.joint.most, DIGITS),
            "all": round(team.joint.all, DIGITS),
            "correlation": round(team.joint.correlation, DIGITS),
            **_standing_of_correlation(plan, agents.names),
        }
    return found


def _standing_of_correlation(plan: _Plan, names: Sequence[str]) -> dict[str, Any]:
    """Whether the correlation of an ensemble was measured, and on how many requests, by pair."""
    members = sorted(member.agent for member in plan.team.members)
    known = plan.correlations or unknown_correlations(len(names))
    pairs = list(combinations(members, 2))
    measured = sum(int(known.requests[pair]) > 0 for pair in pairs)
    how = "measured" if measured == len(pairs) else "partly measured" if measured else "assumed"
    return {
        "correlation_is": how,
        "pairs": [
            {
                "agents": [names[first], names[second]],
                "correlation": round(float(known.values[first, second]), DIGITS),
                "requests": int(known.requests[first, second]),
            }
            for first, second in pairs
        ],
    }


def _number(value: float) -> str:
    return text.double(round(value, DIGITS))
