"""Learned quality: estimators stacked on held-out outcomes, and what they are held against.

Two questions are asked of held-out outcomes before anything learned is believed:
1. Do the estimates beat each agent's mean? If not, the means are used for every request, and
   what follows is "always the best single agent", at whatever price an objective sets.
2. Does choosing by them earn more than always the best single agent? If not, then quality alone is
   served by the best single agent, and the estimates are for trade-offs against cost and latency.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tinydancer.errors import NotReady
from tinydancer.learning.calibration import Calibration, fit_isotonic
from tinydancer.learning.estimators import Family, families
from tinydancer.learning.outcomes import Doubles, Outcomes
from tinydancer.learning.propensity import estimate_propensities
from tinydancer.learning.requests import Requests, Rows
from tinydancer.learning.stacking import (
    StackedEstimator,
    contrasts,
    cross_fitted,
    fit_weights,
)

MOST_ROWS = 20_000
"""Requests that are learned from, the last ones: time grows with the square of their number."""
STANDARD_ERRORS = 2.0
"""How far above nothing a gain must be: one-sided 97.7%, as several candidates were tried."""


@dataclass(frozen=True)
class Comparison:
    """A mean gain over rows held out, with its standard error."""

    gain: float
    standard_error: float
    rows: int

    @property
    def holds(self) -> bool:
        """Whether the gain is more than STANDARD_ERRORS above 0."""
        return self.rows > 1 and self.gain > STANDARD_ERRORS * self.standard_error

    @property
    def fails(self) -> bool:
        """Whether there is a loss of as much."""
        return self.gain < -STANDARD_ERRORS * self.standard_error


@dataclass(frozen=True)
class Trial:
    """One setting of one family: its mean squared error on held-out rows, its weight in the sum."""

    name: str
    error: float
    weight: float


@dataclass(frozen=True)
class Evidence:
    """What was tried, on what, and what came of it.

    trials: each setting, the agents' means first. estimates: gain in squared error over the means.
    choices: gain in reward over always the best single agent. propensities: 'complete' (each
    agent's reward on each row is known), 'recorded', 'estimated' (from which agent served which
    request, where nobody recorded it) or 'partly recorded'.
    """

    outcomes: int
    trials: tuple[Trial, ...]
    best_single: str
    best_single_reward: float
    estimates: Comparison
    choices: Comparison
    propensities: str

    @property
    def method(self) -> str:
        """The settings that count, heaviest first."""
        used = sorted((t for t in self.trials[1:] if t.weight > 0), key=lambda t: -t.weight)
        return " + ".join(f"{trial.weight:.2f} {trial.name}" for trial in used) or "nothing"

    @property
    def sentence(self) -> str:
        """For the explanation of a decision."""
        choices = f"{self.choices.gain:+.4f} ± {self.choices.standard_error:.4f}"
        if not self.estimates.holds:
            return (
                f"Quality is each agent's mean, so the best single agent is {self.best_single}: "
                f"over {self.outcomes} outcomes no estimate by request beats it beyond noise."
            )
        if not self.choices.holds:
            return (
                f"Quality is learned from {self.outcomes} outcomes ({self.method}); for quality "
                f"alone the best single agent, {self.best_single}, is kept, as choosing by "
                f"request gains {choices} over it: not beyond noise."
            )
        return (
            f"Quality is learned from {self.outcomes} outcomes ({self.method}); choosing by "
            f"request gains {choices} over always {self.best_single}."
        )


@dataclass(frozen=True, eq=False)
class QualityModel:
    """The estimator that may be used, its calibration and its evidence."""

    agents: tuple[str, ...]
    estimator: StackedEstimator
    calibration: Calibration
    evidence: Evidence

    def estimate(self, requests: Requests) -> Doubles:
        """(n, m) expected reward of each agent, in the unit of the rewards and not cut to it."""
        return self.estimator.estimate(requests)

    def probabilities(self, estimates: Doubles) -> Doubles:
        """Calibrated probability of success, in [0, 1], for estimates of rewards from 0 to 1."""
        return self.calibration.apply(estimates)

    def choose(self, estimates: Doubles) -> Rows:
        """(n,) the agent to choose for quality alone: the guard decides whether by request."""
        if self.evidence.choices.holds:
            return best_columns(estimates, self.agents)
        best = self.agents.index(self.evidence.best_single)
        return np.full(len(estimates), best, dtype=np.int64)


def fit_quality(requests: Requests, outcomes: Outcomes, seed: int = 0) -> QualityModel:
    """Fit every family, stack them on held-out rows, and hold the sum against the simple answers.

    Of more than MOST_ROWS requests the last are used, so they should be in the order of time.
    Raises NotReady where there is no outcome at all.
    """
    if len(requests) > MOST_ROWS:
        last = np.arange(len(requests) - MOST_ROWS, len(requests))
        requests, outcomes = requests.take(last), outcomes.take(last)
    seen = outcomes.seen
    if not seen.any():
        raise NotReady(
            "there are no outcomes to learn from",
            hint="Record some with ruvector_record_usage, then train again.",
        )
    means, held_out_means = outcomes.means(), outcomes.held_out_means()
    tried = list(families(requests, outcomes, seed))
    settings = [name for family in tried for name in family.settings]
    held_out = [predictions for family in tried for predictions in family.held_out]
    weights = fit_weights(held_out_means, held_out, outcomes) if tried else np.empty(0)
    predictions = cross_fitted(held_out_means, held_out, outcomes) if tried else held_out_means
    single = int(best_columns(means[None], outcomes.agents)[0])
    mean_errors = row_errors(held_out_means, outcomes)
    estimates = compare_rows(mean_errors - row_errors(predictions, outcomes))
    always = np.full(len(requests), single, dtype=np.int64)
    chosen = best_columns(predictions, outcomes.agents)
    choices, source = gain_of_choices(predictions, requests, outcomes, chosen, always)
    if not (estimates.holds and weights.any()):
        estimates, choices = _failed(estimates), _failed(choices)
        predictions, weights = held_out_means, np.zeros(len(settings))
    trials = [Trial("each agent's mean", float(mean_errors.mean()), 1 - float(weights.sum()))]
    for name, guess, weight in zip(settings, held_out, weights, strict=True):
        trials.append(Trial(name, float(row_errors(guess, outcomes).mean()), float(weight)))
    return QualityModel(
        agents=outcomes.agents,
        estimator=_stack(means, tried, weights),
        calibration=_calibrate(predictions, outcomes),
        evidence=Evidence(
            outcomes=int(seen.sum()),
            trials=tuple(trials),
            best_single=outcomes.agents[single],
            best_single_reward=float(means[single]),
            estimates=estimates,
            choices=choices,
            propensities=source,
        ),
    )


def best_columns(estimates: Doubles, agents: tuple[str, ...]) -> Rows:
    """(n,) the column with the largest estimate in each row; ties go by the agent's name."""
    by_name = np.array(sorted(range(len(agents)), key=agents.__getitem__))
    return np.asarray(by_name[np.argmax(estimates[:, by_name], axis=1)])


def _stack(means: Doubles, tried: list[Family], weights: Doubles) -> StackedEstimator:
    parts, first = [], 0
    for family in tried:
        shares = tuple(map(float, weights[first : first + len(family.settings)]))
        first += len(family.settings)
        if any(shares):
            parts.append(family.build(shares))
    return StackedEstimator(means, tuple(parts), float(weights.sum()))


def _failed(comparison: Comparison) -> Comparison:
    """The same comparison with no gain: what it was about is not used."""
    return Comparison(min(comparison.gain, 0.0), comparison.standard_error, comparison.rows)


def row_errors(predictions: Doubles, outcomes: Outcomes) -> Doubles:
    """(rows with an outcome,) mean squared error of the contrasts over the agents seen on a row."""
    counts = outcomes.seen.sum(axis=1)
    squares = contrasts(outcomes.rewards - predictions, outcomes) ** 2
    return np.asarray(squares.sum(axis=1)[counts > 0] / counts[counts > 0])


def compare_rows(gains: Doubles) -> Comparison:
    """The mean of (n,) gains, with its standard error."""
    n = len(gains)
    error = float(gains.std(ddof=1) / np.sqrt(n)) if n > 1 else 0.0
    return Comparison(float(gains.mean()) if n else 0.0, error, n)


def gain_of_choices(
    held_out: Doubles, requests: Requests, outcomes: Outcomes, chosen: Rows, instead_of: Rows
) -> tuple[Comparison, str]:
    """Reward of the agents in `chosen` less that of those in `instead_of`, (n,) each, row by row.

    Doubly robust where a row has one reward (Dudík, Langford & Li 2011, equation 4), with what was
    expected of each agent by a model that has not seen the row, (n, m).
    """
    seen = outcomes.seen
    rows = np.arange(len(chosen))
    if seen.all():
        rewards = outcomes.rewards
        return compare_rows(rewards[rows, chosen] - rewards[rows, instead_of]), "complete"
    propensities, source = estimate_propensities(requests, outcomes)
    kept = seen.any(axis=1)
    residuals = np.where(seen, outcomes.rewards - held_out, 0.0) / propensities
    corrected = held_out + residuals
    gains = corrected[rows, chosen] - corrected[rows, instead_of]
    return compare_rows(gains[kept]), source


def _calibrate(held_out: Doubles, outcomes: Outcomes) -> Calibration:
    seen = outcomes.seen
    rewards = outcomes.rewards[seen]
    if rewards.min() < 0 or rewards.max() > 1:
        return Calibration(np.empty(0), np.empty(0))
    return fit_isotonic(held_out[seen], rewards)
