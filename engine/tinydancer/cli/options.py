"""Options that several commands have, and what they stand for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from tinydancer.embedded.directories import default_directory
from tinydancer.embedded.instance import Instance, existing_instance, up_command
from tinydancer.errors import NotReady

FILE = click.Path(path_type=Path, dir_okay=False, exists=True)

data_option: Callable[[Callable[..., Any]], Callable[..., Any]] = click.option(
    "--data",
    "directory",
    type=click.Path(path_type=Path, file_okay=False),
    help="Directory of the data. [default: $TINYDANCER_DATA, or a place of yours]",
)
json_option: Callable[[Callable[..., Any]], Callable[..., Any]] = click.option(
    "--json", "as_json", is_flag=True, help="Print JSON."
)


def data_directory(directory: Path | None) -> Path:
    """The directory that --data names."""
    return (directory or default_directory()).absolute()


def running_instance(directory: Path | None) -> Instance:
    """The instance of --data. Raises NotReady where its server does not run."""
    instance = existing_instance(data_directory(directory))
    if not instance.server.daemon.alive():
        raise NotReady(
            f"PostgreSQL does not run in {instance.server.directory}",
            hint=f"Start it: {up_command(instance.server.directory)}",
        )
    return instance


def secret(file: Path) -> str:
    """The first line of a file. Raises NotReady where it has none, or is not text."""
    try:
        lines = file.read_text().splitlines()
    except UnicodeDecodeError:
        raise NotReady(f"{file} is not text", hint="Its first line is the secret.") from None
    if not lines or not lines[0]:
        raise NotReady(f"{file} is empty", hint="Its first line is the secret.")
    return lines[0]
