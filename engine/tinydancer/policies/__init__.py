"""Which objective a decision serves: cost, latency, quality, or a blend."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from tinydancer.agents.registry import Floats
from tinydancer.policies import cost, hybrid, latency, quality
from tinydancer.policies.estimates import Estimates, Mask, Weights

# Scores are compared to this many digits, so that the last bits of a processor's arithmetic
# decide nothing: what is equal to twelve digits is a tie, and ties go by name.
DIGITS = 12

Measure = Callable[[Estimates, "Mask | None"], Floats]


@dataclass(frozen=True)
class Policy:
    """An objective: `key` is what it maximises, `score` the same from 0 to 1.

    Both take the estimates and the mask of candidates (None: all agents), and give an array that
    broadcasts to (n, a). `merit` says in the words of a reason why its choice is the best.
    """

    name: str
    weights: Weights
    key: Measure
    score: Measure
    merit: str

    @property
    def wants_fit(self) -> bool:
        """Whether the meaning of the request counts."""
        return self.weights.fit > 0.0

    @property
    def wants_quality(self) -> bool:
        """Whether the quality of the answer counts."""
        return self.weights.quality > 0.0 or self.key is hybrid.quality_per_dollar


def weighted(name: str, weights: Weights) -> Policy:
    """The blend of the objectives with these weights."""

    def blend(estimates: Estimates, candidates: Mask | None) -> Floats:
        blended: Floats = hybrid.blend(weights, estimates, candidates).round(DIGITS)
        return blended

    return Policy(name, weights, blend, blend, "has the best balance")


POLICIES: Mapping[str, Policy] = {
    policy.name: policy
    for policy in (
        Policy("cost", Weights(cost=1.0), cost.key, cost.score, "is the cheapest"),
        Policy("latency", Weights(latency=1.0), latency.key, latency.score, "is the fastest"),
        Policy("quality", Weights(quality=1.0), quality.key, quality.score, "is the best"),
        weighted("balanced", hybrid.BALANCED),
        Policy(
            "quality_per_dollar",
            Weights(),
            hybrid.quality_per_dollar,
            hybrid.share_of_best,
            "gives the most quality for its cost",
        ),
        # Of one request, the total cost is the cost; a batch has its own optimisation.
        Policy("total_cost", Weights(cost=1.0), cost.key, cost.score, "is the cheapest"),
    )
}
