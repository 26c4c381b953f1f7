"""Which embedder the settings ask for."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from pathlib import Path

from tinydancer.embeddings.base import Embedder
from tinydancer.embeddings.cache import CachedEmbedder
from tinydancer.embeddings.cascade import CascadeEmbedder
from tinydancer.embeddings.fetch import default_cache_dir, minilm_directory
from tinydancer.embeddings.minilm import MiniLMEmbedder
from tinydancer.embeddings.provider import OpenAIEmbedder, ProviderSettings
from tinydancer.embeddings.sentence_transformers import SentenceTransformersEmbedder
from tinydancer.embeddings.static import StaticEmbedder
from tinydancer.errors import InvalidInput

KINDS = ("static", "minilm", "cascade", "openai", "sentence-transformers")
KEY_VARIABLE = "TINYDANCER_EMBEDDER_API_KEY"
KEY_FILE_VARIABLE = "TINYDANCER_EMBEDDER_API_KEY_FILE"
CACHED_TEXTS = 10_000
"""Texts whose vectors are remembered."""


@dataclass(frozen=True)
class EmbedderSettings:
    """What is asked of an embedder. Each kind reads the fields that concern it.

    cascade: `cascade_threshold`, the margin below which MiniLM takes over. openai: `url`, `model`,
    `dimension`, `api_key`. sentence-transformers: `model`, `dimension`.
    """

    kind: str = "static"
    model: str | None = None
    url: str | None = None
    dimension: int = 384
    api_key: str = field(default="", repr=False)
    cascade_threshold: float = 0.06


def embedder_for(settings: EmbedderSettings) -> Embedder:
    """The embedder of `settings.kind`, which has `settings.dimension`.

    Raises InvalidInput for a kind that is none, a field that is missing, or another dimension;
    NotReady where a model's file or package is missing or damaged.
    """
    made = _embedder(settings)
    if made.dimension != settings.dimension:
        raise InvalidInput(
            f"the embedder {settings.kind!r} gives vectors of {made.dimension} dimensions, "
            f"not the {settings.dimension} of this installation",
            hint="choose an embedder of that dimension, or install with another",
        )
    return made


@dataclass(frozen=True)
class Usage:
    """What an embedder has done since it was made: texts found in its cache and texts that were
    not, requests that a cascade embedded, and those of them that the accurate encoder took over.
    """

    cache_hits: int = 0
    cache_misses: int = 0
    cascaded: int = 0
    escalated: int = 0


def usage(embedder: Embedder) -> Usage:
    """The figures of an embedder that `embedder_for` made."""
    if isinstance(embedder, CascadeEmbedder):
        behind = usage(embedder.accurate)
        return replace(behind, cascaded=embedder.total, escalated=embedder.escalated)
    if isinstance(embedder, CachedEmbedder):
        return Usage(cache_hits=embedder.hits, cache_misses=embedder.misses)
    return Usage()


def read_api_key() -> str:
    """The provider's key from the environment, or from the file that it names; else "".

    Raises InvalidInput where the named file can't be read.
    """
    if key := os.environ.get(KEY_VARIABLE, "").strip():
        return key
    if not (name := os.environ.get(KEY_FILE_VARIABLE)):
        return ""
    try:
        return Path(name).read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(
            f"the file {name} with the embedding service's key can't be read: {error}",
            hint=f"name a readable file in {KEY_FILE_VARIABLE}, or set {KEY_VARIABLE}",
        ) from error


def _embedder(settings: EmbedderSettings) -> Embedder:
    if settings.kind == "static":
        return _cached(StaticEmbedder.builtin())
    if settings.kind == "minilm":
        return _cached(_minilm())
    if settings.kind == "cascade":
        accurate = _cached(_minilm())
        return CascadeEmbedder(StaticEmbedder.builtin(), accurate, settings.cascade_threshold)
    if settings.kind == "openai":
        return _cached(_openai(settings))
    if settings.kind == "sentence-transformers":
        name = _needed(settings.model, "model", settings.kind)
        return _cached(SentenceTransformersEmbedder(name, settings.dimension))
    raise InvalidInput(
        f"unknown embedder {settings.kind!r}", hint=f"use one of: {', '.join(KINDS)}"
    )


def _minilm() -> MiniLMEmbedder:
    return MiniLMEmbedder(minilm_directory(default_cache_dir()))


def _openai(settings: EmbedderSettings) -> OpenAIEmbedder:
    return OpenAIEmbedder(
        ProviderSettings(
            url=_needed(settings.url, "url", settings.kind),
            model=_needed(settings.model, "model", settings.kind),
            dimension=settings.dimension,
            api_key=settings.api_key,
        )
    )


def _needed(value: str | None, name: str, kind: str) -> str:
    if not value:
        raise InvalidInput(
            f"the embedder {kind!r} needs a {name}, and none is set",
            hint=f"give --{name} to tinydancer reembed, which sets embedder_{name}",
        )
    return value


def _cached(embedder: Embedder) -> Embedder:
    return CachedEmbedder(embedder, CACHED_TEXTS)
