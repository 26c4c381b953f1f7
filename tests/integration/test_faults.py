"""Bad input and faults: an error that says what to do, at once; both processes live on."""

from __future__ import annotations

import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql
from tests.conftest import Installation, sqlstate

from tinydancer_fdw import frames

ASK = "SELECT agent_name FROM route_decisions WHERE request = %s"
MANY = "SELECT * FROM route_decisions WHERE request = ANY(%s) AND top_k = 3"
TEXTS = [f"request number {number}" for number in range(5000)]


@pytest.fixture
def agents(db: psycopg.Connection) -> psycopg.Connection:
    db.execute("INSERT INTO agents (name, capabilities) VALUES ('only', '{code}')")
    return db


def ask(connection: psycopg.Connection, text: str = "a request") -> list[Any]:
    return connection.execute(ASK, (text,)).fetchall()


def lives(installation: Installation, connection: psycopg.Connection, pid: int) -> None:
    """Asserts that engine and backend are those of before, and answer."""
    assert installation.engine.daemon.pid() == pid
    assert ask(connection) == [("only",)]


@pytest.fixture
def engine_pid(installation: Installation) -> int:
    pid = installation.engine.daemon.pid()
    assert pid is not None
    return pid


@pytest.fixture
def restarted(installation: Installation) -> Iterator[Callable[[], None]]:
    """What starts the engine again; it is called in any case after the test."""

    def start() -> None:
        if installation.engine.daemon.alive():
            return
        installation.engine.start()
        installation.server.open_to_backends(installation.engine.socket)

    yield start
    start()


def stop(pid: int) -> None:
    """Stops a process, and returns when all of its threads have."""
    os.kill(pid, signal.SIGSTOP)
    threads = Path(f"/proc/{pid}/task")
    while any(
        (thread / "stat").read_text().rpartition(")")[2].split()[0] != "T"
        for thread in threads.iterdir()
    ):
        time.sleep(0.001)


@contextmanager
def stopped(pid: int) -> Iterator[None]:
    """The engine hangs: it is there, and does nothing."""
    stop(pid)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


# ---- bad input ----


@pytest.mark.parametrize(
    ("qual", "state", "named"),
    [
        ("request = ''", "22023", "request is empty"),
        ("request = '  '", "22023", "request is empty"),
        ("request = 'x' AND optimize_for = 'cheapest'", "22023", "cheapest"),
        ("request = 'x' AND max_cost = 'NaN'", "22003", "max_cost = NaN"),
        ("request = 'x' AND max_cost = 'Infinity'", "22003", "max_cost = Infinity"),
        ("request = 'x' AND max_cost = -0.5", "22003", "max_cost = -0.5"),
        ("request = 'x' AND budget_remaining = -1", "22003", "budget_remaining = -1"),
        ("request = 'x' AND max_latency_ms = -1", "22003", "max_latency_ms = -1"),
        ("request = 'x' AND min_quality = 1.5", "22003", "min_quality = 1.5"),
        ("request = 'x' AND expected_output_tokens = -3", "22003", "expected_output_tokens = -3"),
        ("request = 'x' AND top_k = 0", "22003", "top_k = 0"),
        ("request = 'x' AND required_capabilities = ARRAY['']", "22023", "required_capabilities"),
        ("request = 'x' AND required_capabilities = ARRAY[NULL]::text[]", "22023", "NULL"),
        ("request = 'x' AND user_tier = ''", "22023", "user_tier"),
        ("request = repeat('x', 10 * 1024 * 1024)", "54000", "10485760 bytes"),
    ],
)
def test_bad_input_is_an_error_that_names_argument_and_value(
    agents: psycopg.Connection,
    installation: Installation,
    engine_pid: int,
    qual: str,
    state: str,
    named: str,
) -> None:
    with pytest.raises(psycopg.Error) as caught:
        agents.execute(f"SELECT * FROM route_decisions WHERE {qual}")
    assert sqlstate(caught.value) == state
    assert named in str(caught.value)
    lives(installation, agents, engine_pid)


def test_too_many_requests_in_one_scan_are_refused_with_the_limit(
    agents: psycopg.Connection,
) -> None:
    agents.execute("UPDATE settings SET max_batch = 100")
    with pytest.raises(psycopg.Error, match="101 requests") as caught:
        agents.execute(MANY, (TEXTS[:101],))
    assert sqlstate(caught.value) == "54000"
    assert "max_batch" in (caught.value.diag.message_hint or "")


def test_more_values_than_an_engine_reads_are_refused_with_the_limit(
    agents: psycopg.Connection, installation: Installation, engine_pid: int
) -> None:
    numbers = "SELECT array_agg(n::text) FROM generate_series(1, 1000001) n"
    with pytest.raises(psycopg.Error, match="more than 1,000,000 values") as caught:
        agents.execute(f"SELECT * FROM route_decisions WHERE request = ANY (({numbers})::text[])")
    assert sqlstate(caught.value) == "54000"
    assert caught.value.diag.message_hint == "Ask for less at a time."
    lives(installation, agents, engine_pid)


def test_an_embedding_of_another_dimension_is_refused(db: psycopg.Connection) -> None:
    with pytest.raises(psycopg.errors.DataException, match="384"):
        db.execute(
            "INSERT INTO routes (name, target_agent, embedding) VALUES ('r', 'a', '[1,2,3]')"
        )


def test_an_unknown_agent_is_refused_by_name(db: psycopg.Connection) -> None:
    with pytest.raises(psycopg.errors.UndefinedObject, match="nobody"):
        db.execute("SELECT ruvector_set_agent_active('nobody', true)")


def test_one_bad_request_among_many_leaves_nothing_half_written(
    agents: psycopg.Connection,
) -> None:
    agents.execute("CREATE TEMP TABLE asked AS SELECT unnest(%s::text[]) AS body", (TEXTS[:50],))
    agents.execute("INSERT INTO asked VALUES ('')")
    agents.execute("CREATE TEMP TABLE decided (request text, agent text)")
    with pytest.raises(psycopg.Error, match="request is empty"):
        agents.execute(
            """INSERT INTO decided SELECT request, agent_name
               FROM asked JOIN route_decisions ON request = body"""
        )
    assert agents.execute("SELECT count(*) FROM decided").fetchall() == [(0,)]


@pytest.mark.parametrize(
    "sent",
    [
        b"\xff" * 5000,
        struct.pack(">2sBBI", b"TD", frames.PROTOCOL, frames.SCAN, 2**32 - 1),
        frames.encode_hello("", "test")[:-1],
        frames.encode_hello("", "test") + frames.frame(frames.SCAN, b"\0\0\0\2\xff\xff"),
        frames.encode_hello("", "test")
        + frames.encode_scan(
            frames.Scan("route_decisions", (), (frames.Input("request", 0, "a\0b"),))
        ),
        frames.encode_hello("", "test") + frames.encode_scan(frames.Scan("no_table", (), ())),
    ],
    ids=["noise", "4 GB", "cut short", "not UTF-8", "NUL", "unknown table"],
)
def test_whatever_comes_by_the_socket_is_an_error_of_that_connection_alone(
    agents: psycopg.Connection, installation: Installation, engine_pid: int, sent: bytes
) -> None:
    with socket.socket(socket.AF_UNIX) as stream:
        stream.settimeout(10)
        stream.connect(str(installation.engine.socket))
        stream.sendall(sent)
        stream.shutdown(socket.SHUT_WR)
        answer = b""
        while part := stream.recv(65536):
            answer += part
    kinds = []
    while answer:
        kind, length = frames.read_header(answer[:8])
        kinds.append(kind)
        answer = answer[8 + length :]
    assert kinds[-1] == frames.ERROR
    lives(installation, agents, engine_pid)


# ---- an engine that is down, hangs, dies or comes back ----


def test_an_engine_that_is_down_is_an_error_that_names_the_socket_and_the_command(
    agents: psycopg.Connection, installation: Installation, restarted: Callable[[], None]
) -> None:
    assert ask(agents) == [("only",)]
    installation.engine.stop()
    began = time.monotonic()
    for _ in range(2):
        with pytest.raises(psycopg.Error) as caught:
            ask(agents)
        assert str(installation.engine.socket) in (caught.value.diag.message_primary or "")
        assert "tinydancer up" in (caught.value.diag.message_hint or "")
    assert time.monotonic() - began < 5
    restarted()
    assert ask(agents) == [("only",)]


def test_an_engine_killed_during_a_scan_is_an_error_then_service_again(
    agents: psycopg.Connection,
    installation: Installation,
    engine_pid: int,
    restarted: Callable[[], None],
) -> None:
    backend = agents.info.backend_pid
    ask(agents)
    stop(engine_pid)  # so that the scan is under way for sure
    killer = threading.Timer(0.3, os.kill, [engine_pid, signal.SIGKILL])
    killer.start()
    with pytest.raises(psycopg.Error) as caught:
        ask(agents)
    killer.join()
    assert sqlstate(caught.value) in {"08001", "08006"}
    assert installation.engine.daemon.ends_within(5)
    restarted()
    assert ask(agents) == [("only",)]
    assert agents.info.backend_pid == backend


def test_an_engine_killed_amid_an_answer_loses_no_commit_and_gives_no_half_answer(
    agents: psycopg.Connection,
    installation: Installation,
    engine_pid: int,
    restarted: Callable[[], None],
) -> None:
    agents.execute("CREATE TEMP TABLE decided (request text)")
    killer = threading.Timer(0.25, os.kill, [engine_pid, signal.SIGKILL])
    killer.start()
    with pytest.raises(psycopg.Error):
        for _ in range(100):
            agents.execute(f"INSERT INTO decided SELECT request FROM ({MANY}) d", (TEXTS,))
    killer.join()
    assert installation.engine.daemon.ends_within(5)
    restarted()
    [(count,)] = agents.execute("SELECT count(*) FROM decided").fetchall()
    assert count % len(TEXTS) == 0
    assert agents.execute("SELECT count(*) FROM agents").fetchall() == [(1,)]
    assert ask(agents) == [("only",)]


def test_a_restarted_engine_serves_the_connections_of_before(
    agents: psycopg.Connection, installation: Installation, restarted: Callable[[], None]
) -> None:
    assert ask(agents) == [("only",)]
    installation.engine.stop()
    restarted()
    assert ask(agents) == [("only",)]


def test_statement_timeout_ends_a_scan_of_an_engine_that_hangs(
    agents: psycopg.Connection, engine_pid: int
) -> None:
    ask(agents)
    agents.execute("SET statement_timeout = '200ms'")
    with stopped(engine_pid):
        began = time.monotonic()
        with pytest.raises(psycopg.errors.QueryCanceled, match="statement timeout"):
            ask(agents)
        assert time.monotonic() - began < 1.0
    agents.execute("RESET statement_timeout")
    assert ask(agents) == [("only",)]


def test_a_cancel_ends_a_scan_of_an_engine_that_hangs(
    agents: psycopg.Connection, engine_pid: int
) -> None:
    ask(agents)
    with stopped(engine_pid):
        canceled: list[float] = []

        def cancel() -> None:
            canceled.append(time.monotonic())
            agents.cancel()

        timer = threading.Timer(0.2, cancel)
        timer.start()
        with pytest.raises(psycopg.errors.QueryCanceled, match="user request"):
            ask(agents)
        ended = time.monotonic()
        timer.join()
    assert ended - canceled[0] < 0.5
    assert ask(agents) == [("only",)]


def test_a_cancel_without_quals_ends_the_scan_too(
    agents: psycopg.Connection, engine_pid: int
) -> None:
    agents.execute("SET statement_timeout = '200ms'")
    with stopped(engine_pid), pytest.raises(psycopg.Error) as caught:
        agents.execute("SELECT * FROM engine_status LIMIT 1")
    assert sqlstate(caught.value) == "57014"


def test_a_backend_that_is_terminated_during_a_scan_ends(
    agents: psycopg.Connection, installation: Installation, engine_pid: int
) -> None:
    with installation.connect() as other, stopped(engine_pid):
        pid = other.info.backend_pid
        timer = threading.Timer(0.2, agents.execute, ["SELECT pg_terminate_backend(%s)", (pid,)])
        timer.start()
        with pytest.raises(psycopg.OperationalError):
            ask(other)
        timer.join()


def test_the_servers_own_timeout_bounds_the_wait(
    agents: psycopg.Connection, installation: Installation, engine_pid: int
) -> None:
    foreign_server = sql.Identifier(f"tinydancer_{installation.front_door}")
    agents.execute(
        sql.SQL("ALTER SERVER {} OPTIONS (ADD timeout '300', ADD connect_timeout '300')").format(
            foreign_server
        )
    )
    try:
        with stopped(engine_pid):
            began = time.monotonic()
            with pytest.raises(psycopg.Error, match=r"0\.3 s|300 ms"):
                ask(agents)
            assert time.monotonic() - began < 2
    finally:
        agents.execute(
            sql.SQL("ALTER SERVER {} OPTIONS (DROP timeout, DROP connect_timeout)").format(
                foreign_server
            )
        )
    assert ask(agents) == [("only",)]


def test_the_engine_recovers_from_losing_the_database(
    agents: psycopg.Connection, engine_pid: int, installation: Installation
) -> None:
    connections = """FROM pg_stat_activity
                     WHERE application_name = 'tinydancer' AND datname = current_database()"""
    agents.execute(f"SELECT pg_terminate_backend(pid) {connections}")
    while agents.execute(f"SELECT {connections}").fetchone():
        time.sleep(0.01)
    lives(installation, agents, engine_pid)
    agents.execute("INSERT INTO agents (name, capabilities) VALUES ('another', '{}')")
    assert agents.execute("SELECT agents FROM engine_status").fetchall() == [(2,)]


def test_a_database_that_is_read_only_decides_what_takes_no_budget(
    agents: psycopg.Connection, engine_pid: int, installation: Installation
) -> None:
    name = sql.Identifier(installation.database)

    def be(state: str) -> None:
        alter = "ALTER DATABASE {} SET default_transaction_read_only = {}"
        agents.execute(sql.SQL(alter).format(name, sql.SQL(state)))
        agents.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
            " WHERE application_name = 'tinydancer' AND datname = current_database()"
        )

    be("on")
    try:
        # a decision without a budget is answered, as on a standby
        lives(installation, agents, engine_pid)
        # one with a budget is refused, in the server's words
        agents.execute("UPDATE agents SET cost_per_call = 0.01")
        agents.execute("SELECT ruvector_set_budget('all', 10)")
        with pytest.raises(psycopg.Error) as caught:
            agents.execute("SELECT decision_id FROM route_decisions WHERE request = 'a request'")
        assert sqlstate(caught.value) == "25006"
        assert "read-only transaction" in (caught.value.diag.message_detail or "")
        assert "standby" in (caught.value.diag.message_hint or "")
    finally:
        be("off")
    lives(installation, agents, engine_pid)


def test_sigterm_lets_the_scan_under_way_finish(
    agents: psycopg.Connection,
    installation: Installation,
    engine_pid: int,
    restarted: Callable[[], None],
) -> None:
    ask(agents)

    def terminate() -> None:
        os.kill(engine_pid, signal.SIGTERM)
        os.kill(engine_pid, signal.SIGCONT)

    stop(engine_pid)  # so that the scan has been asked for when it ends
    timer = threading.Timer(1.0, terminate)
    timer.start()
    query = "SELECT request FROM route_decisions WHERE request = ANY(%s)"
    assert len(agents.execute(query, (TEXTS[:500],)).fetchall()) == 500
    timer.join()
    assert installation.engine.daemon.ends_within(3)
    assert not installation.engine.socket.exists()


# ---- TCP: a token, and TLS ----


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[Path, Path]:
    """A certificate for localhost and its key."""
    certificate, key = tmp_path / "server.pem", tmp_path / "server.key"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
         "-nodes", "-days", "2", "-subj", "/CN=localhost", "-addext",
         "subjectAltName=DNS:localhost", "-keyout", str(key), "-out", str(certificate)],
        check=True, capture_output=True,
    )  # fmt: skip
    return certificate, key


@contextmanager
def engine_by_tcp(dsn: str, *options: str) -> Iterator[int]:
    """An engine on a port of this machine, whose token is "the token"."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    with subprocess.Popen(
        [sys.executable, "-m", "tinydancer", "serve", "--dsn", dsn,
         "--listen", f"localhost:{port}", *options],
        env={**os.environ, "TINYDANCER_TOKEN": "the token"}, stderr=subprocess.PIPE, text=True,
    ) as engine:  # fmt: skip
        try:
            log = iter(engine.stderr or ())
            assert any("event=started" in line for line in log), "the engine did not start"
            yield port
        finally:
            engine.terminate()
            assert "the token" not in "".join(log)


def asks_for_the_token(db: psycopg.Connection, door: str, options: str) -> None:
    """Asserts that a foreign server with these options answers with the token, and only so."""
    if door == "multicorn":
        options += ", wrapper 'tinydancer_fdw.wrapper.TinyDancer'"
    wrapper = "multicorn" if door == "multicorn" else "tinydancer_native"
    db.execute(
        f"""CREATE SERVER by_tcp FOREIGN DATA WRAPPER {wrapper} OPTIONS ({options});
            CREATE SCHEMA by_tcp;
            IMPORT FOREIGN SCHEMA tinydancer FROM SERVER by_tcp INTO by_tcp"""
    )
    try:
        query = ASK.replace("route_decisions", "by_tcp.route_decisions")
        with pytest.raises(psycopg.Error, match="token") as caught:
            db.execute(query, ("a request",))
        assert sqlstate(caught.value) == "28000"
        db.execute("CREATE USER MAPPING FOR CURRENT_USER SERVER by_tcp OPTIONS (token 'the token')")
        assert db.execute(query, ("a request",)).fetchall() == [("only",)]
    finally:
        db.execute("DROP SERVER by_tcp CASCADE; DROP SCHEMA by_tcp CASCADE")


def test_an_engine_by_tcp_on_this_machine_asks_for_its_token(
    agents: psycopg.Connection, installation: Installation
) -> None:
    with engine_by_tcp(installation.engine.dsn) as port:
        asks_for_the_token(agents, installation.front_door, f"host 'localhost', port '{port}'")


def test_an_engine_by_tls_asks_for_its_token(
    agents: psycopg.Connection, installation: Installation, certificate: tuple[Path, Path]
) -> None:
    # Backends of another account read it, to whom pytest's directory is closed.
    trusted = Path(f"/tmp/tinydancer-test-{os.getpid()}.pem")
    trusted.write_bytes(certificate[0].read_bytes())
    tls = ("--tls-certificate", str(certificate[0]), "--tls-key", str(certificate[1]))
    try:
        with engine_by_tcp(installation.engine.dsn, *tls) as port:
            options = f"host 'localhost', port '{port}', sslrootcert '{trusted}'"
            asks_for_the_token(agents, installation.front_door, options)
    finally:
        trusted.unlink()
