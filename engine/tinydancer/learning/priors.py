"""Registered against measured: a prior stays visible until outcomes outweigh it."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite, sqrt

from tinydancer.errors import NumberOutOfRange

PRIOR_WEIGHT = 10.0
"""Outcomes that a registered figure counts for, unless a setting says otherwise."""
LEAST_SUCCESS_PRIOR = 0.01
"""How near 0 or 1 a prior may be: a Beta with a parameter of 0 could never be outweighed."""


@dataclass(frozen=True)
class Blend:
    """A figure made of a prior and of measurements.

    value = (prior_weight x prior + count x mean) / (prior_weight + count). prior_share is how
    much of it is still the prior: 1 with no measurement, 0 never quite.
    """

    value: float
    prior: float
    prior_weight: float
    count: int

    @property
    def prior_share(self) -> float:
        """From 1 (a guess) towards 0 (measured)."""
        return self.prior_weight / (self.prior_weight + self.count)

    @property
    def is_prior(self) -> bool:
        """Whether the registered figure still counts for at least as much as the outcomes."""
        return self.count <= self.prior_weight


def blend(prior: float, mean: float, count: int, prior_weight: float = PRIOR_WEIGHT) -> Blend:
    """Latency or quality: the mean of `count` outcomes, shrunk to the prior.

    The posterior mean of a normal with known variance ratio (Gelman et al., Bayesian Data
    Analysis, section 2.5). `mean` is not read where count is 0. Raises NumberOutOfRange.
    """
    _check(prior_weight, count)
    for name, value in (("prior", prior), ("mean", mean if count else 0.0)):
        if not isfinite(value):
            raise NumberOutOfRange(f"{name} must be a finite number, not {value}")
    total = prior_weight * prior + (count * mean if count else 0.0)
    return Blend(total / (prior_weight + count), prior, prior_weight, count)


@dataclass(frozen=True)
class SuccessPosterior:
    """Beta(alpha, beta) over an agent's rate of success."""

    prior: float
    prior_weight: float
    successes: int
    failures: int

    @property
    def alpha(self) -> float:
        """Successes, the prior's among them."""
        return self.prior * self.prior_weight + self.successes

    @property
    def beta(self) -> float:
        """Failures, the prior's among them."""
        return (1 - self.prior) * self.prior_weight + self.failures

    @property
    def mean(self) -> float:
        """Expected rate of success."""
        return self.alpha / (self.alpha + self.beta)

    @property
    def standard_deviation(self) -> float:
        """How sure that is."""
        total = self.alpha + self.beta
        return sqrt(self.alpha * self.beta / (total + 1)) / total

    @property
    def is_prior(self) -> bool:
        """Whether the prior still counts for at least as much as the outcomes."""
        return self.successes + self.failures <= self.prior_weight


def success_posterior(
    prior: float, successes: int, failures: int, prior_weight: float = PRIOR_WEIGHT
) -> SuccessPosterior:
    """The conjugate posterior of a rate. prior: 0 to 1, drawn in by LEAST_SUCCESS_PRIOR.

    Raises NumberOutOfRange for a prior outside 0 to 1, a negative count or a weight not above 0.
    """
    _check(prior_weight, min(successes, failures))
    if not 0 <= prior <= 1:
        raise NumberOutOfRange(f"a prior rate of success must be from 0 to 1, not {prior}")
    inside = min(max(prior, LEAST_SUCCESS_PRIOR), 1 - LEAST_SUCCESS_PRIOR)
    return SuccessPosterior(inside, prior_weight, successes, failures)


def _check(prior_weight: float, count: int) -> None:
    if not (isfinite(prior_weight) and prior_weight > 0):
        raise NumberOutOfRange(f"the weight of a prior must be above 0, not {prior_weight}")
    if count < 0:
        raise NumberOutOfRange(f"a count of outcomes can't be negative: {count}")
