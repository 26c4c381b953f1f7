"""How many decisions a second an engine makes for several sessions at once, by its workers.

    python -m tests.benchmarks.bench_workers [--postgres 16|18] [--sessions N ...] [--seconds S]
        [--outcomes]

On an embedded server of its own. Each session is a process that asks one request after another
(`SELECT ... FROM route_decisions WHERE request = $1`, texts not seen before), by the native front
door. The engines run in turn, each asked by as many sessions in the same minute; the ratio is to
the engine with one worker. Sessions and their backends take their part of the processors too. With
--outcomes each session records what came of a decision before it asks for the next: the engine has
to read that first.
"""

from __future__ import annotations

import argparse
import os
import random
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory

import psycopg
from tests.benchmarks.bench_sql import AGENTS, DECIDE, WORDS

from tinydancer.embedded.instance import Instance, throwaway_instance
from tinydancer.embedded.server import DEFAULT_VERSION

WARM_SECONDS = 0.5


RECORD = "SELECT tinydancer.ruvector_record_usage(agent_name := %s, cost := 0, latency_ms := 100)"


def ask(dsn: str, schema: str, outcomes: bool, session: int, seconds: float) -> int:
    """How many decisions one session gets in so many seconds."""
    words = random.Random(f"{schema} {session} {time.monotonic_ns()}")
    with psycopg.connect(dsn, autocommit=True) as db:
        db.execute(f"SET search_path = {schema}, public")

        def decisions(until: float) -> int:
            asked = 0
            while time.monotonic() < until:
                text = f"{' '.join(words.choices(WORDS, k=12))} {words.random()}"
                query = f"{DECIDE} WHERE request = %s"
                [(agent, *_)] = db.execute(query, (text,), prepare=True).fetchall()
                if outcomes:
                    db.execute(RECORD, (agent,), prepare=True)
                asked += 1
            return asked

        decisions(time.monotonic() + WARM_SECONDS)
        return decisions(time.monotonic() + seconds)


def rate(dsn: str, schema: str, outcomes: bool, sessions: int, seconds: float) -> float:
    """Decisions a second of so many sessions together."""
    with get_context("spawn").Pool(sessions) as pool:
        each = [(dsn, schema, outcomes, number, seconds) for number in range(sessions)]
        asked = pool.starmap(ask, each)
    return sum(asked) / seconds


@contextmanager
def engines(place: Instance, workers: Sequence[int]) -> Iterator[dict[int, str]]:
    """Engines of one database beside its own; returns the schema of each, by its workers."""
    schemas = {}
    started = []
    with TemporaryDirectory() as directory, place.server.connect() as db:
        try:
            for number in workers:
                own = Path(directory, str(number))
                own.mkdir()
                socket = place.engine.socket.with_name(f"workers-{number}.sock")
                engine = replace(place.engine, socket=socket, directory=own, workers=number)
                engine.start()
                started.append(engine)
                schemas[number] = f"workers_{number}"
                db.execute(
                    f"""CREATE SERVER workers_{number} FOREIGN DATA WRAPPER tinydancer_native
                            OPTIONS (socket '{socket}');
                        CREATE SCHEMA workers_{number};
                        IMPORT FOREIGN SCHEMA tinydancer LIMIT TO (route_decisions)
                            FROM SERVER workers_{number} INTO workers_{number}"""
                )
            yield schemas
        finally:
            for engine in started:
                engine.stop()


def main(arguments: Sequence[str] | None = None) -> None:
    cores = os.cpu_count() or 1
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--postgres", type=int, default=DEFAULT_VERSION)
    parser.add_argument("--sessions", type=int, nargs="+", default=[1, 2, 4, 16])
    parser.add_argument("--workers", type=int, nargs="+", default=[1, max(2, cores // 2)])
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--outcomes", action="store_true")
    options = parser.parse_args(arguments)
    with throwaway_instance(options.postgres) as place:
        with place.server.connect() as db:
            db.execute(f"SET search_path = tinydancer, public; {AGENTS}")
        dsn = place.server.dsn()
        with engines(place, options.workers) as schemas:
            for sessions in options.sessions:
                first = None
                for workers, schema in schemas.items():
                    found = rate(dsn, schema, options.outcomes, sessions, options.seconds)
                    first = first or found
                    print(
                        f"{sessions:3} sessions, {workers} workers: {found:8.0f} decisions a second"
                        f"   {found / first:5.2f} x",
                        flush=True,
                    )


if __name__ == "__main__":
    main()
