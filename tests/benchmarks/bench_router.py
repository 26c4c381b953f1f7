"""How long decisions and matches take in the engine, without sockets and SQL.

    python -m tests.benchmarks.bench_router [--rounds N] [--json]

Figures are microseconds: the median, the 99th percentile, and the median as a ratio to embedding
one sentence, which varies less from machine to machine.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from itertools import count

import numpy as np

from tinydancer.agents.model import Agent, Performance, Prices
from tinydancer.agents.pool import Pool
from tinydancer.agents.registry import AgentTable
from tinydancer.embeddings.base import Embedder, Vectors
from tinydancer.embeddings.static import StaticEmbedder
from tinydancer.semantic_routes.route import Route
from tinydancer.semantic_routes.table import RouteTable
from tinydancer.store.settings import Settings
from tinydancer.tables import answer
from tinydancer.tables.context import Context, Status
from tinydancer_fdw.frames import ANY, EQUALS, Input, Scan

VOCABULARY = (
    "write review summarize translate the a this contract poem function email report in python "
    "german for my customer about billing refund weather data table quickly carefully and plan"
)
WORDS = VOCABULARY.split()
BRIEF = ("agent_name", "confidence", "estimated_cost", "estimated_latency_ms", "expected_quality")
MATCHED = ("route_name", "similarity", "target_agent", "confidence")


@dataclass(frozen=True)
class Snapshot:
    """What a decision reads, without a database that it came from."""

    agents: AgentTable
    routes: RouteTable
    settings: Settings = field(default_factory=Settings)
    budgets: frozenset[str] = frozenset()
    pool: Pool = field(default_factory=Pool)


class AtHand:
    """An embedder that has the vectors of some texts already, to time all the rest."""

    def __init__(self, embedder: Embedder, texts: Sequence[str]) -> None:
        self.model, self.space, self.dimension = embedder.model, embedder.space, 384
        self._vectors = {text: embedder.embed([text]) for text in texts}
        self._tokens = {text: embedder.count_tokens([text]) for text in texts}

    def embed(self, texts: Sequence[str]) -> Vectors:
        return self._vectors[texts[0]]

    def count_tokens(self, texts: Sequence[str]) -> np.ndarray:
        return self._tokens[texts[0]]


def sentences(seed: int) -> Iterator[str]:
    """Sentences of 14 words, none twice."""
    rng = random.Random(seed)
    for number in count():
        yield " ".join(rng.choices(WORDS, k=13)) + f" {number}"


def some_agents(number: int, embedder: Embedder) -> AgentTable:
    """Agents of all kinds of prices and speeds."""
    rng = random.Random(1)
    found = [
        Agent(
            f"agent-{at}",
            "llm",
            tuple(rng.sample(WORDS, 4)),
            Prices(rng.random() / 100, rng.random() / 30, rng.random() / 1000),
            Performance(rng.uniform(50, 3000), rng.random()),
        )
        for at in range(number)
    ]
    return AgentTable.build(found, embedder.embed([agent.text for agent in found]))


def some_routes(number: int, embedder: Embedder) -> RouteTable:
    """Routes of five words each, to agents of which some exist."""
    rng = random.Random(2)
    found = [
        Route(f"route-{at}", " ".join(rng.choices(WORDS, k=5)), f"agent-{at % 100}", at % 3)
        for at in range(number)
    ]
    vectors = embedder.embed([route.description for route in found])
    return RouteTable.build(found, vectors, np.arange(number))


def measure(call: Callable[[], None], rounds: int) -> list[float]:
    """The times of `rounds` calls, sorted, in microseconds."""
    call()
    times = []
    for _ in range(rounds):
        start = time.perf_counter_ns()
        call()
        times.append((time.perf_counter_ns() - start) / 1000)
    return sorted(times)


def runs(rounds: int) -> Iterator[tuple[str, Callable[[], None], int]]:
    """What is measured: a name, a call and how often to make it."""
    embedder, texts, now = StaticEmbedder.builtin(), sentences(0), datetime.now(timezone.utc)
    known, turn = [next(texts) for _ in range(64)], count()
    at_hand = AtHand(embedder, known)
    none = RouteTable.build([], np.zeros((0, 384), np.float32), np.zeros(0, np.int64))
    ten, routes = some_agents(10, embedder), some_routes(1000, embedder)
    many = some_agents(10_000, embedder)

    def context(agents: AgentTable, routes: RouteTable, embedder: Embedder) -> Context:
        snapshot = Snapshot(agents, routes, Settings())
        return Context(snapshot, embedder, now, "", lambda: Status("", 1, 1, timedelta(), 0, 0))

    def ask(where: Context, table: str, columns: tuple[str, ...], *more: Input) -> None:
        key = "query" if table == "semantic_matches" else "request"
        text = next(texts) if where.embedder is embedder else known[next(turn) % len(known)]
        for _ in answer(where, Scan(table, columns, (Input(key, EQUALS, text), *more))):
            pass

    def batch(where: Context, number: int, table: str, columns: tuple[str, ...]) -> None:
        key = "query" if table == "semantic_matches" else "request"
        asked = Input(key, ANY, [next(texts) for _ in range(number)])
        for _ in answer(where, Scan(table, columns, (asked,))):
            pass

    decide, match = "route_decisions", "semantic_matches"
    few, reason = max(3, rounds // 400), (*BRIEF, "reasoning")
    cost, cap = Input("optimize_for", EQUALS, "cost"), Input("max_cost", EQUALS, "0.01")
    yield "embed one sentence", lambda: [embedder.embed([next(texts)])].clear(), rounds
    yield "count its tokens", lambda: [embedder.count_tokens([next(texts)])].clear(), rounds
    here = context(ten, none, at_hand)
    yield "decide, vector at hand", lambda: ask(here, decide, BRIEF), rounds
    yield "... under max_cost", lambda: ask(here, decide, BRIEF, cap), rounds
    yield "... by cost", lambda: ask(here, decide, BRIEF, cost), rounds
    yield "... with reasoning", lambda: ask(here, decide, reason), rounds
    yield "... with explanation", lambda: ask(here, decide, (*reason, "explanation")), rounds
    whole = context(ten, none, embedder)
    yield "decide, 10 agents", lambda: ask(whole, decide, BRIEF), rounds
    crowd = context(many, none, embedder)
    yield "decide, 10,000 agents", lambda: ask(crowd, decide, reason), max(3, rounds // 10)
    town = context(ten, routes, embedder)
    yield "decide, 10 agents, 1,000 routes", lambda: ask(town, decide, BRIEF), rounds
    yield "match, 1,000 routes", lambda: ask(town, match, MATCHED), rounds
    town_at_hand = context(ten, routes, at_hand)
    yield "match, vector at hand", lambda: ask(town_at_hand, match, MATCHED), rounds
    yield "decide 10,000 requests, 10 agents", lambda: batch(whole, 10_000, decide, reason), few
    yield "match 1,000 queries, 1,000 routes", lambda: batch(town, 1000, match, MATCHED), few


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--rounds", type=int, default=2000)
    options = parser.parse_args(arguments)
    figures: dict[str, dict[str, float]] = {}
    for name, call, rounds in runs(options.rounds):
        times = measure(call, rounds)
        p50, p99 = times[len(times) // 2], times[int(len(times) * 0.99)]
        unit = figures["embed one sentence"]["p50"] if figures else p50
        figures[name] = {"p50": p50, "p99": p99, "ratio": p50 / unit}
        if not options.json:
            print(f"{name:36} {p50:12.1f} µs {p99:12.1f} µs {p50 / unit:10.1f} x", flush=True)
    if options.json:
        print(json.dumps(figures))


if __name__ == "__main__":
    main()
