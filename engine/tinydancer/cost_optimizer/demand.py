"""What was asked lately, by category, and how well each agent served it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from tinydancer.agents.registry import AgentTable, Floats

DAYS = 30
"""The period that demand is of."""
LEAST_DAYS = 1.0
"""A shorter time says little of a month."""
UNCATEGORIZED = "uncategorized"


@dataclass(frozen=True)
class PastCategory:
    """Outcomes of one category in the time looked at: how many, and the mean input, where known.

    `rewards` has, for each agent, how many of them it served and the sum of what they were worth:
    the quality judged, else 1 for success.
    """

    requests: float
    input_tokens: float | None
    rewards: Mapping[str, tuple[int, float]]


@dataclass(frozen=True)
class PastDemand:
    """The ledger of today and the DAYS before, by category; it reaches back `days`."""

    days: float
    categories: Mapping[str, PastCategory]

    @property
    def says_enough(self) -> bool:
        """Whether it reaches back far enough to tell how much is asked."""
        return self.days >= LEAST_DAYS

    def in_period(self) -> dict[str, float]:
        """Requests of each category in DAYS, at the rate of the time that it covers."""
        scale = DAYS / max(self.days, LEAST_DAYS)
        return {name: past.requests * scale for name, past in self.categories.items()}

    def quality(self, category: str, agents: AgentTable, prior_weight: float) -> Floats:
        """(a,) each agent's quality on a category: its mean there, drawn to its own overall figure.

        That counts for `prior_weight` outcomes, as a registered figure does overall.
        """
        quality = np.array(agents.quality)
        past = self.categories.get(category)
        for name, (count, total) in past.rewards.items() if past is not None else ():
            position = agents.positions.get(name)
            if position is not None:
                weighed = prior_weight * quality[position] + total
                quality[position] = weighed / (prior_weight + count)
        return quality
