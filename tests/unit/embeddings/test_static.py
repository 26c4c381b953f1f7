"""The static table: what it gives, and what it refuses."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinydancer.embeddings import static
from tinydancer.embeddings.static import (
    BUILTIN_TABLE,
    StaticEmbedder,
    StaticTable,
    quantise,
    read_static_table,
    write_static_table,
)
from tinydancer.errors import InvalidText, NotReady

BUILTIN = StaticEmbedder.builtin()


def small_table() -> StaticTable:
    vectors = np.array([[1, 0, 0], [0, 2, 0], [0, 0, 3], [0, -2, 0]], dtype=np.float32)
    codes, scales = quantise(vectors)
    return StaticTable("small-v1", "small", ("[UNK]", "red", "blue", "green"), codes, scales, {})


def test_a_text_is_the_weighted_mean_of_its_tokens_at_unit_length() -> None:
    # given a table in which blue weighs 3 and red 2
    embedder = StaticEmbedder(small_table())
    # when a text has red twice and blue once
    vector = embedder.embed(["Red blue red"])[0]
    # then it points to (0, 4, 3) / 5
    np.testing.assert_allclose(vector, [0, 0.8, 0.6], atol=1e-6)


def test_the_builtin_table_has_the_documented_shape() -> None:
    assert BUILTIN.dimension == 384
    assert BUILTIN.space == "all-MiniLM-L6-v2"
    assert BUILTIN_TABLE.stat().st_size < 13_000_000


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
    monkeypatch.setattr(static, "BLOCK_TOKENS", 5)
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


def test_quantising_keeps_each_row_within_half_a_step() -> None:
    vectors = np.random.default_rng(0).normal(size=(50, 16)).astype(np.float32)
    vectors[3] = 0
    codes, scales = quantise(vectors)
    error = np.abs(codes * scales[:, None] - vectors)
    assert (error <= scales[:, None] * 0.5001).all()


def test_a_table_is_read_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "table.safetensors"
    table = dataclasses.replace(small_table(), notes={"teacher": "none"})
    write_static_table(path, table)
    read = read_static_table(path)
    assert (read.model, read.space, read.vocabulary, read.notes) == (
        table.model,
        table.space,
        table.vocabulary,
        table.notes,
    )
    np.testing.assert_array_equal(read.codes, table.codes)
    np.testing.assert_array_equal(read.scales, table.scales)
    assert [file.name for file in path.parent.iterdir()] == ["table.safetensors"]


def test_the_same_table_is_the_same_bytes(tmp_path: Path) -> None:
    table = dataclasses.replace(small_table(), notes={"b": "2", "a": "1"})
    write_static_table(tmp_path / "one", table)
    write_static_table(tmp_path / "two", table)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_a_missing_table_is_named_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(NotReady, match=r"no static table at .*gone") as caught:
        read_static_table(tmp_path / "gone.safetensors")
    assert "build-static" in caught.value.hint


@pytest.mark.parametrize("keep", [0, 4, 100, 300])
def test_a_truncated_table_is_refused_by_name(tmp_path: Path, keep: int) -> None:
    path = tmp_path / "table.safetensors"
    write_static_table(path, small_table())
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(NotReady, match=r"table\.safetensors is not a static table"):
        read_static_table(path)


def test_a_safetensors_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    path = tmp_path / "other.safetensors"
    save_file({"weight": np.zeros((2, 2), dtype=np.float32)}, path)
    with pytest.raises(NotReady, match="not a static table"):
        read_static_table(path)


def test_a_scale_that_is_no_number_is_refused_with_its_token(tmp_path: Path) -> None:
    table = small_table()
    table.scales[2] = np.nan
    write_static_table(tmp_path / "nan.safetensors", table)
    with pytest.raises(NotReady, match=r"nan\.safetensors: the scale of token 2 \('blue'\)"):
        read_static_table(tmp_path / "nan.safetensors")


def test_a_vocabulary_that_does_not_fit_the_codes_is_refused(tmp_path: Path) -> None:
    table = dataclasses.replace(small_table(), vocabulary=("[UNK]", "red"))
    write_static_table(tmp_path / "short.safetensors", table)
    with pytest.raises(NotReady, match="2 tokens do not fit codes of shape"):
        read_static_table(tmp_path / "short.safetensors")


def test_a_table_of_another_type_is_refused(tmp_path: Path) -> None:
    table = small_table()
    wrong = dataclasses.replace(table, codes=table.codes.astype(np.float32))  # type: ignore[arg-type]
    write_static_table(tmp_path / "float.safetensors", wrong)
    with pytest.raises(NotReady, match="codes are float32, not int8"):
        read_static_table(tmp_path / "float.safetensors")


def test_a_table_whose_unknown_token_has_no_length_is_refused() -> None:
    table = small_table()
    table.codes[0] = 0
    with pytest.raises(NotReady, match=r"\[UNK\] has no length"):
        StaticEmbedder(table)
