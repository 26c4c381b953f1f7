"""Training rows: refused, merged, split."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinydancer.errors import InvalidInput
from tinydancer.neural.dataset import LabelledText, folds, prepare


def rows(*pairs: tuple[str, str]) -> list[LabelledText]:
    return [LabelledText(text, label) for text, label in pairs]


GOOD = rows(
    ("fix this bug", "code"), ("write a loop", "code"), ("a poem", "art"), ("a hymn", "art")
)


def test_labels_get_numbers_in_the_order_of_their_names() -> None:
    data = prepare(GOOD)
    assert data.names == ("art", "code")
    assert data.labels.tolist() == [1, 1, 0, 0]
    assert data.merged == 0


def test_capabilities_become_columns() -> None:
    extra = [
        LabelledText("solve it", "maths", ("reasoning",)),
        LabelledText("prove it", "maths", ("reasoning", "analysis")),
    ]
    data = prepare(GOOD + extra)
    assert data.capability_names == ("analysis", "reasoning")
    assert data.capabilities[-2:].tolist() == [[0, 1], [1, 1]]
    assert data.capabilities[:4].sum() == 0


def test_a_text_said_twice_is_merged_and_counted() -> None:
    data = prepare([*GOOD, LabelledText("  Fix THIS  bug", "code", ("debugging",))])
    assert len(data) == 4
    assert data.merged == 1
    assert data.capabilities[0].tolist() == [1]


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (rows((" \n", "code")), r"row 5 \(label 'code'\) has an empty text"),
        (rows(("hello", " ")), "row 5 has an empty label"),
        (
            rows(("FIX this bug", "art")),
            "1 texts have two labels, first 'code' in row 1 and 'art' in row 5",
        ),
        (rows(("hello", "chat")), "1 labels have fewer than 2 different texts, first 'chat'"),
        (
            rows(("hello", "chat"), ("Hello", "chat")),
            "1 labels have fewer than 2 different texts, first 'chat'",
        ),
    ],
    ids=["empty text", "empty label", "contradiction", "one row", "vanishes once merged"],
)
def test_rows_that_can_not_be_learned_from_are_refused(
    bad: list[LabelledText], message: str
) -> None:
    with pytest.raises(InvalidInput, match=message):
        prepare(GOOD + bad)


def test_one_label_is_refused() -> None:
    with pytest.raises(InvalidInput, match=r"the training rows have 1 labels \['code'\]"):
        prepare(GOOD[:2])
    with pytest.raises(InvalidInput, match="the training rows have 0 labels"):
        prepare([])


@given(
    sizes=st.lists(st.integers(2, 9), min_size=1, max_size=6),
    count=st.integers(2, 5),
    seed=st.integers(0, 99),
)
def test_no_label_vanishes_from_the_rest_of_a_fold(sizes: list[int], count: int, seed: int) -> None:
    labels = np.repeat(np.arange(len(sizes)), sizes)
    fold = folds(labels, count, seed)
    assert np.array_equal(fold, folds(labels, count, seed))
    for held in range(count):
        assert set(labels[fold != held]) == set(range(len(sizes)))
    spread = np.array([np.bincount(fold[labels == i], minlength=count) for i in set(labels)])
    assert (spread.max(axis=1) - spread.min(axis=1) <= 1).all()


def test_folds_of_a_label_with_one_row_are_refused() -> None:
    with pytest.raises(InvalidInput, match="label number 1 has one row"):
        folds(np.array([0, 0, 1]), 2, seed=0)
