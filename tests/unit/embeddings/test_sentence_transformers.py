"""The real package with a tiny model; tests/unit/embeddings/test_select.py has what it is without.

These run where sentence-transformers is installed: pip install 'tinydancer-router[test,
sentence-transformers]'.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from tests.tiny_model import save_tiny_model

from tinydancer.embeddings.minilm import MiniLMEmbedder
from tinydancer.embeddings.sentence_transformers import SentenceTransformersEmbedder
from tinydancer.errors import InvalidInput, InvalidText, NotReady

pytest.importorskip("sentence_transformers", reason="sentence-transformers is not installed")
import torch
from sentence_transformers import SentenceTransformer

DIMENSION = 32
TEXTS = ["refund my order", "", "my order is late", "is it?", "late " * 500, "x" * 10_000, "Où ?"]


@pytest.fixture(autouse=True)
def no_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No test may depend on what this machine has in its cache."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return save_tiny_model(tmp_path / "model", dimension=DIMENSION)


@pytest.fixture
def embedder(model: Path) -> SentenceTransformersEmbedder:
    return SentenceTransformersEmbedder(str(model), DIMENSION)


def change_weights(
    model: Path, change: Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]]
) -> None:
    file = model / "model.safetensors"
    save_file(change(load_file(file)), file, metadata={"format": "pt"})


def change_json(file: Path, **values: object) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def test_the_vectors_are_the_packages_own(
    model: Path, embedder: SentenceTransformersEmbedder
) -> None:
    expected = SentenceTransformer(str(model), device="cpu").encode(
        TEXTS, normalize_embeddings=True, show_progress_bar=False
    )
    vectors = embedder.embed(TEXTS)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(vectors, expected, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)


def test_a_batch_gives_what_each_text_gives_alone(embedder: SentenceTransformersEmbedder) -> None:
    alone = np.concatenate([embedder.embed([text]) for text in TEXTS])
    np.testing.assert_allclose(embedder.embed(TEXTS), alone, atol=1e-6)


def test_a_batch_of_a_thousand_keeps_the_order(embedder: SentenceTransformersEmbedder) -> None:
    words = ["refund", "my", "order", "is", "late"]
    texts = [" ".join(np.random.default_rng(i).choice(words, i % 50 + 1)) for i in range(1000)]
    vectors = embedder.embed(texts)
    for row in (0, 1, 49, 500, 999):
        np.testing.assert_allclose(vectors[row], embedder.embed([texts[row]])[0], atol=1e-6)


def test_no_texts_give_no_vectors(embedder: SentenceTransformersEmbedder) -> None:
    assert embedder.embed([]).shape == (0, DIMENSION)


def test_what_is_beyond_the_models_limit_is_left_out_but_counted(
    embedder: SentenceTransformersEmbedder,
) -> None:
    full, longer = "late " * 62, "late " * 500
    one, two = embedder.embed([full, longer])
    np.testing.assert_allclose(one, two, atol=1e-6)
    assert embedder.count_tokens([full, longer]).tolist() == [62, 500]


def test_a_text_that_is_no_unicode_is_refused(embedder: SentenceTransformersEmbedder) -> None:
    with pytest.raises(InvalidText, match=r"not valid Unicode: '\\ud800'"):
        embedder.embed(["refund", "my \ud800"])


def test_threads_that_embed_at_once_get_their_own_vectors(
    embedder: SentenceTransformersEmbedder,
) -> None:
    texts = ["late " * count + "refund" for count in range(60)]
    expected = np.concatenate([embedder.embed([text]) for text in texts])

    def some(seed: int) -> float:
        rows = np.random.default_rng(seed).integers(0, len(texts), seed % 5 + 1)
        vectors = embedder.embed([texts[row] for row in rows])
        return float(np.abs(vectors - expected[rows]).max())

    with ThreadPoolExecutor(8) as threads:
        assert max(threads.map(some, range(200))) < 1e-6


def test_torch_has_one_thread_a_connection_in_every_thread(
    embedder: SentenceTransformersEmbedder,
) -> None:
    with ThreadPoolExecutor(1) as other:
        assert other.submit(torch.get_num_threads).result() == torch.get_num_threads() == 1


def test_the_same_weights_elsewhere_are_the_same_space(
    tmp_path: Path, model: Path, embedder: SentenceTransformersEmbedder
) -> None:
    moved = SentenceTransformersEmbedder(str(model.rename(tmp_path / "moved")), DIMENSION)
    assert moved.space == embedder.space
    assert moved.model.startswith(f"{tmp_path / 'moved'}@")


def test_weights_trained_further_in_place_are_another_model_and_space(
    model: Path, embedder: SentenceTransformersEmbedder
) -> None:
    save_tiny_model(model, dimension=DIMENSION, seed=1)
    trained = SentenceTransformersEmbedder(str(model), DIMENSION)
    assert trained.space != embedder.space
    assert trained.model != embedder.model


def test_weights_of_half_precision_give_unit_vectors_in_single(
    model: Path, embedder: SentenceTransformersEmbedder
) -> None:
    expected = embedder.embed(TEXTS)
    change_weights(model, lambda weights: {k: v.astype(np.float16) for k, v in weights.items()})
    change_json(model / "config.json", dtype="float16")
    vectors = SentenceTransformersEmbedder(str(model), DIMENSION).embed(TEXTS)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(vectors, expected, atol=5e-3)


def test_loading_writes_nothing_to_an_engines_log(
    model: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    SentenceTransformersEmbedder(str(model), DIMENSION).embed(TEXTS)
    assert capfd.readouterr() == ("", "")


def test_another_dimension_is_refused(model: Path) -> None:
    with pytest.raises(InvalidInput, match="vectors of 32 dimensions, not the 384") as caught:
        SentenceTransformersEmbedder(str(model), 384)
    assert "--dimension 32" in caught.value.hint


def test_a_part_that_vectors_do_not_use_may_be_missing(
    model: Path, embedder: SentenceTransformersEmbedder
) -> None:
    expected = embedder.embed(TEXTS)
    change_weights(
        model, lambda weights: {k: v for k, v in weights.items() if not k.startswith("pooler")}
    )
    again = SentenceTransformersEmbedder(str(model), DIMENSION)
    np.testing.assert_allclose(again.embed(TEXTS), expected, atol=1e-6)


def wrap(model: Path) -> None:
    change_weights(model, lambda weights: {f"wrapped.{k}": v for k, v in weights.items()})


def break_numbers(model: Path) -> None:
    name = "encoder.layer.0.output.dense.bias"
    change_weights(model, lambda weights: weights | {name: weights[name] * np.float32("nan")})


def truncate(model: Path) -> None:
    os.truncate(model / "model.safetensors", 3000)


def pickled(model: Path) -> None:
    torch.save({}, model / "pytorch_model.bin")
    (model / "model.safetensors").unlink()


def without_tokenizer(model: Path) -> None:
    (model / "tokenizer.json").unlink()
    (model / "tokenizer_config.json").unlink()


def without_pooling(model: Path) -> None:
    (model / "1_Pooling/config.json").unlink()


def without_config(model: Path) -> None:
    (model / "config.json").write_text("{")


def of_other_sizes(model: Path) -> None:
    change_json(model / "config.json", hidden_size=64)


def emptied(model: Path) -> None:
    for file in [*model.rglob("*.json"), *model.rglob("*.safetensors")]:
        file.unlink()


@pytest.mark.parametrize(
    ("damage", "why"),
    [
        (wrap, "weights are missing that its vectors depend on"),
        (break_numbers, "not finite numbers"),
        (truncate, "SafetensorError"),
        (pickled, "no file named model.safetensors"),
        (without_tokenizer, "the same vector"),
        (without_pooling, "Pooling"),
        (without_config, "not a valid JSON"),
        (of_other_sizes, "RuntimeError"),
        (emptied, "Unrecognized model"),
    ],
)
def test_a_damaged_model_is_refused_by_name(
    model: Path, damage: Callable[[Path], None], why: str
) -> None:
    damage(model)
    with pytest.raises(NotReady, match=r"model '.*/model' can't be used") as caught:
        SentenceTransformersEmbedder(str(model), DIMENSION)
    assert why in caught.value.detail
    assert "save or download it again" in caught.value.hint


def test_code_that_lies_beside_a_model_is_not_run(model: Path) -> None:
    (model / "planted.py").write_text("raise SystemExit('this code was run')\n")
    modules = json.loads((model / "modules.json").read_text())
    modules[0]["type"] = "planted.Module"
    (model / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(NotReady) as caught:
        SentenceTransformersEmbedder(str(model), DIMENSION)
    assert "third-party code" in caught.value.detail


def test_a_model_that_says_it_reads_more_than_it_does_fails_by_name(model: Path) -> None:
    change_json(model / "tokenizer_config.json", model_max_length=4096)
    change_json(model / "sentence_bert_config.json", max_seq_length=4096)
    embedder = SentenceTransformersEmbedder(str(model), DIMENSION)
    with pytest.raises(NotReady, match="can't be used") as caught:
        embedder.embed(["late " * 500])
    assert "it fails on these texts" in caught.value.detail


def test_a_text_without_a_word_that_the_model_knows_is_refused(tmp_path: Path) -> None:
    from sentence_transformers.sentence_transformer.modules import StaticEmbedding
    from tokenizers import Tokenizer

    tokenizer = save_tiny_model(tmp_path / "bert") / "tokenizer.json"
    bag = StaticEmbedding(Tokenizer.from_file(str(tokenizer)), embedding_dim=DIMENSION)
    SentenceTransformer(modules=[bag], device="cpu").save_pretrained(
        str(tmp_path / "bag"), create_model_card=False
    )
    embedder = SentenceTransformersEmbedder(str(tmp_path / "bag"), DIMENSION)
    np.testing.assert_allclose(np.linalg.norm(embedder.embed(["refund"])), 1, atol=1e-6)
    with pytest.raises(InvalidInput, match="no vector for text 1 of 2, which has 0 characters"):
        embedder.embed(["refund", ""])


def test_a_directory_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotReady, match=f"no directory {tmp_path}/gone") as caught:
        SentenceTransformersEmbedder(str(tmp_path / "gone"), DIMENSION)
    assert "on the engine's machine" in caught.value.hint


def test_a_directory_that_may_not_be_read_is_named_with_the_user(model: Path) -> None:
    model.chmod(0)
    if root := os.geteuid() == 0:
        os.seteuid(65534)
    try:
        with pytest.raises(NotReady, match=rf"{model} can't be read by user \d+") as caught:
            SentenceTransformersEmbedder(str(model), DIMENSION)
    finally:
        if root:
            os.seteuid(0)
        model.chmod(0o755)
    assert "the account that the engine runs as" in caught.value.hint


def test_a_name_is_found_in_the_cache_and_not_downloaded(tmp_path: Path, model: Path) -> None:
    # given a model in the hub's cache as a download leaves it
    cached = tmp_path / "hub/models--sentence-transformers--tiny"
    (cached / "refs").mkdir(parents=True)
    (cached / "refs/main").write_text("0" * 40)
    (cached / "snapshots").mkdir()
    model.rename(cached / "snapshots" / ("0" * 40))
    # then it is found by its short name and by its full one
    short = SentenceTransformersEmbedder("tiny", DIMENSION)
    full = SentenceTransformersEmbedder("sentence-transformers/tiny", DIMENSION)
    assert short.space == full.space
    # and one that is not there is an error that says how to get it
    with pytest.raises(NotReady, match="'other/tiny' is no absolute path, and no model") as caught:
        SentenceTransformersEmbedder("other/tiny", DIMENSION)
    assert "hf download other/tiny --local-dir DIR" in caught.value.hint


@pytest.mark.skipif(
    not {"TINYDANCER_MINILM", "TINYDANCER_MINILM_WEIGHTS"} <= os.environ.keys(),
    reason="set TINYDANCER_MINILM to a fetched model's directory, TINYDANCER_MINILM_WEIGHTS to its "
    "model.safetensors",
)
@pytest.mark.filterwarnings(
    "ignore:Importing from 'sentence_transformers.models':DeprecationWarning"
)
def test_minilm_by_the_package_has_the_vectors_of_the_accurate_tier() -> None:
    directory = Path(os.environ["TINYDANCER_MINILM_WEIGHTS"]).parent
    package = SentenceTransformersEmbedder(str(directory), 384)
    accurate = MiniLMEmbedder(Path(os.environ["TINYDANCER_MINILM"]))
    texts = [*TEXTS, "where is my card?", "漢字とかな 東京", "!?" * 300, "naïve café ＡＢＣ 👍"]
    np.testing.assert_allclose(package.embed(texts), accurate.embed(texts), atol=1e-6)
