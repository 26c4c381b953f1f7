"""How long decisions take through SQL: one, lists, joins, and the first on a new connection.

    tinydancer up --data /tmp/bench
    python tests/benchmarks/bench_front_doors.py "$(tinydancer dsn --data /tmp/bench)" [--json]

Ten agents are registered for it and removed at the end. Every text is new to the engine. Figures
are milliseconds at the client (psycopg): the median and the 99th percentile, and the median as a
ratio to SELECT 1, which was measured in turns with it.
"""

from __future__ import annotations

import argparse
import json
import secrets
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count

import psycopg

Connection = psycopg.Connection
AGENTS = "bench-agent-"
DECISIONS = "SELECT agent_name FROM tinydancer.route_decisions WHERE request"


def timed(work: Callable[[], object]) -> float:
    """Milliseconds that a piece of work takes."""
    began = time.perf_counter()
    work()
    return (time.perf_counter() - began) * 1e3


@contextmanager
def ten_agents(connection: Connection) -> Iterator[None]:
    """Ten agents of different prices and speeds, for as long as the benchmark runs."""
    connection.execute(
        "INSERT INTO tinydancer.agents (name, type, capabilities) "
        "SELECT %s || i, 'llm', ARRAY['summarize', 'skill ' || i] FROM generate_series(1, 10) i",
        (AGENTS,),
    )
    try:
        yield
    finally:
        connection.execute("DELETE FROM tinydancer.agents WHERE name LIKE %s", (AGENTS + "%",))


def measure(dsn: str, rounds: int) -> dict[str, list[float]]:
    """Times of each kind of query, in milliseconds."""
    fresh = (f"Please summarize contract {secrets.token_hex(4)}-{number}" for number in count())
    times: dict[str, list[float]] = {}

    def run(name: str, connection: Connection, query: str, *values: object) -> None:
        def work() -> None:
            connection.execute(query, values).fetchall()

        times.setdefault(name, []).append(timed(work))

    with psycopg.connect(dsn, autocommit=True) as connection, ten_agents(connection):
        connection.execute(
            "CREATE TEMP TABLE requests (n int, body text); "
            "SET enable_hashjoin = off; SET jit = off"
        )
        connection.execute(f"{DECISIONS} = 'warm'")
        for _ in range(rounds):
            run("SELECT 1", connection, "SELECT 1")
            run("one decision", connection, f"{DECISIONS} = %s", next(fresh))
            everything = DECISIONS.replace("agent_name", "*")
            run("one decision, all columns", connection, f"{everything} = %s", next(fresh))
        for _ in range(max(rounds // 50, 3)):
            requests = [next(fresh) for _ in range(1000)]
            run("1,000 in one ANY", connection, f"{DECISIONS} = ANY (%s)", requests)
            connection.execute("TRUNCATE requests")
            connection.execute(
                "INSERT INTO requests SELECT n, body FROM unnest(%s::text[]) "
                "WITH ORDINALITY AS r(body, n)",
                ([next(fresh) for _ in range(1000)],),
            )
            connection.execute("ANALYZE requests")
            run("a join of 1,000", connection, "SELECT r.n, d.agent_name FROM requests r "
                "JOIN tinydancer.route_decisions d ON d.request = r.body")  # fmt: skip
        requests = [next(fresh) for _ in range(10_000)]
        run("10,000 in one ANY", connection, f"{DECISIONS} = ANY (%s)", requests)
        for _ in range(max(rounds // 20, 3)):
            with psycopg.connect(dsn, autocommit=True) as new:
                run("first SELECT 1 of a connection", new, "SELECT 1")
                run("first decision of a connection", new, f"{DECISIONS} = %s", next(fresh))
    return times


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("dsn")
    parser.add_argument("--rounds", type=int, default=1000)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    times = measure(arguments.dsn, arguments.rounds)
    unit = statistics.median(times["SELECT 1"])
    figures = {
        name: {
            "p50_ms": round(statistics.median(values), 4),
            "p99_ms": round(sorted(values)[int(len(values) * 0.99)], 4),
            "to_select_1": round(statistics.median(values) / unit, 1),
            "runs": len(values),
        }
        for name, values in times.items()
    }
    join, any_ = figures["a join of 1,000"], figures["1,000 in one ANY"]
    join_to_any = round(join["p50_ms"] / any_["p50_ms"], 2)
    if arguments.json:
        print(json.dumps({"figures": figures, "join_to_any": join_to_any}))
        return
    print(f"{'':34}{'p50 ms':>10}{'p99 ms':>10}{'/ SELECT 1':>12}{'runs':>8}")
    for name, figure in figures.items():
        print(f"{name:34}{figure['p50_ms']:>10.3f}{figure['p99_ms']:>10.3f}"
              f"{figure['to_select_1']:>12.1f}{figure['runs']:>8}")  # fmt: skip
    print(f"A join of 1,000 takes {join_to_any} times the same number in one ANY.")


if __name__ == "__main__":
    main()
