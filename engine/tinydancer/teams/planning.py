"""From a request to a team: what the parts are, what each agent bids for each, who is chosen."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from tinydancer.agents.capabilities import capability_key
from tinydancer.agents.registry import AgentTable, Floats
from tinydancer.embeddings.base import Embedder, Vectors
from tinydancer.embeddings.cosine import cosines
from tinydancer.policies import Policy
from tinydancer.policies.estimates import Estimates, Mask
from tinydancer.router import estimate
from tinydancer.teams.decomposition import (
    Part,
    assign_capabilities,
    exactly,
    independent,
    split_request,
)
from tinydancer.teams.formation import (
    Bids,
    Limits,
    Team,
    check_request,
    form_ensemble,
    form_team,
    no_team,
)
from tinydancer.teams.joint_success import Correlations, unknown_correlations

HOLDS = 1.0
"""Added to the score (0 to 1) of an agent that lists the capability of a part: it goes before all
that do not, and the policy decides among those that do."""

# Puts what was learned in the place of agents' own figures, for texts and their vectors.
Learn = Callable[[Estimates, Sequence[str], Vectors], Estimates]


def plan_team(
    request: str,
    strategy: str,
    num_agents: int,
    agents: AgentTable,
    embedder: Embedder,
    policy: Policy,
    tokens_out: Floats,
    limits: Limits,
    *,
    candidates: Mask | None = None,
    affordable: Floats | None = None,
    learn: Learn | None = None,
    correlations: Correlations | None = None,
) -> Team:
    """The best team of `num_agents` for a request, or one without members that says why.

    tokens_out: (a,) expected of each agent for each part. candidates: (a,) who may be chosen, all
    where None; affordable: (a,) what each may cost at most. learn: what is known of agents by
    request. correlations: of the agents' errors, from outcomes; the prior where None. Every member
    reads the whole request, so that is what its cost is for. Raises InvalidInput.
    """
    allowed = np.ones(len(agents), np.bool_) if candidates is None else candidates
    check_request(strategy, num_agents, int(allowed.sum()))
    if not allowed.any():
        return no_team(strategy, "no agent satisfies the constraints")
    parts = _parts(request, strategy, num_agents, agents, embedder)
    bids = _bids(request, parts, agents, embedder, policy, tokens_out, allowed, learn)
    if affordable is not None:
        bids = replace(bids, allowed=bids.allowed & (bids.cost <= affordable))
    if strategy != "ensemble":
        return form_team(strategy, parts, bids, limits)
    known = unknown_correlations(len(agents)) if correlations is None else correlations
    return form_ensemble(parts[0], num_agents, bids, known, limits)


def _parts(
    request: str, strategy: str, count: int, agents: AgentTable, embedder: Embedder
) -> tuple[Part, ...]:
    capabilities = tuple(agents.holders)
    if strategy == "ensemble":
        whole = (Part(request.strip(), "the whole request", False),)
        return assign_capabilities(whole, capabilities, embedder)
    parts = split_request(request)
    if strategy == "parallel":
        parts = independent(parts)
    found = assign_capabilities(parts, capabilities, embedder)
    return exactly(found, count, request.strip(), capabilities, embedder)


def _bids(
    request: str,
    parts: tuple[Part, ...],
    agents: AgentTable,
    embedder: Embedder,
    policy: Policy,
    tokens_out: Floats,
    allowed: Mask,
    learn: Learn | None,
) -> Bids:
    k, a = len(parts), len(agents)
    texts = [part.text for part in parts]
    vectors = embedder.embed(texts)
    fit = cosines(vectors, agents.embeddings).astype(np.float64)
    holds = np.zeros((k, a), np.bool_)
    for row, part in enumerate(parts):
        if part.capability is not None:
            holds[row, agents.holders[capability_key(part.capability)]] = True
            fit[row] = np.where(holds[row], np.maximum(fit[row], part.similarity), fit[row])
    tokens_in = np.repeat(embedder.count_tokens([request]), k)
    estimates = estimate(agents, tokens_in, tokens_out, fit)
    if learn is not None:
        estimates = learn(estimates, texts, vectors)
    score = np.broadcast_to(policy.score(estimates, allowed), (k, a))
    return Bids(
        cost=np.broadcast_to(estimates.cost, (k, a)),
        latency_ms=np.broadcast_to(estimates.latency_ms, (k, a)),
        success=np.broadcast_to(estimates.confidence, (k, a)),
        score=score + HOLDS * holds,
        allowed=np.broadcast_to(allowed, (k, a)),
    )
