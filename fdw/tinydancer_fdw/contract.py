"""The foreign tables: their columns, which of them are inputs, and what a planner needs to know.

This is the one place that says so. The Multicorn wrapper and the engine import it; the native
front door gets it as a C header written from it when it is built. Standard library only.

An input column is a question: `WHERE request = 'x'` puts a value into it, and every row of the
answer echoes that value, since PostgreSQL checks each qual again. The other columns are outputs.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

# Types a foreign table may use. Inputs keep to the first five: those never crash a Multicorn
# server as parameters under EXPLAIN.
TYPES = ("text", "integer", "double precision", "boolean", "text[]", "numeric", "bigint",
         "jsonb", "vector", "timestamptz", "interval", "uuid")  # fmt: skip

INPUT_TYPES = frozenset({"text", "integer", "double precision", "boolean", "text[]"})


@dataclass(frozen=True)
class Column:
    """One column: an input where `input` is true, refused without a value where `required`.

    An `identity` is another with each answer: rows of a join that want it never share an answer.
    """

    name: str
    type: str
    description: str
    input: bool = False
    required: bool = False
    identity: bool = False


@dataclass(frozen=True)
class Table:
    """One foreign table.

    `key` is its required input, which a join can supply row by row; `rows` is how many rows one
    request is expected to yield, `microseconds` what one request costs, for the planner.
    """

    name: str
    description: str
    columns: tuple[Column, ...]
    rows: int = 1
    microseconds: int = 200

    @cached_property
    def key(self) -> str | None:
        """The required input, or None for a table that needs none."""
        return next((column.name for column in self.columns if column.required), None)

    @cached_property
    def inputs(self) -> tuple[Column, ...]:
        """The input columns, in order."""
        return tuple(column for column in self.columns if column.input)

    def column(self, name: str) -> Column | None:
        """The column of that name, or None."""
        return self._by_name.get(name)

    @cached_property
    def _by_name(self) -> dict[str, Column]:
        return {column.name: column for column in self.columns}


def _required(name: str, description: str, type_: str = "text") -> Column:
    return Column(name, type_, description, input=True, required=True)


def _input(name: str, type_: str, description: str) -> Column:
    return Column(name, type_, description, input=True)


OBJECTIVES = ("cost", "latency", "quality", "balanced", "quality_per_dollar", "total_cost")

ROUTE_DECISIONS = Table(
    "route_decisions",
    "Which agent should serve a request, at what cost, latency and quality, and why.",
    (
        _required("request", "The text of the request."),
        _input("optimize_for", "text", f"One of {', '.join(OBJECTIVES)}. Default balanced."),
        _input("required_capabilities", "text[]", "Capabilities that the agent must have."),
        _input("excluded_agents", "text[]", "Names of agents that may not be chosen."),
        _input("max_cost", "double precision", "Most that this request may cost, in money."),
        _input("max_latency_ms", "double precision", "Longest average latency, milliseconds."),
        _input("min_quality", "double precision", "Least expected quality, 0 to 1."),
        _input("budget_remaining", "double precision", "Money left: no dearer agent is chosen."),
        _input("expected_output_tokens", "integer", "Tokens the answer is expected to have."),
        _input("user_tier", "text", "Tier of the user who asks; routes may be kept for some."),
        _input("tenant", "text", "On whose behalf; budgets and accounts are by tenant."),
        _input("top_k", "integer", "How many agents to return, best first. Default 1."),
        _input("session_key", "text", "A session: its agent is chosen as long as it suits."),
        Column("rank", "integer", "1 is the decision; higher ranks are the next best."),
        Column("agent_name", "text", "The agent, or NULL where none suits."),
        Column("confidence", "double precision", "Probability that the agent serves it well."),
        Column("estimated_cost", "numeric", "Expected cost of this request, in money."),
        Column("estimated_latency_ms", "double precision", "Expected latency, milliseconds."),
        Column("expected_quality", "double precision", "Expected quality, 0 to 1."),
        Column("similarity", "double precision", "Cosine of request and agent's capabilities."),
        Column("score", "double precision", "What the policy maximised, 0 to 1."),
        Column("reasoning", "text", "The decision in a sentence."),
        Column("explanation", "jsonb", "Objective, weights, candidates, refusals, models."),
        Column(
            "decision_id",
            "uuid",
            "Its id, for rank 1. Asking for it keeps the decision.",
            identity=True,
        ),
        Column("fallbacks", "text[]", "Whom to turn to if it fails, best first; for rank 1."),
    ),
    microseconds=300,
)

BATCH_DECISIONS = Table(
    "batch_decisions",
    "Many requests decided as one batch, each a decision of its own: a row a batch.",
    (
        _required(
            "requests", "The texts of the batch; one that occurs twice counts twice.", "text[]"
        ),
        _input("optimize_for", "text", "Default total_cost: as a whole. Else each by itself."),
        _input("required_capabilities", "text[]", "Capabilities that each agent must have."),
        _input("excluded_agents", "text[]", "Names of agents that may not be chosen."),
        _input("max_cost", "double precision", "Most that each request may cost, in money."),
        _input("max_latency_ms", "double precision", "Longest average latency, milliseconds."),
        _input("min_quality", "double precision", "Least expected quality of each, 0 to 1."),
        _input("expected_output_tokens", "integer", "Tokens each answer is expected to have."),
        _input("user_tier", "text", "Tier of the user who asks; kept with the decisions."),
        _input("tenant", "text", "On whose behalf; kept with the decisions."),
        _input("min_batch_quality", "double precision", "Least mean quality of the batch."),
        _input("total_budget", "double precision", "Most that the batch may cost, in money."),
        _input("agent_capacity", "text[]", "Most requests of an agent: 'agent=100'."),
        Column("decisions", "jsonb", "The decision on each request, in the order of requests."),
        Column("total_cost", "numeric", "Expected cost of the batch, in money."),
        Column("least_cost", "numeric", "A cost that no assignment can be below."),
        Column("mean_quality", "double precision", "Mean expected quality of those served."),
        Column("quality_price", "double precision", "Money for one more unit of summed quality."),
        Column("capacity_prices", "jsonb", "Money that one more place at each full agent saves."),
        Column("unserved", "integer", "Requests that no agent may serve; in no sum above."),
        Column(
            "decision_ids",
            "jsonb",
            "Their ids, in order. Asking for them keeps the decisions.",
            identity=True,
        ),
    ),
    microseconds=5000,
)

SEMANTIC_MATCHES = Table(
    "semantic_matches",
    "The named routes that a query means, best first; none where none fits.",
    (
        _required("query", "The text to match."),
        _input("top_k", "integer", "Most routes to return. Default 3."),
        _input("user_tier", "text", "Tier of the user who asks."),
        Column("rank", "integer", "1 is the best match."),
        Column("route_name", "text", "Name of the route."),
        Column("similarity", "double precision", "Cosine of query and route, -1 to 1."),
        Column("target_agent", "text", "The agent that the route leads to."),
        Column("confidence", "double precision", "Probability that the route is the right one."),
        Column("priority", "integer", "The route's priority; higher goes first among equals."),
    ),
    rows=3,
    microseconds=200,
)

CAPABILITY_MATCHES = Table(
    "capability_matches",
    "The agents that have a capability, by its exact name or by meaning.",
    (
        _required("capability", "The capability to look for."),
        _input("top_k", "integer", "Most agents to return. Default 10."),
        Column("rank", "integer", "1 is the best match."),
        Column("agent_name", "text", "Name of the agent."),
        Column("similarity", "double precision", "1 where exact, else the best cosine."),
        Column("exact", "boolean", "Whether the agent lists this very capability."),
    ),
    rows=10,
    microseconds=200,
)

REQUEST_EMBEDDINGS = Table(
    "request_embeddings",
    "The vector of a text, as the engine's embedder makes it.",
    (
        _required("content", "The text to embed."),
        Column("embedding", "vector", "Its unit vector."),
        Column("model", "text", "The model that made it."),
    ),
    microseconds=150,
)

REQUEST_CLASSIFICATIONS = Table(
    "request_classifications",
    "What a request is about and what it calls for, by the active classifier.",
    (
        _required("content", "The text to classify."),
        Column("category", "text", "The likeliest category; NULL where the text is out of scope."),
        Column("confidence", "double precision", "Probability of the likeliest category."),
        Column("out_of_scope", "boolean", "Whether it is like nothing the model was taught."),
        Column("plausible", "text[]", "The categories that can't be ruled out, likeliest first."),
        Column("capabilities", "text[]", "Capabilities that it calls for, likeliest first."),
        Column("classification", "jsonb", "All of it: every category with its probability."),
        Column("model", "text", "The model that classified it."),
    ),
    microseconds=100,
)

STRATEGIES = ("pipeline", "parallel", "ensemble")

AGENT_PLANS = Table(
    "agent_plans",
    "A team of agents for one request: who takes which part, and what the team costs.",
    (
        _required("request", "The text of the request."),
        _input("strategy", "text", f"One of {', '.join(STRATEGIES)}. Default pipeline."),
        _input("num_agents", "integer", "Members of the team. Default 3, or all there are."),
        _input("optimize_for", "text", f"One of {', '.join(OBJECTIVES)}. Default balanced."),
        _input("excluded_agents", "text[]", "Names of agents that may not be chosen."),
        _input("max_cost", "double precision", "Most that the whole team may cost."),
        _input("max_latency_ms", "double precision", "Longest time of the whole team, ms."),
        _input("min_quality", "double precision", "Least quality of the whole team, 0 to 1."),
        _input("expected_output_tokens", "integer", "Tokens that each member's answer has."),
        _input("user_tier", "text", "Tier of the user who asks; kept with the decisions."),
        _input("tenant", "text", "On whose behalf; kept with the decisions."),
        Column("place", "integer", "The member's place in the team, from 1."),
        Column("agent_name", "text", "The member, or NULL where no team suits."),
        Column("part", "text", "What the member is to do."),
        Column("capability", "text", "The capability that this part calls for."),
        Column("estimated_cost", "numeric", "Expected cost of the member."),
        Column("estimated_latency_ms", "double precision", "Expected latency of the member, ms."),
        Column("expected_quality", "double precision", "The member's chance of success."),
        Column("team_cost", "numeric", "Expected cost of the whole team."),
        Column("team_latency_ms", "double precision", "Expected latency of the whole team, ms."),
        Column("team_quality", "double precision", "The team's chance of success."),
        Column("reasoning", "text", "The member's part, or why there is no team."),
        Column("explanation", "jsonb", "Strategy, parts, joint success, whether all was tried."),
        Column(
            "decision_id",
            "uuid",
            "The member's id. Asking for it keeps the team's decisions.",
            identity=True,
        ),
    ),
    rows=3,
    microseconds=2000,
)

BUDGET_ALLOCATIONS = Table(
    "budget_allocations",
    "How to spend a budget: what each agent should get, for the highest expected quality.",
    (
        _required("budget", "Money to spend in the period.", "double precision"),
        _input("quality_threshold", "double precision", "Least quality of an agent, 0 to 1."),
        _input("latency_threshold_ms", "double precision", "Longest latency of an agent, ms."),
        _input("expected_requests", "double precision", "Requests expected in the period."),
        _input("expected_by_category", "text[]", "The same by category: 'code=1000'."),
        _input("agent_capacity", "text[]", "Most requests of an agent: 'agent=100'."),
        _input(
            "expected_input_tokens", "integer", "Tokens of a request. Default: history, or 256."
        ),
        _input("expected_output_tokens", "integer", "Tokens of an answer."),
        Column("agent_name", "text", "Name of the agent."),
        Column("share", "double precision", "Its share of the requests, 0 to 1."),
        Column("allocation", "numeric", "Its money."),
        Column("expected_requests_served", "double precision", "Requests that it should serve."),
        Column("requests_by_category", "jsonb", "Those by category."),
        Column("expected_quality", "double precision", "Mean quality of those; NULL if none."),
        Column("shadow_price", "double precision", "Quality that one more place at it gains."),
        Column("shortfall", "double precision", "Quality that it lacks to get a share."),
        Column("spent", "numeric", "Money that the whole plan spends."),
        Column("plan_quality", "double precision", "Mean quality of the whole plan."),
        Column("budget_shadow_price", "double precision", "Quality that more money gains."),
        Column("demand", "double precision", "Requests that the plan serves."),
        Column("demand_by_category", "jsonb", "Those by category."),
        Column("demand_source", "text", "given, history (30 days), or assumed from the budget."),
    ),
    rows=10,
    microseconds=5000,
)

ROUTE_THRESHOLDS = Table(
    "route_thresholds",
    "The threshold that best tells a route's requests from others; ruvector_fit_routes asks.",
    (
        _required("route", "Name of the route."),
        _input("positives", "text[]", "Requests that it should match."),
        _input("negatives", "text[]", "Requests that it should not match."),
        _input("wrong_match_cost", "double precision", "What a wrong match costs."),
        _input("missed_match_cost", "double precision", "What a missed match costs."),
        Column("threshold", "double precision", "Least similarity to match, -1 to 1."),
        Column("precision", "double precision", "Share of its matches that are right."),
        Column("recall", "double precision", "Share of its requests that it matches."),
        Column("f1", "double precision", "Harmonic mean of precision and recall."),
        Column("model", "text", "The model whose similarities it was fitted on."),
    ),
    microseconds=1000,
)

GROUPINGS = ("agent", "route", "category", "tenant", "day", "hour", "user_tier")

ROUTING_ANALYTICS = Table(
    "routing_analytics",
    "What was spent and how it went, from the ledger: a row a group.",
    (
        _input("time_range", "text", "How far back: any interval. Default 7 days."),
        _input("group_by", "text", f"One of {', '.join(GROUPINGS)}. Default agent."),
        Column("agent", "text", "The agent, or whatever else group_by names."),
        Column("total_requests", "bigint", "Outcomes recorded."),
        Column("total_cost", "numeric", "Money spent."),
        Column("avg_latency_ms", "double precision", "Mean latency, milliseconds."),
        Column("success_rate", "double precision", "Share of successes, 0 to 1."),
        Column("p50_latency_ms", "double precision", "Median latency, within 1%."),
        Column("p95_latency_ms", "double precision", "95th percentile of latency, within 1%."),
        Column("p99_latency_ms", "double precision", "99th percentile of latency, within 1%."),
        Column("cost_per_success", "numeric", "Money spent for each success."),
        Column("share", "double precision", "Its share of all outcomes, 0 to 1."),
        Column("input_tokens", "numeric", "Tokens of the requests."),
        Column("output_tokens", "numeric", "Tokens of the answers."),
    ),
    rows=10,
    microseconds=5000,
)

POLICY_REPLAYS = Table(
    "policy_replays",
    "What another policy would have achieved over kept decisions: a row a metric.",
    (
        _required("policy", "An objective, weights (cost=0.7, quality=0.3) or agent:NAME."),
        _input("time_range", "text", "How far back: any interval. Default 30 days."),
        Column("metric", "text", "quality, cost or latency_ms; of each the mean a decision."),
        Column("decisions", "bigint", "Kept decisions whose outcome is known."),
        Column("logged", "double precision", "What was achieved."),
        Column("logged_low", "double precision", "Lower end of its 95% interval."),
        Column("logged_high", "double precision", "Upper end of its 95% interval."),
        Column("ips", "double precision", "The policy by inverse propensity."),
        Column("ips_low", "double precision", "Lower end of its 95% interval."),
        Column("ips_high", "double precision", "Upper end of its 95% interval."),
        Column("snips", "double precision", "The same, by weights that add up to 1."),
        Column("snips_low", "double precision", "Lower end of its 95% interval."),
        Column("snips_high", "double precision", "Upper end of its 95% interval."),
        Column("dr", "double precision", "The policy by the doubly robust estimate."),
        Column("dr_low", "double precision", "Lower end of its 95% interval."),
        Column("dr_high", "double precision", "Upper end of its 95% interval."),
        Column("effective_sample_size", "double precision", "Decisions that speak of it."),
        Column("mean_weight", "double precision", "1 where the log could make all its choices."),
        Column("choices", "jsonb", "The share of its choices by agent."),
    ),
    rows=3,
    microseconds=50000,
)

ENGINE_STATUS = Table(
    "engine_status",
    "The engine that answers: what it is, what it holds, what it has done.",
    (
        Column("version", "text", "Version of the engine."),
        Column("protocol", "integer", "Version of the frames it speaks."),
        Column("front_door", "text", "The front door that this scan came through."),
        Column("pid", "integer", "Process id of the engine."),
        Column("uptime", "interval", "Time since it started."),
        Column("embedder", "text", "The model that embeds requests."),
        Column("agents", "bigint", "Active agents in its snapshot."),
        Column("routes", "bigint", "Active routes in its snapshot."),
        Column("scans", "bigint", "Scans answered since the start."),
        Column("errors", "bigint", "Scans that ended in an error."),
        Column("latency_p50_ms", "double precision", "Median time of the last scans, ms."),
        Column("latency_p95_ms", "double precision", "95th percentile, ms."),
        Column("latency_p99_ms", "double precision", "99th percentile, ms."),
        Column("cache_hits", "bigint", "Embeddings found in the cache."),
        Column("cache_misses", "bigint", "Embeddings that had to be made."),
        Column("escalated", "bigint", "Requests that the accurate tier took over."),
        Column("decisions_kept", "bigint", "Decisions written to the table decisions."),
        Column("decisions_lost", "bigint", "Decisions that could not be kept."),
    ),
)

TABLES = {
    table.name: table
    for table in (
        ROUTE_DECISIONS,
        BATCH_DECISIONS,
        SEMANTIC_MATCHES,
        CAPABILITY_MATCHES,
        REQUEST_EMBEDDINGS,
        REQUEST_CLASSIFICATIONS,
        AGENT_PLANS,
        BUDGET_ALLOCATIONS,
        ROUTE_THRESHOLDS,
        ROUTING_ANALYTICS,
        POLICY_REPLAYS,
        ENGINE_STATUS,
    )
}


def create_statement(table: Table, server: str, schema: str) -> str:
    """The CREATE FOREIGN TABLE that IMPORT FOREIGN SCHEMA issues for a table.

    The names are the contract's own, all plain lower-case identifiers; server and schema must be
    quoted by the caller.
    """
    columns = ", ".join(f"{column.name} {column.type}" for column in table.columns)
    return (
        f"CREATE FOREIGN TABLE {schema}.{table.name} ({columns}) "
        f"SERVER {server} OPTIONS (table '{table.name}')"
    )
