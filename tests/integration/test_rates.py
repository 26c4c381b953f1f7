"""Rate limits are exact: over threads, over engines, over restarts."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timezone

from tinydancer.store.database import Database
from tinydancer.store.rates import RouteRates


def wait_for_room_in_this_minute() -> None:
    left = 60 - datetime.now(timezone.utc).timestamp() % 60
    if left < 10:
        time.sleep(left + 0.1)


def test_a_route_is_taken_as_often_as_its_limit_says_by_all_engines_together(conn, schema_dsn):
    conn.execute("INSERT INTO routes (name, target_agent) VALUES ('r', 'a')")
    wait_for_room_in_this_minute()
    databases = [Database(schema_dsn, max_connections=4) for _ in range(2)]
    engines = [RouteRates(database) for database in databases]
    with ThreadPoolExecutor(8) as pool:
        taken = list(pool.map(lambda at: engines[at % 2].take("r", 25), range(80)))
    assert sum(taken) == 25
    assert not engines[0].left("r", 25)
    assert engines[0].left("r", 26)
    for database in databases:
        database.close()


def test_an_engine_that_starts_anew_goes_on_counting(conn, schema_dsn):
    conn.execute("INSERT INTO routes (name, target_agent) VALUES ('r', 'a')")
    wait_for_room_in_this_minute()
    for expected in (True, False):
        database = Database(schema_dsn)
        assert RouteRates(database).take("r", 1) is expected
        database.close()


def test_a_new_minute_starts_from_nothing(conn, database):
    conn.execute("INSERT INTO routes (name, target_agent) VALUES ('r', 'a')")
    conn.execute(
        "INSERT INTO route_usage"
        " VALUES ('r', date_trunc('minute', now()) - interval '1 minute', 100)"
    )
    rates = RouteRates(database)
    assert rates.left("r", 1)
    assert rates.take("r", 1)


def test_a_route_that_was_dropped_is_not_taken(database):
    assert RouteRates(database).take("gone", 5) is False
