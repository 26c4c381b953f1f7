"""The evaluation of intents on a small data set with the real static table."""

from __future__ import annotations

import gzip
import json
import random
from pathlib import Path

import numpy as np
import pytest

from tinydancer.embeddings.static import StaticEmbedder
from tinydancer.errors import InvalidInput, NotFound
from tinydancer.evaluation.baselines import centroids, logistic_regression, nearest_neighbours
from tinydancer.evaluation.intents import Result, few_shot, readable, run

ASKED = {
    "card_arrival": ("when will my {} card arrive", "my {} card is not here yet"),
    "exchange_rate": ("what is the rate for {} euros", "how many euros do I get for {}"),
    "lost_phone": ("I lost my {} phone", "somebody took my {} phone"),
}
FILLS = ["new", "old", "first", "second", "blue", "gold", "spare", "credit", "gift", "black",
         "white", "green"]  # fmt: skip


def write(path: Path, rows: list[dict[str, str]]) -> None:
    with gzip.open(path, "wt", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "small"
    folder.mkdir()
    rows = [
        {"text": text.format(fill), "label": label}
        for label, texts in ASKED.items()
        for text in texts
        for fill in FILLS
    ]
    random.Random(3).shuffle(rows)
    write(folder / "train.jsonl.gz", rows[:48])
    write(folder / "valid.jsonl.gz", rows[48:60])
    write(folder / "test.jsonl.gz", rows[60:])
    strange = [{"text": f"paint the {fill} fence", "label": "oos"} for fill in FILLS]
    write(folder / "oos_valid.jsonl.gz", strange[:6])
    write(folder / "oos_test.jsonl.gz", strange[6:])
    return folder.parent


@pytest.fixture(scope="module")
def results(data: Path) -> list[Result]:
    static = StaticEmbedder.builtin()
    return run(data, {"static": static, "minilm": static})


def values(results: list[Result], **wanted: str) -> list[float]:
    return [r.value for r in results if all(getattr(r, k) == v for k, v in wanted.items())]


def test_every_setting_has_the_network_and_what_it_is_held_against(results: list[Result]) -> None:
    for setting in ("full", "10-shot"):
        for head in ("centroid", "knn-10", "logistic", "words", "fastgrnn", "fastgrnn+words"):
            found = values(results, setting=setting, tier="static", head=head, metric="accuracy")
            assert len(found) == 1, head
            assert found[0] > 60, head


def test_out_of_scope_is_measured_where_the_data_set_has_it(results: list[Result]) -> None:
    assert values(results, setting="full", tier="static", metric="auroc")[0] > 90
    assert not values(results, setting="10-shot", metric="auroc")


def test_a_cascade_of_one_tier_with_itself_changes_nothing(results: list[Result]) -> None:
    alone = values(results, setting="full", tier="minilm", head="fastgrnn+words", metric="accuracy")
    assert values(results, setting="full", tier="cascade", metric="accuracy") == alone
    assert 0 <= values(results, setting="full", tier="cascade", metric="escalated")[0] <= 100


def test_a_directory_without_data_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="there is no data set under"):
        run(tmp_path, {})


def test_a_damaged_file_is_named_with_its_row(data: Path, tmp_path: Path) -> None:
    folder = tmp_path / "broken"
    folder.mkdir()
    with gzip.open(folder / "train.jsonl.gz", "wt") as file:
        file.write('{"text": "a", "label": "b"}\n{"text": ')
    with pytest.raises(InvalidInput, match=r"train\.jsonl\.gz', row 2"):
        run(tmp_path, {})


def test_a_test_label_that_train_lacks_is_refused(data: Path, tmp_path: Path) -> None:
    folder = tmp_path / "odd"
    folder.mkdir()
    for name in ("train", "test"):
        (folder / f"{name}.jsonl.gz").write_bytes(
            (data / "small" / f"{name}.jsonl.gz").read_bytes()
        )
    write(folder / "valid.jsonl.gz", [{"text": "x", "label": "unheard"}])
    with pytest.raises(InvalidInput, match="has labels that train lacks: \\['unheard'\\]"):
        run(tmp_path, {"static": StaticEmbedder.builtin()})


def test_few_shot_rows_are_the_first_of_the_published_shuffle() -> None:
    labels = [f"l{i % 3}" for i in range(30)]
    order = list(range(30))
    random.Random(0).shuffle(order)
    expected = [
        i for n, i in enumerate(order) if sum(labels[j] == labels[i] for j in order[:n]) < 4
    ]
    assert few_shot(labels, 4) == expected
    assert len(expected) == 12


def test_a_label_reads_as_words() -> None:
    assert readable("card_arrival") == "card arrival"
    assert readable("reverted_card_payment?") == "reverted card payment"
    assert readable("?") == "?"


def test_the_baselines_know_separate_clusters() -> None:
    rng = np.random.default_rng(0)
    centres = np.eye(4, 16)
    labels = np.arange(80) % 4
    vectors = (centres[labels] + 0.2 * rng.normal(size=(80, 16))).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    known, asked = vectors[:60], vectors[60:]
    for found in (
        centroids(known, labels[:60], asked),
        nearest_neighbours(known, labels[:60], asked, 5),
        logistic_regression(known, labels[:60], asked, 4, 10.0),
    ):
        assert np.mean(found == labels[60:]) > 0.9
