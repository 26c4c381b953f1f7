"""Exploration: how often others are tried, and that the propensity says so."""

from __future__ import annotations

from dataclasses import replace
from uuid import UUID

import numpy as np
import pytest

from tinydancer.agents.model import Agent, Performance, Prices
from tinydancer.agents.registry import AgentTable
from tinydancer.policies import POLICIES
from tinydancer.router import Barrier, Decisions, decide, estimate
from tinydancer.trials import Exploration, Explorer

N = 4000
IDS = [UUID(int=7919 * n) for n in range(N)]
TEXTS = [f"request {n}" for n in range(N)]
NOT_D = Barrier("excluded_agents", "d", np.array([False, False, False, True]))
THOMPSON = Exploration("thompson", 0.0, prior_weight=10.0)


def table(outcomes: int = 0, prices: tuple[float, ...] = (1.0, 1.0, 1.0, 1.0)) -> AgentTable:
    made = [
        Agent(name, "llm", (), Prices(per_call=price), Performance(100.0, mean, outcomes=outcomes))
        for name, mean, price in zip("abcd", (0.5, 0.9, 0.7, 0.99), prices, strict=True)
    ]
    return AgentTable.build(made, np.eye(4, dtype=np.float32))


def decided(
    agents: AgentTable,
    top_k: int = 1,
    policy: str = "quality",
    barriers: tuple[Barrier, ...] = (NOT_D,),
) -> Decisions:
    estimates = estimate(agents, np.ones(N, np.int64), np.ones(4))
    return decide(agents, estimates, POLICIES[policy], barriers, top_k)


def explorer(exploration: Exploration, ids: list[UUID] = IDS) -> Explorer:
    return Explorer(exploration, ids, TEXTS)


def epsilon(rate: float) -> Explorer:
    return explorer(Exploration("epsilon", rate, prior_weight=10.0))


def test_each_that_qualifies_is_tried_as_often_as_its_propensity_says():
    tried = epsilon(0.3).tried(decided(table()))
    chosen = tried.order[:, 0]
    for agent, chance in ((0, 0.1), (1, 0.8), (2, 0.1)):
        mine = chosen == agent
        assert mine.mean() == pytest.approx(chance, abs=0.02)
        assert np.allclose(tried.propensity[mine], chance)
    assert not (chosen == 3).any()


def test_a_request_is_tried_alike_in_a_batch_and_alone():
    # Given two kinds of requests, which agents are thought to serve unlike
    quality = np.array([[0.5, 0.9, 0.7, 0.99], [0.8, 0.6, 0.7, 0.1]])[[0, 0, 1, 0, 1, 1]]

    def tried(rows: list[int]) -> Decisions:
        estimates = estimate(table(), np.ones(len(rows), np.int64), np.ones(4))
        learned = replace(estimates, quality=quality[rows], learned=np.ones(4, np.bool_))
        decisions = decide(table(), learned, POLICIES["quality"], (), 1)
        return explorer(THOMPSON, [IDS[row] for row in rows]).tried(decisions)

    together = tried(list(range(6)))
    for row in range(6):
        alone = tried([row])
        assert alone.order[0].tolist() == together.order[row].tolist()
        assert alone.propensity[0] == together.propensity[row]
    assert len(set(together.propensity)) > 2


@pytest.mark.parametrize("policy", ["quality", "balanced", "quality_per_dollar"])
def test_thompson_tries_each_as_often_as_it_may_be_the_best(policy):
    tried = explorer(THOMPSON).tried(decided(table(prices=(1.0, 1.3, 1.1, 1.0)), policy=policy))
    shares = np.bincount(tried.order[:, 0], minlength=4) / N
    assert 0.02 < shares[2] < 0.98
    assert not shares[3]
    for agent in np.flatnonzero(shares):
        (chance,) = set(tried.propensity[tried.order[:, 0] == agent].tolist())
        assert shares[agent] == pytest.approx(chance, abs=0.02)


def test_what_many_outcomes_stand_behind_is_not_doubted():
    few, many = (explorer(THOMPSON).tried(decided(table(n))) for n in (0, 100_000))
    assert 0.5 < (few.order[:, 0] == 1).mean() < 0.99
    assert (many.order[:, 0] == 1).all()
    assert many.propensity.min() > 0.999


def test_a_learned_estimate_for_one_request_is_doubted_more_than_an_agents_mean():
    known = decided(table(100_000))
    learned = replace(known.estimates, learned=np.ones(4, np.bool_), source="model")
    tried = explorer(THOMPSON).tried(replace(known, estimates=learned))
    assert 0.5 < (tried.order[:, 0] == 1).mean() < 0.999


@pytest.mark.parametrize("policy", ["cost", "latency", "total_cost"])
def test_where_nothing_is_uncertain_nothing_is_tried(policy):
    plain = decided(table(), policy=policy)
    tried = explorer(THOMPSON).tried(plain)
    assert (tried.order == plain.order).all()
    assert (tried.propensity == 1).all()


def test_the_price_of_an_agent_counts_when_it_is_tried():
    cheap, dear = (
        explorer(THOMPSON).tried(decided(table(prices=(1, 1, price, 1)), policy="balanced"))
        for price in (0.3, 3.0)
    )
    assert (cheap.order[:, 0] == 2).mean() > (dear.order[:, 0] == 2).mean() + 0.2


def test_the_same_ids_are_the_same_trials():
    first, second = (epsilon(0.5).tried(decided(table())) for _ in range(2))
    assert (first.order == second.order).all()


def test_with_a_seed_requests_throw_the_dice_whatever_their_ids():
    exploration = replace(THOMPSON, seed=1)
    others = [UUID(int=31 * n + 7) for n in range(N)]
    first, second = (explorer(exploration, ids).tried(decided(table())) for ids in (IDS, others))
    assert (first.order == second.order).all()
    another = explorer(replace(THOMPSON, seed=2)).tried(decided(table()))
    assert (first.order != another.order).any()


def test_the_others_keep_their_order_behind_the_one_that_is_tried():
    tried = epsilon(1.0).tried(decided(table(), top_k=3))
    assert {tuple(row) for row in tried.order.tolist()} == {(1, 2, 0), (2, 1, 0), (0, 1, 2)}


def test_without_a_candidate_nothing_is_tried():
    estimates = estimate(table(), np.ones(1, np.int64), np.ones(4))
    nobody = Barrier("max_cost", 0.0, np.ones(4, np.bool_))
    tried = epsilon(1.0).tried(decide(table(), estimates, POLICIES["cost"], (nobody,)))
    assert tried.order.tolist() == [[-1]]


@pytest.mark.parametrize("exploration", [THOMPSON, Exploration("epsilon", 0.4, 10.0)])
def test_after_a_refusal_the_propensity_is_that_of_both_throws(exploration):
    # Given a budget that refuses b to those for whom it was thrown.
    one = explorer(exploration)
    first = one.tried(decided(table()))
    refused = np.zeros((N, 4), np.bool_)
    refused[first.order[:, 0] == 1, 1] = True
    # When they throw again
    second = one.tried(decided(table(), barriers=(NOT_D, Barrier("budget", "b", refused))))
    # Then who had another agent keeps it, and each is chosen as often as it says in all.
    kept = first.order[:, 0] != 1
    assert (second.order[kept, 0] == first.order[kept, 0]).all()
    for agent in (0, 2):
        again = ~kept & (second.order[:, 0] == agent)
        (chance,) = set(np.round(second.propensity[again], 9).tolist())
        assert (second.order[:, 0] == agent).mean() == pytest.approx(chance, abs=0.02)
