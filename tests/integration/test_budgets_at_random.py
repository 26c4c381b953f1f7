"""Budgets hold while sessions at random reserve, settle, give back, and change them."""

from __future__ import annotations

import random
import uuid
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from time import monotonic
from typing import Any

import psycopg
import pytest
from psycopg import conninfo

SECONDS = 2
SESSIONS = 8
RESERVE = (
    "SELECT limits FROM reserve_calls(%s::uuid[], %s::text[], %s::text[], %s::text[], %s::text[],"
    " %s::numeric[])"
)
SETTLE = (
    "SELECT charge_budgets(array_agg(ROW('default', id::text, clock_timestamp(), id, agent, 'r',"
    " NULL, 'gold', NULL, NULL, cost, NULL, true, NULL, NULL)::usage))"
    " FROM unnest(%s::uuid[], %s::text[], %s::numeric[]) AS outcome (id, agent, cost)"
)
CHANGES = [
    "UPDATE budgets SET limit_amount = %(amount)s WHERE name = %(name)s",
    "SELECT ruvector_set_budget(%(name)s, %(amount)s, period := %(period)s)",
    "UPDATE budgets SET active = NOT active WHERE name = %(name)s",
    "UPDATE budgets SET period = %(period)s WHERE name = %(name)s",
    "UPDATE budgets SET scope = 'agent', subject = 'a' WHERE name = %(name)s",
    "DELETE FROM budgets WHERE name = %(name)s",
    "INSERT INTO budgets (name, limit_amount) VALUES (%(name)s, %(amount)s) ON CONFLICT DO NOTHING",
]
# Whatever is committed at an instant: sums are those of the rows, and no limit is passed, since no
# outcome here costs more than was reserved for it. What is spent under a budget that came after the
# decision was never reserved in it.
WRONG = """
SELECT budgets.name, budgets.period, limit_amount, period_start, spent, reserved, kept.amount
FROM budgets JOIN budget_periods AS sums ON sums.budget = budgets.name
CROSS JOIN LATERAL (
    SELECT coalesce(sum(amount), 0) AS amount FROM budget_reservations AS kept
    WHERE kept.budget = sums.budget AND kept.period_start = sums.period_start) AS kept
WHERE reserved <> kept.amount OR (
    reserved + CASE WHEN %s THEN spent ELSE 0 END > limit_amount
    AND period_start = period_start(budgets.period, clock_timestamp()))
"""


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param([], id="budgets stay"),
        pytest.param(CHANGES[:1], id="limits change"),
        pytest.param(CHANGES, id="all of them changes"),
    ],
)
def test_whatever_sessions_do_no_limit_is_passed_and_sums_are_those_of_the_rows(
    conn, schema_dsn, changes
):
    dsn = conninfo.make_conninfo(schema_dsn, options="-c search_path=tinydancer,public")
    for name, agent in (("x", None), ("y", "a"), ("z", "b")):
        scope = "all" if agent is None else "agent"
        conn.execute("SELECT ruvector_set_budget(%s, 5, %s, %s)", (name, scope, agent))
    until = monotonic() + SECONDS

    def session(number: int) -> Counter[str]:
        chance = random.Random(number)
        held: list[tuple[uuid.UUID, str, Decimal]] = []
        done: Counter[str] = Counter()
        with psycopg.connect(dsn, autocommit=True) as connection:
            connection.execute("SET deadlock_timeout = '50ms'")
            while monotonic() < until:
                kinds = ["reserve", "reserve", "settle", "release", *["change"][: len(changes)]]
                what = chance.choice(kinds)
                try:
                    # A part of it is taken back again.
                    with connection.transaction(force_rollback=chance.random() < 0.2) as one:
                        if what == "change":
                            change(connection, chance, changes)
                        else:
                            held = step(connection, chance, what, held, kept=not one.force_rollback)
                    done[what] += 1
                except psycopg.errors.ObjectNotInPrerequisiteState:
                    done["refused change"] += 1
                except psycopg.errors.DeadlockDetected:
                    # Who looked before a budget came under another scope or period locks late.
                    assert changes == CHANGES
        return done

    def watch(_: int) -> Counter[str]:
        seen: Counter[str] = Counter()
        with psycopg.connect(dsn, autocommit=True) as connection:
            while monotonic() < until:
                assert connection.execute(WRONG, (changes != CHANGES,)).fetchall() == []
                seen["look"] += 1
        return seen

    with ThreadPoolExecutor(SESSIONS + 1) as pool:
        watching = pool.submit(watch, 0)
        done = sum(pool.map(session, range(SESSIONS)), Counter())
        done += watching.result()
    assert conn.execute(WRONG, (changes != CHANGES,)).fetchall() == []
    assert min(done[what] for what in ("reserve", "settle", "release", "look")) > 20
    # And all of it can be given back
    conn.execute("UPDATE budget_reservations SET expires_at = '-infinity'")
    while conn.execute("SELECT expire_reservations()").fetchone() != (0,):
        pass
    assert conn.execute("SELECT count(*) FROM budget_periods WHERE reserved <> 0").fetchone() == (
        0,
    )


def change(connection: psycopg.Connection[Any], chance: random.Random, changes: list[str]) -> None:
    """Change a budget."""
    values = {
        "name": chance.choice("wxyz"),
        "amount": Decimal(chance.randint(0, 1000)) / 100,
        "period": chance.choice(["hour", "day", "month", "total"]),
    }
    connection.execute(chance.choice(changes), values)


def step(
    connection: psycopg.Connection[Any],
    chance: random.Random,
    what: str,
    held: list[tuple[uuid.UUID, str, Decimal]],
    *,
    kept: bool,
) -> list[tuple[uuid.UUID, str, Decimal]]:
    """Do one thing; what is held afterwards, where it is kept."""
    some = chance.sample(held, min(len(held), 3))
    if what == "reserve":
        claims = [
            (uuid.uuid4(), chance.choice("ab"), Decimal(chance.randint(0, 90)) / 100)
            for _ in range(chance.choice([1, 1, 4]))
        ]
        ids, agents, amounts = (list(column) for column in zip(*claims, strict=True))
        n = len(claims)
        (limits,) = connection.execute(
            RESERVE, (ids, ["default"] * n, agents, ["r"] * n, ["gold"] * n, amounts)
        ).fetchone()
        taken = [claim for claim, by in zip(claims, limits, strict=True) if by is None]
        return held + taken if kept else held
    if some and what == "settle":
        values = [(id_, agent, amount * chance.randint(0, 10) / 10) for id_, agent, amount in some]
        connection.execute(SETTLE, [list(column) for column in zip(*values, strict=True)])
    elif some:
        connection.execute("SELECT release_calls(%s)", ([id_ for id_, *_ in some],))
    return [claim for claim in held if claim not in some] if kept else held
