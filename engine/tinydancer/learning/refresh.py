"""Whether a new model of quality should take the place of the one in use."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tinydancer.learning.outcomes import Doubles, Outcomes
from tinydancer.learning.quality import (
    Comparison,
    QualityModel,
    best_columns,
    compare_rows,
    gain_of_choices,
    row_errors,
)
from tinydancer.learning.requests import Requests, Rows

LEAST_HELD_OUT = 50
"""Decisions that two models are compared on at least."""


@dataclass(frozen=True)
class Verdict:
    """The new model beside the one in use, on outcomes that neither has seen.

    errors: how much less its squared error is; choices: how much more its choices earn.
    """

    errors: Comparison
    choices: Comparison

    @property
    def better(self) -> bool:
        """Better in one beyond noise, and not worse in the other beyond noise."""
        both = (self.errors, self.choices)
        return any(c.holds for c in both) and not any(c.fails for c in both)

    @property
    def sentence(self) -> str:
        """Both figures, in words."""
        return (
            f"over {self.errors.rows} decisions that neither has seen, its squared error is "
            f"{_signed(-self.errors.gain)} ± {self.errors.standard_error:.4f} against the model in "
            f"use, and its choices earn {_signed(self.choices.gain)} ± "
            f"{self.choices.standard_error:.4f}"
        )


def compare(
    current: QualityModel, candidate: QualityModel, requests: Requests, outcomes: Outcomes
) -> Verdict:
    """Both models on outcomes held out from both.

    What an agent that a model does not know is taken to earn is the candidate's mean of it, or of
    all where it knows none.
    """
    means = candidate.estimator.means
    fallback = np.full(len(outcomes.agents), float(means.mean()))
    places = {name: column for column, name in enumerate(outcomes.agents)}
    for name, mean in zip(candidate.agents, means, strict=True):
        if name in places:
            fallback[places[name]] = mean
    old, old_choice = _judge(current, requests, outcomes.agents, fallback)
    new, new_choice = _judge(candidate, requests, outcomes.agents, fallback)
    choices, _ = gain_of_choices(new, requests, outcomes, new_choice, old_choice)
    errors = compare_rows(row_errors(old, outcomes) - row_errors(new, outcomes))
    return Verdict(errors, choices)


def _judge(
    model: QualityModel, requests: Requests, agents: tuple[str, ...], fallback: Doubles
) -> tuple[Doubles, Rows]:
    """(n, m) what a model expects of these agents, and (n,) whom it chooses for quality alone."""
    known = [(agents.index(n), c) for c, n in enumerate(model.agents) if n in agents]
    to, of = [place for place, _ in known], [column for _, column in known]
    expected = np.tile(fallback, (len(requests), 1))
    expected[:, to] = model.estimate(requests)[:, of]
    if model.evidence.choices.holds:
        return expected, best_columns(expected, agents)
    means = fallback.copy()
    means[to] = model.estimator.means[of]
    return expected, np.tile(best_columns(means[None], agents), len(requests))


def _signed(value: float) -> str:
    return f"{value:+.4f}"
