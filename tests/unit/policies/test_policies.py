import numpy as np
import pytest

from tinydancer.policies import POLICIES, weighted
from tinydancer.policies.estimates import Estimates, Weights, scaled, scaled_savings
from tinydancer_fdw.contract import OBJECTIVES


def known(cost: list[float], quality: list[float], latency: list[float] | None = None) -> Estimates:
    found = np.array(quality)
    return Estimates(
        cost=np.array([cost]),
        latency_ms=np.array(latency or [100.0] * len(cost)),
        quality=found,
        confidence=found,
        fit=np.full((1, len(cost)), 0.5),
    )


def best(objective: str, estimates: Estimates) -> int:
    return int(POLICIES[objective].key(estimates, None).argmax())


def test_there_is_a_policy_for_every_objective_of_the_contract() -> None:
    assert tuple(POLICIES) == OBJECTIVES


def test_pure_policies_look_at_their_objective_only() -> None:
    estimates = known([3.0, 1.0, 2.0], [0.9, 0.1, 0.5], [20.0, 30.0, 10.0])
    assert best("cost", estimates) == 1
    assert best("total_cost", estimates) == 1
    assert best("quality", estimates) == 0
    assert best("latency", estimates) == 2


def test_a_pure_policy_tells_apart_what_a_scale_would_blur() -> None:
    assert best("cost", known([1e9, 2e-9, 1e-9], [0.5, 0.5, 0.5])) == 2


def test_quality_per_dollar_is_quality_over_cost() -> None:
    # 0.9 / 0.03 = 30, 0.8 / 0.02 = 40
    assert best("quality_per_dollar", known([0.03, 0.02], [0.9, 0.8])) == 1


def test_free_agents_go_first_in_quality_per_dollar_and_the_best_of_them_wins() -> None:
    estimates = known([0.000001, 0.0, 0.0], [1.0, 0.3, 0.6])
    assert best("quality_per_dollar", estimates) == 2
    score = POLICIES["quality_per_dollar"].score(estimates, None)
    assert np.isfinite(score).all()
    assert score.max() == 1.0


def test_a_blend_weighs_each_objective_by_its_share_of_the_range() -> None:
    estimates = known([0.0, 10.0], [0.2, 0.7], [100.0, 300.0])
    half = weighted("half", Weights(cost=0.5, quality=0.5)).key(estimates, None)
    assert half.tolist() == [[0.5, 0.5]]
    quality = weighted("more quality", Weights(cost=0.4, quality=0.6)).key(estimates, None)
    assert quality.tolist() == [[0.4, 0.6]]


def test_a_blend_is_scaled_over_the_candidates_only() -> None:
    estimates = known([1.0, 2.0, 1000.0], [0.5, 0.6, 0.9])
    candidates = np.array([True, True, False])
    alone = POLICIES["balanced"].key(known([1.0, 2.0], [0.5, 0.6]), None)
    among = POLICIES["balanced"].key(estimates, candidates)
    assert among[:, :2].tolist() == alone.tolist()


def test_a_difference_of_noise_is_not_blown_up_to_the_whole_range() -> None:
    # A spread of 0.01 in quality counts a tenth of one of 0.1 or more.
    assert scaled(np.array([0.90, 0.91]), 0.1, None).tolist() == pytest.approx([0.9, 1.0])
    assert scaled(np.array([0.50, 0.90]), 0.1, None).tolist() == pytest.approx([0.0, 1.0])
    # A factor of 1.01 counts ln 1.01 / ln 2 of a factor of 2 or more.
    found = scaled_savings(np.array([1.00, 1.01]), None)
    assert found.tolist() == pytest.approx([1.0, 1 - np.log(1.01) / np.log(2)])


def test_factors_in_cost_count_alike_wherever_they_stand() -> None:
    found = scaled_savings(np.array([0.001, 0.01, 0.1, 1.0]), None)
    assert found.tolist() == pytest.approx([1.0, 2 / 3, 1 / 3, 0.0])


def test_what_is_free_counts_as_a_tenth_of_the_least_price() -> None:
    found = scaled_savings(np.array([0.0, 0.01, 1.0]), None)
    assert found.tolist() == pytest.approx([1.0, 2 / 3, 0.0])


def test_an_agent_far_dearer_than_all_does_not_make_the_others_alike() -> None:
    # Two models and a person: on a linear scale the models would be a thousandth apart.
    cheap, dear, person = scaled_savings(np.array([0.0002, 0.03, 12.0]), None).tolist()
    assert cheap - dear > 0.4
    assert dear - person > 0.4


def test_where_everything_is_free_everyone_is_the_cheapest() -> None:
    assert POLICIES["cost"].score(known([0.0, 0.0], [0.5, 0.6]), None).tolist() == [[1.0, 1.0]]


def test_the_weights_of_a_blend_add_up_to_one() -> None:
    assert sum(POLICIES["balanced"].weights) == pytest.approx(1.0)
