"""An engine of several workers: one engine to whoever asks, several processes to the machine."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest
from tests.conftest import Installation
from tests.integration.conftest import another_engine

from tinydancer.embedded.instance import Engine
from tinydancer.errors import NotReady

WORKERS = 2
ASK = "SELECT agent_name FROM second.route_decisions WHERE request = %s"


@pytest.fixture
def engine(installation: Installation, db: psycopg.Connection, tmp_path: Path) -> Iterator[Engine]:
    """An engine with two workers."""
    db.execute("INSERT INTO agents (name, capabilities) VALUES ('only', '{code}')")
    with another_engine(installation, db, tmp_path, WORKERS) as engine:
        wait_for(lambda: len(workers_of(engine)) == WORKERS)
        yield engine


def pid_of(engine: Engine) -> int:
    pid = engine.daemon.pid()
    assert pid is not None
    return pid


def workers_of(engine: Engine) -> list[int]:
    """The processes that an engine has forked."""
    pid = pid_of(engine)
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def connections_of(worker: int, engine: Engine) -> int:
    """How many front doors a worker has: its sockets of the engine's path, less the listening."""
    inodes = {
        line.split()[6]
        for line in Path("/proc/net/unix").read_text().splitlines()
        if line.endswith(str(engine.socket.with_name(f"{engine.socket.name}.new")))
    }
    descriptors = Path(f"/proc/{worker}/fd").iterdir()
    held = {str(descriptor.readlink()) for descriptor in descriptors}
    return len(held & {f"socket:[{inode}]" for inode in inodes}) - 1


def is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def wait_for(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come to hold"
        time.sleep(0.02)


def backends(installation: Installation, number: int, stack: ExitStack) -> list[psycopg.Connection]:
    """So many sessions, each with a connection of its own to the engine."""
    found = [stack.enter_context(installation.connect()) for _ in range(number)]
    for backend in found:
        assert backend.execute(ASK, ("a request",)).fetchall() == [("only",)]
    return found


def test_front_doors_are_shared_out_among_the_workers(
    installation: Installation, engine: Engine
) -> None:
    with ExitStack() as stack:
        backends(installation, 12, stack)
        shares = [connections_of(worker, engine) for worker in workers_of(engine)]
    assert sum(shares) == 12
    # Not to one: a worker that a busy machine holds up for long leaves a few to the other.
    assert min(shares) >= 3


def test_whichever_worker_is_asked_shows_the_whole_engine(
    installation: Installation, engine: Engine
) -> None:
    # given sessions with both workers, each of which has asked once
    status = "SELECT pid, scans, errors FROM second.engine_status"
    with ExitStack() as stack:
        asking = backends(installation, 4, stack)
        for backend in asking:
            # when one asks about the engine, it is told of the scans of all
            wait_for(lambda b=backend: b.execute(status).fetchone()[1] >= len(asking))
            # and of the process that the workers belong to
            pid, _, errors = backend.execute(status).fetchone()
            assert (pid, errors) == (pid_of(engine), 0)


def test_a_commit_is_seen_by_every_worker(
    installation: Installation, engine: Engine, db: psycopg.Connection
) -> None:
    with ExitStack() as stack:
        asking = backends(installation, 4, stack)
        for name in ("first", "second", "third"):
            # when an agent takes another's place
            db.execute("UPDATE agents SET name = %s", (name,))
            # then no session is told of the one before
            assert {row for b in asking for row in b.execute(ASK, (name,))} == {(name,)}


def test_a_worker_that_is_killed_is_replaced_and_its_sessions_go_on(
    installation: Installation, engine: Engine
) -> None:
    with ExitStack() as stack:
        asking = backends(installation, 4, stack)
        killed, other = workers_of(engine)
        # when one of them dies
        os.kill(killed, signal.SIGKILL)
        wait_for(lambda: not is_alive(killed))
        # then sessions notice nothing, as none was in the middle of a scan
        for backend in asking:
            assert backend.execute(ASK, ("again",)).fetchall() == [("only",)]
        # and another one takes its place
        wait_for(lambda: len(workers_of(engine)) == WORKERS)
        assert killed not in workers_of(engine)
        assert other in workers_of(engine)


def test_an_engine_that_is_stopped_takes_its_workers_along(engine: Engine) -> None:
    workers = workers_of(engine)
    engine.stop()
    assert not any(map(is_alive, workers))
    assert not engine.socket.exists()


def test_an_engine_that_is_killed_leaves_no_worker_and_may_start_at_once(
    installation: Installation, engine: Engine, db: psycopg.Connection
) -> None:
    # given an engine of several workers
    before = workers_of(engine)
    # when it is killed, and started again
    os.kill(pid_of(engine), signal.SIGKILL)
    wait_for(lambda: not engine.daemon.alive())
    engine.start()
    installation.server.open_to_backends(engine.socket)
    # then the old workers are gone, and the new ones answer
    assert not any(map(is_alive, before))
    assert db.execute(ASK, ("again",)).fetchall() == [("only",)]


def test_it_is_started_when_it_answers_however_long_its_workers_take_to_begin(
    installation: Installation, db: psycopg.Connection, tmp_path: Path
) -> None:
    other = replace(installation.engine, directory=tmp_path, workers=WORKERS,
                    socket=installation.server.engine_socket("late"))  # fmt: skip
    may_read: list[bool] = []

    # given tables that no worker can read until a second after the engine has made its socket
    def hold() -> None:
        wait_for(other.socket.exists)
        time.sleep(1.0)
        may_read.append(True)
        db.execute("COMMIT")

    db.execute("BEGIN; LOCK TABLE agents IN ACCESS EXCLUSIVE MODE")
    holding = threading.Thread(target=hold)
    holding.start()
    try:
        # when the engine is started, then it takes until it can answer
        other.start()
        assert may_read
    finally:
        holding.join()
        other.stop()


def test_a_start_that_fails_says_why_and_nothing_of_the_starts_before(
    installation: Installation, tmp_path: Path
) -> None:
    # given a log with the last words of another engine, and a database without the schema
    with installation.server.database() as name:
        engine = replace(installation.server.engine(name, tmp_path), workers=WORKERS)
        engine.daemon.log.write_text("what another one said\n")
        # when an engine is started for it, the error has its own words
        with pytest.raises(NotReady, match="the engine ends as it starts") as caught:
            engine.start()
    assert "Tiny Dancer is not installed" in caught.value.detail
    assert "another one" not in caught.value.detail


def test_workers_that_can_t_begin_say_why_once(installation: Installation, tmp_path: Path) -> None:
    # given a database without the schema
    with installation.server.database() as name:
        command = [sys.executable, "-m", "tinydancer", "serve", "--workers", "3"]
        where = ["--dsn", installation.server.dsn(name), "--socket", str(tmp_path / "engine.sock")]
        # when an engine is started for it
        ended = subprocess.run([*command, *where], capture_output=True, text=True, timeout=60)
    # then it ends, with one error
    assert ended.returncode == 1
    assert ended.stderr.count("Error:") == 1
    assert "tinydancer install" in ended.stderr
    assert not (tmp_path / "engine.sock").exists()
