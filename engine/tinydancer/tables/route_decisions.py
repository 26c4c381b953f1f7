"""The foreign table route_decisions: requests to the agents that should serve them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from uuid import UUID

from tinydancer.agents import fit
from tinydancer.agents.categories import Categories, likeness, suit_by_category
from tinydancer.agents.cost import output_tokens
from tinydancer.agents.registry import Floats
from tinydancer.decisions import Decision, new_decision_id
from tinydancer.embeddings.base import Vectors
from tinydancer.embeddings.cascade import embed_requests
from tinydancer.errors import TinyDancerError
from tinydancer.explanation import Evidence, Explainer
from tinydancer.learning.expected import with_learned
from tinydancer.learning.requests import describe
from tinydancer.policies import POLICIES, Policy
from tinydancer.policies.estimates import Estimates
from tinydancer.router import Barrier, Constraints, Decisions, barriers, decide, estimate
from tinydancer.tables import text
from tinydancer.tables.context import ActiveQuality, Context, Keep, Reservations, Settings
from tinydancer.tables.holding import Holder
from tinydancer.tables.inputs import Question, chunks, questions
from tinydancer.tables.kept_decisions import kept_decisions, payer
from tinydancer.tables.reserving import decide_and_reserve, open_circuits
from tinydancer.tables.rows import constant, echoes, rows
from tinydancer.trials import Exploration, Explorer
from tinydancer_fdw.contract import ROUTE_DECISIONS
from tinydancer_fdw.frames import Input, Row

# Request, rank and position of the agent.
Place = tuple[int, int, int]
Cell = Callable[[Place], "str | None"]

# Columns that need the request's vector, and columns that need the expected quality.
MEANING = frozenset({"similarity", "explanation", "decision_id"})
QUALITY = frozenset({"confidence", "expected_quality", "reasoning", "explanation", "decision_id"})

# Requests decided at a time, and the most cells of (requests, agents) held at a time: the arrays
# of a batch stay within some tens of megabytes.
CHUNK = 1024
CELLS = 500_000


def scan(
    context: Context, inputs: Sequence[Input], columns: Sequence[str], limit: int
) -> Iterator[Row]:
    """The rows of a scan: `top_k` for each request, or one with agent_name NULL."""
    asked = questions(ROUTE_DECISIONS, inputs, context.snapshot.settings)
    size = chunk_size(context)
    for question in asked:
        for texts in chunks(question.texts, limit, size):
            policy = POLICIES[question.text("optimize_for") or "balanced"]
            found = answer_texts(context, question, policy, texts, columns)
            yield from rows(_places(found.decisions), _cells(found, question, texts), columns)


@dataclass(frozen=True, eq=False)
class Answered:
    """Decisions on texts, with all that explains them; `ids` are theirs where they are kept."""

    decisions: Decisions
    evidence: Evidence
    explainer: Explainer
    ids: Sequence[UUID] | None


def answer_texts(
    context: Context,
    question: Question,
    policy: Policy,
    texts: Sequence[str],
    columns: Collection[str],
) -> Answered:
    """The decision on each text by itself; reserved and kept where `columns` have its id.

    A decision whose id nobody asks for can have no outcome: it is not kept.
    """
    keep = context.keep if "decision_id" in columns else None
    ids = None if keep is None else [new_decision_id(context.now) for _ in texts]
    decisions, evidence = decide_texts(context, question, policy, texts, columns, ids)
    explainer = Explainer(decisions, evidence)
    if keep is not None and ids is not None:
        kept = kept_decisions(context, decisions, evidence, explainer, question, texts, ids)
        keep_or_release(keep, context.reservations, list(kept))
    return Answered(decisions, evidence, explainer, ids)


def chunk_size(context: Context) -> int:
    """How many requests to decide at a time."""
    return max(1, min(CHUNK, CELLS // max(1, len(context.snapshot.agents))))


def decide_texts(
    context: Context,
    question: Question,
    policy: Policy,
    texts: Sequence[str],
    columns: Collection[str],
    ids: Sequence[UUID] | None,
) -> tuple[Decisions, Evidence]:
    """The decision on each text by itself, with what the wanted columns need to be worked out.

    With `ids`, its cost and a place at its agent are reserved, where there are bounds to them.
    """
    agents, settings = context.snapshot.agents, context.snapshot.settings
    constraints = _constraints(question)
    estimates, evidence = _estimates(context, question, policy, constraints, texts, columns)
    barred = barriers(agents, estimates, constraints)
    if (pool := context.snapshot.pool).retry_at:
        barred = (*barred, *open_circuits(pool, agents, context.now))

    # Only what is kept can teach anybody anything; all else stays deterministic.
    explorer = None if ids is None else _explorer(settings, ids, texts)
    holder = _holder(context, question)

    def choose(more: Sequence[Barrier]) -> Decisions:
        top_k = question.integer("top_k") or 1
        decisions = decide(agents, estimates, policy, (*barred, *more), top_k)
        if explorer is not None:
            decisions = explorer.tried(decisions)
        return decisions if holder is None else holder.held(decisions)

    if context.reservations is None or not len(agents):
        return choose(()), evidence
    decisions = decide_and_reserve(
        context,
        context.reservations,
        choose,
        estimates,
        evidence,
        payer(question),
        ids,
        look_first=explorer is not None,
    )
    return decisions, evidence


def _estimates(
    context: Context,
    question: Question,
    policy: Policy,
    constraints: Constraints,
    texts: Sequence[str],
    columns: Collection[str],
) -> tuple[Estimates, Evidence]:
    """What each agent is expected to do for each text, and what that rests on.

    Only what the policy, the constraints or the wanted columns go by is worked out.
    """
    agents, routes = context.snapshot.agents, context.snapshot.routes
    expected = question.integer("expected_output_tokens")
    tokens_in = context.embedder.count_tokens(texts)
    tokens_out = output_tokens(agents, expected, context.snapshot.settings.default_output_tokens)
    learned = _learned(context, policy, constraints, columns)
    similarity = suits = categories = lifts = fits = vectors = None
    # A decision by cost alone needs no vector, unless its route might be out of money.
    routed = "route" in context.snapshot.budgets
    wanted = learned or routed or policy.wants_fit or not MEANING.isdisjoint(columns)
    if len(agents) and wanted:
        similar = partial(_similar, context, question)
        vectors = embed_requests(context.embedder, texts, lambda v: fit.margins(*similar(v)))
        similarity, lifts = similar(vectors)
        suits, categories = _by_category(context, similarity, vectors, texts)
        fits = fit.fit(suits, lifts)
    estimates = estimate(agents, tokens_in, tokens_out, fits)
    if learned is not None and vectors is not None:
        estimates = with_learned(
            estimates,
            learned.model,
            learned.name,
            describe(texts, vectors),
            agents,
            alone=policy.name == "quality",
        )
    evidence = Evidence(
        tokens_in=tokens_in,
        tokens_out=tokens_out,
        expected=expected,
        embedder=context.embedder.model,
        routes=routes,
        similarity=similarity,
        suits=suits,
        categories=categories,
        lifts=lifts,
        vectors=vectors,
        unknown=tuple(name for name in constraints.excluded_agents if name not in agents.positions),
    )
    return estimates, evidence


def _explorer(settings: Settings, ids: Sequence[UUID], texts: Sequence[str]) -> Explorer | None:
    """What tries other agents than the best, where settings say so."""
    method = settings.exploration
    if method == "none":
        return None
    exploration = Exploration(
        "thompson" if method == "thompson" else "epsilon",
        settings.exploration_rate,
        settings.prior_weight,
        settings.exploration_seed,
    )
    return Explorer(exploration, ids, texts)


def _holder(context: Context, question: Question) -> Holder | None:
    """What holds the agent of the session that is asked for, if one is."""
    key = question.text("session_key")
    if key is None or context.sessions is None:
        return None
    return Holder(context.sessions, payer(question).tenant, key)


def keep_or_release(
    keep: Keep, reservations: Reservations | None, decisions: Sequence[Decision]
) -> None:
    """Keep decisions; where that fails, what they have reserved is given back."""
    try:
        keep(decisions)
    except Exception:
        if reservations is not None:
            reservations.release([decision.id for decision in decisions])
        raise


def _learned(
    context: Context, policy: Policy, constraints: Constraints, columns: Collection[str]
) -> ActiveQuality | None:
    """The quality model, where quality decides or is to be shown."""
    if (
        policy.wants_quality
        or constraints.min_quality is not None
        or not QUALITY.isdisjoint(columns)
    ):
        return context.quality
    return None


def _similar(
    context: Context, question: Question, vectors: Vectors
) -> tuple[Floats, fit.Lifts | None]:
    """How near each request is to each agent, and what routes lend to that."""
    agents = context.snapshot.agents
    lifts = fit.lifts(
        vectors,
        agents,
        context.snapshot.routes,
        user_tier=question.text("user_tier"),
        now=context.now,
        default_threshold=context.snapshot.settings.route_threshold,
        search=context.route_search,
    )
    return fit.similarity(vectors, agents), lifts


def _by_category(
    context: Context, similarity: Floats, vectors: Vectors, texts: Sequence[str]
) -> tuple[Floats, Categories | None]:
    """How well each request and each agent suit each other, by category as well where there is a
    classifier for these vectors.
    """
    active, share = context.classifier, context.snapshot.settings.category_share
    if active is None or not share:
        return similarity, None
    try:
        classifier = active.classifier
    except TinyDancerError:
        # request_classifications says what is wrong with it; decisions go on without.
        return similarity, None
    if classifier.space != context.embedder.space:
        return similarity, None
    categories = Categories(active.name, classifier.names, classifier.probabilities(vectors, texts))
    agents = context.snapshot.agents
    near = likeness(classifier.names, agents, context.embedder.embed)
    return suit_by_category(similarity, categories, near, share), categories


def _constraints(question: Question) -> Constraints:
    return Constraints(
        required_capabilities=question.names("required_capabilities"),
        excluded_agents=question.names("excluded_agents"),
        max_cost=question.number("max_cost"),
        max_latency_ms=question.number("max_latency_ms"),
        min_quality=question.number("min_quality"),
        budget_remaining=question.number("budget_remaining"),
    )


def _places(decisions: Decisions) -> Iterator[Place]:
    """Request, rank and agent of each row; agent -1 is the row of a request that none suits."""
    for row, order in enumerate(decisions.order.tolist()):
        yield row, 1, order[0] if order else -1
        for rank, position in enumerate(order[1:], 2):
            if position < 0:
                break
            yield row, rank, position


def _cells(found: Answered, question: Question, texts: Sequence[str]) -> Mapping[str, Cell]:
    """What each column shows at a place."""
    evidence, explainer, ids = found.evidence, found.explainer, found.ids
    names, estimates = found.decisions.agents.names, found.decisions.estimates
    cells: dict[str, Cell] = {**echoes(question, ROUTE_DECISIONS)}
    cells.update(
        request=lambda place: texts[place[0]],
        rank=lambda place: str(place[1]),
        agent_name=lambda place: None if place[2] < 0 else names[place[2]],
        confidence=_figure(estimates.confidence, text.double),
        estimated_cost=_figure(estimates.cost, text.money),
        estimated_latency_ms=_figure(estimates.latency_ms, text.double),
        expected_quality=_figure(estimates.quality, text.double),
        similarity=_figure(evidence.similarity, text.double),
        score=lambda place: (
            None if place[2] < 0 else text.double(explainer.scores.item(place[0], place[2]))
        ),
        reasoning=lambda place: explainer.reasoning(place[0], place[1]),
        explanation=lambda place: text.jsonb(explainer.explanation(place[0])),
        decision_id=lambda place: None if ids is None or place[1] > 1 else str(ids[place[0]]),
        fallbacks=lambda place: None if place[1] > 1 else text.array(explainer.fallbacks(place[0])),
    )
    return cells


def _figure(values: Floats | None, form: Callable[[float], str]) -> Cell:
    """The cell of an estimate, which is (a,) or (n, a); NULL where there is no agent."""
    if values is None:
        return constant(None)
    if values.ndim == 1:
        return lambda place: None if place[2] < 0 else form(values.item(place[2]))
    return lambda place: None if place[2] < 0 else form(values.item(place[0], place[2]))
