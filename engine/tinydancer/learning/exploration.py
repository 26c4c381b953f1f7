"""Trying an agent that does not look best, with the probability of each choice known.

A choice is over utilities: expected reward with cost and latency already inside, as the policy of
the request weighs them. What is recorded is the probability of the choice before the dice fell:
without it no other policy can be judged on the log (replay.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from tinydancer.errors import InvalidInput, NumberOutOfRange

Doubles = NDArray[np.float64]
MOST_SAMPLED = 64
"""Agents that Thompson sampling considers: the best by expected utility."""
CELLS = 1024
TINY = 1e-300


@dataclass(frozen=True, eq=False)
class Choice:
    """The agent chosen and (m,) the probability that each would have been; they add up to 1."""

    agent: int
    probabilities: Doubles

    @property
    def propensity(self) -> float:
        """The probability of what was chosen."""
        return float(self.probabilities[self.agent])


def seed_of(secret: int, decision: str) -> int:
    """A seed for one decision: the same for the same text, unlike any other's."""
    digest = blake2b(decision.encode(), digest_size=8, key=secret.to_bytes(16, "little"))
    return int.from_bytes(digest.digest(), "little")


def greedy(utilities: Doubles) -> Choice:
    """The best, for certain. The first of equals: sort by name beforehand."""
    _check(utilities)
    probabilities = np.zeros(len(utilities))
    best = int(np.argmax(utilities))
    probabilities[best] = 1.0
    return Choice(best, probabilities)


def epsilon_greedy(utilities: Doubles, epsilon: float, seed: int) -> Choice:
    """The best with probability 1 - ε, else any of the m, each ε / m (the best among them)."""
    _check(utilities)
    if not 0 <= epsilon <= 1:
        raise NumberOutOfRange(f"epsilon must be from 0 to 1, not {epsilon}")
    probabilities = np.full(len(utilities), epsilon / len(utilities))
    probabilities[np.argmax(utilities)] += 1 - epsilon
    return Choice(_draw(probabilities, seed), probabilities)


def thompson(
    alpha: Doubles, beta: Doubles, penalties: Doubles, seed: int, quality_weight: float = 1.0
) -> Choice:
    """Each agent with the probability that it is the best (Thompson 1933).

    The utility of agent i is quality_weight x θ_i - penalties_i, with θ_i ~ Beta(alpha_i, beta_i)
    and the penalty its weighed cost and latency; all (m,). The probabilities are integrated on a
    grid of CELLS cells, and the choice is drawn from them, so that what is recorded is what was
    done. Beyond MOST_SAMPLED agents those with the least expected utility get 0.
    """
    if not (alpha.shape == beta.shape == penalties.shape):
        raise InvalidInput(
            f"alpha {alpha.shape}, beta {beta.shape} and penalties {penalties.shape} "
            "are not of one shape"
        )
    if not ((alpha > 0).all() and (beta > 0).all() and np.isfinite(alpha + beta).all()):
        raise NumberOutOfRange("the parameters of a Beta must be finite and above 0")
    if not (np.isfinite(quality_weight) and quality_weight >= 0):
        raise NumberOutOfRange(f"quality_weight must be 0 or more, not {quality_weight}")
    expected = quality_weight * alpha / (alpha + beta) - penalties
    _check(expected)
    if quality_weight == 0:
        return greedy(expected)
    kept = np.sort(np.argsort(-expected, kind="stable")[:MOST_SAMPLED])
    probabilities = np.zeros(len(alpha))
    probabilities[kept] = _chances_of_best(
        alpha[kept], beta[kept], penalties[kept] / quality_weight
    )
    return Choice(_draw(probabilities, seed), probabilities)


def _chances_of_best(alpha: Doubles, beta: Doubles, shifts: Doubles) -> Doubles:
    """(m,) P(θ_i - shift_i is the largest) = ∫ f_i Π_{j≠i} F_j, on a common grid."""
    edges = np.linspace(-shifts.max(), 1 - shifts.min(), CELLS + 1)
    inside = (np.arange(CELLS) + 0.5) / CELLS
    log_density = (alpha - 1)[:, None] * np.log(inside) + (beta - 1)[:, None] * np.log1p(-inside)
    mass = np.exp(log_density - log_density.max(axis=1, keepdims=True))
    cumulative = np.zeros((len(alpha), CELLS + 1))
    np.cumsum(mass, axis=1, out=cumulative[:, 1:])
    cumulative /= cumulative[:, -1:]
    own_edges = np.arange(CELLS + 1) / CELLS
    below = np.stack(
        [
            np.interp(edges + shift, own_edges, row)
            for shift, row in zip(shifts, cumulative, strict=True)
        ]
    )
    middle = np.log(np.maximum((below[:, 1:] + below[:, :-1]) / 2, TINY))
    others = np.exp(middle.sum(axis=0) - middle)
    chances = (np.diff(below, axis=1) * others).sum(axis=1)
    return np.asarray(chances / chances.sum())


def _draw(probabilities: Doubles, seed: int) -> int:
    """One column, by the inverse of the cumulative probabilities; never one of probability 0."""
    point = np.random.default_rng(seed).random() * probabilities.sum()
    drawn = int(np.searchsorted(np.cumsum(probabilities), point, side="right"))
    possible = np.flatnonzero(probabilities > 0)
    return int(possible[min(int(np.searchsorted(possible, drawn)), len(possible) - 1)])


def _check(utilities: Doubles) -> None:
    if utilities.ndim != 1 or not len(utilities):
        raise InvalidInput("there is no agent to choose from")
    if not np.isfinite(utilities).all():
        raise NumberOutOfRange(f"utility {int(np.argmin(np.isfinite(utilities)))} is not finite")
