"""The measures of routing, against figures worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinydancer.evaluation import routing_metrics as metrics

WEAK = np.array([1.0, 0.0, 0.0, 1.0])
STRONG = np.array([1.0, 1.0, 1.0, 1.0])


def test_the_perfect_order_recovers_the_gap_with_the_fewest_strong_calls() -> None:
    curve = metrics.strong_call_curve(STRONG - WEAK, WEAK, STRONG)
    # Half the calls recover all of it: a ramp to 1 at 50%, then flat. Area 1/4 + 1/2.
    assert metrics.average_gap_recovered(curve) == pytest.approx(0.75)
    assert metrics.call_performance_threshold(curve, 0.5) == pytest.approx(25)
    assert metrics.call_performance_threshold(curve, 0.8) == pytest.approx(40)


def test_the_worst_order_has_the_mirrored_area() -> None:
    curve = metrics.strong_call_curve(WEAK - STRONG, WEAK, STRONG)
    assert metrics.average_gap_recovered(curve) == pytest.approx(0.25)


def test_equal_preferences_are_the_diagonal_whatever_the_order_of_rows() -> None:
    for order in ([0, 1, 2, 3], [3, 2, 1, 0]):
        curve = metrics.strong_call_curve(np.zeros(4), WEAK[order], STRONG[order])
        assert metrics.average_gap_recovered(curve) == pytest.approx(0.5)


def test_without_a_gap_nothing_is_defined() -> None:
    curve = metrics.strong_call_curve(np.arange(4.0), STRONG, STRONG)
    assert metrics.average_gap_recovered(curve) is None
    assert metrics.call_performance_threshold(curve, 0.5) is None


def test_the_hull_leaves_out_what_is_dominated() -> None:
    points = np.array([[0, 0.2], [1, 0.3], [2, 0.8], [3, 0.7], [4, 0.9], [2, 0.5]])
    curve = metrics.hull(points)
    assert curve.x.tolist() == [0, 2, 4]
    assert curve.y.tolist() == [0.2, 0.8, 0.9]


def test_aiq_is_flat_after_the_last_point() -> None:
    curve = metrics.hull(np.array([[0.0, 0.0], [1.0, 1.0]]))
    assert metrics.average_improvement(curve, 0.0, 2.0) == pytest.approx(0.75)


def test_a_higher_price_never_buys_a_dearer_model() -> None:
    rng = np.random.default_rng(3)
    estimates, costs = rng.random((50, 4)), np.array([0.1, 0.5, 1.0, 3.0])
    spent = [
        costs[metrics.priced_choices(estimates, costs, price)].sum()
        for price in (0, 0.1, 0.5, 2, 9)
    ]
    assert spent == sorted(spent, reverse=True)


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1), st.floats(-5, 5)), min_size=2))
def test_a_curve_starts_at_weak_and_ends_at_strong(rows: list[tuple[float, float, float]]) -> None:
    weak, strong, preference = (np.array(column) for column in zip(*rows, strict=True))
    curve = metrics.strong_call_curve(preference, weak, strong)
    assert curve.x[0] == 0
    assert curve.x[-1] == 1
    assert curve.y[0] == pytest.approx(weak.mean())
    assert curve.y[-1] == pytest.approx(strong.mean())
    assert (np.diff(curve.x) > 0).all()
