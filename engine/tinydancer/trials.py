"""Decisions that now and then try another agent than the best, each with its propensity."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal
from uuid import UUID

import numpy as np
from numpy.typing import NDArray

from tinydancer.agents.registry import Floats
from tinydancer.learning.exploration import (
    Beliefs,
    draw,
    epsilon_greedy,
    greedy,
    seed_of,
    thompson,
    thompson_for_money,
)
from tinydancer.policies import hybrid
from tinydancer.policies.estimates import Mask
from tinydancer.router import Decisions, of_row, scope

MOST_LOCAL = 50
"""Outcomes that a learned estimate for one request counts for at most: it rests on those of
requests like this one, not on all that the agent ever had."""

Columns = NDArray[np.intp]


@dataclass(frozen=True)
class Exploration:
    """How others are tried.

    `rate` is epsilon's; a prior counts for `prior_weight` outcomes. Dice are thrown by the
    decision's id, or where there is a `seed`, by that and the request's text: the same request
    then has the same dice.
    """

    method: Literal["epsilon", "thompson"]
    rate: float
    prior_weight: float
    seed: int | None = None


@dataclass(frozen=True, eq=False)
class _Trial:
    """What was thrown for a request: (a,) who qualified, each one's probability, who it was."""

    qualified: Mask
    probabilities: Floats
    agent: int
    attempts: int


@dataclass(eq=False)
class Explorer:
    """Tries others on one batch of requests, as often as the decision on it is taken.

    It is taken again where a budget refuses an agent, having had enough when it was looked at.
    Then a request that has lost its agent has another throw among the rest, and the propensity is
    the whole of both: that an agent was chosen at once, or after one that is refused (which agents
    those are, no dice decide).
    """

    exploration: Exploration
    ids: Sequence[UUID]
    texts: Sequence[str]
    _trials: dict[int, _Trial] = field(default_factory=dict)

    def tried(self, decisions: Decisions) -> Decisions:
        """The decisions, some of them for another agent; the rest keep their order behind it."""
        if not decisions.order.shape[1]:
            return decisions
        order = np.array(decisions.order)
        propensity = np.ones(len(order))
        utility = _Utility.of(decisions, self.exploration)
        for row in range(len(order)):
            qualified = np.isfinite(np.broadcast_to(of_row(decisions.key, row), len(utility)))
            if not qualified.any():
                continue
            trial = self._trials.get(row)
            if trial is None or (trial.qualified != qualified).any():
                trial = self._throw(row, qualified, utility, trial)
                self._trials[row] = trial
            propensity[row] = trial.probabilities[trial.agent]
            if trial.agent != order[row, 0]:
                rest = order[row][order[row] != trial.agent]
                order[row] = np.concatenate([[trial.agent], rest])[: order.shape[1]]
        return replace(
            decisions, order=order, propensity=propensity, exploration=self.exploration.method
        )

    def _throw(self, row: int, qualified: Mask, utility: _Utility, before: _Trial | None) -> _Trial:
        columns = np.flatnonzero(qualified)
        probabilities = np.zeros(len(qualified))
        probabilities[columns] = utility.probabilities(row, columns)
        attempt = 0 if before is None else before.attempts
        agent = draw(probabilities, seed_of(self.exploration.seed or 0, self._dice(row, attempt)))
        if before is not None:
            at_once = np.where(qualified, before.probabilities, 0.0)
            probabilities = at_once + (1 - at_once.sum()) * probabilities
        return _Trial(qualified, probabilities, agent, attempt + 1)

    def _dice(self, row: int, attempt: int) -> str:
        thrown_by = str(self.ids[row]) if self.exploration.seed is None else self.texts[row]
        return f"{attempt} {thrown_by}" if attempt else thrown_by


@dataclass(frozen=True, eq=False)
class _Utility:
    """What each agent is worth to each request, and what is uncertain in it: the success.

    `costs` is given where worth is success for money. Otherwise it is linear in the success, as
    the policy scales it over the candidates: `weight` (n,) times the success, less `penalties`
    (n, a).
    """

    decisions: Decisions
    exploration: Exploration
    weight: Floats
    penalties: Floats
    costs: Floats | None
    concentration: Floats
    _believed: dict[bytes, Beliefs] = field(default_factory=dict)

    @classmethod
    def of(cls, decisions: Decisions, exploration: Exploration) -> _Utility:
        """Of some decisions, by their policy."""
        estimates, policy, agents = decisions.estimates, decisions.policy, decisions.agents
        shape = estimates.cost.shape
        weight, penalties, costs = np.zeros(len(shape)), np.zeros((1, 1)), None
        if exploration.method == "thompson" and policy.key is hybrid.quality_per_dollar:
            costs = np.maximum(estimates.cost, hybrid.FREE)
        elif exploration.method == "thompson" and policy.weights.quality:
            weight, rest = hybrid.split(policy.weights, estimates, scope(decisions.candidates))
            weight = np.broadcast_to(weight[..., 0], shape[:1])
            penalties = -np.broadcast_to(rest, shape)
        outcomes = agents.outcomes.astype(np.float64)
        if estimates.learned is not None:
            outcomes = np.where(estimates.learned, np.minimum(outcomes, MOST_LOCAL), outcomes)
        return cls(
            decisions, exploration, weight, penalties, costs, exploration.prior_weight + outcomes
        )

    def __len__(self) -> int:
        return len(self.decisions.agents)

    def probabilities(self, row: int, columns: Columns) -> Floats:
        """With which each of these agents is to be chosen."""
        key = np.broadcast_to(of_row(self.decisions.key, row), len(self))[columns]
        if self.exploration.method == "epsilon":
            return epsilon_greedy(key, self.exploration.rate)
        if self.costs is not None:
            return thompson_for_money(self._beliefs(row, columns), self.costs[row, columns])
        if not self.decisions.policy.wants_quality:
            return greedy(key)  # nothing that it looks at is uncertain
        return thompson(
            self._beliefs(row, columns), self.penalties[row, columns], float(self.weight[row])
        )

    def _beliefs(self, row: int, columns: Columns) -> Beliefs:
        """Beta with the expected quality for its mean, as sure as the outcomes behind it are many.

        No mean is surer than so many outcomes of one kind would make it (with Jeffreys' prior).
        """
        known = self.concentration[columns]
        quality = of_row(np.atleast_2d(self.decisions.estimates.quality), row)[columns]
        mean = np.clip(quality, 0.5 / (known + 1), (known + 0.5) / (known + 1))
        alpha, beta = mean * known, (1 - mean) * known
        # The last is kept: they are alike for all requests, or, where quality is learned, for few.
        key = alpha.tobytes() + beta.tobytes()
        if key not in self._believed:
            self._believed.clear()
            self._believed[key] = Beliefs(alpha, beta)
        return self._believed[key]
