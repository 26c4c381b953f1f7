"""A quality model from the outcomes of a ledger."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tinydancer.embeddings.base import Embedder, Vectors
from tinydancer.learning.outcomes import Outcomes
from tinydancer.learning.quality import QualityModel, fit_quality
from tinydancer.learning.requests import describe
from tinydancer.store.rewards import Outcome


def fit_ledger(outcomes: Sequence[Outcome], embedder: Embedder, seed: int) -> QualityModel:
    """The guarded model of outcomes, one row each. Raises NotReady where there are none."""
    agents = tuple(sorted({outcome.agent for outcome in outcomes}))
    rewards = np.full((len(outcomes), len(agents)), np.nan)
    for row, outcome in enumerate(outcomes):
        rewards[row, agents.index(outcome.agent)] = outcome.reward
    propensities = [np.nan if o.propensity is None else o.propensity for o in outcomes]
    texts = [outcome.request for outcome in outcomes]
    requests = describe(texts, _vectors(outcomes, embedder))
    return fit_quality(requests, Outcomes(agents, rewards, np.array(propensities)), seed)


def _vectors(outcomes: Sequence[Outcome], embedder: Embedder) -> Vectors:
    """(n, dimension) those that were kept, and new ones of the texts that lack theirs."""
    vectors = np.empty((len(outcomes), embedder.dimension), np.float32)
    missing = [row for row, outcome in enumerate(outcomes) if outcome.embedding is None]
    for row, outcome in enumerate(outcomes):
        if outcome.embedding is not None:
            vectors[row] = outcome.embedding
    if missing:
        vectors[missing] = embedder.embed([outcomes[row].request for row in missing])
    return vectors
