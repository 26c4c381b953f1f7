"""The decision: which agent serves a request.

Candidates → estimates → constraints → policy → order. All of it is arithmetic over arrays of
(n requests, a agents); agents are sorted by name, so that the first of equals is the one whose
name comes first.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from tinydancer.agents.capabilities import capability_key
from tinydancer.agents.cost import cost
from tinydancer.agents.registry import AgentTable, Floats, Ints
from tinydancer.policies import Policy
from tinydancer.policies.estimates import Estimates, Mask

Positions = NDArray[np.intp]
Kind = TypeVar("Kind", bound=np.generic)


@dataclass(frozen=True)
class Constraints:
    """What the chosen agent must satisfy; None and empty mean no such constraint.

    Money bounds the expected cost of this request; latency is the agent's average.
    """

    required_capabilities: tuple[str, ...] = ()
    excluded_agents: tuple[str, ...] = ()
    max_cost: float | None = None
    max_latency_ms: float | None = None
    min_quality: float | None = None
    budget_remaining: float | None = None


@dataclass(frozen=True)
class Barrier:
    """A constraint held against every agent: which it refuses, at what limit, for which figure.

    `refused` is (a,) or (n, a), and so is `actual` where the constraint is about a number.
    """

    constraint: str
    limit: float | str
    refused: Mask
    actual: Floats | None = None


@dataclass(frozen=True)
class Session:
    """A session, the agent that it had before (None for a new one), and the one that it has now."""

    key: str
    before: str | None
    agent: str


@dataclass(frozen=True)
class Decisions:
    """The decisions on n requests, with all that explains them.

    `order` is (n, k): positions of the best agents in the table, best first, -1 where there are
    no more. `key` is what the policy maximised, (a,) or (n, a), -inf for refused agents.
    `candidates` is the mask of agents that no barrier refuses, (a,) or (n, a), or None where
    there is no barrier at all. `propensity` is (n,) the probability with which each request was
    to go to its agent, or None where that is certain; `exploration` says how it was thrown for.
    `session` is the one that they are made for.
    """

    agents: AgentTable
    estimates: Estimates
    policy: Policy
    barriers: tuple[Barrier, ...]
    candidates: Mask | None
    key: Floats
    order: Positions
    propensity: Floats | None = None
    exploration: str | None = None
    session: Session | None = None

    def scores(self) -> Floats:
        """(n, a) what the policy maximised, 0 to 1; meaningful where an agent is a candidate."""
        shape = self.estimates.cost.shape
        if not shape[1]:
            return np.zeros(shape)
        if self.policy.score is self.policy.key:
            return np.broadcast_to(self.key, shape)
        scores = self.policy.score(self.estimates, scope(self.candidates))
        return np.broadcast_to(scores, shape)

    def qualified(self) -> NDArray[np.int64]:
        """(n,) how many agents each request could go to."""
        n, a = self.estimates.cost.shape
        counts = a if self.candidates is None else self.candidates.sum(axis=-1)
        return np.broadcast_to(np.asarray(counts, np.int64), (n,))

    def best(self, row: int, count: int) -> Positions:
        """Positions of the `count` best agents for one request, best first."""
        key = of_row(self.key, row)
        order = np.argsort(-key, kind="stable")[:count]
        return order[np.isfinite(key[order])]

    def refusals(self, row: int, count: int) -> Iterator[tuple[int, Barrier]]:
        """Agent and barrier for each refusal of a request, for the first `count` agents refused."""
        if self.candidates is None:
            return
        for position in np.flatnonzero(~of_row(self.candidates, row))[:count].tolist():
            for barrier in self.barriers:
                if of_row(barrier.refused, row)[position]:
                    yield position, barrier


def of_row(values: NDArray[Kind], row: int) -> NDArray[Kind]:
    """The values of one request, of an array that is (a,), (1, a) or (n, a)."""
    if values.ndim == 1:
        return values
    found: NDArray[Kind] = values[row if len(values) > 1 else 0]
    return found


def estimate(
    agents: AgentTable,
    tokens_in: Ints,
    tokens_out: Floats,
    fit: Floats | None = None,
) -> Estimates:
    """What each agent is expected to do for n requests of `tokens_in` (n,) tokens.

    `tokens_out` is (a,), `fit` (n, a). Quality is the registered or measured one of each agent,
    and so is the probability of success: a learned model may put its own in their place.
    """
    return Estimates(
        cost=cost(agents.prices, tokens_in[:, None], tokens_out, agents.latency_ms),
        latency_ms=agents.latency_ms,
        quality=agents.quality,
        confidence=agents.quality,
        fit=fit,
    )


def barriers(
    agents: AgentTable, estimates: Estimates, constraints: Constraints
) -> tuple[Barrier, ...]:
    """The constraints that are given, each held against every agent."""
    found = []
    for capability in constraints.required_capabilities:
        lacking = np.ones(len(agents), np.bool_)
        holders = agents.holders.get(capability_key(capability))
        if holders is not None:
            lacking[holders] = False
        found.append(Barrier("required_capabilities", capability, lacking))
    for name in constraints.excluded_agents:
        if name in agents.positions:
            excluded = np.zeros(len(agents), np.bool_)
            excluded[agents.positions[name]] = True
            found.append(Barrier("excluded_agents", name, excluded))
    for constraint, limit, actual in (
        ("max_cost", constraints.max_cost, estimates.cost),
        ("budget_remaining", constraints.budget_remaining, estimates.cost),
        ("max_latency_ms", constraints.max_latency_ms, estimates.latency_ms),
    ):
        if limit is not None:
            found.append(Barrier(constraint, limit, actual > limit, actual))
    if (least := constraints.min_quality) is not None:
        refused = estimates.quality < least
        found.append(Barrier("min_quality", least, refused, estimates.quality))
    return tuple(found)


def scope(candidates: Mask | None) -> Mask | None:
    """The mask that a policy scales over: the candidates, or all agents where there are none."""
    if candidates is None:
        return None
    return candidates | ~candidates.any(axis=-1, keepdims=True)


def decide(
    agents: AgentTable,
    estimates: Estimates,
    policy: Policy,
    barred: Sequence[Barrier] = (),
    top_k: int = 1,
) -> Decisions:
    """The best `top_k` agents for each request among those that no barrier refuses.

    `estimates.cost` must be (n, a). Deterministic: what the policy finds equal goes by name.
    """
    n, a = estimates.cost.shape
    if not a:
        return Decisions(
            agents, estimates, policy, (), None, np.zeros(0), np.zeros((n, 0), np.intp)
        )
    candidates = None
    for barrier in barred:
        allowed = ~barrier.refused
        candidates = allowed if candidates is None else candidates & allowed
    key = policy.key(estimates, scope(candidates))
    if candidates is not None:
        key = np.where(candidates, key, -np.inf)
    k = min(top_k, a)
    if k == 1:
        order = key.argmax(axis=-1, keepdims=True)
    else:
        order = np.argsort(-key, axis=-1, kind="stable")[..., :k]
    if candidates is not None:
        found = np.take_along_axis(np.broadcast_to(candidates, key.shape), order, axis=-1)
        order = np.where(found, order, -1)
    if len(order) != n or order.ndim != 2:  # the policy does not look at the request
        order = np.broadcast_to(order, (n, k))
    return Decisions(agents, estimates, policy, tuple(barred), candidates, key, order)
