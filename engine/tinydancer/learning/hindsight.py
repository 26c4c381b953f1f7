"""Another policy on decisions that were made: whom it would have chosen, and what came of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinydancer.agents.registry import Floats
from tinydancer.errors import InvalidInput, NotReady
from tinydancer.learning.outcomes import Outcomes
from tinydancer.learning.replay import DecisionLog, Replay, deterministic, replay
from tinydancer.policies import POLICIES, Policy, weighted
from tinydancer.policies.estimates import Estimates, Mask, Weights

AGENT = "agent:"
METRICS = ("quality", "cost", "latency_ms")
HINT = (
    f"Give an objective ({', '.join(POLICIES)}), a weight for each part "
    "('cost=0.7, quality=0.3'), or an agent ('agent:NAME')."
)


@dataclass(frozen=True)
class Outcome:
    """A kept decision with its outcome; `candidates` as it was kept, the best first."""

    agent: str
    propensity: float
    candidates: Sequence[Mapping[str, Any]]
    quality: float
    cost: float
    latency_ms: float | None


@dataclass(frozen=True, eq=False)
class Log:
    """n decisions over m agents, sorted by name.

    `candidates` (n, m) who could be chosen, `best` (n,) who was thought best, `estimates` what was
    expected then; `outcomes` has (n,) for each metric, NaN where it is not known.
    """

    agents: tuple[str, ...]
    chosen: NDArray[np.int64]
    best: NDArray[np.int64]
    propensities: Floats
    candidates: Mask
    estimates: Estimates
    outcomes: Mapping[str, Floats]


@dataclass(frozen=True, eq=False)
class Hindsight:
    """The replay of a policy by one metric, and the share of its choices by agent."""

    metric: str
    replay: Replay
    choices: Mapping[str, float]


def read_log(rows: Sequence[Outcome]) -> Log:
    """The decisions as arrays. Raises NotReady where there is none that can be judged."""
    # A decision whose agent is not among its candidates, as a team's member, is none of ours.
    rows = [row for row in rows if any(row.agent == found["agent"] for found in row.candidates)]
    if not rows:
        raise NotReady(
            "there is no kept decision with an outcome in this time",
            hint="Keep decisions (settings.decision_log), record outcomes with their decision_id; "
            "those for teams are not judged.",
        )
    names = sorted({candidate["agent"] for row in rows for candidate in row.candidates})
    places = {name: place for place, name in enumerate(names)}
    shape = len(rows), len(names)
    figures = {name: np.zeros(shape) for name in ("cost", "latency_ms", "quality", "fit")}
    mask = np.zeros(shape, np.bool_)
    for at, row in enumerate(rows):
        for candidate in row.candidates:
            place = places[candidate["agent"]]
            mask[at, place] = True
            for name, values in figures.items():
                values[at, place] = candidate.get(name, 0.0)
    return Log(
        agents=tuple(names),
        chosen=np.array([places[row.agent] for row in rows], np.int64),
        best=np.array([places[row.candidates[0]["agent"]] for row in rows], np.int64),
        propensities=np.array([row.propensity for row in rows]),
        candidates=mask,
        estimates=Estimates(
            cost=figures["cost"],
            latency_ms=figures["latency_ms"],
            quality=figures["quality"],
            confidence=figures["quality"],
            fit=figures["fit"],
        ),
        outcomes={
            "quality": np.array([row.quality for row in rows]),
            "cost": np.array([row.cost for row in rows]),
            "latency_ms": np.array(
                [np.nan if row.latency_ms is None else row.latency_ms for row in rows]
            ),
        },
    )


def look_back(log: Log, policy: str) -> list[Hindsight]:
    """What `policy` would have achieved, by each metric that the outcomes have.

    Raises InvalidInput for a policy that is none, NotReady where the log can't support it.
    """
    columns = choices(log, policy)
    found = []
    for metric in METRICS:
        outcomes = log.outcomes[metric]
        known = ~np.isnan(outcomes)
        if not known.any():
            continue
        judged = replay(
            DecisionLog(log.chosen[known], log.propensities[known], outcomes[known]),
            deterministic(columns[known], len(log.agents)),
            _expected(log, metric)[known],
        )
        shares = np.bincount(columns[known], minlength=len(log.agents)) / known.sum()
        named = dict(zip(log.agents, shares.tolist(), strict=True))
        found.append(Hindsight(metric, judged, {name: s for name, s in named.items() if s}))
    return found


def choices(log: Log, policy: str) -> NDArray[np.int64]:
    """(n,) the column of the agent that the policy would have chosen each time.

    An agent that was no candidate can't be: then the one that was thought best is.
    """
    if policy.startswith(AGENT):
        name = policy[len(AGENT) :]
        if name not in log.agents:
            raise InvalidInput(
                f"policy = {policy[:80]!r} names an agent that was no candidate in this time",
                hint=f"Candidates were: {', '.join(log.agents[:20])}.",
            )
        place = log.agents.index(name)
        return np.where(log.candidates[:, place], place, log.best)
    key = parse_policy(policy).key(log.estimates, log.candidates)
    return np.asarray(np.where(log.candidates, key, -np.inf).argmax(axis=1), np.int64)


def parse_policy(text: str) -> Policy:
    """The policy of a name or of weights. Raises InvalidInput."""
    if text in POLICIES:
        return POLICIES[text]
    weights: dict[str, float] = {}
    for part in text.split(","):
        name, equals, value = part.partition("=")
        try:
            weight = float(value)
        except ValueError:
            weight = -1.0
        name = name.strip()
        if not equals or name not in Weights._fields or name in weights or not 0 <= weight <= 1e9:
            raise InvalidInput(f"policy = {text[:80]!r} is not known", hint=HINT)
        weights[name] = weight
    total = sum(weights.values())
    if not total:
        raise InvalidInput(f"policy = {text[:80]!r} weighs nothing", hint=HINT)
    return weighted(text, Weights(**{name: weight / total for name, weight in weights.items()}))


def _expected(log: Log, metric: str) -> Floats:
    """(n, m) what each agent's outcome would be by a model that has not seen the row's own."""
    if metric == "cost":
        return log.estimates.cost
    rewards = np.full(log.candidates.shape, np.nan)
    rewards[np.arange(len(log.chosen)), log.chosen] = log.outcomes[metric]
    return Outcomes(log.agents, rewards).held_out_means()
