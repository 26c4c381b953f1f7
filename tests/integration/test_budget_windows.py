"""Budgets hold whatever happens between a look at them and a lock: each instant played out.

One session holds its transaction open where another needs what it has; a third comes in between.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from tests.budget_sessions import (
    PATIENCE,
    USED,
    Connect,
    Waiting,
    reserve,
    reserving,
    sessions,
    settling,
    used,
)


@pytest.fixture
def conn(conn: psycopg.Connection[Any]) -> psycopg.Connection[Any]:
    """The session that changes things."""
    conn.execute(PATIENCE)
    return conn


LOWERINGS = [
    "SELECT ruvector_set_budget('all', 5)",
    "UPDATE budgets SET limit_amount = 5 RETURNING true",
]


@pytest.mark.parametrize("lowering", LOWERINGS)
def test_a_limit_is_not_lowered_below_the_first_reservation_of_a_period_under_way(
    conn, connect, lowering
):
    conn.execute("SELECT ruvector_set_budget('all', 10)")
    with (one := connect()).transaction():
        assert reserve(one, 8) is None
        other = Waiting(connect(), lowering)
        other.waits(conn)
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="below the 8 that"):
        other.result()
    assert used(conn) == {"all": 8}


@pytest.mark.parametrize("lowering", LOWERINGS)
@pytest.mark.parametrize("kept", [True, False])
def test_the_first_reservation_of_a_period_waits_for_a_limit_that_is_lowered(
    conn, connect, lowering, kept
):
    conn.execute("SELECT ruvector_set_budget('all', 10)")
    with (one := connect()).transaction(force_rollback=not kept):
        one.execute(lowering)
        other = reserving(connect(), 8)
        other.waits(conn)
    assert other.result() == ("all" if kept else None,)
    assert used(conn) == ({} if kept else {"all": 8})


def test_a_limit_is_raised_without_a_wait_for_reservations_under_way(conn, connect):
    conn.execute("SELECT ruvector_set_budget('all', 10)")
    reserve(conn, 1)
    with (one := connect()).transaction():
        reserve(one, 8)
        conn.execute("SELECT ruvector_set_budget('all', 20)")
        assert reserve(one, 8) is None
    assert used(conn) == {"all": 17}


@pytest.fixture
def turning(new_schema_dsn: str) -> Iterator[tuple[psycopg.Connection[Any], Connect]]:
    """A database whose hours turn when a test says so: table clock has since when, and how far."""
    with sessions(new_schema_dsn) as connect:
        conn = connect()
        conn.execute(
            """
            CREATE TABLE tinydancer.clock AS SELECT interval '0' AS ahead, now() AS since;
            CREATE OR REPLACE FUNCTION tinydancer.period_start(period text, at timestamptz)
            RETURNS timestamptz LANGUAGE sql STABLE STRICT AS $$
                SELECT date_trunc(period, at + CASE WHEN at < since OR date_trunc('hour', at) = at
                    THEN interval '0' ELSE ahead END, 'UTC') FROM tinydancer.clock
            $$
            """
        )
        conn.execute("SELECT ruvector_set_budget('hourly', 10, period := 'hour')")
        yield conn, connect


def turn(conn: psycopg.Connection[Any], hours: int) -> None:
    conn.execute(
        "UPDATE clock SET ahead = make_interval(hours => %s), since = clock_timestamp()", (hours,)
    )


def test_a_limit_lowered_across_the_turn_of_a_period_holds_in_the_new_one(turning):
    conn, connect = turning
    # Given a limit that is being lowered, and looked at what was reserved in this hour
    with (one := connect()).transaction():
        one.execute("SELECT ruvector_set_budget('hourly', 5, period := 'hour')")
        # When the next one begins, and somebody reserves in it
        turn(conn, 1)
        other = reserving(connect(), 8)
        other.waits(conn)
    # Then the new limit counts
    assert other.result() == ("hourly",)
    assert used(conn) == {}


def test_a_limit_is_lowered_by_the_clock_not_by_when_its_transaction_began(turning):
    conn, connect = turning
    with (one := connect()).transaction():
        one.execute("SELECT now()")
        turn(conn, 1)
        assert reserve(conn, 8) is None
        with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState):
            one.execute("SELECT ruvector_set_budget('hourly', 5, period := 'hour')")
    assert used(conn) == {"hourly": 8}


def test_a_limit_is_not_lowered_below_what_a_clock_ahead_has_reserved_in_a_later_period(turning):
    conn, _ = turning
    turn(conn, 2)
    assert reserve(conn, 8) is None
    turn(conn, 0)
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState):
        conn.execute("SELECT ruvector_set_budget('hourly', 5, period := 'hour')")
    conn.execute("SELECT ruvector_set_budget('hourly', 8, period := 'hour')")


def test_who_waited_until_a_period_has_turned_reserves_in_the_new_one(turning):
    conn, connect = turning
    reserve(conn, 1)
    with (one := connect()).transaction():
        assert reserve(one, 9) is None
        other = reserving(connect(), 8)
        other.waits(conn)
        turn(conn, 1)
    assert other.result() == (None,)
    assert conn.execute(USED).fetchall() == [("hourly", 10), ("hourly", 8)]


def test_an_outcome_is_spent_in_the_period_that_had_room_for_it(turning):
    conn, connect = turning
    # Given a decision of the last hour, and a limit that is reserved in full in this one
    decision = uuid.uuid4()
    assert reserve(conn, 6, decision=decision) is None
    turn(conn, 1)
    assert reserve(conn, 10) is None
    # When the outcome comes
    settling(connect(), 6, decision).result()
    # Then no period is over its limit
    assert conn.execute(
        "SELECT spent, reserved FROM budget_periods ORDER BY period_start"
    ).fetchall() == [(6, 0), (0, 10)]
    # And what nothing was reserved for is spent when it was
    settling(connect(), 2).result()
    assert conn.execute("SELECT max(spent + reserved) FROM budget_periods").fetchone() == (12,)


def test_a_budget_made_between_the_look_and_the_lock_is_locked_before_it_is_taken_from(
    conn, connect
):
    # Given somebody who waits for one budget
    conn.execute("SELECT ruvector_set_budget('a', 10, 'agent', 'a')")
    one, other = connect(), connect()
    one.execute("BEGIN")
    reserve(one, 1)
    waiting = reserving(connect(), 3)
    waiting.waits(conn)
    # When another is made meanwhile, and is being taken from
    conn.execute("SELECT ruvector_set_budget('b', 5)")
    reserve(conn, 1, "b")
    other.execute("BEGIN")
    assert reserve(other, 3, "b") is None
    one.execute("COMMIT")
    # Then who waited waits for that as well, and finds what is left of it
    waiting.waits(conn)
    other.execute("COMMIT")
    assert waiting.result() == ("b",)
    assert used(conn) == {"a": 1, "b": 4}


def test_a_budget_whose_period_is_changed_between_the_look_and_the_lock_is_held_in_the_new_one(
    conn, connect
):
    conn.execute("SELECT ruvector_set_budget('a', 10)")
    reserve(conn, 1)
    one, other = connect(), connect()
    one.execute("BEGIN")
    reserve(one, 1)
    waiting = reserving(connect(), 6)
    waiting.waits(conn)
    conn.execute("SELECT ruvector_set_budget('a', 10, period := 'total')")
    other.execute("BEGIN")
    assert reserve(other, 6) is None
    one.execute("COMMIT")
    waiting.waits(conn)
    other.execute("COMMIT")
    assert waiting.result() == ("a",)
    assert conn.execute(USED).fetchall() == [("a", 6), ("a", 2)]


@pytest.mark.parametrize(
    ("change", "refused"),
    [
        ("UPDATE budgets SET name = 'z'", "z"),
        ("UPDATE budgets SET limit_amount = 20", None),
        ("UPDATE budgets SET active = false", None),
        ("UPDATE budgets SET scope = 'agent', subject = 'b'", None),
        ("DELETE FROM budgets", None),
        ("DELETE FROM budgets; INSERT INTO budgets (name, limit_amount) VALUES ('a', 5)", "a"),
    ],
)
@pytest.mark.parametrize("later", [False, True])
def test_who_waited_while_a_budget_was_changed_reserves_under_what_it_is_now(
    conn, connect, change, refused, later
):
    conn.execute("SELECT ruvector_set_budget('a', 10)")
    if later:
        reserve(conn, 0)
    one = connect()
    one.execute("BEGIN")
    reserve(one, 5)
    waiting = reserving(connect(), 6)
    waiting.waits(conn)
    one.execute(change)
    one.execute("COMMIT")
    assert waiting.result() == (refused,)
    used(conn)


def test_an_outcome_is_recorded_though_its_budget_is_being_dropped(conn, connect):
    conn.execute("SELECT ruvector_set_budget('a', 10)")
    with (one := connect()).transaction():
        one.execute("SELECT ruvector_drop_budget('a')")
        other = settling(connect(), 1)
        other.waits(conn)
    other.result()
    assert used(conn) == {}


def test_a_reservation_is_settled_while_its_budget_is_dropped_and_nobody_waits_in_a_ring(
    conn, connect
):
    # Given two outcomes, one of which waits for the other
    conn.execute("SELECT ruvector_set_budget('a', 10), ruvector_set_budget('b', 10)")
    decision = uuid.uuid4()
    reserve(conn, 1, decision=decision)
    one = connect()
    one.execute("BEGIN")
    one.execute("SELECT FROM budget_periods WHERE budget = 'a' FOR UPDATE")
    other = settling(connect(), 1, decision)
    other.waits(conn)
    # When the budget that neither holds yet is dropped
    dropping = Waiting(connect(), "SELECT ruvector_drop_budget('b')")
    dropping.waits(conn)
    one.execute("COMMIT")
    other.result()
    dropping.result()
    assert used(conn) == {"a": 1}


def test_who_reserves_twice_in_a_transaction_and_who_comes_between_do_not_wait_in_a_ring(
    conn, connect
):
    conn.execute("SELECT ruvector_set_budget('a', 10), ruvector_set_budget('b', 10, 'agent', 'x')")
    one = connect()
    one.execute("BEGIN")
    reserve(one, 1, "y")
    other = reserving(connect(), 2, "x")
    other.waits(conn)
    assert reserve(one, 3, "x") is None
    one.execute("COMMIT")
    assert other.result() == (None,)
    assert used(conn) == {"a": 6, "b": 5}


def test_a_decision_reserves_once(conn):
    conn.execute("SELECT ruvector_set_budget('a', 10)")
    decision = uuid.uuid4()
    reserve(conn, 1, decision=decision)
    with pytest.raises(psycopg.errors.DuplicateObject, match="has reserved already") as raised:
        reserve(conn, 1, decision=decision)
    assert str(decision) in raised.value.diag.message_detail
    assert used(conn) == {"a": 1}
