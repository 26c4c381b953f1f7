"""Sessions that take from budgets while others hold them, and what must be true of sums then."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from decimal import Decimal
from time import monotonic, sleep
from typing import Any

import psycopg
from psycopg import conninfo

RESERVE = (
    "SELECT limits[1] FROM reserve_calls(ARRAY[%s::uuid], ARRAY['default'], ARRAY[%s], ARRAY['r'],"
    " ARRAY['gold'], ARRAY[%s::numeric])"
)
USED = """
SELECT budget, spent + reserved FROM budget_periods
WHERE spent + reserved > 0 ORDER BY 1, period_start
"""
# What never may be: sums that are not those of the reservations, or that a limit has no room for.
WRONG = """
SELECT budgets.name, period, limit_amount, spent, reserved, kept.amount
FROM budgets JOIN budget_periods AS sums ON sums.budget = budgets.name
CROSS JOIN LATERAL (
    SELECT coalesce(sum(amount), 0) AS amount FROM budget_reservations AS kept
    WHERE kept.budget = sums.budget AND kept.period_start = sums.period_start) AS kept
WHERE reserved <> kept.amount OR (
    spent + reserved > limit_amount AND sums.period_start = period_start(period, sums.period_start))
"""
Connect = Callable[[], psycopg.Connection[Any]]
# A ring of the test's own making ends in an error rather than never.
PATIENCE = "SET lock_timeout = '8s'"


@contextmanager
def sessions(dsn: str) -> Iterator[Connect]:
    """A function that opens autocommit connections to a database; they are closed afterwards."""
    opened: list[psycopg.Connection[Any]] = []

    def connect() -> psycopg.Connection[Any]:
        found = conninfo.make_conninfo(dsn, options="-c search_path=tinydancer,public")
        opened.append(psycopg.connect(found, autocommit=True))
        opened[-1].execute(PATIENCE)
        return opened[-1]

    try:
        yield connect
    finally:
        for connection in opened:
            connection.close()


class Waiting:
    """A statement of a session of its own, which has to wait for another's lock."""

    def __init__(self, connection: psycopg.Connection[Any], statement: str, *values: Any) -> None:
        self._pool = ThreadPoolExecutor(1)
        self._connection = connection
        self._future: Future[Any] = self._pool.submit(
            lambda: connection.execute(statement, values).fetchone()
        )
        self._pool.shutdown(wait=False)

    def waits(self, looking: psycopg.Connection[Any]) -> bool:
        """Whether it has come to wait, rather than to its end; returns when it has."""
        until = monotonic() + 5
        while monotonic() < until and not self._future.done():
            found = looking.execute(
                "SELECT cardinality(pg_blocking_pids(%s)) > 0",
                (self._connection.info.backend_pid,),
            ).fetchone()
            if found == (True,):
                return True
            sleep(0.005)
        return False

    def result(self) -> Any:
        """Its row."""
        return self._future.result(timeout=10)


def reserve(
    connection: psycopg.Connection[Any],
    amount: float,
    agent: str = "a",
    decision: uuid.UUID | None = None,
) -> str | None:
    """Which budget refuses so much; None where it is reserved."""
    values = (decision or uuid.uuid4(), agent, Decimal(str(amount)))
    found = connection.execute(RESERVE, values).fetchone()
    assert found is not None
    return found[0]  # type: ignore[no-any-return]


def reserving(connection: psycopg.Connection[Any], amount: float, agent: str = "a") -> Waiting:
    return Waiting(connection, RESERVE, uuid.uuid4(), agent, Decimal(str(amount)))


def settling(
    connection: psycopg.Connection[Any], cost: float, decision: uuid.UUID | None = None
) -> Waiting:
    """An outcome of agent a now."""
    return Waiting(
        connection,
        "SELECT tinydancer.charge_budgets(ARRAY[ROW('default', %s, clock_timestamp(), %s, 'a', 'r',"
        " NULL, 'gold', NULL, NULL, %s, NULL, true, NULL, NULL)::tinydancer.usage])",
        str(uuid.uuid4()),
        decision,
        Decimal(str(cost)),
    )


def used(conn: psycopg.Connection[Any]) -> dict[str, Decimal]:
    """What is spent and reserved, by budget; nothing about it is wrong."""
    assert conn.execute(WRONG).fetchall() == []
    found = conn.execute(USED).fetchall()
    assert len(dict(found)) == len(found)
    return dict(found)
