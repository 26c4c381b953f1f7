"""The ONNX encoder against an independent numpy forward pass of the same weights."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from safetensors.numpy import load_file

from tinydancer.embeddings.bert_graph import BertConfig, build_graph
from tinydancer.embeddings.minilm import MAX_TOKENS, MiniLMEmbedder
from tinydancer.errors import NotReady

Array = NDArray[np.float64]
Weights = dict[str, NDArray[np.float32]]


def forward(weights: Weights, config: BertConfig, ids: list[int]) -> Array:
    """One sentence through BERT, written down from the papers; nothing is shared with the graph."""
    weights64 = {name: value.astype(np.float64) for name, value in weights.items()}

    def dense(x: Array, name: str) -> Array:
        product: Array = x @ weights64[f"{name}.weight"].T + weights64[f"{name}.bias"]
        return product

    def norm(x: Array, name: str) -> Array:
        centred = x - x.mean(-1, keepdims=True)
        scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + config.layer_norm_eps)
        normed: Array = (
            scaled * weights64[f"{name}.LayerNorm.weight"] + weights64[f"{name}.LayerNorm.bias"]
        )
        return normed

    x = weights64["embeddings.word_embeddings.weight"][ids]
    x = x + weights64["embeddings.position_embeddings.weight"][: len(ids)]
    x = norm(x + weights64["embeddings.token_type_embeddings.weight"][0], "embeddings")
    size = config.hidden_size // config.num_attention_heads
    erf = np.vectorize(math.erf)
    for number in range(config.num_hidden_layers):
        layer = f"encoder.layer.{number}"
        query, key, value = (
            dense(x, f"{layer}.attention.self.{part}") for part in ("query", "key", "value")
        )
        mixed = np.empty_like(x)
        for head in range(config.num_attention_heads):
            part = slice(head * size, (head + 1) * size)
            scores = query[:, part] @ key[:, part].T / math.sqrt(size)
            shares = np.exp(scores) / np.exp(scores).sum(-1, keepdims=True)
            mixed[:, part] = shares @ value[:, part]
        x = norm(x + dense(mixed, f"{layer}.attention.output.dense"), f"{layer}.attention.output")
        inner = dense(x, f"{layer}.intermediate.dense")
        inner = inner * (1 + erf(inner / math.sqrt(2))) / 2
        x = norm(x + dense(inner, f"{layer}.output.dense"), f"{layer}.output")
    mean = x.mean(0)
    vector: Array = mean / np.linalg.norm(mean)
    return vector


@pytest.fixture
def directory(tmp_path: Path, small_bert: Any) -> Path:
    """The small model as a fetch leaves it."""
    (tmp_path / "model.onnx").write_bytes(build_graph(small_bert.weights, small_bert.config))
    (tmp_path / "vocab.txt").write_text("\n".join(small_bert.vocabulary) + "\n")
    return tmp_path


@pytest.fixture
def embedder(directory: Path) -> MiniLMEmbedder:
    return MiniLMEmbedder(directory)


def test_a_sentence_has_the_vector_of_the_reference(
    embedder: MiniLMEmbedder, small_bert: Any
) -> None:
    # given [CLS] my order is late ##ly . [SEP]
    ids = [2, 5, 6, 7, 8, 9, 10, 3]
    # when the sentence is embedded
    vector = embedder.embed(["My order is lately."])[0]
    # then it is what the papers' equations give
    np.testing.assert_allclose(
        vector, forward(small_bert.weights, small_bert.config, ids), atol=2e-6
    )


def test_a_batch_of_many_lengths_gives_what_each_text_gives_alone(
    embedder: MiniLMEmbedder,
) -> None:
    texts = ["refund", "", "my order is late", "refund my order", "late late late", "?"]
    alone = np.concatenate([embedder.embed([text]) for text in texts])
    np.testing.assert_allclose(embedder.embed(texts), alone, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(alone, axis=1), 1, atol=1e-6)


def test_word_order_matters(embedder: MiniLMEmbedder) -> None:
    one, two = embedder.embed(["my order is late", "late is my order"])
    assert one @ two < 0.999


def test_what_is_beyond_the_token_limit_is_left_out_but_counted(embedder: MiniLMEmbedder) -> None:
    full, longer = ("late " * count for count in (MAX_TOKENS - 2, MAX_TOKENS + 50))
    one, two = embedder.embed([full, longer])
    np.testing.assert_allclose(one, two, atol=1e-6)
    assert embedder.count_tokens([full, longer]).tolist() == [MAX_TOKENS - 2, MAX_TOKENS + 50]


def test_no_texts_give_no_vectors(embedder: MiniLMEmbedder) -> None:
    assert embedder.embed([]).shape == (0, 24)


def test_a_missing_model_is_an_error_that_says_how_to_fetch_it(tmp_path: Path) -> None:
    with pytest.raises(NotReady, match=r"there is no .*vocab\.txt") as caught:
        MiniLMEmbedder(tmp_path)
    assert "tinydancer models fetch minilm" in caught.value.hint


@pytest.mark.parametrize("keep", [0, 10, 0.5, 0.99])
def test_a_truncated_graph_is_refused_by_name(directory: Path, keep: float) -> None:
    whole = (directory / "model.onnx").read_bytes()
    (directory / "model.onnx").write_bytes(whole[: int(keep * len(whole)) if keep < 1 else 10])
    with pytest.raises(NotReady, match=r"model\.onnx can't be run") as caught:
        MiniLMEmbedder(directory)
    assert "fetch" in caught.value.hint


def test_weights_that_are_no_numbers_make_no_graph(small_bert: Any) -> None:
    weights = small_bert.weights
    weights["encoder.layer.1.output.dense.bias"][3] = np.nan
    with pytest.raises(NotReady, match=r"layer\.1\.output\.dense\.bias has a value that is not"):
        build_graph(weights, small_bert.config)


def test_weights_of_another_size_make_no_graph(small_bert: Any) -> None:
    weights = small_bert.weights
    weights["embeddings.LayerNorm.bias"] = np.zeros(12, dtype=np.float32)
    with pytest.raises(NotReady, match=r"embeddings\.LayerNorm\.bias has shape \(12,\), not"):
        build_graph(weights, small_bert.config)


def test_a_missing_weight_makes_no_graph(small_bert: Any) -> None:
    weights = small_bert.weights
    del weights["encoder.layer.0.intermediate.dense.weight"]
    with pytest.raises(NotReady, match=r"no weight encoder\.layer\.0\.intermediate"):
        build_graph(weights, small_bert.config)


def test_a_vocabulary_without_its_end_marks_is_refused(directory: Path) -> None:
    (directory / "vocab.txt").write_text("[UNK]\nrefund\n")
    with pytest.raises(NotReady, match=r"vocab\.txt: .*CLS"):
        MiniLMEmbedder(directory)


@pytest.mark.skipif(
    "TINYDANCER_MINILM" not in os.environ,
    reason="set TINYDANCER_MINILM to a fetched model's directory, TINYDANCER_MINILM_WEIGHTS to its "
    "model.safetensors",
)
def test_the_real_weights_give_the_vectors_of_the_reference() -> None:
    weights = load_file(os.environ["TINYDANCER_MINILM_WEIGHTS"])
    real = BertConfig(30522, 384, 6, 12, 1536, 512, 1e-12)
    embedder = MiniLMEmbedder(Path(os.environ["TINYDANCER_MINILM"]))
    for text in ("where is my card?", "Summarise this contract in three sentences, please."):
        ids = [101, *embedder._pieces.ids(text), 102]
        expected = forward(weights, real, ids)
        np.testing.assert_allclose(embedder.embed([text])[0], expected, atol=1e-5)
