"""Dense and lexical rankings made into one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinydancer.errors import InvalidInput, NumberOutOfRange
from tinydancer.neural.fusion import Judged, fit_weight, reciprocal_rank_fusion, weighted_fusion


def test_first_in_every_ranking_is_one() -> None:
    assert reciprocal_rank_fusion([["a", "b"], ["a", "c"]])[0] == ("a", 1.0)


def test_agreement_beats_one_first_place() -> None:
    fused = reciprocal_rank_fusion([["a", "b", "c"], ["d", "b", "c"]])
    assert fused[0][0] == "b"
    assert fused[0][1] == pytest.approx((2 / 62) / (2 / 61))


def test_ties_go_by_name() -> None:
    assert [name for name, _ in reciprocal_rank_fusion([["b", "a"], ["a", "b"]])] == ["a", "b"]


def test_a_weight_of_zero_silences_a_ranking() -> None:
    assert reciprocal_rank_fusion([["a", "b"], ["b", "a"]], [1, 0])[0][0] == "a"


@given(st.lists(st.permutations("abcde"), min_size=1, max_size=4))
def test_fused_scores_stay_in_range_and_in_order(rankings: list[list[str]]) -> None:
    scores = [score for _, score in reciprocal_rank_fusion(rankings)]
    assert scores == sorted(scores, reverse=True)
    assert all(0 < score <= 1 + 1e-12 for score in scores)


def test_the_weight_moves_between_dense_and_lexical() -> None:
    dense, lexical = {"a": 0.9, "b": 0.5}, {"b": 0.06, "c": 0.03}
    assert weighted_fusion(dense, lexical, 0.0)[0] == ("a", 0.9)
    assert weighted_fusion(dense, lexical, 1.0)[0] == ("b", 1.0)
    assert weighted_fusion(dense, lexical, 0.5)[0] == ("b", 0.75)


def test_without_a_lexical_match_dense_decides() -> None:
    assert weighted_fusion({"a": 0.4, "b": 0.6}, {}, 0.3)[0] == ("b", pytest.approx(0.42))


def test_a_fitted_weight_is_no_worse_than_either_side() -> None:
    queries = [
        Judged({"a": 0.6, "b": 0.5}, {"b": 0.1}, "b"),
        Judged({"a": 0.9, "b": 0.1}, {"b": 0.01}, "a"),
        Judged({"a": 0.7, "b": 0.2}, {}, "a"),
    ]
    fitted = fit_weight(queries)
    assert fitted.mean_reciprocal_rank == 1.0
    assert fitted.mean_reciprocal_rank > max(fitted.dense_only, fitted.lexical_only)
    assert fitted.queries == 3


def test_bad_weights_are_refused() -> None:
    with pytest.raises(InvalidInput, match="1 weights were given for 2 rankings"):
        reciprocal_rank_fusion([["a"], ["b"]], [1.0])
    with pytest.raises(NumberOutOfRange, match="weights are"):
        reciprocal_rank_fusion([["a"]], [0.0])
    with pytest.raises(NumberOutOfRange, match="not in 0 to 1"):
        weighted_fusion({}, {}, 1.5)
    with pytest.raises(NumberOutOfRange, match="the score of 'a' is nan"):
        weighted_fusion({"a": float("nan")}, {}, 0.5)
    with pytest.raises(InvalidInput, match="no query"):
        fit_weight([])
    with pytest.raises(InvalidInput, match="a name twice"):
        reciprocal_rank_fusion([["a", "a"]])
