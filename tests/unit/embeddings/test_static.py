"""The static table: what it gives, and what it refuses."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinydancer.embeddings import static
from tinydancer.embeddings.static import StaticEmbedder
from tinydancer.embeddings.static_table import BUILTIN_TABLE, StaticTable, quantise
from tinydancer.errors import InvalidText, NotReady

BUILTIN = StaticEmbedder.builtin()


TOKENS = ("[UNK]", "red", "blue", "green")


def small_table(pairs: dict[tuple[str, str], list[int]] | None = None) -> StaticTable:
    """Red is (0, 2, 0), blue (0, 0, 3), green (0, -2, 0); pairs as given."""
    keys = {TOKENS.index(a) * 4 + TOKENS.index(b): v for (a, b), v in (pairs or {}).items()}
    rows = [[1, 0, 0], [0, 2, 0], [0, 0, 3], [0, -2, 0], *(keys[key] for key in sorted(keys))]
    codes, scales = quantise(np.array(rows, dtype=np.float32))
    order = np.array(sorted(keys), dtype=np.int64)
    return StaticTable("small-v1", "small", TOKENS, order, codes, scales, {})


def test_a_text_is_the_weighted_mean_of_its_tokens_at_unit_length() -> None:
    # given a table in which blue weighs 3 and red 2
    embedder = StaticEmbedder(small_table())
    # when a text has red twice and blue once
    vector = embedder.embed(["Red blue red"])[0]
    # then it points to (0, 4, 3) / 5
    np.testing.assert_allclose(vector, [0, 0.8, 0.6], atol=1e-6)


def test_a_known_pair_of_neighbours_adds_its_own_vector() -> None:
    # given a table that knows "red blue", and not "blue red"
    embedder = StaticEmbedder(small_table({("red", "blue"): [4, 0, 0]}))
    # when texts have it, have it the other way round, and have it across two texts
    vectors = embedder.embed(["red blue", "blue red", "red", "blue"])
    # then it counts where it stands, and only there
    both = np.array([0, 2, 3]) / np.hypot(2, 3)
    with_pair = np.array([4, 2, 3]) / np.linalg.norm([4, 2, 3])
    np.testing.assert_allclose(vectors, [with_pair, both, [0, 1, 0], [0, 0, 1]], atol=1e-6)
    np.testing.assert_allclose(embedder.embed(["red blue"]), [with_pair], atol=1e-6)


def test_each_pair_has_the_vector_of_its_own_row() -> None:
    pairs = {("green", "red"): [1, 0, 0], ("red", "red"): [0, 6, 0], ("blue", "blue"): [5, 0, 0]}
    embedder = StaticEmbedder(small_table(pairs))
    vectors = embedder.embed(["green red", "red red", "blue blue"])
    expected = np.array([[1, 0, 0], [0, 1, 0], np.array([5, 0, 6]) / np.hypot(5, 6)])
    np.testing.assert_allclose(vectors, expected, atol=1e-6)


def test_the_builtin_table_has_the_documented_shape() -> None:
    assert BUILTIN.dimension == 384
    assert BUILTIN.space == "all-MiniLM-L6-v2"
    assert BUILTIN_TABLE.stat().st_size < 14_000_000


def test_texts_of_one_meaning_are_nearer_than_texts_of_two() -> None:
    cancel, stop, weather = BUILTIN.embed(
        ["cancel my subscription", "stop the subscription please", "will it rain tomorrow"]
    )
    assert cancel @ stop > cancel @ weather + 0.2


@given(st.lists(st.text(max_size=60), max_size=20))
def test_every_vector_is_finite_and_of_unit_length(texts: list[str]) -> None:
    vectors = BUILTIN.embed(texts)
    assert vectors.shape == (len(texts), 384)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


@given(st.lists(st.text(max_size=60), min_size=2, max_size=20))
def test_a_batch_gives_what_the_texts_give_one_by_one(texts: list[str]) -> None:
    one_by_one = np.concatenate([BUILTIN.embed([text]) for text in texts])
    np.testing.assert_allclose(BUILTIN.embed(texts), one_by_one, atol=1e-6)


@pytest.mark.parametrize("text", ["", "   ", "\n\t", "\x00", "\U0001f9ff"])
def test_a_text_without_a_known_token_has_the_vector_of_the_unknown_token(text: str) -> None:
    expected = StaticEmbedder(small_table()).embed([text])[0]
    np.testing.assert_allclose(expected, [1, 0, 0], atol=1e-6)


def test_tokens_that_cancel_out_have_the_vector_of_the_unknown_token() -> None:
    vectors = StaticEmbedder(small_table()).embed(["red green", "blue"])
    np.testing.assert_allclose(vectors, [[1, 0, 0], [0, 0, 1]], atol=1e-6)


def test_a_text_longer_than_a_block_counts_every_token(monkeypatch: pytest.MonkeyPatch) -> None:
    # given blocks of five tokens, and a text whose blue stands in the last of them
    monkeypatch.setattr(static, "BLOCK_ROWS", 5)
    embedder = StaticEmbedder(small_table())
    text = "red " * 12 + "blue " * 16
    # when it is embedded alone and beside others
    alone, beside = embedder.embed([text])[0], embedder.embed(["red", text, "blue"])[1]
    # then it is (0, 24, 48) at unit length
    expected = np.array([0, 24, 48]) / np.hypot(24, 48)
    np.testing.assert_allclose(alone, expected, atol=1e-6)
    np.testing.assert_allclose(beside, expected, atol=1e-6)


def test_no_texts_give_no_vectors() -> None:
    assert BUILTIN.embed([]).shape == (0, 384)
    assert BUILTIN.count_tokens([]).shape == (0,)


def test_tokens_are_counted_without_special_tokens() -> None:
    counts = BUILTIN.count_tokens(["", "refund", "Where is my order?"])
    assert counts.tolist() == [0, 2, 5]
    assert counts.dtype == np.int64


def test_text_that_is_not_unicode_is_refused() -> None:
    with pytest.raises(InvalidText):
        BUILTIN.embed(["fine", "\udfff"])


def test_a_table_whose_unknown_token_has_no_length_is_refused() -> None:
    table = small_table()
    table.codes[0] = 0
    with pytest.raises(NotReady, match=r"\[UNK\] has no length"):
        StaticEmbedder(table)
