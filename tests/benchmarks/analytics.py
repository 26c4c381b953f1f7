"""Time of ruvector_routing_analytics over many usage rows, beside the sums of the rows themselves.

    python tests/benchmarks/analytics.py --dsn "host=... dbname=an_empty_database" [--rows N]
        [--chunk N] [--sessions N]

Rows are spread over 90 days, 20 agents, 10 routes, 15 categories, 4 tenants and 3 user tiers, each
statement's over all 90 days. Prints one JSON object: how fast the ledger fills, by statements and
by ruvector_record_usage_batch, and how long each question takes, at once and after upkeep.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
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
ROWS = "SELECT sum(requests)::bigint FROM tinydancer.usage_hourly WHERE dimension = 'agent'"
DIRECT = """
SELECT agent, count(*), sum(cost), avg(latency_ms),
    percentile_disc(ARRAY[0.5, 0.95, 0.99]) WITHIN GROUP (ORDER BY latency_ms)
FROM tinydancer.usage WHERE occurred_at >= now() - %s::interval GROUP BY agent
"""
BATCH = """
SELECT jsonb_agg(jsonb_strip_nulls(jsonb_build_object('agent_name', 'agent ' || n %% 20,
    'tenant', 't' || n %% 4, 'route', 'route ' || n %% 10, 'category', 'category ' || n %% 15,
    'user_tier', 'tier ' || n %% 3, 'input_tokens', n %% 500, 'output_tokens', n %% 900,
    'cost', CASE WHEN n %% 2 = 0 THEN 0.001 END, 'latency_ms', round(exp(4 + 3 * random())),
    'idempotency_key', gen_random_uuid(),
    'occurred_at', now() - interval '10 days' + n * interval '1 second')))::text
FROM generate_series(%s::bigint, %s::bigint) AS n
"""
GROUPS = ("agent", "route", "category", "tenant", "user_tier", "day", "hour")


def main(given: Sequence[str] | None = None) -> None:
    """Fill the ledger, ask each question three times at once and after upkeep; print the best."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--dsn", required=True)
    parser.add_argument("--rows", type=int, default=10_000_000, help="0: what is there already")
    parser.add_argument("--chunk", type=int, default=500_000)
    parser.add_argument("--sessions", type=int, default=2, help="that fill it at once")
    arguments = parser.parse_args(given)
    result: dict[str, object] = {}
    with psycopg.connect(arguments.dsn, autocommit=True) as conn:
        schema.install(conn)
        conn.execute("SELECT tinydancer.ensure_partitions(now() - interval '100 days', now())")
        if arguments.rows:
            start = perf_counter()
            fill(arguments.dsn, arguments.rows, arguments.chunk, arguments.sessions)
            result["sessions that write"] = arguments.sessions
            result["rows written per second"] = round(arguments.rows / (perf_counter() - start))
        result["rows"] = conn.execute(ROWS).fetchall()[0][0]
        result["before upkeep, s"] = answers(conn)
        start = perf_counter()
        while conn.execute("SELECT tinydancer.compact_sums()").fetchone() != (0,):
            pass
        result["sums of past days merged by upkeep in, s"] = round(perf_counter() - start, 1)
        conn.execute("VACUUM ANALYZE")
        result["after upkeep and VACUUM, s"] = answers(conn)
        start = perf_counter()
        conn.execute(DIRECT, ("100 days",)).fetchall()
        result["100 days by agent, from the rows, s"] = round(perf_counter() - start, 3)
        result["outcomes recorded per second, in batches"] = record_in_batches(
            conn, min(arguments.chunk, 10_000)
        )
    print(json.dumps(result, indent=2))


def fill(dsn: str, rows: int, chunk: int, sessions: int) -> None:
    """Write so many rows, a chunk a statement, by so many sessions at once."""

    def write(session: int) -> None:
        with psycopg.connect(dsn, autocommit=True) as conn:
            for first in range(1 + session * chunk, rows + 1, sessions * chunk):
                conn.execute(FILL, (first, min(first + chunk - 1, rows)))

    with ThreadPoolExecutor(sessions) as pool:
        list(pool.map(write, range(sessions)))


def answers(conn: psycopg.Connection) -> dict[str, float]:
    """Seconds of each question."""
    return {
        f"{time_range} by {group_by}": best_of_three(
            conn,
            "SELECT * FROM tinydancer.ruvector_routing_analytics(%s, %s)",
            (time_range, group_by),
        )
        for time_range in ("7 days", "100 days")
        for group_by in GROUPS
    }


def record_in_batches(conn: psycopg.Connection, size: int, batches: int = 5) -> int:
    """Outcomes a second, in the order of time: half of them priced by the agent's prices."""
    conn.execute(
        "INSERT INTO tinydancer.agents (name, cost_per_1k_input_tokens)"
        " SELECT 'agent ' || n, 0.01 FROM generate_series(0, 19) AS n ON CONFLICT DO NOTHING"
    )
    seconds = 0.0
    for batch in range(batches):
        outcomes = conn.execute(BATCH, (batch * size, (batch + 1) * size - 1)).fetchone()
        start = perf_counter()
        conn.execute("SELECT tinydancer.ruvector_record_usage_batch(%s)", outcomes)
        seconds += perf_counter() - start
    return round(batches * size / seconds)


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
