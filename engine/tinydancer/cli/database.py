"""A PostgreSQL that is there already: install, upgrade, reembed."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tinydancer.cli.progress import steps
from tinydancer.embedded import ENGINE_ROLE
from tinydancer.errors import NotReady
from tinydancer.instance import DIMENSION, build_native_front_door

if TYPE_CHECKING:
    import psycopg

    from tinydancer.store.front_doors import EngineAddress

SOCKET = Path("/run/tinydancer/engine.sock")

_File = click.Path(path_type=Path, dir_okay=False, exists=True)


def _database(command: Callable[..., None]) -> Callable[..., None]:
    command = click.option(
        "--password-file", type=_File, help="File with the password of the DSN's role."
    )(command)
    return click.option("--dsn", required=True, help="The database, as its owner.")(command)


def connect(dsn: str, password_file: Path | None) -> psycopg.Connection:
    """An autocommit connection, with its password from a file where one is given."""
    import psycopg

    if password_file is None:
        return psycopg.connect(dsn, autocommit=True)
    return psycopg.connect(dsn, password=secret(password_file), autocommit=True)


def secret(file: Path) -> str:
    """The first line of a file."""
    lines = file.read_text().splitlines()
    if not lines or not lines[0]:
        raise NotReady(f"{file} is empty", hint="Its first line is the secret.")
    return lines[0]


@click.command()
@_database
@click.option(
    "--front-door",
    "front_doors",
    type=click.Choice(["native", "multicorn"]),
    multiple=True,
    help="Front door to use; may be given twice. [default: those that the server has]",
)
@click.option(
    "--socket",
    type=click.Path(path_type=Path),
    help=f"Unix socket where the server finds the engine. [default: {SOCKET}]",
)
@click.option("--connect", "address", metavar="HOST:PORT", help="TCP address of the engine.")
@click.option("--ca", type=_File, help="Certificates that the engine's TLS is checked against.")
@click.option("--token-file", type=_File, help="File with the engine's token.")
@click.option("--engine-password-file", type=_File, help=f"Lets {ENGINE_ROLE} log in with it.")
@click.option("--dimension", default=DIMENSION, show_default=True, help="Length of all vectors.")
def install(
    dsn: str,
    password_file: Path | None,
    front_doors: tuple[str, ...],
    socket: Path | None,
    address: str | None,
    ca: Path | None,
    token_file: Path | None,
    engine_password_file: Path | None,
    dimension: int,
) -> None:
    """Install Tiny Dancer into a database of a server that you have.

    PostgreSQL 14 to 18 with pgvector. Run again, it brings the schema up to date.
    """
    from tinydancer.store import schema
    from tinydancer.store.front_doors import available_front_doors

    if socket and address:
        raise click.UsageError("give --socket or --connect, not both")
    engine = _engine_address(socket, address, ca, token_file)
    with connect(dsn, password_file) as connection, steps() as report:
        doors = front_doors or available_front_doors(connection)
        if not doors:
            raise NotReady(
                "the server has no front door",
                detail="It finds neither Multicorn2 nor the library tinydancer_fdw.",
                hint="Build the native front door on the server's machine: "
                "tinydancer build-native --pg-config $(which pg_config)",
            )
        schema.install(
            connection,
            dimension=dimension,
            front_doors=doors,
            engine_address=engine,
            progress=report,
        )
        if engine_password_file:
            _let_engine_log_in(connection, secret(engine_password_file))
    click.echo(f"Installed. Front doors: {', '.join(doors)}. Engine: {address or socket or SOCKET}")


@click.command()
@_database
def upgrade(dsn: str, password_file: Path | None) -> None:
    """Bring the schema of a database up to date."""
    from tinydancer.store import schema

    with connect(dsn, password_file) as connection, steps() as report:
        schema.upgrade(connection, progress=report)
    click.echo("Up to date.")


@click.command("build-native")
@click.option(
    "--pg-config",
    type=_File,
    required=True,
    help="pg_config of the server; its development package must be there.",
)
@click.option(
    "--into",
    type=click.Path(path_type=Path, file_okay=False),
    help="Directory for the library. [default: the server's own]",
)
def build_native(pg_config: Path, into: Path | None) -> None:
    """Build the native front door for a server on this machine."""
    if into is None:
        output = subprocess.run(
            [pg_config, "--pkglibdir"], capture_output=True, text=True, check=True
        )
        into = Path(output.stdout.strip())
    click.echo(build_native_front_door(pg_config, into))


def _let_engine_log_in(connection: psycopg.Connection[Any], password: str) -> None:
    """Set the engine's password; the server gets its SCRAM verifier only."""
    from psycopg import sql

    verifier = connection.pgconn.encrypt_password(
        password.encode(), ENGINE_ROLE.encode(), b"scram-sha-256"
    ).decode()
    connection.execute(
        sql.SQL("ALTER ROLE {} LOGIN PASSWORD {}").format(
            sql.Identifier(ENGINE_ROLE), sql.Literal(verifier)
        )
    )


def _engine_address(
    socket: Path | None, address: str | None, ca: Path | None, token_file: Path | None
) -> EngineAddress:
    from tinydancer.settings import parse_listen
    from tinydancer.store.front_doors import EngineAddress

    token = secret(token_file) if token_file else None
    if address is None:
        return EngineAddress(socket=str(socket or SOCKET), token=token)
    host, port = parse_listen(address)
    return EngineAddress(host=host, port=port, sslrootcert=str(ca) if ca else None, token=token)
