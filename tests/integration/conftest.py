"""A database with the schema and no engine: for what the store and the SQL do by themselves."""

from __future__ import annotations

import secrets
from collections.abc import Iterator

import psycopg
import pytest
from psycopg import conninfo, sql

from tinydancer.embeddings.base import Embedder
from tinydancer.embeddings.select import EmbedderSettings, embedder_for
from tinydancer.store import schema
from tinydancer.store.database import Database
from tinydancer.store.snapshots import Snapshots


@pytest.fixture(scope="session")
def template(server) -> Iterator[str]:
    """The name of a database with the schema, to be copied."""
    with server.database() as name:
        with psycopg.connect(server.dsn(name), autocommit=True) as connection:
            schema.install(connection)
        yield name


@pytest.fixture
def schema_dsn(server, template: str) -> Iterator[str]:
    """The superuser's connection string for a new database with the schema, without an engine."""
    name = f"tinydancer_test_{secrets.token_hex(6)}"
    with psycopg.connect(server.superuser_dsn, autocommit=True) as connection:
        connection.execute(
            sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(
                sql.Identifier(name), sql.Identifier(template)
            )
        )
    try:
        yield server.dsn(name)
    finally:
        with psycopg.connect(server.superuser_dsn, autocommit=True) as connection:
            connection.execute(
                sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name))
            )


@pytest.fixture
def conn(schema_dsn: str) -> Iterator[psycopg.Connection]:
    """A superuser's autocommit connection to that database, with the schema on its path."""
    dsn = conninfo.make_conninfo(schema_dsn, options="-c search_path=tinydancer,public")
    with psycopg.connect(dsn, autocommit=True) as connection:
        yield connection


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
