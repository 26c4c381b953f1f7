"""The agents that can be chosen, column by column, as the decision reads them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinydancer.agents.capabilities import capability_key
from tinydancer.agents.model import Agent, Performance
from tinydancer.embeddings.base import Vectors

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Roster:
    """Who can be chosen: what outcomes do not change.

    Of n agents `positions` has each one's place in `names`, and `holders`, for each capability (by
    its key), the positions of the agents that list it. `embeddings` is (n, d), unit rows.

    Two are equal only if they are the same object: what is worked out for one is kept by its
    identity.
    """

    names: tuple[str, ...]
    positions: Mapping[str, int]
    holders: Mapping[str, Ints]
    embeddings: Vectors


@dataclass(frozen=True, eq=False)
class AgentTable:
    """The active agents, sorted by name (by code point, so that ties by name go to the first).

    Of n agents: `prices` is (4, n), money per 1,000 input tokens, per 1,000 output tokens, per
    call and per second; `latency_ms`, `quality` and `outcomes` are (n,), as is `output_tokens`,
    the mean length of an agent's answers, NaN where unknown. As with a roster, two are equal only
    if they are the same object.
    """

    roster: Roster
    agents: tuple[Agent, ...]
    prices: Floats
    latency_ms: Floats
    quality: Floats
    output_tokens: Floats
    outcomes: Ints

    @classmethod
    def build(cls, agents: Sequence[Agent], embeddings: Vectors) -> AgentTable:
        """The table of the active ones among `agents`, whose vectors are the rows of `embeddings`.

        Raises ValueError where the two differ in length.
        """
        if len(agents) != len(embeddings):
            raise ValueError(f"{len(agents)} agents but {len(embeddings)} embeddings")
        order = sorted(
            (row for row, agent in enumerate(agents) if agent.active),
            key=lambda row: agents[row].name,
        )
        active = tuple(agents[row] for row in order)
        names = tuple(agent.name for agent in active)
        roster = Roster(
            names,
            {name: position for position, name in enumerate(names)},
            _holders(active),
            np.ascontiguousarray(embeddings[np.array(order, np.intp)], np.float32),
        )
        return cls._of(roster, active, _prices(active))

    def measured(self, performance: Sequence[Performance]) -> AgentTable:
        """The same agents as they do by now, one figure for each in the order of their names.

        Raises ValueError where there are more or fewer.
        """
        agents = tuple(
            replace(agent, performance=how)
            for agent, how in zip(self.agents, performance, strict=True)
        )
        return self._of(self.roster, agents, self.prices)

    @classmethod
    def _of(cls, roster: Roster, agents: tuple[Agent, ...], prices: Floats) -> AgentTable:
        performance = [agent.performance for agent in agents]
        return cls(
            roster=roster,
            agents=agents,
            prices=prices,
            latency_ms=_column(each.avg_latency_ms for each in performance),
            quality=_column(each.quality for each in performance),
            output_tokens=_column(
                np.nan if each.output_tokens is None else each.output_tokens for each in performance
            ),
            outcomes=np.array([each.outcomes for each in performance], np.int64),
        )

    @property
    def names(self) -> tuple[str, ...]:
        """The agents' names."""
        return self.roster.names

    @property
    def positions(self) -> Mapping[str, int]:
        """The place of each name."""
        return self.roster.positions

    @property
    def holders(self) -> Mapping[str, Ints]:
        """For each capability (by its key) the positions of the agents that list it."""
        return self.roster.holders

    @property
    def embeddings(self) -> Vectors:
        """(n, d) what each can do, as unit rows."""
        return self.roster.embeddings

    def __len__(self) -> int:
        return len(self.agents)


def _column(values: Any) -> Floats:
    return np.fromiter(values, np.float64)


def _prices(agents: Sequence[Agent]) -> Floats:
    rows = [
        (
            agent.prices.per_1k_input_tokens,
            agent.prices.per_1k_output_tokens,
            agent.prices.per_call,
            agent.prices.per_second,
        )
        for agent in agents
    ]
    return np.ascontiguousarray(np.array(rows, np.float64).reshape(len(rows), 4).T)


def _holders(agents: Sequence[Agent]) -> dict[str, Ints]:
    positions: dict[str, list[int]] = {}
    for position, agent in enumerate(agents):
        for key in {capability_key(capability) for capability in agent.capabilities}:
            positions.setdefault(key, []).append(position)
    return {key: np.array(found, np.int64) for key, found in positions.items()}
