"""Dense and lexical rankings made into one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinydancer.neural.fusion import reciprocal_rank_fusion


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
