"""A real PostgreSQL for the tests that ask for one: the embedded server, or TINYDANCER_TEST_DSN.

POSTGRES=16 has the embedded server be PostgreSQL 16. TINYDANCER_TEST_DSN names a server that is
there already, as a superuser; tests make databases of their own on it and drop them.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import psycopg
import pytest
from psycopg import conninfo, sql
from tinydancer import embedded


@dataclass(frozen=True)
class Server:
    """A PostgreSQL server that the tests may do anything with."""

    superuser_dsn: str
    embedded: embedded.EmbeddedServer | None

    def dsn(self, database: str) -> str:
        """The superuser's connection string for a database."""
        return conninfo.make_conninfo(self.superuser_dsn, dbname=database)

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


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """The one server of this run."""
    if dsn := os.environ.get("TINYDANCER_TEST_DSN"):
        yield Server(dsn, None)
        return
    version = int(os.environ.get("POSTGRES", embedded.DEFAULT_VERSION))
    with embedded.throwaway_server(version) as running:
        yield Server(running.dsn(database="postgres"), running)


@pytest.fixture
def empty_database(server: Server) -> Iterator[str]:
    """The superuser's connection string for a new, empty database."""
    with server.database() as name:
        yield server.dsn(name)
