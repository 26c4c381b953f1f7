"""Which embedder the settings ask for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tinydancer.embeddings.base import Embedder
from tinydancer.embeddings.minilm import MiniLMEmbedder
from tinydancer.embeddings.static import StaticEmbedder, read_static_table
from tinydancer.errors import InvalidInput

KINDS = ("static", "minilm")


@dataclass(frozen=True)
class EmbedderSettings:
    """What is asked of an embedder. Each kind reads the fields that concern it.

    static: `table`, where it is not the package's own. minilm: `directory` with the fetched
    model, `threads`.
    """

    kind: str = "static"
    table: Path | None = None
    directory: Path | None = None
    threads: int = 1


def embedder_for(settings: EmbedderSettings) -> Embedder:
    """The embedder of `settings.kind`. Raises InvalidInput for a kind that is none.

    Raises NotReady where the kind's model file or package is missing or damaged.
    """
    if settings.kind == "static":
        if settings.table is None:
            return StaticEmbedder.builtin()
        return StaticEmbedder(read_static_table(settings.table))
    if settings.kind == "minilm":
        if settings.directory is None:
            raise InvalidInput(
                "minilm needs the directory of the fetched model, and none was given"
            )
        return MiniLMEmbedder(settings.directory, threads=settings.threads)
    raise InvalidInput(
        f"unknown embedder {settings.kind!r}", hint=f"use one of: {', '.join(KINDS)}"
    )
