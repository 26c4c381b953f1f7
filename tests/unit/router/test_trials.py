"""Exploration: how often others are tried, and that the propensity says so."""

from __future__ import annotations

from uuid import UUID

import numpy as np
import pytest

from tinydancer.agents.model import Agent, Performance, Prices
from tinydancer.agents.registry import AgentTable
from tinydancer.policies import POLICIES
from tinydancer.router import Barrier, decide, estimate
from tinydancer.trials import try_others

N = 4000
IDS = [UUID(int=7919 * n) for n in range(N)]


@pytest.fixture
def agents() -> AgentTable:
    made = [Agent(name, "llm", (), Prices(per_call=1.0), Performance(100.0, quality))
            for name, quality in (("a", 0.5), ("b", 0.9), ("c", 0.7), ("d", 0.99))]  # fmt: skip
    return AgentTable.build(made, np.eye(4, dtype=np.float32))


def decided(agents: AgentTable, top_k: int = 1):
    estimates = estimate(agents, np.ones(N, np.int64), np.ones(4))
    not_d = Barrier("excluded_agents", "d", np.array([False, False, False, True]))
    return decide(agents, estimates, POLICIES["quality"], (not_d,), top_k)


def test_each_that_qualifies_is_tried_as_often_as_its_propensity_says(agents):
    tried = try_others(decided(agents), 0.3, IDS)
    chosen = tried.order[:, 0]
    for agent, chance in ((0, 0.1), (1, 0.8), (2, 0.1)):
        mine = chosen == agent
        assert mine.mean() == pytest.approx(chance, abs=0.02)
        assert np.allclose(tried.propensity[mine], chance)
    assert not (chosen == 3).any()


def test_the_same_ids_are_the_same_trials(agents):
    first, second = (try_others(decided(agents), 0.5, IDS) for _ in range(2))
    assert (first.order == second.order).all()


def test_the_others_keep_their_order_behind_the_one_that_is_tried(agents):
    tried = try_others(decided(agents, top_k=3), 1.0, IDS)
    assert {tuple(row) for row in tried.order.tolist()} == {(1, 2, 0), (2, 1, 0), (0, 1, 2)}


def test_without_a_candidate_nothing_is_tried(agents):
    estimates = estimate(agents, np.ones(1, np.int64), np.ones(4))
    nobody = Barrier("max_cost", 0.0, np.ones(4, np.bool_))
    tried = try_others(decide(agents, estimates, POLICIES["cost"], (nobody,)), 1.0, IDS[:1])
    assert tried.order.tolist() == [[-1]]
