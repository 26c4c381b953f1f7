"""Decisions of a session, with the sessions of the database stood in for by a dict."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from tests.unit.tables.conftest import Engine

from tinydancer.agents.registry import AgentTable
from tinydancer.policies import POLICIES
from tinydancer.router import Barrier, Decisions, decide, estimate
from tinydancer.tables.holding import Holder


class Kept:
    """Sessions as hold_session keeps them, and what was asked."""

    def __init__(self, **agents: str) -> None:
        self.agents = agents
        self.asked: list[tuple[str, tuple[str, ...]]] = []

    def hold(
        self, tenant: str, key: str, chosen: str, suitable: Sequence[str]
    ) -> tuple[str, str | None]:
        self.asked.append((chosen, tuple(suitable)))
        before = self.agents.get(key)
        self.agents[key] = before if before in suitable else chosen
        return self.agents[key], before


@pytest.fixture
def agents(engine: Engine) -> AgentTable:
    return engine.context().snapshot.agents


def decided(agents: AgentTable, *barred: Barrier, requests: int = 2, top_k: int = 1) -> Decisions:
    tokens = np.full(requests, 100)
    estimates = estimate(agents, tokens, np.full(len(agents), 100.0))
    return decide(agents, estimates, POLICIES["quality"], barred, top_k)


def refusing(agents: AgentTable, *cells: tuple[int, str], requests: int = 2) -> Barrier:
    refused = np.zeros((requests, len(agents)), np.bool_)
    for row, name in cells:
        refused[row, agents.positions[name]] = True
    return Barrier("budget", "b", refused)


def chosen(decisions: Decisions) -> list[str]:
    return [decisions.agents.names[at] for at in decisions.order[:, 0]]


def test_a_new_session_goes_to_the_agent_that_is_chosen(agents: AgentTable) -> None:
    sessions = Kept()
    found = Holder(sessions, "default", "k").held(decided(agents))
    assert chosen(found) == ["gpt-4", "gpt-4"]
    assert found.session is not None
    assert (found.session.agent, found.session.before) == ("gpt-4", None)
    assert sessions.asked == [("gpt-4", ("gpt-4", "code-specialist", "claude-3-haiku"))]


def test_the_sessions_agent_comes_first_wherever_it_suits(agents: AgentTable) -> None:
    holder = Holder(Kept(k="claude-3-haiku"), "default", "k")
    barred = refusing(agents, (1, "claude-3-haiku"))
    found = holder.held(decided(agents, barred, top_k=2))
    names = [[agents.names[at] for at in row] for row in found.order]
    assert names == [["claude-3-haiku", "gpt-4"], ["gpt-4", "code-specialist"]]


def test_before_is_whom_it_had_when_it_was_asked_first(agents: AgentTable) -> None:
    holder = Holder(Kept(k="gpt-4"), "default", "k")
    holder.held(decided(agents))
    full = refusing(agents, (0, "gpt-4"), (1, "gpt-4"))
    found = holder.held(decided(agents, full))
    assert chosen(found) == ["code-specialist"] * 2
    assert found.session is not None
    assert (found.session.agent, found.session.before) == ("code-specialist", "gpt-4")


def test_where_nobody_suits_no_session_is_touched(agents: AgentTable) -> None:
    sessions = Kept()
    everybody = refusing(agents, *((row, name) for row in (0, 1) for name in agents.names))
    found = Holder(sessions, "default", "k").held(decided(agents, everybody))
    assert found.session is None
    assert sessions.asked == []


def test_no_dice_are_thrown_for_a_decision_that_is_held(agents: AgentTable) -> None:
    thrown = replace(decided(agents), propensity=np.array([0.3, 0.4]))
    for held in ("claude-3-haiku", "gpt-4"):
        found = Holder(Kept(k=held), "default", "k").held(thrown)
        assert found.propensity is not None
        assert found.propensity.tolist() == [1.0, 1.0]


def test_who_begins_a_session_has_the_dice_that_were_thrown(agents: AgentTable) -> None:
    thrown = replace(decided(agents), propensity=np.array([0.3, 0.4]))
    found = Holder(Kept(), "default", "k").held(thrown)
    assert found.propensity is not None
    assert found.propensity.tolist() == [0.3, 1.0]
