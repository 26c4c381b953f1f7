"""Installing and upgrading what lives in the database: migrations, functions, front doors.

Migrations run once, in order, and are never changed afterwards: the database keeps the checksum
of each. Functions, triggers and privileges are replaced whole each time. All of it happens in one
transaction: a database has either the old schema or the new one.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import resources

import psycopg
from psycopg import sql

from tinydancer.errors import InvalidInput, NotReady
from tinydancer.store.database import Connection
from tinydancer.store.front_doors import (
    FRONT_DOORS,
    EngineAddress,
    foreign_tables,
    open_front_door,
)

Progress = Callable[[str], None]

# pgvector's HNSW takes vectors up to this length.
MAX_DIMENSION = 2000
MIN_SERVER = 140000
MIN_PGVECTOR = (0, 5)
# Held for the length of an install or upgrade, so that two never run at once.
LOCK = 0x7464_7363_6865_6D61


@dataclass(frozen=True)
class Script:
    """One SQL file: its name without the ending, and its text."""

    name: str
    text: str

    @property
    def checksum(self) -> str:
        """SHA-256 of the text, hexadecimal."""
        return hashlib.sha256(self.text.encode()).hexdigest()


@dataclass(frozen=True)
class Installed:
    """What a database has: the last migration, the dimension of its vectors, and the version that
    installed or upgraded it last, None before 0.5.0.
    """

    migration: str
    dimension: int
    version: str | None


def migrations() -> tuple[Script, ...]:
    """The migrations this version knows, in order."""
    return _scripts("migrations")


def install(
    conn: Connection,
    *,
    dimension: int = 384,
    front_doors: Sequence[str] = (),
    engine_address: EngineAddress | None = None,
    progress: Progress = lambda _: None,
) -> None:
    """Install the schema into the database of `conn`, or bring it up to date; one transaction.

    The first of `front_doors` serves the tables in schema tinydancer; each gets its foreign
    server. None leaves the front doors as they are. Raises NotReady where the server, pgvector,
    a privilege or a front door is missing, or the database has vectors of another dimension.
    """
    if not 1 <= dimension <= MAX_DIMENSION:
        raise InvalidInput(
            f"dimension {dimension} is not between 1 and {MAX_DIMENSION}",
            hint="pgvector's HNSW index takes vectors up to 2,000 dimensions.",
        )
    unknown = [door for door in front_doors if door not in FRONT_DOORS]
    if unknown or (front_doors and engine_address is None):
        raise InvalidInput(
            f"front door {unknown[0]!r} is not known" if unknown else "no engine_address is given",
            hint=f"Front doors are {' and '.join(FRONT_DOORS)}; each needs the engine's address.",
        )
    with conn.transaction(), conn.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(%s)", (LOCK,))
        _require_server(conn)
        vector_schema = _require_pgvector(conn)
        # What is created below must not depend on the caller's search path.
        cursor.execute(
            sql.SQL("SET LOCAL search_path = tinydancer, {}, pg_temp").format(
                sql.Identifier(vector_schema)
            )
        )
        cursor.execute("SET LOCAL check_function_bodies = on")
        cursor.execute("SET LOCAL client_min_messages = warning")
        installed = version(conn)
        if installed is not None and installed.dimension != dimension:
            raise NotReady(
                f"this database has vectors of dimension {installed.dimension}, not {dimension}",
                hint="The dimension is fixed at install; a new one needs a new database.",
            )
        _run(conn, _bootstrap())
        _migrate(conn, dimension, progress)
        for script in _scripts("functions"):
            progress(f"functions {script.name}")
            _run(conn, script.text)
        if engine_address is not None:
            for door in front_doors:
                progress(f"front door {door}")
                open_front_door(conn, door, engine_address)
        foreign_tables(conn, front_doors[0] if front_doors else None)


def upgrade(conn: Connection, *, progress: Progress = lambda _: None) -> None:
    """Bring an installed schema up to date; front doors keep their address.

    Raises NotReady where the database has no schema of ours, or a newer one.
    """
    installed = version(conn)
    if installed is None:
        raise NotReady(
            "Tiny Dancer is not installed in this database",
            hint="Install it first: tinydancer install --dsn ...",
        )
    install(conn, dimension=installed.dimension, progress=progress)


def version(conn: Connection) -> Installed | None:
    """What is installed in the database of `conn`, or None."""
    with conn.cursor() as cursor:
        cursor.execute("SELECT to_regclass('tinydancer.migrations') IS NOT NULL")
        if cursor.fetchone() != (True,):
            return None
        cursor.execute(
            "SELECT max(name), (SELECT dimension FROM tinydancer.settings)"
            " FROM tinydancer.migrations"
        )
        row = cursor.fetchone()
        if row is None or row[0] is None:
            return None
        cursor.execute("SELECT to_regprocedure('tinydancer.ruvector_version()') IS NOT NULL")
        installed_by = None
        if cursor.fetchone() == (True,):
            installed_by = cursor.execute("SELECT tinydancer.ruvector_version()").fetchone()
    return Installed(row[0], row[1], None if installed_by is None else installed_by[0])


def _scripts(folder: str) -> tuple[Script, ...]:
    files = resources.files("tinydancer.sql").joinpath(folder).iterdir()
    return tuple(
        Script(file.name.removesuffix(".sql"), file.read_text("utf-8"))
        for file in sorted(files, key=lambda file: file.name)
        if file.name.endswith(".sql")
    )


def _bootstrap() -> str:
    return resources.files("tinydancer.sql").joinpath("bootstrap.sql").read_text("utf-8")


def _run(conn: Connection, text: str) -> None:
    """Run the statements of one of the package's own files."""
    conn.execute(text.encode())


def _migrate(conn: Connection, dimension: int, progress: Progress) -> None:
    with conn.cursor() as cursor:
        cursor.execute("SELECT name, checksum FROM tinydancer.migrations ORDER BY name")
        done = dict(cursor.fetchall())
        known = migrations()
        newer = sorted(done.keys() - {script.name for script in known})
        if newer:
            raise NotReady(
                f"this database has migration {newer[-1]!r}, which this version does not know",
                hint="Upgrade Tiny Dancer to the version that installed it, or a newer one.",
            )
        for script in known:
            if script.name not in done:
                progress(f"migration {script.name}")
                _run(conn, script.text.replace(":dimension", str(dimension)))
                cursor.execute(
                    "INSERT INTO tinydancer.migrations (name, checksum) VALUES (%s, %s)",
                    (script.name, script.checksum),
                )
            elif done[script.name] != script.checksum:
                raise NotReady(
                    f"migration {script.name!r} has changed since it ran in this database",
                    hint="A migration is frozen once released: write a new one instead.",
                )


def _require_server(conn: Connection) -> None:
    if conn.info.server_version < MIN_SERVER:
        raise NotReady(
            f"the server is PostgreSQL {conn.info.server_version // 10000}",
            hint="Tiny Dancer needs PostgreSQL 14 or newer.",
        )
    if conn.info.parameter_status("server_encoding") == "SQL_ASCII":
        raise NotReady(
            f"database {conn.info.dbname!r} has the encoding SQL_ASCII, in which bytes are no text",
            hint="Install into one that has an encoding: CREATE DATABASE ... ENCODING 'UTF8'"
            " TEMPLATE template0.",
        )


def _require_pgvector(conn: Connection) -> str:
    """The schema of a pgvector that is new enough, created where it is missing."""
    with conn.cursor() as cursor:
        cursor.execute("SELECT FROM pg_available_extensions WHERE name = 'vector'")
        if cursor.fetchone() is None:
            raise NotReady(
                "the server has no pgvector",
                hint="Install pgvector 0.5 or newer on the server; for Debian and PostgreSQL 17: "
                "apt install postgresql-17-pgvector.",
            )
        try:
            with conn.transaction():
                cursor.execute("CREATE EXTENSION IF NOT EXISTS vector SCHEMA public")
        except psycopg.errors.InsufficientPrivilege as error:
            raise NotReady(
                "pgvector is not in this database, and this role may not create it",
                detail=str(error),
                hint="Have a superuser run: CREATE EXTENSION vector;",
            ) from error
        cursor.execute(
            "SELECT extversion, nspname FROM pg_extension JOIN pg_namespace ON"
            " pg_namespace.oid = extnamespace WHERE extname = 'vector'"
        )
        row = cursor.fetchone()
    assert row is not None  # noqa: S101 - created above
    found = tuple(int(part) for part in re.findall(r"\d+", row[0])[:2])
    if found < MIN_PGVECTOR:
        raise NotReady(
            f"the database has pgvector {row[0]}, which has no HNSW index",
            hint="Install pgvector 0.5 or newer, then run: ALTER EXTENSION vector UPDATE;",
        )
    return str(row[1])
