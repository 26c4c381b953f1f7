"""Budgets hold at every isolation level, and for every number."""

from __future__ import annotations

import uuid
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from typing import Any

import psycopg
import pytest
from psycopg import conninfo
from tests.budget_sessions import RESERVE, reserve, settling, used

from tinydancer.budgets import Claim, Payer
from tinydancer.store.database import Database
from tinydancer.store.reservations import Reservations


@pytest.fixture(params=["REPEATABLE READ", "SERIALIZABLE"])
def earlier(request, conn, connect) -> psycopg.Connection[Any]:
    """A session that goes on seeing the budgets as they are when the test begins."""
    conn.execute("SELECT ruvector_set_budget('all', 10)")
    session: psycopg.Connection[Any] = connect()
    session.execute(f"BEGIN ISOLATION LEVEL {request.param}")
    session.execute("SELECT FROM settings")
    return session


def test_a_limit_is_not_lowered_by_who_does_not_see_what_is_reserved(conn, earlier):
    reserve(conn, 8)
    with pytest.raises(psycopg.errors.SerializationFailure):
        earlier.execute("SELECT ruvector_set_budget('all', 5)")
    assert used(conn) == {"all": 8}


def test_nothing_is_reserved_by_who_does_not_see_what_the_others_have(conn, earlier):
    reserve(conn, 8)
    with pytest.raises(psycopg.errors.SerializationFailure):
        reserve(earlier, 8)
    assert used(conn) == {"all": 8}


@pytest.mark.parametrize("first", [0, 1])
def test_nothing_is_reserved_by_who_does_not_see_that_a_limit_was_lowered(conn, earlier, first):
    if first:
        earlier.execute("ROLLBACK")
        reserve(conn, first)
        earlier.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
        earlier.execute("SELECT FROM settings")
    conn.execute("SELECT ruvector_set_budget('all', 5)")
    with pytest.raises(psycopg.errors.SerializationFailure):
        reserve(earlier, 8)


def test_an_outcome_is_not_lost_by_who_does_not_see_what_the_others_have(conn, connect, earlier):
    settling(connect(), 2).result()
    with pytest.raises(psycopg.errors.SerializationFailure):
        settling(earlier, 3).result()
    assert used(conn) == {"all": 2}


@pytest.mark.parametrize("amount", ["NaN", "Infinity", "-Infinity", "-0.000000001", "1e13", None])
def test_an_amount_that_is_none_is_refused(conn, amount):
    conn.execute("SELECT ruvector_set_budget('all', 10)")
    with pytest.raises(psycopg.errors.NumericValueOutOfRange, match="amount is"):
        conn.execute(RESERVE, (uuid.uuid4(), "a", amount))
    for limit in ("NaN", "Infinity"):
        with pytest.raises(psycopg.errors.CheckViolation):
            conn.execute("UPDATE budgets SET limit_amount = %s", (limit,))
    assert used(conn) == {}


def test_places_are_not_taken_by_who_does_not_see_what_the_others_have(conn, earlier):
    conn.execute("SELECT ruvector_register_agent('a', concurrency_limit := 1)")
    earlier.execute("COMMIT")
    earlier.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
    earlier.execute("SELECT FROM settings")
    assert reserve(conn, 1) is None
    with pytest.raises(psycopg.errors.FeatureNotSupported, match="places at agents") as raised:
        reserve(earlier, 1)
    assert raised.value.diag.message_hint
    assert used(conn) == {"all": 1}


def test_an_engine_reserves_whatever_its_database_has_as_isolation(conn, schema_dsn):
    # Given a database whose transactions are serializable
    options = "-c default_transaction_isolation=serializable"
    database = Database(conninfo.make_conninfo(schema_dsn, options=options))
    reservations = Reservations(database, database)
    conn.execute("SELECT ruvector_set_budget('all', 10)")

    # When decisions reserve at the same time
    def decide(_: int) -> bool:
        claim = Claim(uuid.uuid4(), Payer(), "a", Decimal(1))
        return reservations.reserve([claim]) == [None]

    with ThreadPoolExecutor(8) as pool:
        reserved = sum(pool.map(decide, range(40)))
    database.close()
    # Then all there is is reserved, and nobody has an error
    assert reserved == 10
    assert used(conn) == {"all": 10}
