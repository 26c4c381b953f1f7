"""A prior is a prior until outcomes outweigh it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinydancer.errors import NumberOutOfRange
from tinydancer.learning.priors import blend, success_posterior

rates = st.floats(0, 1)
counts = st.integers(0, 10_000)


def test_with_no_outcome_the_prior_is_all_there_is() -> None:
    posterior = success_posterior(0.9, 0, 0)
    assert posterior.mean == pytest.approx(0.9)
    assert posterior.is_prior
    assert blend(400.0, 0.0, 0).value == 400.0
    assert blend(400.0, 0.0, 0).prior_share == 1.0


def test_evidence_outweighs_the_prior_beyond_its_weight() -> None:
    assert blend(400.0, 900.0, 10, prior_weight=10).is_prior
    outweighed = blend(400.0, 900.0, 90, prior_weight=10)
    assert not outweighed.is_prior
    assert outweighed.value == pytest.approx(850.0)
    assert outweighed.prior_share == pytest.approx(0.1)


def test_a_prior_of_certainty_can_still_be_outweighed() -> None:
    assert success_posterior(1.0, 0, 1000).mean < 0.02


@given(rates, counts, counts)
def test_a_success_never_lowers_and_a_failure_never_raises_the_mean(
    prior: float, successes: int, failures: int
) -> None:
    before = success_posterior(prior, successes, failures)
    assert success_posterior(prior, successes + 1, failures).mean > before.mean
    assert success_posterior(prior, successes, failures + 1).mean < before.mean


@given(rates, counts, counts)
def test_the_posterior_lies_between_the_prior_and_what_was_seen(
    prior: float, successes: int, failures: int
) -> None:
    posterior = success_posterior(prior, successes, failures)
    seen = successes / (successes + failures) if successes + failures else posterior.prior
    low, high = sorted((posterior.prior, seen))
    assert low - 1e-12 <= posterior.mean <= high + 1e-12
    assert 0 < posterior.standard_deviation < 0.51


@pytest.mark.parametrize("prior", [-0.1, 1.1, float("nan")])
def test_a_rate_that_is_none_is_refused(prior: float) -> None:
    with pytest.raises(NumberOutOfRange, match="from 0 to 1"):
        success_posterior(prior, 1, 1)


@pytest.mark.parametrize(
    ("prior", "mean", "count", "weight"),
    [(float("nan"), 1, 1, 1), (1, float("inf"), 1, 1), (1, 1, -1, 1), (1, 1, 1, 0)],
)
def test_figures_that_are_none_are_refused(
    prior: float, mean: float, count: int, weight: float
) -> None:
    with pytest.raises(NumberOutOfRange):
        blend(prior, mean, count, weight)
