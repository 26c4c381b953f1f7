"""How long a batch decided as a whole takes in SQL, and what it saves; and one with exploration.

    python -m tests.benchmarks.bench_batch [--dsn DSN] [--requests N] [--agents M]

On a server as bench_sql has it; texts were never asked before. Each line: seconds of
ruvector_batch_route with total_cost from the statement to its last row, its cost, how far from the
bound it may be, and the cost of deciding row by row under the same limits (the cheapest agent with
room and the quality asked of the batch; dashes where that runs out of room). Prices and quality are
those of agents that cost more the better they are, with some noise; random numbers are seeded.
Then as many requests decided each for itself (balanced), without exploration and with each kind.

Then how long budgets and agents are locked while as many claims of one batch are reserved: the
function alone, in a transaction that is taken back; and as a ratio to where there is room for all.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import time
import uuid
from decimal import Decimal
from typing import Any

import psycopg
from tests.benchmarks.bench_sql import places, texts

from tinydancer.embedded.server import DEFAULT_VERSION

FLOOR = 0.75


def add_agents(db: psycopg.Connection, number: int) -> dict[str, float]:
    """Agents of rising price and quality; returns each one's quality."""
    noise = random.Random(7)
    quality = {}
    for n in range(number):
        share = n / (number - 1)
        name = f"agent {n}"
        quality[name] = min(0.99, 0.5 + 0.45 * share + noise.uniform(-0.05, 0.05))
        price = 0.0002 * 200**share * noise.uniform(0.7, 1.4)
        db.execute(
            "INSERT INTO agents (name, cost_per_1k_input_tokens, cost_per_1k_output_tokens,"
            " avg_latency_ms, quality) VALUES (%s, %s, %s, 1000, %s)",
            (name, round(price, 9), round(3 * price, 9), quality[name]),
        )
    return quality


def row_by_row(
    rows: list[tuple[Any, ...]], quality: dict[str, float], floor: float, places: int
) -> float | None:
    """Cost of the cheapest agent with room and quality for each request in turn."""
    cost: dict[str, dict[str, float]] = {}
    for request, agent, price in rows:
        cost.setdefault(request, {})[agent] = float(price)
    left, total = dict.fromkeys(quality, places), 0.0
    for of in cost.values():
        able = [agent for agent in of if left[agent] and quality[agent] >= floor]
        if not able:
            return None
        choice = min(able, key=of.__getitem__)
        left[choice] -= 1
        total += of[choice]
    return total


def measure(db: psycopg.Connection, requests: int, agents: int) -> None:
    """One line for each set of limits."""
    quality = add_agents(db, agents)
    db.execute("SELECT FROM route_decisions WHERE request = 'warm'")
    places = requests // agents * 2
    capacity = json.dumps(dict.fromkeys(quality, places))
    for name, floor, limit in (
        ("no limits", None, None),
        ("floor", FLOOR, None),
        ("capacity", None, capacity),
        ("floor, capacity, budget", FLOOR, capacity),
    ):
        asked = texts(requests)
        budget = 1e6 if name.endswith("budget") else None
        began = time.perf_counter()
        rows = db.execute(
            "SELECT agent_name, estimated_cost, expected_quality FROM ruvector_batch_route(%s,"
            " optimize_for := 'total_cost', min_batch_quality := %s, total_budget := %s,"
            " agent_capacity := %s)",
            (asked, floor, budget, limit),
        ).fetchall()
        seconds = time.perf_counter() - began
        cost = float(sum(row[1] for row in rows))
        mean = sum(row[2] for row in rows) / len(rows)
        (bound,) = db.execute(
            "SELECT least_cost FROM batch_decisions WHERE requests = %s"
            + (f" AND min_batch_quality = {floor}" if floor else "")
            + (" AND agent_capacity = %s" if limit else ""),
            (asked, [f"{agent}={places}" for agent in quality])[: 2 if limit else 1],
        ).fetchall()[0]
        alone = db.execute(
            "SELECT request, agent_name, estimated_cost FROM route_decisions"
            f" WHERE request = ANY (%s) AND optimize_for = 'cost' AND top_k = {agents}",
            (asked,),
        ).fetchall()
        found = row_by_row(alone, quality, floor or 0.0, places if limit else requests)
        greedy = "-" if found is None else f"{found:.4f}, {found / cost:.3f} x"
        print(
            f"{name:24} {seconds:7.2f} s   cost {cost:9.4f}   mean quality {mean:.4f}"
            f"   above bound by {cost / float(bound) - 1:.1e}   row by row {greedy}",
            flush=True,
        )


def measure_exploration(db: psycopg.Connection, requests: int) -> None:
    """One line for each kind of exploration."""
    for kind in ("none", "epsilon", "thompson"):
        db.execute("UPDATE settings SET exploration = %s", (kind,))
        db.execute("SELECT FROM route_decisions WHERE request = 'warm'")
        asked = texts(requests)
        began = time.perf_counter()
        rows = db.execute(
            "SELECT agent_name FROM ruvector_batch_route(%s, optimize_for := 'balanced')", (asked,)
        ).fetchall()
        seconds = time.perf_counter() - began
        print(f"exploration {kind:12} {seconds:7.2f} s   agents {len(set(rows))}", flush=True)


def measure_reserving(db: psycopg.Connection, claims: int) -> None:
    """One line for each share of the claims that budgets, or the agents' limits, have room for."""
    agents = [name for (name,) in db.execute("SELECT name FROM agents ORDER BY 1")]
    chosen = [agents[n % len(agents)] for n in range(claims)]
    amount = Decimal("0.001")
    baseline = None
    for name, share, room in (
        ("room for all", 1.0, None),
        ("budgets for 99%", 0.99, None),
        ("budgets for half", 0.5, None),
        ("budgets for none", 0.0, None),
        ("guarded agents, all", None, 1.0),
        ("guarded agents, half", None, 0.5),
        ("budgets, guards for half", 0.5, 0.5),
    ):
        seconds = []
        for _ in range(5):
            with db.transaction(force_rollback=True):
                if share is not None:
                    # As it comes: one for all, one of an agent, one of a tenant.
                    limit = amount * round(claims * share)
                    db.execute(
                        "SELECT ruvector_set_budget('all', %s),"
                        " ruvector_set_budget('agent', %s, 'agent', %s),"
                        " ruvector_set_budget('tenant', %s, 'tenant', 'default')",
                        (limit, limit, agents[0], limit),
                    )
                if room is not None:
                    most = max(round(claims / len(agents) * room), 1)
                    db.execute("UPDATE agents SET concurrency_limit = %s", (most,))
                ids = [uuid.uuid4() for _ in chosen]
                began = time.perf_counter()
                [(refused,)] = db.execute(
                    "SELECT cardinality(array_remove(limits, NULL)) FROM reserve_calls("
                    "%s::uuid[], %s::text[], %s::text[], %s::text[], %s::text[], %s::numeric[])",
                    (
                        ids,
                        ["default"] * claims,
                        chosen,
                        [None] * claims,
                        [None] * claims,
                        [amount] * claims,
                    ),
                ).fetchall()
                seconds.append(time.perf_counter() - began)
        median = sorted(seconds)[len(seconds) // 2]
        baseline = baseline or median
        print(
            f"reserve {name:24} {median:7.3f} s   {median / baseline:5.2f} x   refused {refused}",
            flush=True,
        )


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dsn", default=os.environ.get("TINYDANCER_TEST_DSN"))
    parser.add_argument("--postgres", type=int, default=DEFAULT_VERSION)
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--agents", type=int, default=20)
    options = parser.parse_args(arguments)
    with places(options.dsn, options.postgres) as (place, *_), place.connect() as db:
        measure(db, options.requests, options.agents)
        measure_exploration(db, options.requests)
        measure_reserving(db, options.requests)


if __name__ == "__main__":
    main()
