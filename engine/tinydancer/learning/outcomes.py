"""What happened: the reward of each agent on each request, where it was seen."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tinydancer.errors import InvalidInput, NumberOutOfRange
from tinydancer.learning.requests import Rows

Doubles = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Outcomes:
    """Rewards (n, m) float64 of m agents on n requests; NaN where an agent did not serve it.

    A table of scores has every cell; a log of decisions has one a row. propensities: (n,), the
    probability with which the agent of that row was chosen when it was logged (NaN where nobody
    recorded it), or None. They are only used for rows with one reward.
    """

    agents: tuple[str, ...]
    rewards: Doubles
    propensities: Doubles | None = None

    def __post_init__(self) -> None:
        if len(set(self.agents)) != len(self.agents):
            raise InvalidInput("an agent is named twice", detail=f"Agents: {list(self.agents)}")
        if self.rewards.ndim != 2 or self.rewards.shape[1] != len(self.agents):
            raise InvalidInput(
                f"rewards of shape {self.rewards.shape} do not fit {len(self.agents)} agents"
            )
        if np.isinf(self.rewards).any():
            row, column = np.argwhere(np.isinf(self.rewards))[0]
            raise NumberOutOfRange(
                f"the reward of agent {self.agents[column]!r} on request {row} is infinite"
            )
        if self.propensities is None:
            return
        known = self.propensities[~np.isnan(self.propensities)]
        if self.propensities.shape != (len(self.rewards),) or ((known <= 0) | (known > 1)).any():
            raise NumberOutOfRange("propensities must be one a request, above 0 and at most 1")

    @property
    def seen(self) -> NDArray[np.bool_]:
        """(n, m) where there is a reward."""
        return ~np.isnan(self.rewards)

    def take(self, rows: Rows) -> Outcomes:
        """The outcomes of some requests, in the order asked for."""
        propensities = None if self.propensities is None else self.propensities[rows]
        return Outcomes(self.agents, self.rewards[rows], propensities)

    def means(self, prior_weight: float = 1.0) -> Doubles:
        """(m,) mean reward of each agent, shrunk to the mean of all by `prior_weight` rewards."""
        seen = self.seen
        overall = float(self.rewards[seen].mean()) if seen.any() else 0.0
        sums = np.where(seen, self.rewards, 0.0).sum(axis=0)
        return np.asarray((sums + prior_weight * overall) / (seen.sum(axis=0) + prior_weight))

    def held_out_means(self, prior_weight: float = 1.0) -> Doubles:
        """(n, m) the same, each row's own rewards left out of its column."""
        seen = self.seen
        counts = seen.sum(axis=0)
        overall = float(self.rewards[seen].mean()) if seen.any() else 0.0
        own = np.where(seen, self.rewards, 0.0)
        rest = own.sum(axis=0) - own + prior_weight * overall
        return np.asarray(rest / (counts - seen + prior_weight))

    def groups(self, least: int) -> Iterator[tuple[Rows, Rows]]:
        """(columns, rows) of agents that were seen on the same rows, at least `least` of them.

        A full table is one group, so that its agents share a decomposition.
        """
        seen = self.seen
        by_rows: dict[bytes, list[int]] = {}
        for column in range(len(self.agents)):
            by_rows.setdefault(seen[:, column].tobytes(), []).append(column)
        for columns in by_rows.values():
            rows = np.flatnonzero(seen[:, columns[0]])
            if len(rows) >= least:
                yield np.array(columns), rows
