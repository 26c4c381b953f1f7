"""The default model: its data, its file, and what it says out of the box."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tinydancer.embeddings.static import StaticEmbedder
from tinydancer.errors import InvalidInput, NotFound, NotReady
from tinydancer.evaluation import requests
from tinydancer.neural import default_model
from tinydancer.neural.default_data import ALWAYS, PARTS, TEMPLATES, outside, public, written
from tinydancer.neural.default_model import BUILTIN_MODEL, build, builtin

LARGEST = 1 << 20


def normal(text: str) -> str:
    return " ".join(re.findall(r"\w+", text.casefold()))


def test_every_category_has_many_templates_and_every_slot_is_filled() -> None:
    about = json.loads(TEMPLATES.read_text("utf-8"))
    used = set()
    for category, kinds in about["categories"].items():
        templates = [t for kind in kinds for t in kind["templates"]]
        assert len(templates) >= 35, category
        assert len(set(templates)) == len(templates), category
        used |= {name for t in templates for name in re.findall(r"\{(\w+)\}", t)}
    assert used == set(about["slots"])


def test_rows_are_the_same_each_time_and_spread_over_the_parts() -> None:
    rows = written()
    assert rows == written()
    assert len(rows) > 3000
    for label in {each.row.label for each in rows}:
        assert {each.part for each in rows if each.row.label == label} == {ALWAYS, *range(PARTS)}


def test_strings_that_ask_for_nothing_are_none_of_the_requests() -> None:
    strange = outside()
    assert len(strange) == len(set(strange)) == 600
    asked = {normal(each.row.text) for each in written()}
    assert not asked & {normal(text) for text in strange if normal(text)}


def test_no_hand_written_request_is_in_the_training_rows() -> None:
    taught = {normal(each.row.text) for each in written()} | {normal(t) for t in outside()}
    given = json.loads(requests.REQUESTS.read_text("utf-8"))
    assert len(given) > 100
    assert not taught & {normal(row["text"]) for row in given if normal(row["text"])}


def test_hand_written_labels_are_categories_of_the_model() -> None:
    given = json.loads(requests.REQUESTS.read_text("utf-8"))
    assert {row["label"] for row in given} - {""} == set(builtin().names)
    assert {c for row in given for c in row["capabilities"]} <= set(builtin().capability_names)


def test_public_rows_need_their_files(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"there is no .*clinc150/train\.jsonl\.gz"):
        public(tmp_path)


def test_embedders_of_two_spaces_can_not_share_a_model(tmp_path: Path) -> None:
    class Other(StaticEmbedder):
        space = "another"

    with pytest.raises(InvalidInput, match="the embedders have the spaces"):
        build([StaticEmbedder.builtin(), Other.builtin()], tmp_path)


def test_the_file_is_small_and_of_the_static_tables_space() -> None:
    assert BUILTIN_MODEL.stat().st_size < LARGEST
    static = StaticEmbedder.builtin()
    assert (builtin().space, builtin().dimension) == (static.space, static.dimension)


@pytest.mark.parametrize(
    ("text", "category", "capability"),
    [
        ("Write a Python function to calculate Fibonacci numbers", "code", "code"),
        ("Summarize this article", "summarization", "summarization"),
        ("How do I reset my password?", "support", "support"),
        ("Translate 'good evening' into Portuguese", "translation", "translation"),
        ("Solve 4x - 7 = 21", "mathematics", "mathematics"),
        ("hello there", "conversation", "conversation"),
    ],
)
def test_plain_requests_are_known_out_of_the_box(text: str, category: str, capability: str) -> None:
    answer = builtin().classify(StaticEmbedder.builtin().embed([text]), [text])[0]
    assert answer.top_category == category
    assert not answer.out_of_scope
    assert capability in [name for name, _ in answer.capabilities]


@pytest.mark.parametrize("text", ["xkqj vbbw zzpf", "%$#@ &&", "e3b0c44298fc1c149afbf4c8996fb924"])
def test_where_it_does_not_know_it_says_so(text: str) -> None:
    answer = builtin().classify(StaticEmbedder.builtin().embed([text]), [text])[0]
    assert answer.out_of_scope


def test_on_hand_written_requests_it_is_as_good_as_the_card_says() -> None:
    results = requests.run({"static": StaticEmbedder.builtin()})
    found = {r.metric: r.value for r in results if r.head == "fastgrnn+words"}
    assert found["accuracy"] > 62
    assert found["top 3"] > 84
    assert found["accuracy at 0.8"] > 78
    assert found["auroc"] > 82


def test_a_missing_or_damaged_file_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    builtin.cache_clear()
    try:
        monkeypatch.setattr(default_model, "BUILTIN_MODEL", tmp_path / "none.safetensors")
        with pytest.raises(NotReady, match="the default model can't be read"):
            builtin()
        (tmp_path / "none.safetensors").write_bytes(BUILTIN_MODEL.read_bytes()[:1000])
        with pytest.raises(NotReady, match="truncated, damaged or of another kind"):
            builtin()
    finally:
        builtin.cache_clear()
