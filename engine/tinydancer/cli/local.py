"""The embedded PostgreSQL and its engine: up, down, status, dsn, psql."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import click

from tinydancer.cli.options import data_directory, data_option, json_option, running_instance
from tinydancer.cli.progress import steps
from tinydancer.embedded.instance import existing_instance, open_instance, up_command
from tinydancer.embedded.server import VERSIONS

_NOT_RUNNING = 3  # pg_ctl's own exit code for it


@click.command()
@data_option
@click.option(
    "--postgres",
    "version",
    type=click.Choice([str(version) for version in VERSIONS]),
    help="Version of PostgreSQL for new data. [default: 18]",
)
@json_option
def up(directory: Path | None, version: str | None, as_json: bool) -> None:
    """Start PostgreSQL and the engine; print the DSN.

    Makes the data directory where there is none, installs or upgrades the schema, and returns
    when both answer. Run again, it starts what is not running.
    """
    instance = open_instance(data_directory(directory))
    with steps() as report:
        instance.up(int(version) if version else None, report)
    if as_json:
        click.echo(_to_json(instance.status()))
    else:
        click.echo(instance.server.dsn())


@click.command()
@data_option
def down(directory: Path | None) -> None:
    """Stop the engine and PostgreSQL."""
    instance = existing_instance(data_directory(directory))
    with steps() as report:
        report("Stopping")
        was_running = instance.down()
    click.echo("Stopped." if was_running else "Nothing was running.")


@click.command()
@data_option
@json_option
def status(directory: Path | None, as_json: bool) -> None:
    """Show what runs. Exit code 3 where server or engine does not."""
    found = existing_instance(data_directory(directory)).status()
    if as_json:
        click.echo(_to_json(found))
    else:
        _print_status(found)
    if not found["running"]:
        if not as_json:
            click.echo(f"Hint: Start it: {up_command(data_directory(directory))}", err=True)
        click.get_current_context().exit(_NOT_RUNNING)


@click.command()
@data_option
@click.option("--user", help="Role to connect as. [default: the superuser]")
def dsn(directory: Path | None, user: str | None) -> None:
    """Print the connection string."""
    server = running_instance(directory).server
    click.echo(server.dsn(user=user) if user else server.dsn())


@click.command(context_settings={"ignore_unknown_options": True})
@data_option
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def psql(directory: Path | None, arguments: tuple[str, ...]) -> None:
    """Open psql on the database; ARGUMENTS after -- go to psql.

    For example: tinydancer psql -- -c 'SELECT * FROM tinydancer.agents'

    The statements of the functions that an error came through are left out;
    \\errverbose shows them.
    """
    server = running_instance(directory).server
    program = str(server.program("psql"))
    # One misspelt argument of ruvector_route would bring a page of the functions' own statements.
    options = ["--set", "SHOW_CONTEXT=never", server.dsn()]
    os.execv(program, [program, *options, *arguments])  # noqa: S606 - becomes psql


def _to_json(value: dict[str, object]) -> str:
    return json.dumps(value, indent=2, default=str)


def _print_status(found: dict[str, Any]) -> None:
    for name in ("data", "dsn"):
        if name in found:
            _line(name, str(found[name]))
    for name in ("server", "engine"):
        part = dict(found[name])
        running = part.pop("running")
        _line(name, click.style("running", "green") if running else click.style("stopped", "red"))
        for key, value in part.items():
            shown = f"{value:.2f}" if isinstance(value, float) else str(value)
            _line(f"  {key.replace('_', ' ')}", shown)


def _line(name: str, value: str) -> None:
    click.echo(f"{name:18}{value}")
