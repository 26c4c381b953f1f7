"""What another policy would have earned or cost, from the log of the policy that ran.

With x the request, a the agent that served it, p the probability with which it was chosen, r what
came of it, π the policy in question and w = π(a|x) / p:

    IPS    mean of w r                                     Horvitz & Thompson 1952
    SNIPS  Σ w r / Σ w                                     Swaminathan & Joachims 2015
    DR     mean of Σ_b π(b|x) q(x, b) + w (r - q(x, a))    Dudík, Langford & Li 2011, equation 4

q is a model of the outcome fitted without the row (learning/quality.py). IPS and SNIPS need no
model, DR has the least variance where q is any good, and it is unbiased whatever q is.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tinydancer.errors import InvalidInput, NotReady, NumberOutOfRange

Doubles = NDArray[np.float64]
LEAST_SAMPLE = 30.0
"""Effective sample size below which a normal interval means nothing."""
WEIGHT_TOLERANCE = 0.1
"""How far below 1 the mean weight may be: the share of π's choices that the log could not make."""
NORMAL_95 = 1.959964
EXPLORE = "Log decisions with exploration on ('epsilon' or 'thompson'), then ask again."


@dataclass(frozen=True)
class Estimate:
    """A mean with its 95% interval (normal)."""

    value: float
    standard_error: float

    @property
    def low(self) -> float:
        """Lower end of the interval."""
        return self.value - NORMAL_95 * self.standard_error

    @property
    def high(self) -> float:
        """Upper end of the interval."""
        return self.value + NORMAL_95 * self.standard_error


@dataclass(frozen=True)
class Replay:
    """The three estimates of a policy's mean outcome, and how well the log supports them.

    effective_sample_size: (Σ w)² / Σ w² (Kish 1965). mean_weight: 1 in expectation where the log
    could have made every choice of the policy. logged: the mean outcome of what did run.
    """

    rows: int
    effective_sample_size: float
    mean_weight: float
    logged: Estimate
    ips: Estimate
    snips: Estimate
    dr: Estimate


@dataclass(frozen=True, eq=False)
class DecisionLog:
    """n logged decisions over m agents.

    chosen: (n,) columns; propensities: (n,), above 0 to 1, NaN where none was recorded;
    outcomes: (n,) of the chosen agent: reward, or cost, or latency.
    """

    chosen: NDArray[np.int64]
    propensities: Doubles
    outcomes: Doubles

    def __post_init__(self) -> None:
        n = len(self.chosen)
        if self.propensities.shape != (n,) or self.outcomes.shape != (n,):
            raise InvalidInput(
                f"{n} choices, {self.propensities.shape} propensities and "
                f"{self.outcomes.shape} outcomes do not fit"
            )
        known = self.propensities[~np.isnan(self.propensities)]
        if ((known <= 0) | (known > 1)).any():
            raise NumberOutOfRange("a propensity must be above 0 and at most 1")
        if not np.isfinite(self.outcomes).all():
            raise NumberOutOfRange("an outcome of the log is not a finite number")


def replay(log: DecisionLog, policy: Doubles, model: Doubles) -> Replay:
    """The mean outcome had `policy` decided. policy: (n, m) probabilities; model: (n, m) q(x, b).

    Raises NotReady where the log can't support it: no rows, a propensity that was not recorded,
    choices of the policy that the log could not make, too small an effective sample.
    """
    n = len(log.chosen)
    _check_policy(policy, model, n)
    if not n:
        raise NotReady("the log has no decision with an outcome in this range")
    unknown = int(np.isnan(log.propensities).sum())
    if unknown:
        raise NotReady(f"{unknown} of {n} logged decisions have no propensity", hint=EXPLORE)
    rows = np.arange(n)
    weights = policy[rows, log.chosen] / log.propensities
    mean_weight = float(weights.mean())
    slack = NORMAL_95 * float(weights.std()) / np.sqrt(n)
    if mean_weight + slack < 1 - WEIGHT_TOLERANCE or not weights.any():
        raise NotReady(
            f"the log could not have made about {100 * (1 - mean_weight):.0f}% of the choices of "
            "this policy: the agents it would choose were never tried on such requests",
            detail=f"Mean importance weight {mean_weight:.3f} over {n} decisions; 1 is expected.",
            hint=EXPLORE,
        )
    effective = float(weights.sum() ** 2 / np.square(weights).sum())
    if effective < LEAST_SAMPLE:
        raise NotReady(
            f"the log supports this policy with an effective sample of {effective:.1f} decisions; "
            f"at least {LEAST_SAMPLE:g} are needed",
            detail=f"{n} decisions, largest weight {weights.max():.1f}.",
            hint="Take a longer time range, or explore more.",
        )
    direct = (policy * model).sum(axis=1)
    corrected = direct + weights * (log.outcomes - model[rows, log.chosen])
    ratio = float((weights * log.outcomes).sum() / weights.sum())
    spread = np.sqrt(np.square(weights * (log.outcomes - ratio)).sum()) / weights.sum()
    return Replay(
        rows=n,
        effective_sample_size=effective,
        mean_weight=mean_weight,
        logged=_mean(log.outcomes),
        ips=_mean(weights * log.outcomes),
        snips=Estimate(ratio, float(spread)),
        dr=_mean(corrected),
    )


def deterministic(columns: NDArray[np.int64], agents: int) -> Doubles:
    """(n, agents) probabilities of a policy that chooses these columns."""
    policy = np.zeros((len(columns), agents))
    policy[np.arange(len(columns)), columns] = 1.0
    return policy


def _mean(values: Doubles) -> Estimate:
    n = len(values)
    error = float(values.std(ddof=1) / np.sqrt(n)) if n > 1 else float("inf")
    return Estimate(float(values.mean()), error)


def _check_policy(policy: Doubles, model: Doubles, rows: int) -> None:
    if policy.ndim != 2 or policy.shape != model.shape or len(policy) != rows:
        raise InvalidInput(
            f"a policy of shape {policy.shape} and a model of shape {model.shape} do not fit "
            f"{rows} logged decisions"
        )
    if (policy < 0).any() or not np.allclose(policy.sum(axis=1), 1):
        raise NumberOutOfRange("the probabilities of a policy must be 0 or more and add up to 1")
    if not np.isfinite(model).all():
        raise NumberOutOfRange("the outcome model has a value that is not finite")
