"""How long a question takes in SQL, from the client's statement to its rows.

    python -m tests.benchmarks.bench_sql [--dsn DSN] [--postgres 16|18] [--realtime] [--awake]
        [--json]

Without --dsn: on an embedded server of its own. With it: on a database of its own on that server,
by each front door that it has. Figures are milliseconds: the median, the 99th percentile (of a few,
the longest), and the median as a ratio to `SELECT 1` on the same connection in the same second,
which varies least from machine to machine. Texts are random words, none asked before. --realtime
(root only) puts server, engine and client before all other processes, to measure on a busy machine
what an idle one would give.

A decision is four messages from process to process, and a processor with nothing to do goes to
sleep between two of them: on a virtual machine that takes longer than to wake up from on a real
one. --awake keeps all processors busy with loops that give way to anything else.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import psycopg
from tests.conftest import Installation, Server, server_elsewhere

from tinydancer.embedded.instance import DIMENSION, throwaway_instance
from tinydancer.embedded.server import DATABASE, DEFAULT_VERSION
from tinydancer.store import schema
from tinydancer.store.front_doors import EngineAddress, available_front_doors

VOCABULARY = (
    "write review summarize translate the a this contract poem function email report in python "
    "german for my customer about billing refund weather data table quickly carefully and plan"
)
WORDS = VOCABULARY.split()
AGENTS = """
INSERT INTO agents (name, capabilities, cost_per_1k_input_tokens, cost_per_1k_output_tokens,
                    avg_latency_ms, quality)
SELECT 'agent ' || n, ARRAY['skill ' || n, (ARRAY['code', 'analysis', 'chat'])[n % 3 + 1]],
       0.001 * n, 0.003 * n, 100 * n, 0.5 + 0.04 * n
FROM generate_series(1, 10) n
"""
DECIDE = "SELECT agent_name, confidence, estimated_cost, estimated_latency_ms FROM route_decisions"
EXPLAIN = "SELECT * FROM route_decisions"
MATCH = "SELECT route_name, similarity, target_agent, confidence FROM semantic_matches"
ROUTES = 1000
# Connections that are not measured: by then each worker has read what was committed last.
WARM = 8
OUTCOME = "SELECT ruvector_record_usage(agent_name := 'agent 1', cost := 0, latency_ms := %s)"
CHANGE = "UPDATE routes SET priority = %s WHERE name = 'route 1'"

_random = random.Random(20)
_numbers = count()


def text() -> str:
    """A request of a dozen words that nobody has asked before."""
    return f"{' '.join(_random.choices(WORDS, k=12))} {next(_numbers)}"


def texts(number: int) -> list[str]:
    """So many of them."""
    return [text() for _ in range(number)]


class Figures:
    """What was measured, printed as it comes."""

    def __init__(self, as_json: bool) -> None:
        self.measured: dict[str, dict[str, float]] = {}
        self._as_json = as_json

    def add(self, name: str, p50: float, p99: float | None = None, **more: float) -> None:
        """One line; times in milliseconds."""
        self.measured[name] = {"p50": p50, **({} if p99 is None else {"p99": p99}), **more}
        tail = f"{p99:9.3f} ms p99" if p99 is not None else " " * 16
        ratios = "".join(f"   {value:6.1f} x {key}" for key, value in more.items())
        if not self._as_json:
            print(f"{name:52} {p50:9.3f} ms {tail}{ratios}", flush=True)


def repeated(call: Callable[[], object], rounds: int) -> tuple[float, float]:
    """Median and 99th percentile in milliseconds, after some rounds to warm up."""
    for _ in range(min(100, rounds // 10)):
        call()
    times = []
    for _ in range(rounds):
        began = time.perf_counter()
        call()
        times.append(time.perf_counter() - began)
    times.sort()
    return times[len(times) // 2] * 1000, times[int(len(times) * 0.99)] * 1000


def once(call: Callable[[], object]) -> float:
    """The time of one call in milliseconds."""
    began = time.perf_counter()
    call()
    return (time.perf_counter() - began) * 1000


def _rows(db: psycopg.Connection, query: str, *values: object) -> list[tuple[Any, ...]]:
    return db.execute(query.encode(), values or None).fetchall()


def measure(place: Installation, figures: Figures, rounds: int) -> None:
    """All figures of one front door."""
    door = place.front_door
    with place.connect() as db:
        # Anything but the chosen one's tables is imported beside them.
        db.execute("CREATE SCHEMA IF NOT EXISTS bench")
        db.execute(f"IMPORT FOREIGN SCHEMA tinydancer FROM SERVER tinydancer_{door} INTO bench")
        db.execute("SET search_path = bench, tinydancer, public")
        try:
            _measure_scans(db, f"{door}: ", figures, rounds)
            _measure_connections(place, f"{door}: ", figures)
            _measure_calls(db, f"{door}: ", figures)
        finally:
            db.execute("DROP SCHEMA bench CASCADE")


def _measure_scans(db: psycopg.Connection, door: str, figures: Figures, rounds: int) -> None:
    def asking(query: str, prepare: bool = True) -> Callable[[], object]:
        return lambda: db.execute(query, (text(),), prepare=prepare).fetchall()

    def against_select_1(name: str, call: Callable[[], object]) -> None:
        half = rounds // 2
        before, _ = repeated(lambda: db.execute("SELECT 1", prepare=True).fetchall(), half)
        p50, p99 = repeated(call, rounds)
        after, _ = repeated(lambda: db.execute("SELECT 1", prepare=True).fetchall(), half)
        figures.add(door + name, p50, p99, **{"SELECT 1": p50 / ((before + after) / 2)})

    def routes_active(active: bool) -> None:
        """The engine reads them anew, and writes their vectors back: it is done in a second."""
        db.execute("UPDATE routes SET active = %s", (active,))
        db.execute("SELECT FROM semantic_matches WHERE query = 'warm'")
        time.sleep(1)

    routes_active(False)
    against_select_1("one decision over 10 agents", asking(f"{DECIDE} WHERE request = %s"))
    against_select_1("the same, not prepared", asking(f"{DECIDE} WHERE request = %s", False))
    # By Multicorn2 a custom plan always looks cheaper, and is made anew for each question.
    db.execute("SET plan_cache_mode = force_generic_plan")
    against_select_1("the same, its plan kept", asking(f"{DECIDE} WHERE request = %s"))
    db.execute("RESET plan_cache_mode")
    against_select_1("the same with reasons", asking(f"{EXPLAIN} WHERE request = %s"))
    against_select_1("the same by ruvector_route", asking("SELECT * FROM ruvector_route(%s)"))
    routes_active(True)
    against_select_1(f"the same beside {ROUTES} routes", asking(f"{DECIDE} WHERE request = %s"))
    against_select_1(f"one match over {ROUTES} routes", asking(f"{MATCH} WHERE query = %s"))
    figures.add(door + "... after an outcome", *after(db, OUTCOME, f"{DECIDE} WHERE request = %s"))
    figures.add(
        door + "... after a change of a route", *after(db, CHANGE, f"{MATCH} WHERE query = %s")
    )
    routes_active(False)

    def many(number: int) -> Callable[[], object]:
        batch = texts(number)
        return lambda: db.execute(f"{DECIDE} WHERE request = ANY(%s)", (batch,)).fetchall()

    many(100)()
    figures.add(door + "10,000 requests in one = ANY", once(many(10_000)))
    db.execute("CREATE TEMP TABLE asked (body text)")
    batches = [texts(1000) for _ in range(5)]
    joins, lists = [], []
    for batch in batches:
        db.execute("TRUNCATE asked")
        db.cursor().executemany("INSERT INTO asked VALUES (%s)", [(body,) for body in batch])
        db.execute("ANALYZE asked")
        join = f"{DECIDE} JOIN asked ON request = body"
        joins.append(once(partial(_rows, db, join)))
        everything = f"{DECIDE} WHERE request = ANY(ARRAY(SELECT body FROM asked))"
        lists.append(once(partial(_rows, db, everything)))
    joined, listed = sorted(joins)[2], sorted(lists)[2]
    figures.add(door + "1,000 rows in one = ANY", listed)
    figures.add(door + "1,000 rows in a join", joined, **{"= ANY": joined / listed})
    db.execute("DROP TABLE asked")


def after(db: psycopg.Connection, change: str, query: str) -> tuple[float, float]:
    """Median and longest of the question that comes next after a change has been committed."""
    times = []
    for number in range(40):
        db.execute(change, (number,))
        times.append(once(partial(_rows, db, query, text())))
    times.sort()
    return times[20], times[-1]


def _measure_calls(db: psycopg.Connection, door: str, figures: Figures) -> None:
    """A function in a select list, by the front door of schema tinydancer."""
    call = "SELECT tinydancer.ruvector_classify_request(body) FROM asked"
    every = "ARRAY(SELECT body FROM asked)"
    queries = {
        "1,000 texts classified in one = ANY": "SELECT classification FROM request_classifications "
        f"WHERE content = ANY({every})",
        "1,000 texts classified in a select list": call,
        "the same without batches": call,
    }
    times: dict[str, list[float]] = {name: [] for name in queries}
    db.execute("CREATE TEMP TABLE asked (body text)")
    for _ in range(5):
        for name, query in queries.items():
            db.execute("TRUNCATE asked")
            rows = [(body,) for body in texts(1000)]
            db.cursor().executemany("INSERT INTO asked VALUES (%s)", rows)
            db.execute("ANALYZE asked")
            batched = "off" if "without" in name else "on"
            db.execute(f"SET tinydancer.enable_batched_calls = {batched}")
            times[name].append(once(partial(_rows, db, query)))
    db.execute("RESET tinydancer.enable_batched_calls")
    db.execute("DROP TABLE asked")
    medians = {name: sorted(found)[2] for name, found in times.items()}
    listed = next(iter(medians.values()))
    for name, found in medians.items():
        figures.add(door + name, found, **({} if found == listed else {"= ANY": found / listed}))


def _measure_connections(place: Installation, door: str, figures: Figures) -> None:
    firsts = []
    for _ in range(WARM + 20):
        with place.connect() as new:
            new.execute("SET search_path = bench, tinydancer, public")
            firsts.append(once(partial(_rows, new, f"{DECIDE} WHERE request = %s", text())))
    del firsts[:WARM]
    firsts.sort()
    figures.add(door + "first decision on a new connection", firsts[10], firsts[-1])


@contextmanager
def places(dsn: str | None, version: int) -> Iterator[list[Installation]]:
    """An installation for each front door of a server, all served by one engine."""
    with ExitStack() as stack:
        if dsn is None:
            running = stack.enter_context(throwaway_instance(version))
            server = Server.of(running.server)
            database, engine = DATABASE, running.engine
            with running.server.connect() as connection:
                doors: Sequence[str] = available_front_doors(connection)
        else:
            server = stack.enter_context(server_elsewhere(dsn))
            database = stack.enter_context(server.database())
            directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            engine = server.engine(database, directory)
            with psycopg.connect(server.dsn(database), autocommit=True) as connection:
                doors = available_front_doors(connection)
                schema.install(
                    connection,
                    dimension=DIMENSION,
                    front_doors=doors,
                    engine_address=EngineAddress(socket=str(engine.socket)),
                )
                connection.execute("ALTER ROLE tinydancer_engine LOGIN")
            engine.start()
            stack.callback(engine.stop)
            server.open_to_backends(engine.socket)
        yield [Installation(server, database, door, engine) for door in doors]


def add_routes(db: psycopg.Connection) -> None:
    """A thousand routes, embedded by the engine."""
    db.cursor().executemany(
        "INSERT INTO routes (name, description, target_agent) VALUES (%s, %s, 'agent 1')",
        [(f"route {number}", text()) for number in range(ROUTES)],
    )
    db.execute("SELECT FROM semantic_matches WHERE query = 'warm'")
    waiting = "SELECT name FROM routes WHERE embedding IS NULL LIMIT 1"
    while db.execute(waiting).fetchone():
        time.sleep(0.05)


def before_all_others(place: Installation) -> None:
    """Puts the server, the engine and this process before all others of the machine."""
    with place.connect() as db:
        [(file,)] = db.execute("SELECT pg_read_file('postmaster.pid')").fetchall()
        backends = db.execute("SELECT pid FROM pg_stat_activity").fetchall()
    engine = place.engine.daemon.pid() or 0
    for pid in (int(file.split()[0]), engine, os.getpid(), *(pid for (pid,) in backends)):
        for task in Path(f"/proc/{pid}/task").iterdir():
            os.sched_setscheduler(int(task.name), os.SCHED_FIFO, os.sched_param(1))


@contextmanager
def processors_awake() -> Iterator[None]:
    """Keeps the processors from sleeping, by a loop for each at the lowest of priorities."""
    loop = "import os; os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))\nwhile True: pass"
    loops = [subprocess.Popen([sys.executable, "-c", loop]) for _ in range(os.cpu_count() or 1)]
    try:
        yield
    finally:
        for running in loops:
            running.kill()
            running.wait()


def measure_up(figures: Figures, version: int) -> None:
    """`tinydancer up` on a data directory that exists, three times."""
    with tempfile.TemporaryDirectory(prefix="td-", dir="/tmp") as directory:
        Path(directory).chmod(0o755)
        command = [sys.executable, "-m", "tinydancer"]
        at = ["--data", f"{directory}/data"]
        times = []
        try:
            for _ in range(4):
                began = time.perf_counter()
                up = [*command, "up", *at, "--postgres", str(version)]
                subprocess.run(up, check=True, capture_output=True)
                times.append((time.perf_counter() - began) * 1000)
                subprocess.run([*command, "down", *at], check=True, capture_output=True)
        finally:
            subprocess.run([*command, "down", *at], check=False, capture_output=True)
    figures.add("tinydancer up, new data directory", times[0])
    figures.add("tinydancer up, existing data directory", sorted(times[1:])[1], max(times[1:]))


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dsn", default=os.environ.get("TINYDANCER_TEST_DSN"))
    parser.add_argument("--postgres", type=int, default=DEFAULT_VERSION)
    parser.add_argument("--rounds", type=int, default=2000)
    parser.add_argument("--realtime", action="store_true")
    parser.add_argument("--awake", action="store_true")
    parser.add_argument("--no-up", action="store_true", help="leave `tinydancer up` out")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    figures = Figures(options.json)
    with places(options.dsn, options.postgres) as there:
        with there[0].connect() as db:
            db.execute(AGENTS)
            add_routes(db)
        if options.realtime:
            before_all_others(there[0])
        with processors_awake() if options.awake else nullcontext():
            for place in there:
                measure(place, figures, options.rounds)
        if options.realtime:
            os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
    if options.dsn is None and not options.no_up:
        measure_up(figures, options.postgres)
    if options.json:
        print(json.dumps(figures.measured))
    return figures.measured


if __name__ == "__main__":
    main()
