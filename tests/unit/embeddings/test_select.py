"""The embedder that the settings ask for."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from tinydancer.embeddings.cache import CachedEmbedder
from tinydancer.embeddings.cascade import CascadeEmbedder
from tinydancer.embeddings.select import (
    KEY_FILE_VARIABLE,
    KEY_VARIABLE,
    EmbedderSettings,
    Usage,
    embedder_for,
    read_api_key,
    usage,
)
from tinydancer.embeddings.static import StaticEmbedder
from tinydancer.errors import InvalidInput, NotReady


def test_the_default_is_the_static_table_behind_a_cache() -> None:
    embedder = embedder_for(EmbedderSettings())
    assert isinstance(embedder, CachedEmbedder)
    assert embedder.model == StaticEmbedder.builtin().model


def test_what_an_embedder_has_done_is_counted() -> None:
    # given the static table behind a cache, as the accurate half of a cascade
    cached = embedder_for(EmbedderSettings())
    cascade = CascadeEmbedder(StaticEmbedder.builtin(), cached, 2.0)
    # when a request is in doubt, and a text is stored twice
    cascade.embed_with_margin(["refund"], lambda vectors: np.zeros(len(vectors)))
    cascade.embed(["order", "order"])
    cascade.embed(["order"])
    # then each is counted where it happened
    assert usage(cascade) == Usage(cache_hits=1, cache_misses=3, cascaded=1, escalated=1)
    assert usage(cached) == Usage(cache_hits=1, cache_misses=3)
    assert usage(StaticEmbedder.builtin()) == Usage()


@pytest.mark.parametrize("kind", ["minilm", "cascade"])
def test_a_model_that_was_not_fetched_is_an_error_that_says_how(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(NotReady, match="there is no") as caught:
        embedder_for(EmbedderSettings(kind=kind))
    assert "tinydancer models fetch minilm" in caught.value.hint


def test_a_service_is_asked_by_its_settings() -> None:
    settings = EmbedderSettings(
        kind="openai", url="http://localhost/v1", model="small", dimension=8, api_key="sk-secret"
    )
    embedder = embedder_for(settings)
    assert (embedder.model, embedder.dimension) == ("small", 8)
    assert "sk-secret" not in repr(settings)


@pytest.mark.parametrize(
    ("settings", "missing"),
    [
        (EmbedderSettings(kind="openai", model="small"), "url"),
        (EmbedderSettings(kind="openai", url="http://localhost/v1"), "model"),
        (EmbedderSettings(kind="sentence-transformers"), "model"),
    ],
)
def test_a_missing_setting_is_named(settings: EmbedderSettings, missing: str) -> None:
    with pytest.raises(InvalidInput, match=f"needs a {missing}") as caught:
        embedder_for(settings)
    assert f"embedder_{missing}" in caught.value.hint


def test_an_unknown_kind_is_refused_with_the_known_ones() -> None:
    with pytest.raises(InvalidInput, match="unknown embedder 'word2vec'") as caught:
        embedder_for(EmbedderSettings(kind="word2vec"))
    assert "static, minilm, cascade, openai, sentence-transformers" in caught.value.hint


def test_an_embedder_of_another_dimension_is_refused() -> None:
    with pytest.raises(InvalidInput, match="384 dimensions, not the 1536"):
        embedder_for(EmbedderSettings(dimension=1536))


def test_a_package_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(NotReady, match="sentence-transformers is not installed") as caught:
        embedder_for(EmbedderSettings(kind="sentence-transformers", model="all-MiniLM-L6-v2"))
    assert "pip install 'tinydancer-router[sentence-transformers]'" in caught.value.hint


def test_a_package_that_is_installed_and_broken_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sentence_transformers.py").write_text("import no_torch_here\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "sentence_transformers", raising=False)
    with pytest.raises(NotReady, match="can't be imported") as caught:
        embedder_for(EmbedderSettings(kind="sentence-transformers", model="all-MiniLM-L6-v2"))
    assert "no_torch_here" in caught.value.detail


def test_a_package_that_runs_code_of_models_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    old = ModuleType("sentence_transformers")
    old.__version__ = "5.7.0"  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "sentence_transformers", old)
    with pytest.raises(NotReady, match=r"sentence-transformers 5\.7\.0 is installed, and 6\.0"):
        embedder_for(EmbedderSettings(kind="sentence-transformers", model="all-MiniLM-L6-v2"))


def test_the_key_comes_from_the_environment_or_a_file_that_it_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(KEY_VARIABLE, raising=False)
    monkeypatch.delenv(KEY_FILE_VARIABLE, raising=False)
    assert read_api_key() == ""
    (tmp_path / "key").write_text("from-a-file\n")
    monkeypatch.setenv(KEY_FILE_VARIABLE, str(tmp_path / "key"))
    assert read_api_key() == "from-a-file"
    monkeypatch.setenv(KEY_VARIABLE, "from-the-environment")
    assert read_api_key() == "from-the-environment"


def test_a_key_file_that_can_not_be_read_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(KEY_VARIABLE, raising=False)
    monkeypatch.setenv(KEY_FILE_VARIABLE, str(tmp_path / "gone"))
    with pytest.raises(InvalidInput, match="gone with the embedding service's key"):
        read_api_key()
