"""How well an agent suits the categories of requests that a classifier tells apart.

"My payslip looks wrong" has no word in common with an agent for support; its category has. So the
fit of request and agent by meaning goes by both: the cosine of their texts, and the cosine of the
names of the categories that the request may be of.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from tinydancer.agents.registry import AgentTable, Floats, Roster
from tinydancer.embeddings.base import Vectors
from tinydancer.embeddings.cosine import cosines
from tinydancer.semantic_routes.route import DIGITS


@dataclass(frozen=True)
class Categories:
    """What n requests may be about, by the classifier of that name.

    `names` are its categories, `probabilities` is (n, categories) float32.
    """

    classifier: str
    names: tuple[str, ...]
    probabilities: NDArray[np.float32]

    def likeliest(self, row: int) -> tuple[str, float]:
        """The likeliest category of one request, ties by name, and its probability."""
        best = int(self.probabilities[row].argmax())
        return self.names[best], float(self.probabilities[row, best])


# By roster, so that it goes with its snapshots: the categories, and each one's cosine to each.
_LIKENESS: WeakKeyDictionary[Roster, tuple[tuple[str, ...], Vectors]] = WeakKeyDictionary()


def likeness(
    names: tuple[str, ...], agents: AgentTable, embed: Callable[[Sequence[str]], Vectors]
) -> Vectors:
    """(categories, a) cosine of each category's name, and each agent's capabilities."""
    known = _LIKENESS.get(agents.roster)
    if known is None or known[0] != names:
        vectors = embed([name.replace("_", " ").replace("-", " ") for name in names])
        known = names, cosines(vectors, agents.embeddings)
        _LIKENESS[agents.roster] = known
    return known[1]


def suit_by_category(
    similarity: Floats, categories: Categories, likeness: Vectors, share: float
) -> Floats:
    """(n, a) how well agents suit requests by text, (n, a) `similarity`, and by category.

    Category counts for `share`: the cosine to be expected over what the request may be about.
    """
    # A product for each request: one for all would sum in another order for another n.
    expected = np.matmul(categories.probabilities[:, None], likeness)[:, 0]
    suits: Floats = ((1 - share) * similarity + share * expected).round(DIGITS)
    return suits
