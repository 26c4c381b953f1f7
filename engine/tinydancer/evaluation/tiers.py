"""The embedders that an evaluation compares: the static table always, MiniLM where it is there."""

from __future__ import annotations

from collections.abc import Mapping

from tinydancer.embeddings.base import Embedder
from tinydancer.embeddings.fetch import default_cache_dir, minilm_directory
from tinydancer.embeddings.minilm import MiniLMEmbedder
from tinydancer.embeddings.static import StaticEmbedder


def installed_tiers() -> Mapping[str, Embedder]:
    """Tier name → embedder. Raises NotReady where MiniLM was fetched and can't be used."""
    tiers: dict[str, Embedder] = {"static": StaticEmbedder.builtin()}
    directory = minilm_directory(default_cache_dir())
    if directory.is_dir():
        tiers["minilm"] = MiniLMEmbedder(directory)
    return tiers
