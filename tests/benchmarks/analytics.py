"""Time of ruvector_routing_analytics over many usage rows, beside the sums of the rows themselves.

    python tests/benchmarks/analytics.py --dsn "host=... dbname=an_empty_database" [--rows N]

Rows are spread over 90 days, 20 agents, 10 routes, 15 categories, 4 tenants and 3 user tiers.
Prints one JSON object.
"""

from __future__ import annotations

import argparse
import json
from time import perf_counter

import psycopg

from tinydancer.store import schema

FILL = """
INSERT INTO tinydancer.usage (tenant, key, occurred_at, agent, route, category, user_tier,
    input_tokens, output_tokens, cost, latency_ms, success)
SELECT 't' || n %% 4, n::text, now() - random() * interval '90 days', 'agent ' || n %% 20,
    'route ' || n %% 10, 'category ' || n %% 15, 'tier ' || n %% 3, n %% 500, n %% 900,
    (n %% 1000) * 0.00001, exp(4 + 3 * random()), n %% 50 > 0
FROM generate_series(%s::bigint, %s::bigint) AS n
"""
DIRECT = """
SELECT agent, count(*), sum(cost), avg(latency_ms),
    percentile_disc(ARRAY[0.5, 0.95, 0.99]) WITHIN GROUP (ORDER BY latency_ms)
FROM tinydancer.usage WHERE occurred_at >= now() - %s::interval GROUP BY agent
"""
GROUPS = ("agent", "route", "category", "tenant", "user_tier", "day", "hour")


def main() -> None:
    """Fill the ledger, ask each question three times, print the best."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--dsn", required=True)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--chunk", type=int, default=500_000)
    arguments = parser.parse_args()
    result: dict[str, object] = {"rows": arguments.rows}
    with psycopg.connect(arguments.dsn, autocommit=True) as conn:
        schema.install(conn)
        conn.execute("SELECT tinydancer.ensure_partitions(now() - interval '100 days', now())")
        start = perf_counter()
        for first in range(1, arguments.rows + 1, arguments.chunk):
            conn.execute(FILL, (first, min(first + arguments.chunk - 1, arguments.rows)))
        result["rows written per second"] = round(arguments.rows / (perf_counter() - start))
        start = perf_counter()
        conn.execute("SELECT tinydancer.compact_sums()")
        result["sums of past days merged by upkeep in, s"] = round(perf_counter() - start, 1)
        conn.execute("VACUUM ANALYZE")
        for time_range in ("7 days", "100 days"):
            for group_by in GROUPS:
                result[f"{time_range} by {group_by}, s"] = best_of_three(
                    conn,
                    "SELECT * FROM tinydancer.ruvector_routing_analytics(%s, %s)",
                    (time_range, group_by),
                )
        start = perf_counter()
        conn.execute(DIRECT, ("100 days",)).fetchall()
        result["100 days by agent, from the rows, s"] = round(perf_counter() - start, 3)
    print(json.dumps(result, indent=2))


def best_of_three(conn: psycopg.Connection, query: str, parameters: tuple[str, ...]) -> float:
    """Seconds of the fastest of three."""
    times = []
    for _ in range(3):
        start = perf_counter()
        conn.execute(query.encode(), parameters).fetchall()
        times.append(perf_counter() - start)
    return round(min(times), 3)


if __name__ == "__main__":
    main()
