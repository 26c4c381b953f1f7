"""The engine by its own socket: which snapshot a scan reads, and what the log keeps to itself."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import psycopg
import pytest
from tests.conftest import Installation

from tinydancer.server.engine import Engine
from tinydancer.server.metrics import Metrics
from tinydancer_fdw.client import Address, Client, EngineError
from tinydancer_fdw.frames import EQUALS, Input, Scan

OF_VERSION = (
    "CREATE OR REPLACE FUNCTION tinydancer.ruvector_version() RETURNS text"
    " LANGUAGE sql IMMUTABLE AS $$ SELECT '{}' $$"
)


@pytest.fixture
def engine(installation: Installation, db: psycopg.Connection) -> Iterator[Client]:
    """A connection to the engine of an empty database."""
    client = Client(Address(socket=str(installation.engine.socket)), "test")
    yield client
    client.close()


def agents_seen(engine: Client, statement: int) -> str | None:
    [(count,)] = engine.scan(Scan("engine_status", ("agents",), (), statement))
    return count


def test_scans_of_one_statement_read_one_snapshot(engine: Client, db: psycopg.Connection) -> None:
    assert agents_seen(engine, statement=1) == "0"
    db.execute("INSERT INTO agents (name, capabilities) VALUES ('new', '{}')")
    assert agents_seen(engine, statement=1) == "0"
    assert agents_seen(engine, statement=2) == "1"


def test_a_scan_of_no_statement_sees_every_commit_before_it(
    engine: Client, db: psycopg.Connection
) -> None:
    for number in range(5):
        assert agents_seen(engine, statement=0) == str(number)
        db.execute("INSERT INTO agents (name, capabilities) VALUES (%s, '{}')", (f"a{number}",))


def test_a_rolled_back_change_is_never_seen(engine: Client, db: psycopg.Connection) -> None:
    with db.transaction(force_rollback=True):
        db.execute("INSERT INTO agents (name, capabilities) VALUES ('never', '{}')")
        assert agents_seen(engine, statement=0) == "0"
    assert agents_seen(engine, statement=0) == "0"


def test_the_log_has_the_sqlstate_of_a_refusal_and_not_the_text(
    engine: Client, installation: Installation
) -> None:
    secret = "my secret objective"
    inputs = (Input("request", EQUALS, "my secret text"), Input("optimize_for", EQUALS, secret))
    with pytest.raises(EngineError, match=secret):
        list(engine.scan(Scan("route_decisions", ("agent_name",), inputs)))
    log = installation.engine.daemon.log.read_text()
    assert "event=scan_refused table=route_decisions sqlstate=22023" in log
    assert "my secret" not in log


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("DROP FUNCTION tinydancer.ruvector_version()", "tinydancer upgrade"),
        (OF_VERSION.format("0.4.99"), "tinydancer upgrade"),
        (OF_VERSION.format("99.0.0"), "upgrade the engine"),
    ],
)
def test_an_engine_says_that_the_schema_is_of_another_version(
    new_schema_dsn: str, caplog: pytest.LogCaptureFixture, change: str, said: str
) -> None:
    with psycopg.connect(new_schema_dsn, autocommit=True) as connection:
        connection.execute(change)
    with caplog.at_level("WARNING", logger="tinydancer"), Engine(new_schema_dsn, Metrics()):
        pass
    [record] = caplog.records
    assert "event=schema_of_another_version" in record.getMessage()
    assert said in record.getMessage()


def test_an_engine_says_nothing_of_a_schema_of_its_own_version(
    new_schema_dsn: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("WARNING", logger="tinydancer"), Engine(new_schema_dsn, Metrics()):
        pass
    assert caplog.records == []


def test_a_second_engine_on_the_same_socket_ends_with_an_error(
    installation: Installation, engine: Client
) -> None:
    second = subprocess.run(
        [sys.executable, "-m", "tinydancer", "serve", "--dsn", installation.engine.dsn,
         "--socket", str(installation.engine.socket)],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert second.returncode == 1
    assert f"(pid {installation.engine.daemon.pid()}) listens on" in second.stderr
    assert agents_seen(engine, statement=0) == "0"


def test_an_engine_for_a_database_without_the_schema_ends_with_the_command_that_installs_it(
    empty_database: str, installation: Installation
) -> None:
    socket = installation.engine.socket.with_name("other.sock")
    engine = subprocess.run(
        [sys.executable, "-m", "tinydancer", "serve", "--dsn", empty_database,
         "--socket", str(socket)],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert engine.returncode == 1
    assert "tinydancer install" in engine.stderr
    assert not socket.exists()
