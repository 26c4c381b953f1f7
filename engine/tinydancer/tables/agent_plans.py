"""The foreign table agent_plans: requests to teams of agents."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from tinydancer.agents.cost import output_tokens
from tinydancer.errors import NotReady
from tinydancer.policies import POLICIES
from tinydancer.tables import text
from tinydancer.tables.context import Context
from tinydancer.tables.inputs import Question, questions
from tinydancer.tables.rows import constant, echoes, rows
from tinydancer.team_planning import plan_team
from tinydancer.teams import Limits, Member, Team
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
            team = _plan(context, question, request)
            members: list[Answer] = list(enumerate(team.members, 1)) or [(1, None)]
            yield from rows(members, _cells(context, question, request, team), columns)


def _plan(context: Context, question: Question, request: str) -> Team:
    agents = context.snapshot.agents
    excluded = question.names("excluded_agents")
    candidates = np.array([name not in excluded for name in agents.names], np.bool_)
    available = int(candidates.sum())
    if not available:
        raise NotReady(
            "there is no agent to make a team of",
            hint="Register some with ruvector_register_agent; they are seen once committed.",
        )
    expected = question.integer("expected_output_tokens")
    return plan_team(
        request,
        question.text("strategy") or "pipeline",
        question.integer("num_agents") or min(DEFAULT_AGENTS, available),
        agents,
        context.embedder,
        POLICIES[question.text("optimize_for") or "balanced"],
        output_tokens(agents, expected, context.snapshot.settings.default_output_tokens),
        Limits(
            max_cost=question.number("max_cost"),
            max_latency_ms=question.number("max_latency_ms"),
            min_quality=question.number("min_quality"),
        ),
        candidates=candidates,
    )


def _cells(context: Context, question: Question, request: str, team: Team) -> Mapping[str, Cell]:
    names = context.snapshot.agents.names
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
        reasoning=lambda answer: _reasoning(team, answer, names),
        explanation=lambda _: text.jsonb(_explanation(team, names)),
    )
    return cells


def _of_member(form: Callable[[Member], str | None]) -> Cell:
    return lambda answer: None if answer[1] is None else form(answer[1])


def _reasoning(team: Team, answer: Answer, names: Sequence[str]) -> str:
    place, member = answer
    if member is None:
        return f"No team suits: {team.refusal}."
    of = f"number {place} of {len(team.members)}"
    if team.strategy == "ensemble":
        task = "works on the whole request, beside the others"
    else:
        task = f"takes {member.part.text[:80]!r}"
    why = f", which calls for {member.part.capability}" if member.part.capability else ""
    return (
        f"{names[member.agent]}, {of}, {task}{why}: cost {text.money(member.cost)}, "
        f"{member.latency_ms:g} ms, chance of success {member.success:.2f}."
    )


def _explanation(team: Team, names: Sequence[str]) -> dict[str, Any]:
    found: dict[str, Any] = {
        "strategy": team.strategy,
        "members": [
            {
                "agent": names[member.agent],
                "part": member.part.text,
                "found_by": member.part.reason,
                "capability": member.part.capability,
                "similarity": round(member.part.similarity, DIGITS),
                "estimated_cost": member.cost,
                "estimated_latency_ms": member.latency_ms,
                "expected_quality": round(member.success, DIGITS),
                "score": round(member.score, DIGITS),
            }
            for member in team.members
        ],
        # Whether every team was compared, or the best of the most promising ones is given.
        "exact": team.exact,
        "refusal": team.refusal or None,
    }
    if team.joint is not None:
        found["joint_success"] = {
            "any": round(team.joint.any, DIGITS),
            "most": round(team.joint.most, DIGITS),
            "all": round(team.joint.all, DIGITS),
            "correlation": round(team.joint.correlation, DIGITS),
        }
    return found


def _number(value: float) -> str:
    return text.double(round(value, DIGITS))
