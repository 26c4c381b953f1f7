"""The linear model over words."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinydancer.errors import InvalidInput
from tinydancer.neural.lexical import (
    MOST_WORDS,
    LexicalModel,
    LexicalOptions,
    features,
    train_lexical,
)

TEXTS = [
    "Where is my card?",
    "The card has not arrived",
    "Has my card been sent",
    "What is the exchange rate",
    "Which rate do I get",
    "Is your exchange rate good",
]
LABELS = np.array([0, 0, 0, 1, 1, 1])


@pytest.fixture(scope="module")
def model() -> LexicalModel:
    return train_lexical(TEXTS, LABELS, 2, LexicalOptions())


def test_features_are_words_and_pairs_with_both_ends() -> None:
    assert features("My CARD?") == ["my", "card", "?", " my", "my card", "card ?", "? "]
    assert features(" \n") == []


def test_scripts_without_spaces_are_cut_into_characters() -> None:
    assert features("猫犬")[:2] == ["猫", "犬"]


def test_the_words_decide(model: LexicalModel) -> None:
    logits = model.logits(["my card please", "the best exchange rate"])
    assert logits.argmax(axis=1).tolist() == [0, 1]


def test_order_of_words_is_seen_in_pairs() -> None:
    texts = ["dog bites man", "man bites dog"] * 5
    model = train_lexical(texts, np.array([0, 1] * 5), 2, LexicalOptions(batch=2))
    assert model.logits(texts[:2]).argmax(axis=1).tolist() == [0, 1]


def test_unknown_words_leave_the_offsets(model: LexicalModel) -> None:
    assert np.array_equal(model.logits(["zzz qqq", ""]), [model.parameters["d"]] * 2)


@given(texts=st.lists(st.text(max_size=40), max_size=6))
def test_any_text_gets_finite_logits_that_do_not_depend_on_its_neighbours(
    texts: list[str], model: LexicalModel
) -> None:
    texts = [*texts, TEXTS[0]]
    together = model.logits(texts)
    assert np.isfinite(together).all()
    assert np.allclose(together, np.concatenate([model.logits([t]) for t in texts]), atol=1e-6)


def test_rows_have_unit_length(model: LexicalModel) -> None:
    rows = model.rows(TEXTS)
    sums = np.add.reduceat(rows.values**2, rows.starts)
    assert np.allclose(sums, 1, atol=1e-5)


def test_logits_are_the_sparse_rows_times_the_matrix(model: LexicalModel) -> None:
    rows = model.rows(TEXTS)
    dense = np.zeros((len(TEXTS), len(model.names)))
    np.add.at(dense, (np.repeat(np.arange(len(TEXTS)), rows.lengths), rows.columns), rows.values)
    expected = dense @ model.parameters["L"] + model.parameters["d"]
    assert np.allclose(model.logits(TEXTS), expected, atol=1e-5)


def test_a_very_long_text_is_cut(model: LexicalModel) -> None:
    assert len(features("card " * 100_000)) == 2 * MOST_WORDS + 1


def test_training_again_gives_the_same_model(model: LexicalModel) -> None:
    again = train_lexical(TEXTS, LABELS, 2, LexicalOptions())
    assert np.array_equal(again.parameters["L"], model.parameters["L"])


def test_texts_without_a_word_are_refused() -> None:
    with pytest.raises(InvalidInput, match="no training text has a word in it"):
        train_lexical([" ", "\n"], np.array([0, 1]), 2, LexicalOptions())


def test_a_model_whose_parts_do_not_fit_is_refused(model: LexicalModel) -> None:
    with pytest.raises(InvalidInput, match="parameter L of the lexical model"):
        LexicalModel(model.names[:-1], {**model.parameters, "idf": model.parameters["idf"][:-1]})


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.text("ab C?\n猫", max_size=8), max_size=6),
    st.lists(st.text("ab C?\n猫", max_size=8), min_size=1, max_size=6),
)
def test_rows_have_the_known_features_of_each_text(texts: list[str], trained_on: list[str]) -> None:
    names = tuple(sorted({name for text in trained_on for name in features(text)}))
    ones = np.ones(len(names), np.float32)
    parameters = {"idf": ones, "L": np.eye(len(names), dtype=np.float32), "d": 0 * ones}
    rows = LexicalModel(names, parameters).rows(texts)
    assert len(rows) == len(texts)
    for text, start, length in zip(texts, rows.starts, rows.lengths, strict=True):
        found = [names[column] for column in rows.columns[start : start + length]]
        assert found == [name for name in features(text) if name in names]
    counts = np.array([[features(t).count(name) for name in names] for t in texts], np.float32)
    counts = counts.reshape(len(texts), len(names))
    expected = counts / np.maximum(np.sqrt(counts.sum(axis=1, keepdims=True)), 1)
    np.testing.assert_allclose(
        rows.dot(np.eye(len(names), dtype=np.float32)),
        expected,
        atol=1e-6,
    )
