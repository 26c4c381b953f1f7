"""A real PostgreSQL for the tests that ask for one: the embedded server, or TINYDANCER_TEST_DSN.

POSTGRES=16 has the embedded server be PostgreSQL 16. TINYDANCER_TEST_DSN names a server that is
there already, as a superuser; tests make databases of their own on it and drop them.

Every test that asks for `front_door` runs once for each front door that the server has; the end of
the run says which those were.
"""

from __future__ import annotations

import os
import re
import secrets
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import psycopg
import pytest
from hypothesis import settings
from psycopg import conninfo, sql

from tinydancer.embedded.accounts import Account, engine_account
from tinydancer.embedded.instance import (
    DIMENSION,
    Engine,
    install_native_front_door,
    share_engine_directory,
)
from tinydancer.embedded.server import (
    DEFAULT_VERSION,
    ENGINE_ROLE,
    EmbeddedServer,
    open_server,
    throwaway_directory,
)
from tinydancer.store import schema
from tinydancer.store.front_doors import FRONT_DOORS, EngineAddress, available_front_doors

# How long an example takes says nothing on a machine that others use too.
settings.register_profile("tinydancer", deadline=None)
settings.load_profile("tinydancer")

WHY_MISSED = {
    "multicorn": "this server has no Multicorn2; TINYDANCER_TEST_DSN names one that has",
    "native": "this server has no library tinydancer_fdw",
}


@dataclass(frozen=True)
class Server:
    """A PostgreSQL server that the tests may do anything with."""

    superuser_dsn: str
    embedded: EmbeddedServer | None
    sockets: Path

    @classmethod
    def of(cls, embedded: EmbeddedServer) -> Server:
        """The embedded server, which runs."""
        return cls(embedded.dsn(database="postgres"), embedded, embedded.runtime / "engine")

    def dsn(self, database: str) -> str:
        """The superuser's connection string for a database."""
        return conninfo.make_conninfo(self.superuser_dsn, dbname=database)

    def engine(self, database: str, directory: Path) -> Engine:
        """An engine for a database, not started; its log and pid file are in `directory`."""
        if self.embedded:
            dsn = self.embedded.dsn(user=ENGINE_ROLE, database=database)
            account = engine_account()
        else:
            options = f"-c role={ENGINE_ROLE}"
            dsn = conninfo.make_conninfo(self.dsn(database), options=options)
            account = Account.current()
        return Engine(dsn, self.engine_socket(database), account, directory, throwaway=True)

    def engine_socket(self, name: str) -> Path:
        """A path for an engine's socket that the server's backends can reach."""
        return self.sockets / f"{name}.sock"

    def open_to_backends(self, socket: Path) -> None:
        """Let the backends of a server that is not ours connect to an engine's socket."""
        if not self.embedded:
            socket.chmod(0o666)

    @contextmanager
    def database(self) -> Iterator[str]:
        """The name of a new, empty database, which is dropped afterwards."""
        name = f"tinydancer_test_{secrets.token_hex(6)}"
        with psycopg.connect(self.superuser_dsn, autocommit=True) as connection:
            connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        try:
            yield name
        finally:
            with psycopg.connect(self.superuser_dsn, autocommit=True) as connection:
                drop = sql.SQL("DROP DATABASE {} WITH (FORCE)")
                connection.execute(drop.format(sql.Identifier(name)))


@dataclass(frozen=True)
class Installation:
    """A database with the schema, served through one front door by one engine.

    A test may stop or kill the engine; it has to start it again.
    """

    server: Server
    database: str
    front_door: str
    engine: Engine

    def start_engine(self) -> None:
        """Start the engine, where it does not run, and return when it answers."""
        self.engine.start()
        self.server.open_to_backends(self.engine.socket)
        with self.connect() as connection:
            connection.execute("SELECT FROM engine_status")

    @property
    def dsn(self) -> str:
        """The superuser's connection string."""
        return self.server.dsn(self.database)

    def connect(self) -> psycopg.Connection:
        """An autocommit connection as superuser, with the schema on its search path."""
        return psycopg.connect(
            self.dsn, autocommit=True, options="-c search_path=tinydancer,public"
        )


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """The one server of this run."""
    if dsn := os.environ.get("TINYDANCER_TEST_DSN"):
        with server_elsewhere(dsn) as there:
            yield there
        return
    version = int(os.environ.get("POSTGRES", DEFAULT_VERSION))
    with throwaway_directory() as directory:
        running = open_server(directory, throwaway=True)
        try:
            running.initialize(version)
            running.start()
            share_engine_directory(running)
            install_native_front_door(running)
            yield Server.of(running)
        finally:
            running.remove()


@contextmanager
def server_elsewhere(dsn: str) -> Iterator[Server]:
    """A server that is not ours, and a place for sockets that its backends can enter."""
    # The path of a socket is at most 107 bytes long, and TMPDIR may lead deep down.
    with tempfile.TemporaryDirectory(prefix="td-", dir="/tmp") as name:
        Path(name).chmod(0o755)
        yield Server(dsn, None, Path(name))


@pytest.fixture
def empty_database(server: Server) -> Iterator[str]:
    """The superuser's connection string for a new, empty database."""
    with server.database() as name:
        yield server.dsn(name)


@pytest.fixture(scope="session")
def installation(
    server: Server, front_door: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Installation]:
    """One for each front door, for the whole run: use `db`, which empties its tables."""
    with running_installation(server, front_door, tmp_path_factory.mktemp("engine")) as there:
        yield there


@contextmanager
def running_installation(
    server: Server, front_door: str, engine_directory: Path
) -> Iterator[Installation]:
    """An installation in a database of its own, with its engine running."""
    with server.database() as name:
        engine = server.engine(name, engine_directory)
        install(server.dsn(name), front_door, engine)
        try:
            there = Installation(server, name, front_door, engine)
            there.start_engine()
            yield there
        finally:
            engine.stop()


def install(dsn: str, front_door: str, engine: Engine) -> None:
    """Install the schema with one front door, which leads to an engine's socket."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        schema.install(
            connection,
            dimension=DIMENSION,
            front_doors=[front_door],
            engine_address=EngineAddress(socket=str(engine.socket)),
        )
        connection.execute("ALTER ROLE tinydancer_engine LOGIN")


@pytest.fixture
def db(installation: Installation) -> Iterator[psycopg.Connection]:
    """A superuser's autocommit connection to an installation with nothing in its tables."""
    with installation.connect() as connection:
        empty_tables(connection)
        yield connection


def sqlstate(error: psycopg.Error) -> str | None:
    """The engine's SQLSTATE: Multicorn reports every error as XX000, and ours in its detail."""
    written = re.search(r"SQLSTATE (\w{5})", error.diag.message_detail or "")
    return written[1] if written else error.sqlstate


def empty_tables(connection: psycopg.Connection) -> None:
    """Delete all that tests have written; settings go back to their defaults."""
    tables = connection.execute(
        "SELECT relname FROM pg_class WHERE relnamespace = 'tinydancer'::regnamespace"
        " AND relkind IN ('r', 'p') AND NOT relispartition"
        " AND relname NOT IN ('migrations', 'settings', 'changes')"
    ).fetchall()
    names = sql.SQL(", ").join(sql.Identifier("tinydancer", name) for (name,) in tables)
    connection.execute(sql.SQL("TRUNCATE {} RESTART IDENTITY").format(names))
    columns = connection.execute(
        "SELECT attname FROM pg_attribute WHERE attrelid = 'tinydancer.settings'::regclass"
        " AND attnum > 0 AND NOT attisdropped"
        " AND attname NOT IN ('singleton', 'dimension', 'embedding_model', 'embedding_space')"
    ).fetchall()
    defaults = sql.SQL(", ").join(
        sql.SQL("{} = DEFAULT").format(sql.Identifier(name)) for (name,) in columns
    )
    connection.execute(sql.SQL("UPDATE tinydancer.settings SET {}").format(defaults))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test that asks for a front door through each that there is."""
    if "front_door" in metafunc.fixturenames:
        metafunc.parametrize("front_door", front_doors_there(), scope="session")


@cache
def front_doors_there() -> tuple[str, ...]:
    """The front doors of the server that the tests will run on."""
    dsn = os.environ.get("TINYDANCER_TEST_DSN")
    if not dsn:
        return ("native",)  # no registry has Multicorn2 for the embedded server
    with psycopg.connect(dsn, autocommit=True) as connection:
        doors = available_front_doors(connection)
    if not doors:
        raise pytest.UsageError("the server of TINYDANCER_TEST_DSN has no front door")
    return doors


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Have each report carry its front door, for the summary."""
    for item in items:
        parameters = getattr(getattr(item, "callspec", None), "params", {})
        if "front_door" in parameters:
            item.user_properties.append(("front_door", parameters["front_door"]))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say which front doors the tests ran through, and which they missed."""
    ran: dict[str, Counter[str]] = {door: Counter() for door in FRONT_DOORS}
    for outcome in ("passed", "failed", "error"):
        for report in terminalreporter.stats.get(outcome, []):
            door = dict(getattr(report, "user_properties", ())).get("front_door")
            if door is not None:
                ran[str(door)][outcome] += 1
    terminalreporter.section("front doors")
    for door, outcomes in ran.items():
        counts = ", ".join(f"{count} {outcome}" for outcome, count in outcomes.items())
        missed = f"missed: {WHY_MISSED[door]}" if door not in front_doors_there() else "not asked"
        terminalreporter.write_line(f"{door}: {counts or missed}")
