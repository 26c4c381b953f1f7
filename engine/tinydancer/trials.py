"""Decisions that now and then try another agent than the best, each with its propensity."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from uuid import UUID

import numpy as np

from tinydancer.learning.exploration import epsilon_greedy, seed_of
from tinydancer.router import Decisions, of_row


def try_others(decisions: Decisions, epsilon: float, ids: Sequence[UUID]) -> Decisions:
    """The decisions, where each request goes with probability `epsilon` to any that qualifies.

    The dice are thrown by the decision's id: the same id and candidates give the same agent. The
    others keep their order behind it. `propensity` is what each choice's probability was.
    """
    order = np.array(decisions.order)
    propensity = np.ones(len(order))
    for row, id_ in enumerate(ids):
        key = of_row(decisions.key, row)
        qualified = np.flatnonzero(np.isfinite(key))
        if not len(qualified) or order.shape[1] == 0:
            continue
        choice = epsilon_greedy(key[qualified], epsilon, seed_of(0, str(id_)))
        tried = int(qualified[choice.agent])
        propensity[row] = choice.propensity
        if tried != order[row, 0]:
            rest = order[row][order[row] != tried]
            order[row] = np.concatenate([[tried], rest])[: order.shape[1]]
    return replace(decisions, order=order, propensity=propensity)
