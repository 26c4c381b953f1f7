"""Rate limits are exact: in any minute, over threads, over engines, over restarts."""

from __future__ import annotations

import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

from tinydancer.store.database import Database
from tinydancer.store.rates import RouteRates


@pytest.fixture
def route(conn) -> None:
    conn.execute("INSERT INTO routes (name, target_agent) VALUES ('r', 'a')")


@pytest.fixture
def rates(database: Database, route: None) -> RouteRates:
    return RouteRates(database)


@pytest.fixture
def engines(schema_dsn: str) -> Iterator[list[RouteRates]]:
    """What two engines of one database count by."""
    databases = [Database(schema_dsn, max_connections=4) for _ in range(2)]
    yield [RouteRates(database) for database in databases]
    for database in databases:
        database.close()


def pass_by(conn: psycopg.Connection, seconds: float) -> None:
    """Let so much time go by: what was taken lies so much further back."""
    conn.execute(
        "UPDATE route_takes SET taken_at = taken_at - make_interval(secs => %s)", (seconds,)
    )
    conn.execute("UPDATE route_usage SET last_at = last_at - make_interval(secs => %s)", (seconds,))


def test_a_route_is_taken_as_often_as_its_limit_says_by_all_engines_together(route, engines):
    with ThreadPoolExecutor(8) as pool:
        taken = list(pool.map(lambda at: engines[at % 2].take("r", 25), range(80)))
    assert sum(taken) == 25
    assert not engines[0].left("r", 25)
    assert engines[0].left("r", 26)


def test_an_engine_that_starts_anew_goes_on_counting(route, schema_dsn):
    for expected in (True, False):
        database = Database(schema_dsn)
        assert RouteRates(database).take("r", 1) is expected
        database.close()


def test_the_turn_of_a_minute_lets_nothing_more_through(rates, conn):
    # Given five taken at the end of a minute of the clock
    assert [rates.take("r", 5) for _ in range(6)] == [True] * 5 + [False]
    # When the next has begun, then they count still
    pass_by(conn, 59)
    assert not rates.left("r", 5)
    assert not rates.take("r", 5)
    # Until each is a minute old
    pass_by(conn, 1)
    assert [rates.take("r", 5) for _ in range(6)] == [True] * 5 + [False]


def test_places_come_back_one_by_one(rates, conn):
    for _ in range(3):
        assert rates.take("r", 3)
        pass_by(conn, 20)
    # The first is a minute old, the others 40 and 20 seconds.
    assert [rates.take("r", 3) for _ in range(2)] == [True, False]
    pass_by(conn, 20)
    assert [rates.take("r", 3) for _ in range(2)] == [True, False]


@pytest.mark.parametrize("seed", range(3))
def test_no_minute_wherever_it_starts_has_more_than_the_limit(rates, conn, seed):
    chance = random.Random(seed)
    now, limit = 0.0, 4
    taken: list[float] = []
    for _ in range(120):
        if chance.random() < 0.1:
            limit = chance.randint(1, 8)
        step = chance.choice((0, 0, 0, 5, 10, 30, 60, 65))
        pass_by(conn, step)
        now += step
        allowed = sum(at > now - 60 for at in taken) < limit
        assert rates.left("r", limit) is allowed
        assert rates.take("r", limit) is allowed
        if allowed:
            taken.append(now)
    kept = conn.execute("SELECT count(*) FROM route_takes").fetchone()[0]
    assert kept <= 16 < len(taken)


def test_a_clock_that_goes_back_opens_nothing_and_blocks_for_a_minute_at_most(rates, conn):
    conn.execute("UPDATE routes SET rate_limit_per_minute = 2")
    shown = (
        "SELECT used, remaining, round(extract(epoch FROM free_at - clock_timestamp()))"
        " FROM route_rates"
    )
    # Given a limit that was used up while the clock was an hour ahead, and then is set back
    assert [rates.take("r", 2) for _ in range(2)] == [True, True]
    pass_by(conn, -3600)
    # Then how long ago that was nobody knows: it counts as just now
    assert not rates.left("r", 2)
    assert conn.execute(shown).fetchall() == [(2, 0, 60)]
    assert not rates.take("r", 2)
    pass_by(conn, 59)
    assert conn.execute(shown).fetchall() == [(2, 0, 1)]
    assert [rates.left("r", 2), rates.take("r", 2), rates.take("r", 3)] == [False, False, True]
    # And a minute later no more
    pass_by(conn, 1)
    assert [rates.take("r", 2) for _ in range(2)] == [True, False]


def test_what_is_left_is_shown(rates, conn):
    conn.execute("UPDATE routes SET rate_limit_per_minute = 2")
    shown = (
        "SELECT route, rate_limit_per_minute, used, remaining,"
        " round(extract(epoch FROM free_at - clock_timestamp())) FROM route_rates"
    )
    assert conn.execute(shown).fetchall() == [("r", 2, 0, 2, None)]
    rates.take("r", 2)
    pass_by(conn, 30)
    rates.take("r", 2)
    assert conn.execute(shown).fetchall() == [("r", 2, 2, 0, 30)]
    pass_by(conn, 40)
    assert conn.execute(shown).fetchall() == [("r", 2, 1, 1, None)]


def test_a_route_that_was_dropped_is_not_taken(database):
    assert RouteRates(database).take("gone", 5) is False
