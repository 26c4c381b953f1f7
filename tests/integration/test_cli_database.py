"""The commands for a server that is there already: install, upgrade, build-native, serve."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from socket import create_server
from typing import TYPE_CHECKING

import psycopg
import pytest
from psycopg import conninfo

if TYPE_CHECKING:
    from ..conftest import Server

PROGRAM = [sys.executable, "-m", "tinydancer"]


def run(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*PROGRAM, *map(str, arguments)],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
        timeout=60,
    )


def value(dsn: str, query: str) -> object:
    with psycopg.connect(dsn) as connection:
        row = connection.execute(query).fetchone()
    assert row is not None
    return row[0]


@contextmanager
def serving(
    *arguments: str | Path | int, through: Sequence[str] = ()
) -> Iterator[subprocess.Popen[str]]:
    """An engine in the foreground, from the line in its log that it has started; it is started by
    the command `through`, which becomes it.
    """
    engine = subprocess.Popen(
        [*through, *PROGRAM, "serve", *map(str, arguments)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
        text=True,
    )
    assert engine.stderr is not None
    with engine, engine.stderr as log:
        try:
            seen = ""
            while "event=started" not in seen:
                seen = log.readline()
                assert seen, "the engine ended as it started"
            yield engine
        finally:
            engine.terminate()


def test_install_makes_a_schema_that_an_engine_can_serve(
    server: Server, empty_database: str, front_door: str
) -> None:
    socket = server.engine_socket("by-hand")
    done = run("install", "--dsn", empty_database, "--socket", socket, "--front-door", front_door)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"Installed. Front doors: {front_door}. Engine: {socket}\n"
    with serving("--dsn", empty_database, "--socket", socket) as engine:
        server.open_to_backends(socket)
        query = "SELECT pid FROM tinydancer.engine_status"
        assert value(empty_database, query) == engine.pid
        began = time.monotonic()
        engine.send_signal(signal.SIGTERM)
        assert engine.wait(5) == 0
        assert time.monotonic() - began < 3
    # Both may be run again, and change nothing that people wrote.
    with psycopg.connect(empty_database, autocommit=True) as connection:
        connection.execute("INSERT INTO tinydancer.agents (name) VALUES ('kept')")
    assert run("install", "--dsn", empty_database, "--socket", socket).returncode == 0
    assert run("upgrade", "--dsn", empty_database).stdout == "Up to date.\n"
    assert value(empty_database, "SELECT name FROM tinydancer.agents") == "kept"


@pytest.mark.parametrize("wrong", ["user", "dbname"])
def test_serve_ends_where_the_server_refuses_its_dsn(
    server: Server, empty_database: str, wrong: str
) -> None:
    # given a DSN that no waiting mends
    dsn = conninfo.make_conninfo(empty_database, **{wrong: "nobody_made_it"})
    socket = server.engine_socket("refused")
    # when an engine is started with it
    done = run("serve", "--dsn", dsn, "--socket", socket)
    # then it ends, with what the server says and what to do
    assert done.returncode == 1
    assert done.stderr.count("Error: the engine gets no connection") == 1
    assert '"nobody_made_it" does not exist' in done.stderr
    assert "--dsn" in done.stderr
    assert "Traceback" not in done.stderr
    assert not socket.exists()


def test_serve_waits_for_a_refusal_to_pass(server: Server, empty_database: str) -> None:
    # given a database that takes no connections for a while
    assert run("install", "--dsn", empty_database).returncode == 0
    name = conninfo.conninfo_to_dict(empty_database)["dbname"]
    with psycopg.connect(server.superuser_dsn, autocommit=True) as connection:
        connection.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
        allow = threading.Timer(
            2.0, connection.execute, [f"ALTER DATABASE {name} ALLOW_CONNECTIONS true"]
        )
        allow.start()
        # when an engine is started meanwhile
        with serving("--dsn", empty_database, "--socket", server.engine_socket("patient")):
            # then it starts when it may connect
            assert not allow.is_alive()


def test_serve_waits_for_a_server_that_is_away(server: Server, tmp_path: Path) -> None:
    # given a place where no server is
    dsn = f"host={tmp_path} dbname=x user=y"
    # when an engine is started for it
    began = time.monotonic()
    with serving("--dsn", dsn, "--socket", server.engine_socket("early")) as engine:
        # then it listens at once, for whom it can tell that
        assert time.monotonic() - began < 4
        assert engine.poll() is None


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_an_engine_that_is_told_to_end_leaves_nothing(
    server: Server, empty_database: str, end: signal.Signals, workers: int
) -> None:
    # given an engine in the foreground
    assert run("install", "--dsn", empty_database).returncode == 0
    socket = server.engine_socket("ends")
    with serving("--dsn", empty_database, "--socket", socket, "--workers", workers) as engine:
        # when it is told to end, or its terminal closes
        os.killpg(engine.pid, end)
        # then it does, in order
        assert engine.wait(5) == 0
    assert not socket.exists()


@pytest.mark.parametrize("workers", [1, 2])
def test_an_engine_under_nohup_outlives_its_terminal(
    server: Server, empty_database: str, workers: int
) -> None:
    # given an engine that is to stay
    assert run("install", "--dsn", empty_database).returncode == 0
    socket = server.engine_socket("stays")
    where = ("--dsn", empty_database, "--socket", socket, "--workers", workers)
    with serving(*where, through=["nohup"]) as engine:
        # when its terminal closes
        os.killpg(engine.pid, signal.SIGHUP)
        time.sleep(1)
        # then it answers
        assert run("ping", "--socket", socket).returncode == 0


def test_ping_says_where_the_token_goes(empty_database: str, tmp_path: Path) -> None:
    assert run("install", "--dsn", empty_database).returncode == 0
    token = tmp_path / "token"
    token.write_text("open sesame\n")
    socket = tmp_path / "engine.sock"
    with serving("--dsn", empty_database, "--socket", socket, "--token-file", token):
        refused = run("ping", "--socket", socket)
        assert refused.returncode == 1
        assert "Hint: Give its token by --token-file." in refused.stderr
        assert run("ping", "--socket", socket, "--token-file", token).returncode == 0


def test_install_takes_the_front_doors_that_there_are(empty_database: str, front_door: str) -> None:
    done = run("install", "--dsn", empty_database)
    assert done.returncode == 0, done.stderr
    assert front_door in done.stdout
    query = "SELECT count(*) FROM pg_foreign_server WHERE srvname LIKE 'tinydancer_%'"
    assert value(empty_database, query) == done.stdout.count(",") + 1


def test_a_front_door_that_the_server_has_not_is_an_error_and_leaves_nothing(
    server: Server, empty_database: str
) -> None:
    if not server.embedded:
        pytest.skip("this server may have Multicorn2")
    done = run("install", "--dsn", empty_database, "--front-door", "multicorn")
    assert done.returncode == 1
    assert "multicorn" in done.stderr
    assert "Traceback" not in done.stderr
    assert value(empty_database, "SELECT to_regnamespace('tinydancer')") is None


def test_install_by_who_is_no_superuser_says_that_it_takes_one(
    server: Server, empty_database: str
) -> None:
    dsn = conninfo.make_conninfo(empty_database, options="-c role=pg_database_owner")
    done = run("install", "--dsn", dsn)
    assert done.returncode == 1
    assert "superuser" in done.stderr
    assert "build-native" not in done.stderr
    assert value(empty_database, "SELECT to_regnamespace('tinydancer')") is None


def test_upgrade_of_a_database_without_the_schema_says_what_to_do(empty_database: str) -> None:
    done = run("upgrade", "--dsn", empty_database)
    assert done.returncode == 1
    assert "not installed" in done.stderr
    assert "tinydancer install" in done.stderr


def test_the_engines_password_reaches_the_server_as_its_verifier_only(
    server: Server, empty_database: str, tmp_path: Path
) -> None:
    secret = tmp_path / "engine password"
    secret.write_text("correct horse battery staple\n")
    done = run("install", "--dsn", empty_database, "--engine-password-file", secret)
    assert done.returncode == 0, done.stderr
    query = "SELECT rolpassword FROM pg_authid WHERE rolname = 'tinydancer_engine'"
    assert str(value(empty_database, query)).startswith("SCRAM-SHA-256$")
    assert "correct horse" not in done.stdout + done.stderr
    if server.embedded:
        assert b"correct horse" not in server.embedded.daemon.log.read_bytes()


def test_installing_again_keeps_the_engines_address(
    empty_database: str, front_door: str, tmp_path: Path
) -> None:
    token = tmp_path / "token"
    token.write_text("open sesame\n")
    address = ("--connect", "127.0.0.1:7432", "--token-file", token)
    again = ("install", "--dsn", empty_database, "--front-door", front_door)
    assert run(*again, *address).returncode == 0
    options = (
        "SELECT array_agg(option_name || ' ' || option_value ORDER BY option_name)"
        " FROM (SELECT (pg_options_to_table(srvoptions)).* FROM pg_foreign_server UNION ALL"
        " SELECT (pg_options_to_table(umoptions)).* FROM pg_user_mappings) AS all_of_them"
    )
    before = value(empty_database, options)
    assert "token open sesame" in str(before)
    done = run(*again)
    assert done.stdout == f"Installed. Front doors: {front_door}. Engine: 127.0.0.1:7432\n"
    assert value(empty_database, options) == before
    assert run(*again, "--socket", "/run/other.sock").returncode == 0
    assert "socket /run/other.sock" in str(value(empty_database, options))
    assert "token" not in str(value(empty_database, options))


def test_a_database_that_does_not_answer_ends_in_a_hint_soon() -> None:
    with create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        dsn = f"host=127.0.0.1 port={port} dbname=x connect_timeout=2"
        began = time.monotonic()
        done = run("install", "--dsn", dsn)
    assert time.monotonic() - began < 8
    assert done.returncode == 1
    assert "the database can't be reached" in done.stderr
    assert "Hint: See that the server runs" in done.stderr


@pytest.mark.parametrize(
    "command",
    [("reembed", "--embedder", "static"), ("fit-cascade", "--share", "0.1"), ("upgrade",)],
)
def test_a_command_for_a_database_that_is_not_there_speaks_of_its_own_options(
    command: list[str], tmp_path: Path
) -> None:
    done = run(*command, "--dsn", f"host={tmp_path} dbname=x")
    assert done.returncode == 1
    assert "the database can't be reached" in done.stderr
    assert "Hint: See that the server runs, and that --dsn" in done.stderr


def test_an_empty_password_file_is_refused(empty_database: str, tmp_path: Path) -> None:
    secret = tmp_path / "nothing"
    secret.write_text("\n")
    done = run("install", "--dsn", empty_database, "--password-file", secret)
    assert done.returncode == 1
    assert "is empty" in done.stderr


def test_a_password_file_that_is_not_text_is_refused_by_name(
    empty_database: str, tmp_path: Path
) -> None:
    secret = tmp_path / "noise"
    secret.write_bytes(b"\xff\xfe\x00")
    done = run("install", "--dsn", empty_database, "--password-file", secret)
    assert done.returncode == 1
    assert f"{secret} is not text" in done.stderr


def test_the_native_front_door_is_built_where_it_is_asked_for(
    server: Server, tmp_path: Path
) -> None:
    if not server.embedded:
        pytest.skip("the headers of this server may not be there")
    config = server.embedded.pg_config()
    done = run("build-native", "--pg-config", config, "--into", tmp_path)
    assert done.returncode == 0, done.stderr
    assert str(tmp_path / "tinydancer_fdw.so") in done.stdout.splitlines()
    assert (tmp_path / "tinydancer_fdw.so").stat().st_size > 10_000


def test_what_is_no_pg_config_is_refused_by_name(tmp_path: Path) -> None:
    for program in ("/bin/false", "/bin/true"):
        done = run("build-native", "--pg-config", program)
        assert done.returncode == 1
        assert f"{program} names no directory" in done.stderr
        assert "Traceback" not in done.stderr


def test_a_build_without_a_compiler_says_what_to_install(server: Server, tmp_path: Path) -> None:
    if not server.embedded:
        pytest.skip("the headers of this server may not be there")
    config = server.embedded.pg_config()
    done = run("build-native", "--pg-config", config, "--into", tmp_path, CC="no-such-compiler")
    assert done.returncode == 1
    assert "no-such-compiler" in done.stderr
    assert "apt-get install gcc" in done.stderr
    assert list(tmp_path.iterdir()) == []
