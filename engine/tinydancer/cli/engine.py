"""An engine alone: serve, ping."""

from __future__ import annotations

import os
import sys
from datetime import timedelta
from pathlib import Path

import click

from tinydancer.cli.options import FILE, secret
from tinydancer.errors import Unavailable
from tinydancer.settings import MOST_WORKERS, default_workers

_UNAUTHORIZED = "28000"


@click.command()
@click.option("--dsn", required=True, help="The database, as the engine's own role.")
@click.option("--password-file", type=FILE, help="File with that role's password.")
@click.option("--socket", type=click.Path(path_type=Path), help="Unix socket to listen on.")
@click.option("--listen", metavar="HOST:PORT", help="TCP address to listen on; needs a token.")
@click.option("--group", help="Group that may connect to the socket.")
@click.option("--token-file", type=FILE, help="File with the token. [default: $TINYDANCER_TOKEN]")
@click.option("--tls-certificate", type=FILE, help="Certificate for TCP beyond this machine.")
@click.option("--tls-key", type=FILE, help="Its private key.")
@click.option(
    "--workers",
    type=click.IntRange(1, MOST_WORKERS),
    default=default_workers,
    show_default="2, on one processor 1",
    help="Processes that answer; each computes one scan at a time.",
)
@click.option(
    "--max-connections",
    type=click.IntRange(min=1),
    default=256,
    show_default=True,
    help="Most front doors connected at once.",
)
@click.option(
    "--metrics-port", type=click.IntRange(0, 65535), help="Port of 127.0.0.1 for Prometheus."
)
@click.option("--log-texts", is_flag=True, help="Let users' texts into the log, for debugging.")
def serve(
    dsn: str,
    password_file: Path | None,
    socket: Path | None,
    listen: str | None,
    group: str | None,
    token_file: Path | None,
    tls_certificate: Path | None,
    tls_key: Path | None,
    workers: int,
    max_connections: int,
    metrics_port: int | None,
    log_texts: bool,
) -> None:
    """Run an engine in the foreground, for a database that has the schema.

    SIGTERM ends it: scans under way have two seconds to finish.
    """
    # An engine has a thread a connection: threads of the library of matrices would only have them
    # wait for each other. It reads this when it is loaded.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

    from psycopg.conninfo import make_conninfo

    from tinydancer.server.serve import run
    from tinydancer.settings import TLS, EngineSettings, parse_listen, read_token

    if (socket is None) == (listen is None):
        raise click.UsageError("give --socket or --listen, one of them")
    if (tls_certificate is None) != (tls_key is None):
        raise click.UsageError("give --tls-certificate and --tls-key, or neither")
    if password_file:
        dsn = make_conninfo(dsn, password=secret(password_file))
    run(
        EngineSettings(
            dsn=dsn,
            socket=socket,
            listen=parse_listen(listen) if listen else None,
            group=group,
            token=read_token(token_file),
            tls=TLS(tls_certificate, tls_key) if tls_certificate and tls_key else None,
            workers=workers,
            max_connections=max_connections,
            metrics_port=metrics_port,
            log_texts=log_texts,
        )
    )
    # Nothing is left to be saved, and Python would free a large snapshot object by object.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


@click.command()
@click.option("--socket", type=click.Path(path_type=Path), help="Unix socket of the engine.")
@click.option("--connect", "address", metavar="HOST:PORT", help="TCP address of the engine.")
@click.option("--ca", type=FILE, help="Certificates that its TLS is checked against.")
@click.option("--token-file", type=FILE, help="File with its token.")
def ping(
    socket: Path | None, address: str | None, ca: Path | None, token_file: Path | None
) -> None:
    """Ask an engine whether it answers: for health checks. Exit code 1 where it does not."""
    from tinydancer.settings import parse_listen, read_token
    from tinydancer_fdw.client import Address, Client, EngineError
    from tinydancer_fdw.frames import Scan

    if (socket is None) == (address is None):
        raise click.UsageError("give --socket or --connect, one of them")
    host, port = parse_listen(address) if address else ("", 0)
    where = Address(
        socket=str(socket or ""),
        host=host,
        port=port,
        sslrootcert=str(ca or ""),
        token=read_token(token_file),
        timeout=3.0,
    )
    try:
        [[version, uptime]] = Client(where, "ping").scan(
            Scan("engine_status", ("version", "uptime"), ())
        )
    except EngineError as error:
        hint = error.hint
        if error.sqlstate == _UNAUTHORIZED:
            hint = "Give its token by --token-file."
        elif address and not ca:
            hint += ". One that has a certificate is asked with --ca."
        raise Unavailable(error.message, detail=error.detail, hint=hint) from error
    seconds = int(float(str(uptime).removesuffix(" seconds")))
    click.echo(f"Engine {version}, up for {timedelta(seconds=seconds)}.")
