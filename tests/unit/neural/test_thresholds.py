"""A route's threshold from similarities, and the evidence that goes with it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinydancer.errors import InvalidInput, NumberOutOfRange
from tinydancer.neural.thresholds import Costs, fit_threshold

COSINES = st.floats(-1, 1, allow_nan=False, width=32)
SOME = st.lists(COSINES, min_size=1, max_size=12)


def test_a_clean_gap_is_cut_in_the_middle() -> None:
    fitted = fit_threshold([0.7, 0.8, 0.9], [0.1, 0.3])
    assert fitted.threshold == pytest.approx(0.5)
    assert (fitted.precision, fitted.recall, fitted.f1) == (1.0, 1.0, 1.0)
    assert (fitted.positives, fitted.negatives, fitted.cost) == (3, 2, None)


def test_overlap_is_settled_by_f1() -> None:
    fitted = fit_threshold([0.4, 0.6, 0.8, 0.9], [0.1, 0.5, 0.2])
    # All four and one wrong: F1 = 8/9; three and none wrong: 6/7.
    assert 0.2 < fitted.threshold < 0.4
    assert fitted.f1 == pytest.approx(8 / 9)
    assert fitted.precision == pytest.approx(4 / 5)


def test_a_dear_wrong_match_raises_the_threshold() -> None:
    positives, negatives = [0.4, 0.6, 0.8, 0.9], [0.1, 0.5, 0.2]
    strict = fit_threshold(positives, negatives, Costs(wrong_match=10, missed_match=1))
    lax = fit_threshold(positives, negatives, Costs(wrong_match=1, missed_match=10))
    assert strict.threshold == pytest.approx(0.55)
    assert strict.cost == 1
    assert lax.threshold == pytest.approx(0.3)
    assert lax.cost == 1


@given(positives=SOME, negatives=SOME)
def test_no_other_threshold_has_a_greater_f1(
    positives: list[float], negatives: list[float]
) -> None:
    fitted = fit_threshold(positives, negatives)
    yes, no = np.array(positives), np.array(negatives)

    def f1(threshold: float) -> float:
        found, wrong = np.sum(yes >= threshold), np.sum(no >= threshold)
        return float(2 * found / (found + wrong + len(yes)))

    assert fitted.f1 == pytest.approx(f1(fitted.threshold))
    assert fitted.f1 >= max(f1(t) for t in [*positives, *negatives, -1.0]) - 1e-12
    assert -1 <= fitted.threshold <= 1


@pytest.mark.parametrize(("positives", "negatives"), [([], [0.1]), ([0.1], [])])
def test_one_side_alone_is_refused(positives: list[float], negatives: list[float]) -> None:
    with pytest.raises(InvalidInput, match=r"there is no (positive|negative) example"):
        fit_threshold(positives, negatives)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 1.5, -2.0])
def test_what_is_no_cosine_is_refused(bad: float) -> None:
    with pytest.raises(NumberOutOfRange, match="not a cosine"):
        fit_threshold([0.5, bad], [0.1])


def test_costs_have_to_say_something() -> None:
    with pytest.raises(InvalidInput, match="both costs are 0"):
        Costs(0, 0)
    with pytest.raises(NumberOutOfRange, match="wrong_match is -1"):
        Costs(-1, 1)
