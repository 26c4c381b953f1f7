"""The embedders that an evaluation compares: the static table always, MiniLM where it is there.

MiniLM takes milliseconds a text, so its vectors are kept in the cache directory for the next run.
"""

from __future__ import annotations

from collections.abc import Mapping

from tinydancer.embeddings.base import Embedder
from tinydancer.embeddings.fetch import default_cache_dir, minilm_directory
from tinydancer.embeddings.minilm import GRAPH_FILE, VOCABULARY_FILE, MiniLMEmbedder
from tinydancer.embeddings.static import StaticEmbedder
from tinydancer.evaluation.kept_vectors import KeptVectors, digest_of


def installed_tiers() -> Mapping[str, Embedder]:
    """Tier name → embedder. Raises NotReady where MiniLM was fetched and can't be used."""
    tiers: dict[str, Embedder] = {"static": StaticEmbedder.builtin()}
    directory = minilm_directory(default_cache_dir())
    if directory.is_dir():
        digest = digest_of([directory / GRAPH_FILE, directory / VOCABULARY_FILE])
        cache = default_cache_dir() / "evaluation"
        tiers["minilm"] = KeptVectors(MiniLMEmbedder(directory), cache, digest)
    return tiers
