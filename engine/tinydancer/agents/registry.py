"""The agents that can be chosen, column by column, as the decision reads them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinydancer.agents.capabilities import capability_key
from tinydancer.agents.model import Agent
from tinydancer.embeddings.base import Vectors

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class AgentTable:
    """The active agents, sorted by name (by code point, so that ties by name go to the first).

    Of n agents: `prices` is (4, n), money per 1,000 input tokens, per 1,000 output tokens, per
    call and per second; `latency_ms`, `quality` and `outcomes` are (n,), as is `output_tokens`,
    the mean length of an agent's answers, NaN where unknown. `holders` has, for each capability
    (by its key), the positions of the agents that list it. `embeddings` is (n, d), unit rows.

    Two tables are equal only if they are the same object: what is worked out for one is kept by
    its identity.
    """

    agents: tuple[Agent, ...]
    names: tuple[str, ...]
    positions: Mapping[str, int]
    prices: Floats
    latency_ms: Floats
    quality: Floats
    output_tokens: Floats
    outcomes: Ints
    holders: Mapping[str, Ints]
    embeddings: Vectors

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
        return cls(
            agents=active,
            names=names,
            positions={name: position for position, name in enumerate(names)},
            prices=_prices(active),
            latency_ms=_column(agent.performance.avg_latency_ms for agent in active),
            quality=_column(agent.performance.quality for agent in active),
            output_tokens=_column(
                np.nan
                if agent.performance.output_tokens is None
                else agent.performance.output_tokens
                for agent in active
            ),
            outcomes=np.array([agent.performance.outcomes for agent in active], np.int64),
            holders=_holders(active),
            embeddings=np.ascontiguousarray(embeddings[np.array(order, np.intp)], np.float32),
        )

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
