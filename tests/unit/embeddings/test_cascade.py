"""The cascade: the quick encoder where it is sure, the accurate one where it is not."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from tinydancer.embeddings.base import Vectors
from tinydancer.embeddings.cascade import (
    CascadeEmbedder,
    embed_requests,
    margins_of,
    threshold_for_share,
)
from tinydancer.errors import InvalidInput


class Letters:
    """An encoder by the first letter: (1, 0) for a, (0, 1) for b, between them for others."""

    space = "letters"
    dimension = 2

    def __init__(self, model: str, other: tuple[float, float]) -> None:
        self.model = model
        self._vectors = {"a": (1.0, 0.0), "b": (0.0, 1.0)}
        self._other = other
        self.asked: list[str] = []

    def embed(self, texts: Sequence[str]) -> Vectors:
        self.asked += texts
        found = [self._vectors.get(text[:1], self._other) for text in texts]
        return np.array(found, dtype=np.float32).reshape(-1, 2)

    def count_tokens(self, texts: Sequence[str]) -> NDArray[np.int64]:
        return np.array([len(text) for text in texts], dtype=np.int64)


def margin(vectors: Vectors) -> NDArray[np.floating]:
    """How much nearer one of the two axes is than the other."""
    return np.abs(vectors[:, 0] - vectors[:, 1])


@pytest.fixture
def quick() -> Letters:
    return Letters("quick-v1", (0.8, 0.6))


@pytest.fixture
def accurate() -> Letters:
    return Letters("accurate-v1", (0.0, 1.0))


def test_only_requests_in_doubt_are_encoded_again(quick: Letters, accurate: Letters) -> None:
    # given a cascade that takes a margin under 0.5 for doubt
    cascade = CascadeEmbedder(quick, accurate, 0.5)
    # when a clear, a doubtful and a clear request come
    vectors, escalated = cascade.embed_with_margin(["apple", "cherry", "banana"], margin)
    # then the accurate encoder answers for the doubtful one alone
    assert accurate.asked == ["cherry"]
    assert escalated.tolist() == [False, True, False]
    np.testing.assert_allclose(vectors, [[1, 0], [0, 1], [0, 1]])
    assert (cascade.total, cascade.escalated) == (3, 1)


def test_a_request_is_answered_the_same_alone_and_in_a_batch(
    quick: Letters, accurate: Letters
) -> None:
    cascade = CascadeEmbedder(quick, accurate, 0.5)
    texts = ["apple", "cherry", "banana", "date"]
    alone = np.concatenate([cascade.embed_with_margin([t], margin).vectors for t in texts])
    np.testing.assert_array_equal(cascade.embed_with_margin(texts, margin).vectors, alone)


def test_a_threshold_of_0_never_escalates(quick: Letters, accurate: Letters) -> None:
    cascade = CascadeEmbedder(quick, accurate, 0)
    assert not cascade.embed_with_margin(["cherry"], margin).escalated.any()
    assert accurate.asked == []


def test_what_is_stored_is_encoded_by_the_accurate_one(quick: Letters, accurate: Letters) -> None:
    cascade = CascadeEmbedder(quick, accurate, 0.5)
    np.testing.assert_allclose(cascade.embed(["cherry"]), [[0, 1]])
    assert quick.asked == []
    assert (cascade.model, cascade.space, cascade.dimension) == ("accurate-v1", "letters", 2)
    assert cascade.count_tokens(["four"]).tolist() == [4]


def test_no_requests_are_no_work(quick: Letters, accurate: Letters) -> None:
    vectors, escalated = CascadeEmbedder(quick, accurate, 0.5).embed_with_margin([], margin)
    assert vectors.shape == (0, 2)
    assert escalated.shape == (0,)


@pytest.mark.parametrize("margins", [[0.1], [0.1, np.nan], [[0.1, 0.2]]])
def test_margins_that_are_not_one_number_a_request_are_refused(
    quick: Letters, accurate: Letters, margins: object
) -> None:
    cascade = CascadeEmbedder(quick, accurate, 0.5)
    with pytest.raises(InvalidInput, match="margins of 2 vectors"):
        cascade.embed_with_margin(["apple", "banana"], lambda _: np.array(margins))
    assert cascade.total == 0


def test_encoders_of_two_spaces_are_refused(quick: Letters, accurate: Letters) -> None:
    accurate.space = "other"
    with pytest.raises(InvalidInput, match="can't be compared"):
        CascadeEmbedder(quick, accurate, 0.5)


@pytest.mark.parametrize("threshold", [-0.1, float("nan")])
def test_a_threshold_that_is_none_is_refused(
    quick: Letters, accurate: Letters, threshold: float
) -> None:
    with pytest.raises(InvalidInput, match="threshold must be 0 or more"):
        CascadeEmbedder(quick, accurate, threshold)


def test_requests_go_through_a_cascade_and_straight_to_any_other_encoder(
    quick: Letters, accurate: Letters
) -> None:
    cascade = CascadeEmbedder(quick, accurate, 0.5)
    np.testing.assert_allclose(embed_requests(cascade, ["cherry"], margin), [[0, 1]])
    np.testing.assert_allclose(embed_requests(quick, ["cherry"], margin), [[0.8, 0.6]])
    assert (cascade.total, cascade.escalated) == (1, 1)


def test_a_margin_is_the_best_score_less_the_second() -> None:
    scores = np.array([[0.1, 0.9, 0.4], [0.5, 0.5, 0.0]])
    np.testing.assert_allclose(margins_of(scores), [0.5, 0.0])
    assert margins_of(scores[:, :1]).tolist() == [np.inf, np.inf]
    assert margins_of(scores[:, :0]).tolist() == [np.inf, np.inf]


@given(
    st.lists(st.floats(0, 1), min_size=1, max_size=50),
    st.floats(0, 1),
)
def test_the_threshold_for_a_share_escalates_no_more_than_it(
    margins: list[float], share: float
) -> None:
    threshold = threshold_for_share(np.array(margins), share)
    assert (np.array(margins) < threshold).sum() <= share * len(margins)


def test_the_threshold_for_a_share_escalates_that_share() -> None:
    margins = np.linspace(0, 1, 10)
    for share, expected in ((0, 0), (0.3, 3), (0.35, 3), (1, 10)):
        assert (margins < threshold_for_share(margins, share)).sum() == expected


@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan")])
def test_a_share_that_is_none_is_refused(share: float) -> None:
    with pytest.raises(InvalidInput, match="share to escalate"):
        threshold_for_share(np.ones(3), share)


def test_a_threshold_is_not_fitted_on_nothing() -> None:
    with pytest.raises(InvalidInput, match="needs margins"):
        threshold_for_share(np.empty(0), 0.3)
