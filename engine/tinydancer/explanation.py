"""Why a decision is what it is: in a sentence, and in full."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from tinydancer.agents.categories import Categories
from tinydancer.agents.cost import output_tokens_sources
from tinydancer.agents.fit import Lifts
from tinydancer.agents.registry import Floats, Ints
from tinydancer.embeddings.base import Vectors
from tinydancer.policies import hybrid
from tinydancer.policies.estimates import Mask, Weights
from tinydancer.router import Barrier, Decisions, Positions, of_row, scope
from tinydancer.semantic_routes.table import RouteTable

# An explanation lists this many agents considered and as many refused; the rest are counted.
MOST_LISTED = 50
# A sentence names this many refusals.
MOST_NAMED = 3
DIGITS = 6

NO_AGENTS = (
    "No agent suits: there is no active agent. Register one with ruvector_register_agent; "
    "agents registered in a transaction are seen once it has committed."
)


@dataclass(frozen=True)
class Evidence:
    """What the estimates were made from.

    `tokens_in` is (n,), `tokens_out` (a,), `expected` what the caller said of them; `similarity`
    is (n, a), and `embedder` the model whose `vectors` (n, d) of the requests were compared.
    `suits` is the fit before routes lend to it, `categories` what the requests may be about.
    `unknown` are names among the excluded agents that are no active agent's: they change nothing,
    and may be misspelt.
    """

    tokens_in: Ints
    tokens_out: Floats
    expected: int | None
    embedder: str
    routes: RouteTable
    similarity: Floats | None = None
    suits: Floats | None = None
    categories: Categories | None = None
    lifts: Lifts | None = None
    vectors: Vectors | None = None
    unknown: tuple[str, ...] = ()


class Explainer:
    """Explains the decisions of one batch, request by request."""

    def __init__(self, decisions: Decisions, evidence: Evidence) -> None:
        self._decisions = decisions
        self._evidence = evidence
        self._rankings: dict[int, Positions] = {}

    @cached_property
    def _qualified(self) -> list[int]:
        counts: list[int] = self._decisions.qualified().tolist()
        return counts

    @cached_property
    def scores(self) -> Floats:
        """(n, a) the scores, to DIGITS digits."""
        return _digits(self._decisions.scores())

    @cached_property
    def _parts(self) -> Floats:
        decisions = self._decisions
        parts = hybrid.parts(decisions.estimates, scope(decisions.candidates))
        return _digits(parts)

    @cached_property
    def _quality(self) -> Floats:
        return _digits(self._decisions.estimates.quality)

    @cached_property
    def _confidence(self) -> Floats:
        return _digits(self._decisions.estimates.confidence)

    @cached_property
    def _tokens_out(self) -> Floats:
        return _digits(self._evidence.tokens_out)

    def reasoning(self, row: int, rank: int) -> str:
        """One request's decision, or the agent at a lower rank, in a sentence."""
        decisions = self._decisions
        if not len(decisions.agents):
            return NO_AGENTS
        qualified = self._qualified[row]
        if not qualified:
            return self._nobody(row)
        position = int(decisions.order[row, rank - 1])
        policy, estimates = decisions.policy, decisions.estimates
        name = decisions.agents.names[position]
        if qualified == 1:
            claim = f"{name} is the only agent that qualifies"
        elif rank == 1 and self._is_held(row):
            claim = f"{name} is held by the session, one of {_agents(qualified)} that qualify"
        elif rank == 1 and position != self._best(row):
            claim = f"{name} is tried, one of {_agents(qualified)} that qualify"
        elif rank == 1:
            claim = f"{name} {policy.merit} of {_agents(qualified)} that qualify"
        else:
            claim = f"{name} is number {rank} by {policy.name} of {qualified} that qualify"
        figures = [
            f"cost {_figure(estimates.cost[row, position])}",
            f"{_figure(of_row(estimates.latency_ms, row)[position])} ms",
            f"quality {of_row(estimates.quality, row)[position]:.2f}",
        ]
        if policy.wants_fit and estimates.fit is not None:
            figures.append(f"fit {estimates.fit[row, position]:.2f}")
        refused = len(decisions.agents) - qualified
        rest = f" ({refused} refused)" if refused else ""
        return f"{claim}{rest}: {', '.join(figures)}."

    def ranked(self, row: int) -> Positions:
        """The best agents for one request, as many as are listed, best first."""
        found = self._rankings.get(row)
        if found is None:
            found = self._rankings[row] = self._decisions.best(row, MOST_LISTED)
        return found

    def fallbacks(self, row: int) -> list[str]:
        """The agents to turn to if the one chosen for a request fails, best first."""
        decisions = self._decisions
        if not decisions.order.shape[1]:
            return []
        chosen = int(decisions.order[row, 0])
        return [decisions.agents.names[at] for at in self.ranked(row).tolist() if at != chosen]

    def _is_held(self, row: int) -> bool:
        """Whether the session had the agent of one request before."""
        session, agents = self._decisions.session, self._decisions.agents
        if session is None or session.before != session.agent:
            return False
        return int(self._decisions.order[row, 0]) == agents.positions[session.agent]

    def _best(self, row: int) -> int:
        return int(of_row(self._decisions.key, row).argmax())

    def _nobody(self, row: int) -> str:
        agents = self._decisions.agents
        first: dict[int, str] = {}
        for position, barrier in self._decisions.refusals(row, MOST_NAMED):
            first.setdefault(position, _refusal(agents.names[position], barrier, row, position))
        more = len(agents) - len(first)
        rest = f"; {more} more" if more else ""
        return f"No agent suits: {'; '.join(first.values())}{rest}."

    def explanation(self, row: int) -> dict[str, Any]:
        """Objective, weights, tokens, candidates, refusals and models of one request."""
        decisions, evidence = self._decisions, self._evidence
        candidates = self._candidates(row, self.ranked(row))
        refusals = [
            {
                "agent": decisions.agents.names[position],
                "constraint": barrier.constraint,
                "limit": barrier.limit,
                "actual": self._actual(barrier, row, position),
            }
            for position, barrier in decisions.refusals(row, MOST_LISTED)
        ]
        qualified = self._qualified[row]
        refused = len(decisions.agents) - qualified
        found: dict[str, Any] = {
            "objective": decisions.policy.name,
            "weights": _weights(decisions.policy.weights),
            "chosen": (
                decisions.agents.names[int(decisions.order[row, 0])] if candidates else None
            ),
            "fallbacks": self.fallbacks(row),
            "input_tokens": int(evidence.tokens_in[row]),
            "candidates": candidates,
            "refusals": refusals,
            "counts": {
                "candidates": qualified,
                "refused": refused,
                "by_constraint": self._by_constraint(row),
            },
            "truncated": qualified > len(candidates) or refused > MOST_LISTED,
            "models": {"embedder": evidence.embedder, "quality": decisions.estimates.source},
        }
        if (session := decisions.session) is not None:
            found["session"] = {
                "key": session.key,
                "agent": session.agent,
                "before": session.before,
                "held": self._is_held(row),
            }
        if evidence.categories is not None:
            category, probability = evidence.categories.likeliest(row)
            found["category"] = {"name": category, "probability": _rounded(probability)}
            found["models"]["classifier"] = evidence.categories.classifier
        if decisions.propensity is not None:
            found["propensity"] = _rounded(decisions.propensity[row])
            found["exploration"] = decisions.exploration
        if decisions.estimates.evidence is not None:
            found["quality_evidence"] = decisions.estimates.evidence
        if evidence.unknown:
            found["unknown_agents"] = list(evidence.unknown)
        return found

    def _candidates(self, row: int, best: Positions) -> list[dict[str, Any]]:
        """The agents at some positions, best first, with all that is expected of them."""
        decisions, evidence = self._decisions, self._evidence
        agents, estimates = decisions.agents, decisions.estimates

        def column(values: Floats) -> list[float]:
            found: list[float] = of_row(values, row)[best].tolist()
            return found

        if not len(best):
            return []

        places: list[int] = best.tolist()
        outcomes = agents.outcomes[best].tolist()
        tokens_from = output_tokens_sources(agents, evidence.expected)
        columns: dict[str, Iterable[object]] = {
            "agent": [agents.names[at] for at in places],
            "rank": range(1, len(best) + 1),
            "score": column(self.scores),
            "estimated_cost": column(estimates.cost),
            "estimated_latency_ms": column(estimates.latency_ms),
            "expected_quality": column(self._quality),
            "confidence": column(self._confidence),
            # A figure without outcomes is what was registered: a prior, not a measurement.
            "quality_is": [self._standing(at, n) for at, n in zip(places, outcomes, strict=True)],
            "outcomes": outcomes,
            "output_tokens": column(self._tokens_out),
            "output_tokens_from": [tokens_from[at] for at in places],
        }
        if evidence.similarity is not None and estimates.fit is not None:
            columns["similarity"] = column(evidence.similarity)
            columns["fit"] = column(estimates.fit)
        if decisions.policy.wants_fit:
            parts = self._parts[:, row, best].T.tolist()
            columns["parts"] = [dict(zip(Weights._fields, part, strict=True)) for part in parts]
        names = tuple(columns)
        found = [
            dict(zip(names, line, strict=True)) for line in zip(*columns.values(), strict=True)
        ]
        for place in self.lifted(row, best):
            found[place]["fit_by_route"] = self.route(row, places[place])
        return found

    def _standing(self, position: int, outcomes: int) -> str:
        learned = self._decisions.estimates.learned
        if learned is not None and learned[position]:
            return "learned"
        return "measured" if outcomes else "prior"

    def lifted(self, row: int, positions: Positions) -> list[int]:
        """Which of some agents, by their place, a route makes fit a request better."""
        lifted = _lifted(self._evidence, self._decisions.estimates.fit, row, positions)
        found: list[int] = np.flatnonzero(lifted).tolist()
        return found

    def route(self, row: int, position: int) -> str | None:
        """The route that makes an agent's fit what it is, where one does."""
        return _route(self._evidence, self._decisions.estimates.fit, row, position)

    def _actual(self, barrier: Barrier, row: int, position: int) -> float | list[str] | None:
        if barrier.actual is not None:
            return _rounded(of_row(barrier.actual, row)[position], 9)
        if barrier.constraint == "required_capabilities":
            return list(self._decisions.agents.agents[position].capabilities)
        return None

    def _by_constraint(self, row: int) -> dict[str, int]:
        """How many agents each constraint refuses; one agent may be refused by several."""
        refused: dict[str, Mask] = {}
        for barrier in self._decisions.barriers:
            mask = of_row(barrier.refused, row)
            others = refused.get(barrier.constraint)
            refused[barrier.constraint] = mask if others is None else mask | others
        return {name: int(mask.sum()) for name, mask in refused.items() if mask.any()}


def routes_taken(
    evidence: Evidence, fit: Floats | None, rows: Sequence[int]
) -> Iterator[tuple[int, int, str]]:
    """The route that makes an agent's `fit` (n, a) to a request what it is, wherever one does."""
    for row in rows:
        for position in np.flatnonzero(_lifted(evidence, fit, row, slice(None))).tolist():
            if (route := _route(evidence, fit, row, position)) is not None:
                yield row, position, route


def _lifted(evidence: Evidence, fit: Floats | None, row: int, at: Positions | int | slice) -> Mask:
    """Whether a route makes the agents `at` some positions fit a request better."""
    if evidence.lifts is None or evidence.suits is None or fit is None:
        return np.zeros(0, np.bool_)
    return np.asarray(fit[row, at] != evidence.suits[row, at])


def _route(evidence: Evidence, fit: Floats | None, row: int, position: int) -> str | None:
    lifts = evidence.lifts
    if lifts is None or not _lifted(evidence, fit, row, position).any():
        return None
    place = int(np.searchsorted(lifts.agents, position))
    return evidence.routes.routes[lifts.route_of(row, place)].name


def _refusal(name: str, barrier: Barrier, row: int, position: int) -> str:
    actual = None if barrier.actual is None else of_row(barrier.actual, row)[position]
    limit = barrier.limit if isinstance(barrier.limit, str) else _figure(barrier.limit)
    if barrier.constraint == "required_capabilities":
        return f"{name} lacks '{limit}'"
    if barrier.constraint == "excluded_agents":
        return f"{name} is excluded"
    if barrier.constraint in ("max_cost", "budget_remaining"):
        return f"{name} costs {_figure(actual)}, over {barrier.constraint} {limit}"
    if barrier.constraint == "budget":
        return f"{name} costs {_figure(actual)}, more than budget '{limit}' has left"
    if barrier.constraint == "concurrency_limit":
        return f"{name} has its {limit} calls at once under way"
    if barrier.constraint == "circuit_breaker":
        return f"{name} has its circuit {limit}"
    if barrier.constraint == "max_latency_ms":
        return f"{name} takes {_figure(actual)} ms, over max_latency_ms {limit}"
    if barrier.constraint == "min_quality":
        return f"{name} has quality {_figure(actual)}, under min_quality {limit}"
    return f"{name} is refused by {barrier.constraint} {limit}"


def _agents(count: int) -> str:
    return f"{count} agents"


def _figure(value: Any) -> str:
    """A figure to six digits, without an exponent."""
    digits = format(float(value), ".6g")
    return digits if "e" not in digits else format(float(value), ".9f").rstrip("0").rstrip(".")


def _digits(values: Floats) -> Floats:
    rounded: Floats = values.round(DIGITS)
    return rounded


def _rounded(value: Any, digits: int = DIGITS) -> float:
    return round(float(value), digits)


def _weights(weights: Weights) -> dict[str, float]:
    return {name: weight for name, weight in weights._asdict().items() if weight}
