"""The table's file: whole, checked, and the same bytes for the same table."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from tinydancer.embeddings.static_table import (
    BUILTIN_TABLE,
    StaticTable,
    builtin_vocabulary,
    quantise,
    read_static_table,
    write_static_table,
)
from tinydancer.embeddings.tokens import reached_tokens
from tinydancer.errors import NotReady


def small_table() -> StaticTable:
    vectors = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    codes, scales = quantise(vectors)
    pairs = np.array([4, 7], dtype=np.int64)
    return StaticTable("small-v1", "small", ("[UNK]", "red", "blue"), pairs, codes, scales, {})


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
    np.testing.assert_array_equal(read.pairs, table.pairs)
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
    path = tmp_path / "other.safetensors"
    save_file({"weight": np.zeros((2, 2), dtype=np.float32)}, path)
    with pytest.raises(NotReady, match="not a static table"):
        read_static_table(path)


def test_a_scale_that_is_no_number_is_refused_with_its_row(tmp_path: Path) -> None:
    table = small_table()
    table.scales[2] = np.nan
    write_static_table(tmp_path / "nan.safetensors", table)
    with pytest.raises(NotReady, match=r"nan\.safetensors: the scale of row 2 is not"):
        read_static_table(tmp_path / "nan.safetensors")


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"vocabulary": ("[UNK]", "red")}, "2 tokens and 2 pairs do not fit codes of shape"),
        ({"scales": np.ones(4, dtype=np.float32)}, r"scales of shape \(4,\)"),
        ({"codes": np.ones((5, 3), dtype=np.float32)}, "are float32, float32, int64, not int8"),
        ({"pairs": np.array([7, 4])}, "not in ascending order"),
    ],
)
def test_a_table_that_does_not_fit_together_is_refused(
    tmp_path: Path, change: dict[str, Any], complaint: str
) -> None:
    path = tmp_path / "wrong.safetensors"
    write_static_table(path, dataclasses.replace(small_table(), **change))
    with pytest.raises(NotReady, match=rf"wrong\.safetensors: .*{complaint}"):
        read_static_table(path)


def test_the_builtin_vocabulary_is_what_texts_have_of_berts() -> None:
    vocabulary = builtin_vocabulary()
    # [UNK] stands first, since nothing finds what BERT's has before it; "the" begins the words.
    assert vocabulary[0] == "[UNK]"
    assert vocabulary[vocabulary.index("the") :][:3] == ("the", "of", "and")
    assert reached_tokens(vocabulary) == list(range(len(vocabulary)))


def test_the_builtin_table_is_the_one_that_its_readme_describes() -> None:
    readme = (BUILTIN_TABLE.parent / "README.md").read_text()
    table = read_static_table(BUILTIN_TABLE)
    assert hashlib.sha256(BUILTIN_TABLE.read_bytes()).hexdigest() in readme
    assert f"{len(table.vocabulary):,} tokens and {len(table.pairs):,} pairs" in readme
