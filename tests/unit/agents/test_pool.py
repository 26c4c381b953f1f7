"""Circuit breakers as functions of the ledger and the clock."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinydancer.agents.pool import (
    BreakerPolicy,
    BreakerState,
    Outcome,
    availability,
    breaker,
    fallback_chain,
)
from tinydancer.errors import NumberOutOfRange

POLICY = BreakerPolicy(threshold=3, half_life=60, cooldown=30, longest_cooldown=200, successes=2)

ledgers = st.lists(
    st.builds(Outcome, at=st.floats(0, 1000, width=32), success=st.booleans()), max_size=60
)


def failures(*times: float) -> list[Outcome]:
    return [Outcome(at, False) for at in times]


def successes(*times: float) -> list[Outcome]:
    return [Outcome(at, True) for at in times]


def test_an_agent_nobody_called_is_closed() -> None:
    assert breaker([], 5.0, POLICY).state is BreakerState.CLOSED


def test_failures_in_a_row_open_it_and_the_cooldown_half_opens_it() -> None:
    ledger = failures(0, 1, 2, 3)
    assert breaker(ledger, 3, POLICY).state is BreakerState.OPEN
    assert breaker(ledger, 3, POLICY).retry_at == 33
    assert breaker(ledger, 32.9, POLICY).state is BreakerState.OPEN
    assert breaker(ledger, 33, POLICY).state is BreakerState.HALF_OPEN


def test_probes_that_succeed_close_it() -> None:
    ledger = failures(0, 1, 2, 3) + successes(34)
    assert breaker(ledger, 35, POLICY).state is BreakerState.HALF_OPEN
    assert breaker([*ledger, Outcome(36, True)], 37, POLICY).state is BreakerState.CLOSED


def test_a_probe_that_fails_opens_it_for_twice_as_long_up_to_a_limit() -> None:
    ledger, at, waits = failures(0, 1, 2, 3), 3.0, []
    for _ in range(5):
        state = breaker(ledger, at, POLICY)
        assert state.state is BreakerState.OPEN
        waits.append(state.cooldown)
        at = (state.retry_at or 0) + 1
        ledger = [*ledger, Outcome(at, False)]
    assert waits == [30, 60, 120, 200, 200]


def test_failures_decay_so_that_rare_ones_never_add_up() -> None:
    rare = failures(*(300.0 * i for i in range(20)))
    assert breaker(rare, 6000, POLICY).state is BreakerState.CLOSED
    assert breaker(failures(0, 1), 61, POLICY).failures == pytest.approx(1.0, abs=0.02)


def test_failures_among_many_successes_do_not_open_it() -> None:
    busy = successes(*(i / 10 for i in range(100))) + failures(*range(10))
    assert breaker(busy, 10, POLICY).state is BreakerState.CLOSED


def test_a_late_success_of_a_call_under_way_does_not_close_an_open_one() -> None:
    ledger = failures(0, 1, 2, 3) + successes(4, 5, 6)
    assert breaker(ledger, 7, POLICY).state is BreakerState.OPEN


def test_an_outcome_in_the_future_is_not_counted() -> None:
    assert breaker(failures(0, 1, 2, 50), 3, POLICY).state is BreakerState.CLOSED


@given(ledgers, st.floats(0, 1000), st.randoms(use_true_random=False))
def test_every_engine_comes_to_the_same_state_in_whatever_order_it_reads(
    ledger: list[Outcome], now: float, shuffler: random.Random
) -> None:
    shuffled = list(ledger)
    shuffler.shuffle(shuffled)
    assert breaker(ledger, now, POLICY) == breaker(shuffled, now, POLICY)


@given(ledgers, st.floats(0, 2000))
def test_an_open_breaker_always_has_a_time_to_try_again(ledger: list[Outcome], now: float) -> None:
    state = breaker(ledger, now, POLICY)
    assert 0 <= state.failures <= state.calls + 1e-9
    if state.state is BreakerState.OPEN:
        assert state.retry_at is not None
        assert now < state.retry_at <= now + POLICY.longest_cooldown
    else:
        assert state.retry_at is None


@given(ledgers)
def test_left_alone_no_breaker_stays_open(ledger: list[Outcome]) -> None:
    later = breaker(ledger, 1001 + POLICY.longest_cooldown, POLICY)
    assert later.state is not BreakerState.OPEN


@given(st.lists(st.floats(0, 1000, width=32), max_size=60), st.floats(0, 2000))
def test_successes_alone_never_open_it(times: list[float], now: float) -> None:
    assert breaker(successes(*times), now, POLICY).state is BreakerState.CLOSED


def test_limits_and_probes_say_why_an_agent_is_not_called() -> None:
    closed, open_ = breaker([], 0, POLICY), breaker(failures(0, 1, 2, 3), 4, POLICY)
    half = breaker(failures(0, 1, 2, 3), 40, POLICY)
    assert availability("a", closed, 5, None, POLICY).available
    assert "at most 5" in availability("a", closed, 5, 5, POLICY).reason
    assert "probe may try it in 29 s" in availability("a", open_, 0, None, POLICY).reason
    assert availability("a", half, 0, None, POLICY).available
    assert "1 of 1 probes" in availability("a", half, 1, None, POLICY).reason


def test_the_fallback_chain_leaves_out_who_may_not_be_called() -> None:
    open_ = breaker(failures(0, 1, 2, 3), 4, POLICY)
    closed = breaker([], 4, POLICY)
    can = {
        "best": availability("best", open_, 0, None, POLICY),
        "next": availability("next", closed, 0, None, POLICY),
        "full": availability("full", closed, 2, 2, POLICY),
        "last": availability("last", closed, 0, 2, POLICY),
    }
    assert fallback_chain(["best", "next", "full", "last"], can) == ("next", "last")


def test_a_policy_that_could_never_work_is_refused() -> None:
    with pytest.raises(NumberOutOfRange, match="half_life"):
        BreakerPolicy(half_life=0)
    with pytest.raises(NumberOutOfRange, match="share"):
        BreakerPolicy(share=1.5)
    with pytest.raises(NumberOutOfRange, match="probes"):
        BreakerPolicy(probes=0)
