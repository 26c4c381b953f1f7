"""What a quality model expects of the agents that there are now."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from tinydancer.agents.registry import AgentTable, Floats
from tinydancer.learning.quality import QualityModel
from tinydancer.learning.requests import Requests
from tinydancer.policies.estimates import Estimates, Mask

# Estimates are compared to this many digits: beyond, the size of a batch shows.
DIGITS = 6


@dataclass(frozen=True, eq=False)
class Expected:
    """`quality` and `confidence` (n, a), 0 to 1; `learned` (a,): which agents the model knows."""

    quality: Floats
    confidence: Floats
    learned: Mask


def expect(model: QualityModel, requests: Requests, agents: AgentTable, *, alone: bool) -> Expected:
    """The model's estimates where it knows the agent, else the agent's own figure.

    `alone` is whether quality is all that counts: then agents are told apart by request only where
    that has beaten the best single agent on held-out outcomes (`Evidence.choices`); where it has
    not, each agent's mean is taken for every request.
    """
    shape = len(requests), len(agents)
    quality = np.broadcast_to(agents.quality, shape).copy()
    confidence = quality.copy()
    learned = np.zeros(len(agents), np.bool_)
    known = [column for column, name in enumerate(model.agents) if name in agents.positions]
    if not known:
        return Expected(quality, confidence, learned)
    if alone and not model.evidence.choices.holds:
        estimates = np.tile(model.estimator.means, (len(requests), 1))
    else:
        estimates = model.estimate(requests)
    estimates = np.round(estimates[:, known], DIGITS)
    places = [agents.positions[model.agents[column]] for column in known]
    quality[:, places] = np.clip(estimates, 0.0, 1.0)
    confidence[:, places] = np.round(model.probabilities(estimates), DIGITS)
    learned[places] = True
    return Expected(quality, confidence, learned)


def with_learned(
    estimates: Estimates,
    model: QualityModel,
    name: str,
    requests: Requests,
    agents: AgentTable,
    *,
    alone: bool,
) -> Estimates:
    """The estimates with what a model of this name expects, instead of each agent's own figure."""
    found = expect(model, requests, agents, alone=alone)
    return replace(
        estimates,
        quality=found.quality,
        confidence=found.confidence,
        source=name,
        learned=found.learned,
        evidence=model.evidence.sentence,
    )
