"""Front doors in the database: foreign servers that reach the engine, and their foreign tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import psycopg
from psycopg import sql

from tinydancer.errors import InvalidInput
from tinydancer.store.database import Connection
from tinydancer_fdw.contract import TABLES, Table

# ADD, SET or DROP where an option is changed, its name, its value.
Option = tuple[Literal["", "ADD ", "SET ", "DROP "], str, str | None]

# The preferred one first.
FRONT_DOORS = ("native", "multicorn")
MULTICORN_WRAPPER = "tinydancer_fdw.wrapper.TinyDancer"
NATIVE_FUNCTIONS = (
    ("tinydancer_native_handler", "()", "fdw_handler"),
    ("tinydancer_native_validator", "(text[], oid)", "void"),
    ("tinydancer_native_support", "(internal)", "internal"),
)
_NATIVE_COMMENTS = {
    "tinydancer_native_handler": "Handler of the native front door.",
    "tinydancer_native_validator": "Checks the options of the native front door.",
    "tinydancer_native_support": "Has calls in a select list made in batches.",
}
# Functions of one text whose calls in a select list the native front door makes in batches.
BATCHED_FUNCTIONS = ("tinydancer.ruvector_classify_request(text)",)


@dataclass(frozen=True)
class EngineAddress:
    """Where front doors reach the engine: a Unix socket, or a host and port with TLS and a token.

    `database` is the one that the engine serves, where that is another on purpose. `timeout_ms` and
    `connect_timeout_ms` bound every scan; None leaves the front door's default.
    """

    socket: str | None = None
    host: str | None = None
    port: int | None = None
    sslrootcert: str | None = None
    database: str | None = None
    token: str | None = field(default=None, repr=False)
    timeout_ms: int | None = None
    connect_timeout_ms: int | None = None

    def options(self) -> dict[str, str]:
        """Options of the foreign server. Raises InvalidInput where the address is no address."""
        if (self.socket is None) == (self.host is None or self.port is None):
            raise InvalidInput(
                f"the engine's address needs a socket, or a host and a port, not {self}",
                hint="Give socket='/path/of/the/socket', or host and port.",
            )
        named = {
            "socket": self.socket,
            "host": self.host,
            "port": self.port,
            "sslrootcert": self.sslrootcert,
            "database": self.database,
            "timeout": self.timeout_ms,
            "connect_timeout": self.connect_timeout_ms,
        }
        return {name: str(value) for name, value in named.items() if value is not None}

    def __str__(self) -> str:
        return self.socket if self.socket is not None else f"{self.host}:{self.port}"


def available_front_doors(conn: Connection) -> tuple[str, ...]:
    """The front doors that the server of `conn` has the software for, the preferred one first."""
    probes = {"native": _has_native, "multicorn": _has_multicorn}
    return tuple(door for door in FRONT_DOORS if probes[door](conn))


def present_address(conn: Connection, doors: Sequence[str]) -> EngineAddress | None:
    """Where the first of these front doors that is there leads to; None where none is."""
    for door in doors:
        options = _server_options(conn, f"tinydancer_{door}")
        if options is not None:
            port, timeout, connect_timeout = (
                int(options[name]) if name in options else None
                for name in ("port", "timeout", "connect_timeout")
            )
            return EngineAddress(
                socket=options.get("socket"),
                host=options.get("host"),
                port=port,
                sslrootcert=options.get("sslrootcert"),
                database=options.get("database"),
                token=_token(conn, f"tinydancer_{door}"),
                timeout_ms=timeout,
                connect_timeout_ms=connect_timeout,
            )
    return None


def open_front_door(conn: Connection, door: str, address: EngineAddress) -> None:
    """Create or update the foreign server of a front door. `foreign_tables` has to follow."""
    options = address.options()
    if door == "multicorn":
        options["wrapper"] = MULTICORN_WRAPPER
        conn.execute("CREATE EXTENSION IF NOT EXISTS multicorn")
    else:
        _create_native_wrapper(conn)
    server = sql.Identifier(f"tinydancer_{door}")
    present = _server_options(conn, f"tinydancer_{door}")
    if present is None:
        conn.execute(
            sql.SQL("CREATE SERVER {} FOREIGN DATA WRAPPER {} {}").format(
                server,
                sql.Identifier("multicorn" if door == "multicorn" else "tinydancer_native"),
                _options([("", name, value) for name, value in options.items()]),
            )
        )
    else:
        changes: list[Option] = [("DROP ", name, None) for name in present.keys() - options.keys()]
        changes += [
            ("SET " if name in present else "ADD ", name, value) for name, value in options.items()
        ]
        conn.execute(sql.SQL("ALTER SERVER {} {}").format(server, _options(changes)))
    conn.execute(sql.SQL("DROP USER MAPPING IF EXISTS FOR PUBLIC SERVER {}").format(server))
    token: list[Option] = [("", "token", address.token)] if address.token else []
    conn.execute(
        sql.SQL("CREATE USER MAPPING FOR PUBLIC SERVER {} {}").format(server, _options(token))
    )
    if door == "native":
        grant = "GRANT USAGE ON FOREIGN SERVER {} TO tinydancer_router, tinydancer_admin"
        conn.execute(sql.SQL(grant).format(server))


def foreign_tables(conn: Connection, door: str | None) -> None:
    """Make the foreign tables of schema tinydancer those of the contract, served by `door`.

    None keeps the front door that serves them now; without one, there are none. A table is made
    anew only where its columns or its server differ, and never while a view depends on it.
    """
    _close_to_python(conn)
    present = _foreign_tables(conn)
    if door is not None:
        server = f"tinydancer_{door}"
    elif present:
        server = next(iter(present.values()))[0]
    else:
        return
    for name, (table_server, columns) in present.items():
        table = TABLES.get(name)
        if table is None or table_server != server or columns != _signature(table):
            conn.execute(
                sql.SQL("DROP FOREIGN TABLE {}").format(sql.Identifier("tinydancer", name))
            )
    missing = sorted(TABLES.keys() - _foreign_tables(conn).keys())
    if missing:
        conn.execute(
            sql.SQL(
                "IMPORT FOREIGN SCHEMA tinydancer LIMIT TO ({}) FROM SERVER {} INTO tinydancer"
            ).format(
                sql.SQL(", ").join(map(sql.Identifier, missing)),
                sql.Identifier(server),
            )
        )
    for table in TABLES.values():
        _describe(conn, table)
    if server == "tinydancer_native":
        _batch_calls(conn)


def _close_to_python(conn: Connection) -> None:
    """Take away what versions up to 0.4.0 granted on the Multicorn2 server.

    Who has USAGE on it can make a user mapping, and Multicorn2 takes the name of its Python class
    from there, too: any class, which runs with the rights of the server's system account.
    """
    if _server_options(conn, "tinydancer_multicorn") is not None:
        conn.execute(
            "REVOKE USAGE ON FOREIGN SERVER tinydancer_multicorn"
            " FROM PUBLIC, tinydancer_router, tinydancer_admin"
        )


def _batch_calls(conn: Connection) -> None:
    """Give the functions of the schema, which have just been replaced, their support function.

    PostgreSQL leaves that to superusers; where anyone else upgrades, calls go one by one.
    """
    if _has_native(conn):
        _install_native_functions(conn)
        for function in BATCHED_FUNCTIONS:
            conn.execute(
                f"ALTER FUNCTION {function} SUPPORT tinydancer.tinydancer_native_support".encode()
            )


def _create_native_functions(conn: Connection, schema: str) -> None:
    for name, arguments, returns in NATIVE_FUNCTIONS:
        statement = (
            f"CREATE OR REPLACE FUNCTION {schema}.{name}{arguments} RETURNS {returns}"
            f" LANGUAGE c STRICT AS '$libdir/tinydancer_fdw', '{name}'"
        )
        conn.execute(statement.encode())


def _install_native_functions(conn: Connection) -> None:
    _create_native_functions(conn, "tinydancer")
    for name, arguments, _ in NATIVE_FUNCTIONS:
        function = f"FUNCTION tinydancer.{name}{arguments}"
        conn.execute(f"COMMENT ON {function} IS '{_NATIVE_COMMENTS[name]}'".encode())
        conn.execute(f"REVOKE ALL ON {function} FROM PUBLIC".encode())


def _create_native_wrapper(conn: Connection) -> None:
    _install_native_functions(conn)
    query = "SELECT FROM pg_foreign_data_wrapper WHERE fdwname = 'tinydancer_native'"
    if conn.execute(query).fetchone() is None:
        conn.execute(
            "CREATE FOREIGN DATA WRAPPER tinydancer_native"
            " HANDLER tinydancer.tinydancer_native_handler"
            " VALIDATOR tinydancer.tinydancer_native_validator"
        )


def _has_multicorn(conn: Connection) -> bool:
    query = "SELECT FROM pg_available_extensions WHERE name = 'multicorn'"
    return conn.execute(query).fetchone() is not None


def _has_native(conn: Connection) -> bool:
    """Whether the server finds the library and this role may use it: tried, and undone."""
    try:
        with conn.transaction(force_rollback=True):
            _create_native_functions(conn, "pg_temp")
    except (
        psycopg.errors.UndefinedFile,
        psycopg.errors.UndefinedFunction,
        psycopg.errors.InsufficientPrivilege,
    ):
        return False
    return True


def _server_options(conn: Connection, server: str) -> dict[str, str] | None:
    row = conn.execute(
        "SELECT ARRAY(SELECT ARRAY[option_name, option_value]"
        " FROM pg_options_to_table(srvoptions)) FROM pg_foreign_server WHERE srvname = %s",
        (server,),
    ).fetchone()
    return None if row is None else dict(row[0])


def _token(conn: Connection, server: str) -> str | None:
    """The token that everybody's user mapping has."""
    row = conn.execute(
        "SELECT (SELECT option_value FROM pg_options_to_table(umoptions)"
        " WHERE option_name = 'token') FROM pg_user_mappings WHERE srvname = %s AND umuser = 0",
        (server,),
    ).fetchone()
    return row and row[0]


def _options(options: Sequence[Option]) -> sql.Composable:
    if not options:
        return sql.SQL("")
    return sql.SQL("OPTIONS ({})").format(
        sql.SQL(", ").join(
            sql.SQL("{}{}{}").format(
                sql.SQL(action),
                sql.Identifier(name),
                sql.SQL("") if value is None else sql.SQL(" {}").format(sql.Literal(value)),
            )
            for action, name, value in sorted(options)
        )
    )


def _foreign_tables(conn: Connection) -> dict[str, tuple[str, tuple[tuple[str, str], ...]]]:
    """The foreign tables of schema tinydancer: their server, and columns with their types."""
    rows = conn.execute(
        "SELECT relname, srvname, attname, typname FROM pg_foreign_table"
        " JOIN pg_foreign_server ON pg_foreign_server.oid = ftserver"
        " JOIN pg_class ON pg_class.oid = ftrelid"
        " JOIN pg_attribute ON attrelid = ftrelid AND attnum > 0 AND NOT attisdropped"
        " JOIN pg_type ON pg_type.oid = atttypid"
        " WHERE relnamespace = 'tinydancer'::regnamespace ORDER BY relname, attnum"
    ).fetchall()
    tables: dict[str, tuple[str, tuple[tuple[str, str], ...]]] = {}
    for name, server, column, type_ in rows:
        before = tables.get(name, (server, ()))[1]
        tables[name] = (server, (*before, (column, type_)))
    return tables


# Names of the contract's types in pg_type, where they differ.
_TYPE_NAMES = {
    "integer": "int4",
    "bigint": "int8",
    "double precision": "float8",
    "boolean": "bool",
    "text[]": "_text",
}


def _signature(table: Table) -> tuple[tuple[str, str], ...]:
    return tuple(
        (column.name, _TYPE_NAMES.get(column.type, column.type)) for column in table.columns
    )


def _describe(conn: Connection, table: Table) -> None:
    """Comments and privileges of a foreign table."""
    name = sql.Identifier("tinydancer", table.name)
    conn.execute(
        sql.SQL("COMMENT ON FOREIGN TABLE {} IS {}").format(name, sql.Literal(table.description))
    )
    for column in table.columns:
        conn.execute(
            sql.SQL("COMMENT ON COLUMN {}.{} IS {}").format(
                name, sql.Identifier(column.name), sql.Literal(column.description)
            )
        )
    # What has no input asks the engine for its own state, which who watches over it needs to see.
    roles = "tinydancer_router, tinydancer_admin" + ("" if table.inputs else ", tinydancer_reader")
    conn.execute(sql.SQL("GRANT SELECT ON {} TO {}").format(name, sql.SQL(roles)))
