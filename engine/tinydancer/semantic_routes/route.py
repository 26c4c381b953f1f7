"""A named route to an agent, and how alike a query is to it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from tinydancer.embeddings.base import Vectors
from tinydancer.semantic_routes.conditions import UNCONDITIONAL, Conditions
from tinydancer.semantic_routes.words import Words

# Similarities are compared and shown to this many digits: beyond, processors differ.
DIGITS = 6
# The cosine of texts that have nothing to do with each other: what a lone route is held against.
UNRELATED = 0.0


@dataclass(frozen=True)
class Route:
    """A named route to an agent. `threshold` None means the default of the settings.

    One of hybrid matching has `words`, those of its description and of each utterance.
    """

    name: str
    description: str
    target_agent: str
    priority: int = 0
    threshold: float | None = None
    active: bool = True
    conditions: Conditions = UNCONDITIONAL
    utterances: tuple[str, ...] = ()
    words: tuple[Words, ...] = ()


# A route with its similarity to a query.
Hit = tuple[Route, float]
# For each query (unit rows) all active routes with their cosines, best first, found as they are
# read: the search by the database's index, where routes are too many to keep vectors of.
RouteSearch = Callable[[Vectors], Sequence[Iterable[Hit]]]
