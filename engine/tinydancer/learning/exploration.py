"""Trying an agent that does not look best, with the probability of each choice known.

A choice is over utilities: expected reward with cost and latency already inside, as the policy of
the request weighs them. What is recorded is the probability of the choice before the dice fell:
without it no other policy can be judged on the log (replay.py).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from tinydancer.errors import InvalidInput, NumberOutOfRange

Doubles = NDArray[np.float64]
MOST_SAMPLED = 64
"""Agents that Thompson sampling considers: the best by expected utility."""
CELLS = 1024
UNLIKELY = 1e-6
"""Where a belief is cut off: what is likelier than this to be beaten is never the best."""
TINY = 1e-300
_INSIDE = (np.arange(CELLS) + 0.5) / CELLS
_LOG, _LOG_REST = np.log(_INSIDE), np.log1p(-_INSIDE)


@dataclass(frozen=True, eq=False)
class Beliefs:
    """What is believed of m agents' chances of success: θ_i ~ Beta(alpha_i, beta_i), (m,) each."""

    alpha: Doubles
    beta: Doubles

    def __post_init__(self) -> None:
        if self.alpha.shape != self.beta.shape or self.alpha.ndim != 1 or not len(self.alpha):
            raise InvalidInput(f"alpha {self.alpha.shape} and beta {self.beta.shape} do not fit")
        if not (
            (self.alpha > 0).all()
            and (self.beta > 0).all()
            and np.isfinite(self.alpha + self.beta).all()
        ):
            raise NumberOutOfRange("the parameters of a Beta must be finite and above 0")

    @property
    def means(self) -> Doubles:
        """(m,) the expected chances."""
        return self.alpha / (self.alpha + self.beta)

    @cached_property
    def cumulative(self) -> Doubles:
        """(m, CELLS + 1) P(θ_i <= k / CELLS), by the densities in the middle of CELLS cells.

        A belief that is narrower than a cell is taken to be a cell wide.
        """
        mass = np.multiply.outer(self.alpha - 1, _LOG)
        mass += np.multiply.outer(self.beta - 1, _LOG_REST)
        mass -= mass.max(axis=1, keepdims=True)
        np.exp(mass, out=mass)
        found = np.zeros((len(mass), CELLS + 1))
        np.cumsum(mass, axis=1, out=found[:, 1:])
        found /= found[:, -1:]
        return found


def seed_of(secret: int, decision: str) -> int:
    """A seed for one decision: the same for the same text, unlike any other's."""
    digest = blake2b(decision.encode(), digest_size=8, key=secret.to_bytes(16, "little"))
    return int.from_bytes(digest.digest(), "little")


def greedy(utilities: Doubles) -> Doubles:
    """(m,) probabilities: the best for certain. The first of equals: sort by name beforehand."""
    _check(utilities)
    probabilities = np.zeros(len(utilities))
    probabilities[np.argmax(utilities)] = 1.0
    return probabilities


def epsilon_greedy(utilities: Doubles, epsilon: float) -> Doubles:
    """(m,) probabilities: the best 1 - ε, and each of the m (it among them) ε / m beside."""
    if not 0 <= epsilon <= 1:
        raise NumberOutOfRange(f"epsilon must be from 0 to 1, not {epsilon}")
    return (1 - epsilon) * greedy(utilities) + epsilon / len(utilities)


def thompson(beliefs: Beliefs, penalties: Doubles, quality_weight: float = 1.0) -> Doubles:
    """(m,) the probability that each agent is the best, to be chosen with it (Thompson 1933).

    The utility of agent i is quality_weight x θ_i - penalties_i, the penalty (m,) being its weighed
    cost and latency. Beyond MOST_SAMPLED agents those with the least expected utility get 0.
    """
    if not (np.isfinite(quality_weight) and quality_weight >= 0):
        raise NumberOutOfRange(f"quality_weight must be 0 or more, not {quality_weight}")
    expected = quality_weight * beliefs.means - penalties
    if quality_weight == 0:
        return greedy(expected)
    shifts = penalties / quality_weight
    return _chances_of_best(
        beliefs,
        expected,
        worth=lambda chance, agents: chance - shifts[agents],
        chance=lambda worth, agents: worth + shifts[agents, None],
    )


def thompson_for_money(beliefs: Beliefs, costs: Doubles) -> Doubles:
    """The same where the utility of agent i is θ_i for its cost, (m,) above 0."""
    prices = np.log(costs)
    return _chances_of_best(
        beliefs,
        np.log(beliefs.means) - prices,
        worth=lambda chance, agents: np.log(np.maximum(chance, 0.5 / CELLS)) - prices[agents],
        chance=lambda worth, agents: np.exp(np.minimum(worth + prices[agents, None], 0.0)),
    )


def draw(probabilities: Doubles, seed: int) -> int:
    """One column, by the inverse of the cumulative probabilities; never one of probability 0."""
    point = np.random.default_rng(seed).random() * probabilities.sum()
    drawn = int(np.searchsorted(np.cumsum(probabilities), point, side="right"))
    possible = np.flatnonzero(probabilities > 0)
    return int(possible[min(int(np.searchsorted(possible, drawn)), len(possible) - 1)])


def _chances_of_best(
    beliefs: Beliefs,
    expected: Doubles,
    worth: Callable[[Doubles, NDArray[np.intp]], Doubles],
    chance: Callable[[Doubles, NDArray[np.intp]], Doubles],
) -> Doubles:
    """(m,) P(utility i is the largest) = ∫ f_i Π_{j≠i} F_j, over CELLS cells of utility.

    `worth` is the utility of a chance of success, `chance` the other way round; both grow. The
    choice is drawn from these very numbers, so that what is recorded is what was done.
    """
    _check(expected)
    kept = np.sort(np.argsort(-expected, kind="stable")[:MOST_SAMPLED])
    cumulative = beliefs.cumulative[kept]
    # Whoever is the best is hardly ever below what the surest one has at its unluckiest.
    low = worth((cumulative > UNLIKELY).argmax(axis=1) / CELLS - 1 / CELLS, kept).max()
    high = worth(np.ones(len(kept)), kept).max()
    edges = np.linspace(low, max(high, low + TINY), CELLS + 1)
    # In place, and cells by their place in one long line of all: this is done for each decision.
    at = chance(edges[None], kept)
    np.clip(at, 0.0, 1.0, out=at)
    at *= CELLS
    place = at.astype(np.intp)
    np.minimum(place, CELLS - 1, out=place)
    at -= place
    place += (np.arange(len(kept)) * (CELLS + 1))[:, None]
    below = cumulative.take(place)
    place += 1
    rise = cumulative.take(place)
    rise -= below
    rise *= at
    below += rise
    middle = below[:, 1:] + below[:, :-1]
    middle /= 2
    np.log(np.maximum(middle, TINY, out=middle), out=middle)
    np.subtract(middle.sum(axis=0), middle, out=middle)
    inside = np.diff(below, axis=1)
    inside *= np.exp(middle, out=middle)
    chances = inside.sum(axis=1)
    probabilities = np.zeros(len(expected))
    probabilities[kept] = chances / chances.sum()
    return probabilities


def _check(utilities: Doubles) -> None:
    if utilities.ndim != 1 or not len(utilities):
        raise InvalidInput("there is no agent to choose from")
    if not np.isfinite(utilities).all():
        raise NumberOutOfRange(f"utility {int(np.argmin(np.isfinite(utilities)))} is not finite")
