"""Building the static table: from which texts, and how near it comes to the encoder it copies."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("scipy")

from tinydancer.embeddings import build_static
from tinydancer.embeddings.build_static import (
    build_static_table,
    fit,
    frequent_pairs,
    row_counts,
)
from tinydancer.embeddings.corpus import Corpus, read_corpus, vary
from tinydancer.embeddings.minilm import MiniLMEmbedder
from tinydancer.embeddings.static import StaticEmbedder
from tinydancer.errors import InvalidInput

WORDNET_LINE = (
    '00001740 29 v 01 breathe 0 001 * 00005041 v 0000 | draw air into the lungs; "I can breathe"\n'
)


def silent(done: int, total: int) -> None:
    assert 0 < done <= total


def quiet(stage: str, unit: str) -> AbstractContextManager[Callable[[int, int], None]]:
    return nullcontext(silent)


@pytest.fixture
def teacher(tmp_path: Path, small_bert: Any) -> MiniLMEmbedder:
    from tinydancer.embeddings.bert_graph import build_graph

    (tmp_path / "model.onnx").write_bytes(build_graph(small_bert.weights, small_bert.config))
    (tmp_path / "vocab.txt").write_text("\n".join(small_bert.vocabulary) + "\n")
    return MiniLMEmbedder(tmp_path)


@pytest.fixture
def corpus(monkeypatch: pytest.MonkeyPatch) -> Corpus:
    """All orders of the small vocabulary's words, two and three at a time."""
    monkeypatch.setattr(build_static, "VARIANTS", 100)
    monkeypatch.setattr(build_static, "BATCH", 32)
    monkeypatch.setattr(build_static, "EPOCHS", 30)
    words = ["refund", "my", "order", "is", "late"]
    two = [f"{a} {b}" for a in words for b in words]
    return Corpus(tuple(two), tuple(f"{a} {b}" for a in two for b in words))


def test_the_fitted_table_is_nearer_to_the_encoder_than_its_tokens_alone(
    teacher: MiniLMEmbedder, corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given texts that no table was fitted on
    texts = [f"{a} {b} {b} {a}" for a in ("refund", "late", "my") for b in ("order", "is")]
    wanted = teacher.embed(texts)

    def distance() -> float:
        embedder = StaticEmbedder(build_static_table(teacher, corpus, quiet))
        return 1 - float(np.einsum("ij,ij->i", embedder.embed(texts), wanted).mean())

    # when a table is fitted, and one is left as it starts
    fitted = distance()
    monkeypatch.setattr(build_static, "EPOCHS", 0)
    # then the fitted one points nearer to where the encoder does
    assert fitted < 0.7 * distance()


def test_the_same_corpus_gives_the_same_table(teacher: MiniLMEmbedder, corpus: Corpus) -> None:
    one, two = (build_static_table(teacher, corpus, quiet) for _ in range(2))
    np.testing.assert_array_equal(one.codes, two.codes)
    np.testing.assert_array_equal(one.scales, two.scales)
    np.testing.assert_array_equal(one.pairs, two.pairs)


def test_the_fit_goes_down_the_slope_of_its_loss() -> None:
    # given two tokens, and texts whose vectors they do not reach at the start
    start = np.array([[1, 0.1], [0.1, 1]], dtype=np.float32)
    counts = row_counts([[0], [1], [0, 1]], np.array([99]), 2)
    targets = np.array([[0, 1], [1, 0], [0.6, 0.8]], dtype=np.float32)

    def loss(vectors: np.ndarray[Any, Any]) -> float:
        sums = counts @ vectors
        units = sums / np.linalg.norm(sums, axis=1, keepdims=True)
        return float(1 - (units * targets).sum(axis=1).mean())

    padded = np.concatenate([start, np.zeros((1, 2), dtype=np.float32)])
    gradient = np.zeros_like(padded)
    rows, found = build_static._gradient(padded, counts, targets)
    gradient[rows] = found
    # when the gradient is held against finite differences
    step = 1e-3
    for row in range(2):
        for column in range(2):
            moved = padded.copy()
            moved[row, column] += step
            other = padded.copy()
            other[row, column] -= step
            slope = (loss(moved) - loss(other)) / (2 * step)
            # then it is the slope
            assert gradient[row, column] == pytest.approx(slope, abs=1e-3)
    assert loss(fit(padded, counts, targets, silent, seed=0)) < loss(padded)


def test_pairs_are_those_of_the_most_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build_static, "PAIRS", 2)
    ids = [[1, 2, 1, 2], [1, 2], [3, 3, 3, 3], [2, 1], [2, 1], [4], []]
    assert frequent_pairs(ids, 10).tolist() == [12, 21]


def test_a_pair_is_counted_within_a_text_and_not_across_two() -> None:
    counts = row_counts([[1, 2, 1, 2], [1], [2]], np.array([12]), 10).toarray()
    assert counts[:, 10].tolist() == [2, 0, 0]
    assert counts[0, 1] == 2


def test_variants_are_the_same_for_the_same_seed_and_new_for_another() -> None:
    requests = ["where is my card", "please cancel my order now", "hi"]
    assert vary(requests, 50, 1) == vary(requests, 50, 1)
    assert vary(requests, 50, 1) != vary(requests, 50, 2)
    words = {word for request in requests for word in request.split()}
    assert all(variant and set(variant.split()) <= words for variant in vary(requests, 500, 3))


def test_texts_are_read_from_lines_objects_and_wordnet(tmp_path: Path) -> None:
    # given requests as lines and as packed objects, some twice, and a WordNet of one synset
    (tmp_path / "mine.txt").write_text("where is my card\n\nno\nwhere is my card\n")
    packed = "\n".join(json.dumps({"text": text, "label": "x"}) for text in ("top up", "top up"))
    (tmp_path / "train.jsonl.gz").write_bytes(gzip.compress(packed.encode()))
    for name in ("data.noun", "data.verb", "data.adj", "data.adv"):
        (tmp_path / name).write_text("  1 This software | is licensed\n" + WORDNET_LINE)
    # when they are read
    corpus = read_corpus([tmp_path / "mine.txt", tmp_path / "train.jsonl.gz"], tmp_path)
    # then each stands once, and what is too short not at all
    assert corpus.requests == ("where is my card", "top up")
    assert corpus.sentences == ("I can breathe", "draw air into the lungs")


@pytest.mark.parametrize("name", ["test.jsonl.gz", "oos_test.jsonl.gz", "test", "my_test.txt"])
def test_test_data_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"")
    with pytest.raises(InvalidInput, match="is test data"):
        read_corpus([tmp_path / name], None)


def no_wordnet(path: Path) -> Corpus:
    (path / "requests.txt").write_text("where is my card\n")
    return read_corpus([path / "requests.txt"], path)


def no_texts(path: Path) -> Corpus:
    (path / "requests.txt").write_text("\n")
    return read_corpus([path / "requests.txt"], None)


def no_objects(path: Path) -> Corpus:
    (path / "requests.jsonl").write_text('{"label": "x"}\n')
    return read_corpus([path / "requests.jsonl"], None)


def no_gzip(path: Path) -> Corpus:
    (path / "requests.jsonl.gz").write_bytes(b'{"text": "x"}\n')
    return read_corpus([path / "requests.jsonl.gz"], None)


@pytest.mark.parametrize(
    ("read", "complaint"),
    [
        (no_wordnet, r"has no data\.noun"),
        (no_texts, "there are none"),
        (no_objects, r"requests\.jsonl is not"),
        (no_gzip, r"requests\.jsonl\.gz is not"),
    ],
)
def test_inputs_that_are_none_are_named(
    tmp_path: Path, read: Callable[[Path], Corpus], complaint: str
) -> None:
    with pytest.raises(InvalidInput, match=complaint):
        read(tmp_path)
