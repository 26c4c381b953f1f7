"""Exploration: the recorded probability is the one that was acted on."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinydancer.errors import InvalidInput, NumberOutOfRange
from tinydancer.learning.exploration import (
    Beliefs,
    draw,
    epsilon_greedy,
    greedy,
    seed_of,
    thompson,
    thompson_for_money,
)

utilities = st.lists(st.floats(-10, 10), min_size=1, max_size=20).map(np.array)
THREE = Beliefs(np.array([8.0, 3.0, 1.2]), np.array([4.0, 2.0, 1.5]))


def test_greedy_takes_the_best_for_certain() -> None:
    assert greedy(np.array([0.1, 0.7, 0.7])).tolist() == [0, 1, 0]


@given(utilities, st.floats(0, 1), st.integers(0, 2**63))
def test_epsilon_has_probabilities_that_add_up(
    values: np.ndarray, epsilon: float, seed: int
) -> None:
    probabilities = epsilon_greedy(values, epsilon)
    assert probabilities.sum() == pytest.approx(1)
    assert probabilities[draw(probabilities, seed)] > 0
    assert probabilities[np.argmax(values)] == pytest.approx(1 - epsilon + epsilon / len(values))


def test_dice_fall_as_often_as_the_probabilities_say() -> None:
    probabilities = epsilon_greedy(np.array([0.2, 0.9, 0.4]), 0.3)
    chosen = [draw(probabilities, seed_of(1, str(i))) for i in range(6000)]
    shares = np.bincount(chosen, minlength=3) / 6000
    assert np.allclose(shares, [0.1, 0.8, 0.1], atol=0.02)


def sampled(worth: np.ndarray) -> np.ndarray:
    return np.bincount(worth.argmax(axis=1), minlength=worth.shape[1]) / len(worth)


@pytest.mark.parametrize("weight", [0.3, 1.0, 5.0])
def test_thompson_is_the_chance_of_being_best(weight: float) -> None:
    penalties = np.array([0.2, 0.05, 0.0])
    draws = np.random.default_rng(0).beta(THREE.alpha, THREE.beta, (200_000, 3))
    expected = sampled(weight * draws - penalties)
    assert np.allclose(thompson(THREE, penalties, weight), expected, atol=0.005)


def test_thompson_for_money_is_the_chance_of_giving_most_for_it() -> None:
    costs = np.array([3.0, 2.0, 1.5])
    draws = np.random.default_rng(0).beta(THREE.alpha, THREE.beta, (200_000, 3))
    assert np.allclose(thompson_for_money(THREE, costs), sampled(draws / costs), atol=0.005)
    free = thompson_for_money(THREE, np.array([3.0, 2.0, 1e-12]))
    assert free.tolist() == pytest.approx([0, 0, 1])


def test_thompson_narrows_down_as_evidence_comes() -> None:
    little = thompson(Beliefs(np.array([4.0, 6.0]), np.array([6.0, 4.0])), np.zeros(2))
    much = thompson(Beliefs(np.array([400.0, 600.0]), np.array([600.0, 400.0])), np.zeros(2))
    assert 0.6 < little[1] < 0.95
    assert much[1] > 0.999


def test_cost_inside_the_reward_moves_the_choice() -> None:
    even = np.array([50.0, 50.0])
    assert thompson(Beliefs(even, even), np.array([0.3, 0.0]))[1] > 0.99


@given(
    st.lists(
        st.tuples(st.floats(0.1, 1e7), st.floats(0.1, 1e7), st.floats(0, 2), st.floats(1e-12, 9)),
        min_size=1,
    ),
    st.integers(0, 2**63),
)
def test_thompson_is_a_distribution(
    agents: list[tuple[float, float, float, float]], seed: int
) -> None:
    alpha, beta, penalties, costs = (np.array(column) for column in zip(*agents, strict=True))
    beliefs = Beliefs(alpha, beta)
    for found in (thompson(beliefs, penalties), thompson_for_money(beliefs, costs)):
        assert found.sum() == pytest.approx(1)
        assert (found >= 0).all()
        assert found[draw(found, seed)] > 0


def test_a_decision_has_a_seed_of_its_own_that_needs_the_secret() -> None:
    assert seed_of(1, "a") == seed_of(1, "a")
    assert len({seed_of(1, "a"), seed_of(1, "b"), seed_of(2, "a")}) == 3


def test_what_is_no_choice_is_refused() -> None:
    with pytest.raises(InvalidInput, match="no agent"):
        greedy(np.array([]))
    with pytest.raises(NumberOutOfRange, match="epsilon"):
        epsilon_greedy(np.ones(2), 1.5)
    with pytest.raises(NumberOutOfRange, match="not finite"):
        greedy(np.array([1.0, np.nan]))
    with pytest.raises(NumberOutOfRange, match="Beta"):
        Beliefs(np.array([0.0]), np.array([1.0]))
