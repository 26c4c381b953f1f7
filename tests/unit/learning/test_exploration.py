"""Exploration: the recorded probability is the one that was acted on."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinydancer.errors import InvalidInput, NumberOutOfRange
from tinydancer.learning.exploration import epsilon_greedy, greedy, seed_of, thompson

utilities = st.lists(st.floats(-10, 10), min_size=1, max_size=20).map(np.array)


def test_greedy_takes_the_best_for_certain() -> None:
    choice = greedy(np.array([0.1, 0.7, 0.7]))
    assert (choice.agent, choice.propensity) == (1, 1.0)


@given(utilities, st.floats(0, 1), st.integers(0, 2**63))
def test_epsilon_records_probabilities_that_add_up(
    values: np.ndarray, epsilon: float, seed: int
) -> None:
    choice = epsilon_greedy(values, epsilon, seed)
    assert choice.probabilities.sum() == pytest.approx(1)
    assert choice.propensity > 0
    assert choice.probabilities[np.argmax(values)] == pytest.approx(
        1 - epsilon + epsilon / len(values)
    )


def test_epsilon_explores_as_often_as_it_says() -> None:
    values = np.array([0.2, 0.9, 0.4])
    chosen = [epsilon_greedy(values, 0.3, seed_of(1, str(i))).agent for i in range(6000)]
    shares = np.bincount(chosen, minlength=3) / 6000
    assert np.allclose(shares, [0.1, 0.8, 0.1], atol=0.02)


def test_thompson_records_the_chance_of_being_best() -> None:
    rng = np.random.default_rng(0)
    alpha, beta = np.array([8.0, 3.0, 1.2]), np.array([4.0, 2.0, 1.5])
    penalties = np.array([0.2, 0.05, 0.0])
    draws = rng.beta(alpha, beta, (200_000, 3)) - penalties
    expected = np.bincount(draws.argmax(axis=1), minlength=3) / 200_000
    found = thompson(alpha, beta, penalties, seed=1).probabilities
    assert np.allclose(found, expected, atol=0.005)


def test_thompson_narrows_down_as_evidence_comes() -> None:
    little = thompson(np.array([4.0, 6.0]), np.array([6.0, 4.0]), np.zeros(2), 1)
    much = thompson(np.array([400.0, 600.0]), np.array([600.0, 400.0]), np.zeros(2), 1)
    assert 0.6 < little.probabilities[1] < 0.95
    assert much.probabilities[1] > 0.999


def test_cost_inside_the_reward_moves_the_choice() -> None:
    even = np.array([50.0, 50.0])
    dear = thompson(even, even, np.array([0.3, 0.0]), 1)
    assert dear.probabilities[1] > 0.99


@given(
    st.lists(st.tuples(st.floats(0.1, 500), st.floats(0.1, 500), st.floats(0, 2)), min_size=1),
    st.integers(0, 2**63),
)
def test_thompson_is_a_distribution_and_deterministic(
    agents: list[tuple[float, float, float]], seed: int
) -> None:
    alpha, beta, penalties = (np.array(column) for column in zip(*agents, strict=True))
    first, second = (thompson(alpha, beta, penalties, seed) for _ in range(2))
    assert first.probabilities.sum() == pytest.approx(1)
    assert (first.probabilities >= 0).all()
    assert first.propensity > 0
    assert first.agent == second.agent


def test_a_decision_has_a_seed_of_its_own_that_needs_the_secret() -> None:
    assert seed_of(1, "a") == seed_of(1, "a")
    assert len({seed_of(1, "a"), seed_of(1, "b"), seed_of(2, "a")}) == 3


def test_what_is_no_choice_is_refused() -> None:
    with pytest.raises(InvalidInput, match="no agent"):
        greedy(np.array([]))
    with pytest.raises(NumberOutOfRange, match="epsilon"):
        epsilon_greedy(np.ones(2), 1.5, 0)
    with pytest.raises(NumberOutOfRange, match="not finite"):
        greedy(np.array([1.0, np.nan]))
    with pytest.raises(NumberOutOfRange, match="Beta"):
        thompson(np.array([0.0]), np.array([1.0]), np.zeros(1), 0)
