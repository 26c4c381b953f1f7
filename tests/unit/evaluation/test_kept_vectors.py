"""Vectors kept between evaluations."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tinydancer.embeddings.base import Vectors
from tinydancer.embeddings.static import StaticEmbedder
from tinydancer.evaluation.kept_vectors import KeptVectors, digest_of


class Counting(StaticEmbedder):
    """The static table, counting the texts that it encodes."""

    encoded = 0

    def embed(self, texts: Sequence[str]) -> Vectors:
        self.encoded += len(texts)
        return super().embed(texts)


TEXTS = [f"text number {number}" for number in range(1500)]


def test_a_second_run_encodes_nothing_and_gives_the_same(tmp_path: Path) -> None:
    embedder = Counting.builtin()
    assert isinstance(embedder, Counting)
    first = KeptVectors(embedder, tmp_path, "a" * 32).embed([*TEXTS, TEXTS[0]])
    assert embedder.encoded == len(TEXTS)
    again = KeptVectors(embedder, tmp_path, "a" * 32).embed([*TEXTS, TEXTS[0]])
    assert embedder.encoded == len(TEXTS)
    np.testing.assert_array_equal(first, again)
    np.testing.assert_allclose(first[:-1], StaticEmbedder.builtin().embed(TEXTS), atol=1e-6)


def test_new_texts_are_added(tmp_path: Path) -> None:
    embedder = Counting.builtin()
    assert isinstance(embedder, Counting)
    KeptVectors(embedder, tmp_path, "a" * 32).embed(TEXTS[:10])
    KeptVectors(embedder, tmp_path, "a" * 32).embed(TEXTS[5:20])
    assert embedder.encoded == 20
    assert KeptVectors(embedder, tmp_path, "a" * 32).embed([]).shape == (0, embedder.dimension)


def test_vectors_of_another_model_and_of_a_cut_off_write_are_not_taken(tmp_path: Path) -> None:
    embedder = Counting.builtin()
    assert isinstance(embedder, Counting)
    KeptVectors(embedder, tmp_path, "a" * 32).embed(TEXTS[:10])
    KeptVectors(embedder, tmp_path, "b" * 32).embed(TEXTS[:10])
    assert embedder.encoded == 20
    for file in tmp_path.iterdir():
        file.write_bytes(file.read_bytes()[:-7])
    KeptVectors(embedder, tmp_path, "a" * 32).embed(TEXTS[:10])
    assert embedder.encoded == 30


def test_a_digest_is_of_all_files(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    one.write_text("1")
    two.write_text("2")
    before = digest_of([one, two])
    two.write_text("3")
    assert digest_of([one, two]) != before
