"""What an agent can do: capabilities by their exact name, and by meaning."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from tinydancer.embeddings.base import Embedder, Vectors
from tinydancer.embeddings.cosine import cosines

if TYPE_CHECKING:
    from tinydancer.agents.registry import AgentTable, Roster

Pairs = NDArray[np.intp]

DIGITS = 6


def capability_key(capability: str) -> str:
    """The form by which capabilities are compared: no outer space, no case ('Code ' is 'code')."""
    return capability.strip().casefold()


@dataclass(frozen=True)
class CapabilityMatch:
    """An agent and how near its nearest capability is: 1 where exact, else the best cosine."""

    agent: str
    similarity: float
    exact: bool


def find(
    capabilities: Sequence[str], agents: AgentTable, embedder: Embedder, top_k: int
) -> list[list[CapabilityMatch]]:
    """For each capability the `top_k` nearest agents: those that list it, then the others.

    Agents without capabilities are never found. Ties go by name.
    """
    if not agents.holders:
        return [[] for _ in capabilities]
    vectors, pairs = _vocabulary(agents, embedder)
    near = cosines(embedder.embed(capabilities), vectors).astype(np.float64).round(DIGITS)
    found = []
    for capability, row in zip(capabilities, near, strict=True):
        similarity = np.full(len(agents), -np.inf)
        np.maximum.at(similarity, pairs[:, 0], row[pairs[:, 1]])
        exact = agents.holders.get(capability_key(capability))
        if exact is not None:
            # Above every cosine: an exact match goes first even before an equal vector.
            similarity[exact] = 2.0
        order = np.argsort(-similarity, kind="stable")[:top_k].tolist()
        found.append(
            [
                CapabilityMatch(agents.names[at], min(1.0, similarity.item(at)), similarity[at] > 1)
                for at in order
                if np.isfinite(similarity[at])
            ]
        )
    return found


# Worked out once for each roster, and forgotten with it: a roster is read for one embedder.
_known: WeakKeyDictionary[Roster, tuple[Vectors, Pairs]] = WeakKeyDictionary()


def _vocabulary(agents: AgentTable, embedder: Embedder) -> tuple[Vectors, Pairs]:
    """The vectors of all capabilities, and the pairs (agent, capability)."""
    known = _known.get(agents.roster)
    if known is None:
        pairs = [
            (position, number)
            for number, positions in enumerate(agents.holders.values())
            for position in positions.tolist()
        ]
        known = embedder.embed(tuple(agents.holders)), np.array(pairs, np.intp)
        _known[agents.roster] = known
    return known
