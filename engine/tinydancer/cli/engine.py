"""An engine alone: ping."""

from __future__ import annotations

from pathlib import Path

import click

from tinydancer.errors import Unavailable

_File = click.Path(path_type=Path, dir_okay=False, exists=True)


@click.command()
@click.option("--socket", type=click.Path(path_type=Path), help="Unix socket of the engine.")
@click.option("--connect", "address", metavar="HOST:PORT", help="TCP address of the engine.")
@click.option("--ca", type=_File, help="Certificates that its TLS is checked against.")
@click.option("--token-file", type=_File, help="File with its token.")
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
        raise Unavailable(error.message, detail=error.detail, hint=error.hint) from error
    click.echo(f"Engine {version}, up for {uptime}.")
