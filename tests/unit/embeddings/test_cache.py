"""The memory of vectors: bounded, counted, and never wrong."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinydancer.embeddings.base import Vectors
from tinydancer.embeddings.cache import CachedEmbedder
from tinydancer.embeddings.static import StaticEmbedder
from tinydancer.errors import InvalidInput, InvalidText

STATIC = StaticEmbedder.builtin()


class Counting(StaticEmbedder):
    """The static embedder, with the texts that it was asked for."""

    def __init__(self) -> None:
        super().__init__(STATIC._table)
        self.asked: list[str] = []

    def embed(self, texts: Sequence[str]) -> Vectors:
        self.asked += texts
        return super().embed(texts)


@given(st.lists(st.lists(st.sampled_from("abcdefgh"), max_size=6), max_size=8))
def test_a_cached_embedder_gives_what_the_embedder_gives(batches: list[list[str]]) -> None:
    cached = CachedEmbedder(STATIC, 3)
    for batch in batches:
        np.testing.assert_allclose(cached.embed(batch), STATIC.embed(batch), atol=1e-6)
        assert cached.size <= 3
    assert cached.hits + cached.misses == sum(map(len, batches))


def test_a_text_is_embedded_once_in_a_batch_and_not_again() -> None:
    # given an empty cache
    inner = Counting()
    cached = CachedEmbedder(inner, 10)
    # when a text comes twice in one batch, and once more
    cached.embed(["refund", "weather", "refund"])
    cached.embed(["refund"])
    # then the embedder saw it once
    assert inner.asked == ["refund", "weather"]
    assert (cached.hits, cached.misses, cached.size) == (1, 3, 2)


def test_the_text_used_longest_ago_goes_first() -> None:
    inner = Counting()
    cached = CachedEmbedder(inner, 2)
    for text in ("one", "two", "one", "three", "one", "two"):
        cached.embed([text])
    assert inner.asked == ["one", "two", "three", "two"]


def test_a_batch_larger_than_the_cache_is_answered_in_full() -> None:
    cached = CachedEmbedder(STATIC, 2)
    texts = [f"text {n}" for n in range(7)]
    np.testing.assert_allclose(cached.embed(texts), STATIC.embed(texts), atol=1e-6)
    assert cached.size == 2


def test_what_a_caller_does_to_its_vectors_does_not_reach_the_cache() -> None:
    cached = CachedEmbedder(STATIC, 10)
    for _ in range(2):
        vectors = cached.embed(["refund"])
        np.testing.assert_allclose(vectors, STATIC.embed(["refund"]), atol=1e-6)
        vectors[:] = 0


def test_an_error_is_not_remembered() -> None:
    cached = CachedEmbedder(STATIC, 10)
    for _ in range(2):
        with pytest.raises(InvalidText):
            cached.embed(["fine", "\ud800"])
    assert cached.size == 0


def test_threads_share_a_cache() -> None:
    cached = CachedEmbedder(STATIC, 5)
    texts = [f"text {n % 11}" for n in range(400)]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda text: cached.embed([text])[0], texts))
    np.testing.assert_allclose(found, STATIC.embed(texts), atol=1e-6)
    assert cached.hits + cached.misses == 400
    assert cached.size <= 5


def test_it_says_of_itself_what_the_embedder_says() -> None:
    cached = CachedEmbedder(STATIC, 5)
    assert (cached.model, cached.space, cached.dimension) == (STATIC.model, STATIC.space, 384)
    assert cached.count_tokens(["my order"]).tolist() == [2]


def test_a_cache_of_nothing_is_refused() -> None:
    with pytest.raises(InvalidInput, match="at least 1 text, not 0"):
        CachedEmbedder(STATIC, 0)
