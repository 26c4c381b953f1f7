"""How long a batch decided as a whole takes in SQL, and what it saves; and one with exploration.

    python -m tests.benchmarks.bench_batch [--dsn DSN] [--requests N] [--agents M]

On a server as bench_sql has it; texts were never asked before. Each line: seconds of
ruvector_batch_route with total_cost from the statement to its last row, its cost, how far from the
bound it may be, and the cost of deciding row by row under the same limits (the cheapest agent with
room and the quality asked of the batch; dashes where that runs out of room). Prices and quality are
those of agents that cost more the better they are, with some noise; random numbers are seeded.
Then as many requests decided each for itself (balanced), without exploration and with each kind.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import time
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


if __name__ == "__main__":
    main()
