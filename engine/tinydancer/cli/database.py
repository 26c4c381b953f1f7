"""A PostgreSQL that is there already: install, upgrade, reembed."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tinydancer.cli.options import FILE, data_option, running_instance, secret
from tinydancer.cli.progress import counting, steps
from tinydancer.embedded.instance import DIMENSION, build_native_front_door
from tinydancer.embedded.server import ENGINE_ROLE
from tinydancer.errors import NotReady, Unavailable

if TYPE_CHECKING:
    import psycopg

    from tinydancer.store.database import Connection, Database
    from tinydancer.store.front_doors import EngineAddress

EMBEDDERS = ("static", "minilm", "cascade", "openai", "sentence-transformers")
_CONNECT_SECONDS = 10
SOCKET = Path("/run/tinydancer/engine.sock")


def _database(command: Callable[..., None]) -> Callable[..., None]:
    command = click.option(
        "--password-file", type=FILE, help="File with the password of the DSN's role."
    )(command)
    return click.option("--dsn", required=True, help="The database, as a superuser.")(command)


def connect(dsn: str, password_file: Path | None) -> psycopg.Connection:
    """An autocommit connection, with its password from a file where one is given.

    Raises Unavailable where there is none within ten seconds, or as long as the DSN says.
    """
    import psycopg
    from psycopg.conninfo import conninfo_to_dict, make_conninfo

    if "connect_timeout" not in conninfo_to_dict(dsn) and "PGCONNECT_TIMEOUT" not in os.environ:
        dsn = make_conninfo(dsn, connect_timeout=_CONNECT_SECONDS)
    if password_file is not None:
        dsn = make_conninfo(dsn, password=secret(password_file))
    try:
        return psycopg.connect(dsn, autocommit=True)
    except psycopg.OperationalError as error:
        raise Unavailable(
            "the database can't be reached",
            detail=str(error).strip(),
            hint="See that the server runs, and that --dsn and --password-file are right.",
        ) from error


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
    help="Unix socket where the server finds the engine. [default: where an install before has it, "
    f"else {SOCKET}]",
)
@click.option("--connect", "address", metavar="HOST:PORT", help="TCP address of the engine.")
@click.option("--ca", type=FILE, help="Certificates that the engine's TLS is checked against.")
@click.option("--token-file", type=FILE, help="File with the engine's token.")
@click.option(
    "--engine-database",
    metavar="NAME",
    help="Database that the engine serves, where this one is to share another's engine.",
)
@click.option("--engine-password-file", type=FILE, help=f"Lets {ENGINE_ROLE} log in with it.")
@click.option("--dimension", default=DIMENSION, show_default=True, help="Length of all vectors.")
def install(
    dsn: str,
    password_file: Path | None,
    front_doors: tuple[str, ...],
    socket: Path | None,
    address: str | None,
    ca: Path | None,
    token_file: Path | None,
    engine_database: str | None,
    engine_password_file: Path | None,
    dimension: int,
) -> None:
    """Install Tiny Dancer into a database of a server that you have.

    PostgreSQL 14 to 18 with pgvector. Run again, it brings the schema up to date.
    """
    from tinydancer.store import schema
    from tinydancer.store.front_doors import available_front_doors, present_address

    if socket and address:
        raise click.UsageError("give --socket or --connect, not both")
    if ca and not address:
        raise click.UsageError("--ca goes with --connect")
    with connect(dsn, password_file) as connection, steps() as report:
        doors = front_doors or available_front_doors(connection)
        if not doors and connection.info.parameter_status("is_superuser") != "on":
            raise NotReady(
                f"{connection.info.user} is no superuser, and a front door takes one",
                detail="Its functions are written in C, which PostgreSQL has superusers say.",
                hint="Install as a superuser, such as postgres; who uses it needs none.",
            )
        if not doors:
            raise NotReady(
                "the server has no front door",
                detail="It finds neither Multicorn2 nor the library tinydancer_fdw.",
                hint="Build the native front door on the server's machine: "
                "tinydancer build-native --pg-config $(which pg_config)",
            )
        engine = None if socket or address or token_file else present_address(connection, doors)
        if engine is None:
            engine = _engine_address(socket, address, ca, token_file, engine_database)
        elif engine_database:
            engine = replace(engine, database=engine_database)
        schema.install(
            connection,
            dimension=dimension,
            front_doors=doors,
            engine_address=engine,
            progress=report,
        )
        if engine_password_file:
            _let_engine_log_in(connection, secret(engine_password_file))
    click.echo(f"Installed. Front doors: {', '.join(doors)}. Engine: {engine}")


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
    type=FILE,
    required=True,
    help="pg_config of the server; its development package must be there.",
)
@click.option(
    "--into",
    type=click.Path(path_type=Path, file_okay=False),
    help="Directory for the libraries. [default: the server's own]",
)
def build_native(pg_config: Path, into: Path | None) -> None:
    """Build the native front door for a server on this machine."""
    if into is None:
        asked = subprocess.run(
            [pg_config, "--pkglibdir"], capture_output=True, text=True, check=False
        )
        into = Path(asked.stdout.strip())
        if asked.returncode or not into.is_absolute():
            raise NotReady(
                f"{pg_config} names no directory of libraries",
                detail=asked.stderr.strip(),
                hint="Give the pg_config of the server, such as"
                " /usr/lib/postgresql/17/bin/pg_config, or a directory by --into.",
            )
    for library in build_native_front_door(pg_config, into):
        click.echo(library)


@click.command()
@click.option("--dsn", help="The database, as its owner. [default: that of `tinydancer up`]")
@click.option("--password-file", type=FILE, help="File with the password of the DSN's role.")
@data_option
@click.option(
    "--embedder", required=True, type=click.Choice(EMBEDDERS), help="What embeds from now on."
)
@click.option(
    "--model", help="Its model, where it offers several; sentence-transformers: its directory."
)
@click.option("--url", help="Base address of an OpenAI-compatible service.")
def reembed(
    dsn: str | None,
    password_file: Path | None,
    directory: Path | None,
    embedder: str,
    model: str | None,
    url: str | None,
) -> None:
    """Change the embedder: make every stored vector anew, then switch in one step.

    May be interrupted at any moment and run again: it goes on where it stopped, and the old
    embedder serves until the end. A service's key is read from the environment variable
    TINYDANCER_EMBEDDER_API_KEY, or from the file that TINYDANCER_EMBEDDER_API_KEY_FILE names.
    """
    from tinydancer.store.reembed import Choice
    from tinydancer.store.reembed import reembed as change
    from tinydancer.store.settings import open_embedder, read_settings

    if embedder == "sentence-transformers" and model and Path(model).is_dir():
        model = str(Path(model).resolve())  # the engine's working directory is another
    database = _open(dsn, password_file, directory)
    with database.connection() as connection:
        settings = read_settings(connection)
    wanted = replace(settings, embedder=embedder, embedder_model=model, embedder_url=url)
    with counting("Embedding", "texts") as progress:
        new = open_embedder(wanted)
        report = change(
            database,
            new,
            Choice(embedder, model, url),
            progress,
        )
    click.echo(f"Embedded {report.embedded:,} texts. The embedder is now {new.model}.")
    if report.given_replaced:
        click.echo(f"Vectors that had been given and are replaced: {report.given_replaced:,}.")


@click.command("fit-cascade")
@click.option("--dsn", help="The database, as its owner. [default: that of `tinydancer up`]")
@click.option("--password-file", type=FILE, help="File with the password of the DSN's role.")
@data_option
@click.option(
    "--share",
    type=click.FloatRange(0, 1),
    required=True,
    help="Most of the requests that the accurate encoder is to take over, 0 to 1.",
)
def fit_cascade(
    dsn: str | None, password_file: Path | None, directory: Path | None, share: float
) -> None:
    """Set the threshold of the cascade by the share of requests that it escalates.

    It is fitted on the latest requests that decisions were kept of.
    """
    from tinydancer.store.cascade_share import fit_cascade as fit
    from tinydancer.store.settings import open_embedder, read_settings

    database = _open(dsn, password_file, directory)
    with database.connection() as connection:
        settings = read_settings(connection)
    with steps() as report:
        report("Fitting the threshold")
        fitted = fit(database, open_embedder(settings), share)
    click.echo(
        f"cascade_threshold is {fitted.threshold:.4g}: {fitted.share:.1%} of {fitted.requests:,} "
        "requests are escalated."
    )


def _open(dsn: str | None, password_file: Path | None, directory: Path | None) -> Database:
    from psycopg.conninfo import make_conninfo

    from tinydancer.store.database import Database

    if dsn is None:
        dsn = running_instance(directory).server.dsn()
    if password_file:
        dsn = make_conninfo(dsn, password=secret(password_file))
    # The engine's own error would send whoever runs a command to an engine.
    connect(dsn, None).close()
    return Database(dsn)


def _let_engine_log_in(connection: Connection, password: str) -> None:
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
    socket: Path | None,
    address: str | None,
    ca: Path | None,
    token_file: Path | None,
    database: str | None,
) -> EngineAddress:
    from tinydancer.settings import parse_listen
    from tinydancer.store.front_doors import EngineAddress

    token = secret(token_file) if token_file else None
    if address is None:
        return EngineAddress(socket=str(socket or SOCKET), database=database, token=token)
    host, port = parse_listen(address)
    return EngineAddress(
        host=host,
        port=port,
        sslrootcert=str(ca.absolute()) if ca else None,
        database=database,
        token=token,
    )
