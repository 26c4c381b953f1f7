"""A database with the schema and no engine: for what the store and the SQL do by themselves."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest
from psycopg import conninfo
from tests.budget_sessions import Connect, sessions
from tests.conftest import Installation

from tinydancer.embedded.instance import Engine
from tinydancer.embeddings.base import Embedder
from tinydancer.embeddings.select import EmbedderSettings, embedder_for
from tinydancer.store import schema
from tinydancer.store.database import Database
from tinydancer.store.snapshots import Snapshots

EMPTY = """
DO $$
DECLARE
    names text := (
        SELECT string_agg(oid::regclass::text, ', ') FROM pg_class
        WHERE relnamespace = 'tinydancer'::regnamespace AND relkind IN ('r', 'p')
            AND NOT relispartition AND relname NOT IN ('migrations', 'changes'));
BEGIN
    EXECUTE format('TRUNCATE %s RESTART IDENTITY', names);
    INSERT INTO tinydancer.settings DEFAULT VALUES;
END
$$
"""


@pytest.fixture(scope="session")
def shared_database(server) -> Iterator[str]:
    """The superuser's connection string for the database that tests share, one after another."""
    with server.database() as name:
        with psycopg.connect(server.dsn(name), autocommit=True) as connection:
            schema.install(connection)
        yield server.dsn(name)


@pytest.fixture
def schema_dsn(shared_database: str) -> str:
    """The superuser's connection string for a database with the schema, empty, without an engine.

    Tests change its rows, never the schema itself.
    """
    with psycopg.connect(shared_database, autocommit=True) as connection:
        connection.execute(EMPTY)
    return shared_database


@pytest.fixture
def new_schema_dsn(empty_database: str) -> str:
    """The same for a database of one's own, to do anything with."""
    with psycopg.connect(empty_database, autocommit=True) as connection:
        schema.install(connection)
    return empty_database


@pytest.fixture
def conn(schema_dsn: str) -> Iterator[psycopg.Connection]:
    """A superuser's autocommit connection to that database, with the schema on its path."""
    dsn = conninfo.make_conninfo(schema_dsn, options="-c search_path=tinydancer,public")
    with psycopg.connect(dsn, autocommit=True) as connection:
        yield connection


@pytest.fixture
def connect(schema_dsn: str) -> Iterator[Connect]:
    """Opens further connections to it."""
    with sessions(schema_dsn) as connect:
        yield connect


@pytest.fixture(scope="session")
def embedder() -> Embedder:
    """The default embedder."""
    return embedder_for(EmbedderSettings(kind="static"))


@pytest.fixture
def database(schema_dsn: str) -> Iterator[Database]:
    """The database as an engine holds it."""
    database = Database(schema_dsn)
    yield database
    database.close()


@pytest.fixture
def snapshots(database: Database, embedder: Embedder) -> Iterator[Snapshots]:
    """The snapshots of an engine."""
    snapshots = Snapshots(database, lambda settings: embedder)
    yield snapshots
    snapshots.close()


@pytest.fixture
def plan_agents(db: psycopg.Connection) -> psycopg.Connection:
    """An installation with agents as the plan has them: two models and a tool."""
    db.execute(
        """
        SELECT ruvector_register_agent('gpt-4', 'llm', ARRAY['reasoning', 'code', 'analysis'],
                   cost_per_1k_tokens := 0.03, avg_latency_ms := 2500, quality_score := 0.95),
               ruvector_register_agent('haiku', 'llm', ARRAY['simple-tasks'],
                   cost_per_1k_tokens := 0.00025, avg_latency_ms := 400, quality_score := 0.8),
               ruvector_register_agent('runner', 'tool', ARRAY['code-execution'],
                   cost_per_call := 0.001, avg_latency_ms := 100, quality_score := 0.9)
        """
    )
    return db


@pytest.fixture
def good_and_plain(db: psycopg.Connection) -> psycopg.Connection:
    """An installation with two tools for one work: 'good', and 'plain' at a tenth of the cost."""
    db.execute(
        """
        SELECT ruvector_register_agent('good', 'tool', ARRAY['work'], cost_per_call := 0.01,
                   avg_latency_ms := 100, quality_score := 0.9),
               ruvector_register_agent('plain', 'tool', ARRAY['work'], cost_per_call := 0.001,
                   avg_latency_ms := 100, quality_score := 0.5)
        """
    )
    return db


@contextmanager
def another_engine(
    installation: Installation, db: psycopg.Connection, directory: Path, workers: int = 1
) -> Iterator[Engine]:
    """Another engine of the same database, which the foreign tables of schema `second` ask."""
    engine = replace(
        installation.engine,
        socket=installation.server.engine_socket(f"{installation.database}_second"),
        directory=directory,
        workers=workers,
    )
    wrapper = "multicorn" if installation.front_door == "multicorn" else "tinydancer_native"
    options = f"socket '{engine.socket}'"
    if installation.front_door == "multicorn":
        options += ", wrapper 'tinydancer_fdw.wrapper.TinyDancer'"
    engine.start()
    installation.server.open_to_backends(engine.socket)
    try:
        db.execute(
            f"""CREATE SERVER second FOREIGN DATA WRAPPER {wrapper} OPTIONS ({options});
                CREATE SCHEMA second;
                IMPORT FOREIGN SCHEMA tinydancer LIMIT TO (route_decisions, engine_status)
                    FROM SERVER second INTO second"""
        )
        yield engine
    finally:
        db.execute("DROP SERVER IF EXISTS second CASCADE; DROP SCHEMA IF EXISTS second CASCADE")
        engine.stop()


@pytest.fixture
def second_engine(
    installation: Installation, db: psycopg.Connection, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """A schema whose foreign tables ask another engine of the same database."""
    with another_engine(installation, db, tmp_path_factory.mktemp("second")):
        yield "second"
