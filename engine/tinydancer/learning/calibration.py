"""From an estimate to a probability: isotonic regression on held-out outcomes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tinydancer.learning.outcomes import Doubles

LEAST_BLOCK = 20
"""Outcomes that a level of the calibration needs at least: a lone success is no certainty."""


@dataclass(frozen=True, eq=False)
class Calibration:
    """A non-decreasing map: (b,) estimates, ascending, and the (b,) success rate at each."""

    estimates: Doubles
    rates: Doubles

    def apply(self, estimates: Doubles) -> Doubles:
        """Probabilities in [0, 1], of the shape of `estimates`; linear between the levels."""
        if not len(self.estimates):
            return np.clip(estimates, 0.0, 1.0)
        return np.clip(np.interp(estimates, self.estimates, self.rates), 0.0, 1.0)


def fit_isotonic(estimates: Doubles, outcomes: Doubles) -> Calibration:
    """Pool adjacent violators (Ayer et al. 1955) over held-out pairs, both (n,), outcomes 0 to 1.

    Estimates are first averaged in groups of LEAST_BLOCK neighbours, so that no level rests on
    fewer; with fewer pairs than that the map is the identity.
    """
    if len(estimates) < LEAST_BLOCK:
        return Calibration(np.empty(0), np.empty(0))
    order = np.argsort(estimates, kind="stable")
    groups = np.array_split(order, len(order) // LEAST_BLOCK)
    # A block: sum of outcomes, sum of estimates, how many.
    blocks: list[tuple[float, float, int]] = []
    for group in groups:
        block = (float(outcomes[group].sum()), float(estimates[group].sum()), len(group))
        while blocks and blocks[-1][0] * block[2] >= block[0] * blocks[-1][2]:
            last = blocks.pop()
            block = (last[0] + block[0], last[1] + block[1], last[2] + block[2])
        blocks.append(block)
    sums = np.array(blocks)
    return Calibration(sums[:, 1] / sums[:, 2], sums[:, 0] / sums[:, 2])
