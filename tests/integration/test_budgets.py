"""Budgets hold to the cent: under many sessions, over engines, whatever is killed."""

from __future__ import annotations

import random
import uuid
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal

import psycopg
import pytest

RESERVE = (
    "SELECT limits[1] FROM tinydancer.reserve_calls("
    "ARRAY[%s::uuid], ARRAY['default'], ARRAY['a'], ARRAY['r'], ARRAY['gold'], ARRAY[%s::numeric])"
)
STATUS = "SELECT spent, reserved, remaining, runs_low FROM budget_status WHERE name = %s"


@pytest.fixture
def agent(conn) -> None:
    conn.execute("SELECT ruvector_register_agent('a')")


def test_a_reservation_is_taken_from_what_remains_and_settled_by_its_outcome(conn, agent):
    conn.execute("SELECT ruvector_set_budget('all', 10)")
    decision = logged_decision(conn)
    assert conn.execute(RESERVE, (decision, 4)).fetchone() == (None,)
    assert conn.execute(STATUS, ("all",)).fetchone() == (0, 4, 6, False)
    conn.execute("SELECT ruvector_record_usage(%s, cost := 9)", (decision,))
    assert conn.execute(STATUS, ("all",)).fetchone() == (9, 0, 1, True)
    assert conn.execute("SELECT count(*) FROM budget_reservations").fetchone() == (0,)


def test_what_does_not_fit_reserves_nothing_anywhere_and_names_the_budget(conn, agent):
    conn.execute("SELECT ruvector_set_budget('a-wide', 100)")
    conn.execute("SELECT ruvector_set_budget('b-gold', 5, 'user_tier', 'gold')")
    assert conn.execute(RESERVE, (uuid.uuid4(), 6)).fetchone() == ("b-gold",)
    assert conn.execute(STATUS, ("a-wide",)).fetchone()[:2] == (0, 0)
    assert conn.execute(RESERVE, (uuid.uuid4(), 5)).fetchone() == (None,)


@pytest.mark.parametrize(
    ("scope", "subject", "applies"),
    [
        ("all", None, True),
        ("agent", "a", True),
        ("agent", "b", False),
        ("route", "r", True),
        ("user_tier", "silver", False),
        ("tenant", "default", True),
    ],
)
def test_a_budget_holds_for_its_scope_only(conn, scope, subject, applies):
    conn.execute("SELECT ruvector_set_budget('b', 0, %s, %s)", (scope, subject))
    refused = conn.execute(RESERVE, (uuid.uuid4(), 1)).fetchone()
    assert refused == (("b",) if applies else (None,))


def test_what_never_was_settled_is_given_back(conn):
    conn.execute("SELECT ruvector_set_budget('all', 10)")
    conn.execute("UPDATE settings SET reservation_timeout = '1 second'")
    conn.execute(RESERVE, (uuid.uuid4(), 10))
    conn.execute("UPDATE budget_reservations SET expires_at = now() - interval '1 second'")
    assert conn.execute("SELECT expire_reservations()").fetchone() == (1,)
    assert conn.execute(STATUS, ("all",)).fetchone()[:2] == (0, 0)
    assert conn.execute("SELECT expire_reservations()").fetchone() == (0,)


def test_a_budget_whose_threshold_is_null_runs_low_at_four_fifths(conn):
    conn.execute("SELECT ruvector_set_budget('all', 10, soft_threshold := NULL)")
    conn.execute(RESERVE, (uuid.uuid4(), "7.9"))
    assert conn.execute(STATUS, ("all",)).fetchone()[3] is False
    conn.execute(RESERVE, (uuid.uuid4(), "0.1"))
    assert conn.execute(STATUS, ("all",)).fetchone()[3] is True


def test_each_period_starts_from_nothing(conn, agent):
    conn.execute("SELECT ruvector_set_budget('daily', 10, period := 'day')")
    conn.execute(
        "SELECT ruvector_record_usage(agent_name := 'a', cost := 10,"
        " occurred_at := now() - interval '1 day')"
    )
    assert conn.execute(STATUS, ("daily",)).fetchone()[2] == 10
    assert conn.execute("SELECT spent FROM budget_periods").fetchone() == (10,)


def test_a_limit_below_what_is_reserved_already_is_refused(conn):
    conn.execute("SELECT ruvector_set_budget('all', 10)")
    conn.execute(RESERVE, (uuid.uuid4(), 6))
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState) as raised:
        conn.execute("SELECT ruvector_set_budget('all', 5)")
    assert "is 5, below the 6" in raised.value.diag.message_primary
    conn.execute("SELECT ruvector_set_budget('all', 6)")


def test_a_limit_below_what_the_new_period_has_spent_is_refused(conn, agent):
    conn.execute("SELECT ruvector_set_budget('all', 100, period := 'year')")
    conn.execute("SELECT ruvector_record_usage(agent_name := 'a', cost := 10)")
    conn.execute("SELECT ruvector_set_budget('all', 5, period := 'total')")
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="is 5, below the 10"):
        conn.execute("SELECT ruvector_set_budget('all', 5, period := 'year')")


def test_a_budget_of_a_tenant_is_for_no_other_tenant(conn):
    conn.execute("SELECT ruvector_set_budget('theirs', 0, tenant := 'another')")
    assert conn.execute(RESERVE, (uuid.uuid4(), 1)).fetchone() == (None,)
    conn.execute("SELECT ruvector_set_budget('ours', 0, tenant := 'default')")
    assert conn.execute(RESERVE, (uuid.uuid4(), 1)).fetchone() == ("ours",)


def test_thirty_two_sessions_never_overspend_by_a_cent_and_never_deadlock(conn, agent, schema_dsn):
    # Given budgets that overlap, and sessions that reserve, settle, release and give up
    conn.execute("SELECT ruvector_set_budget('z-all', 5.00)")
    conn.execute("SELECT ruvector_set_budget('m-agent', 4.00, 'agent', 'a')")
    conn.execute("SELECT ruvector_set_budget('a-gold', 4.50, 'user_tier', 'gold', period := 'day')")

    def session(number: int) -> Decimal:
        spent = Decimal(0)
        chance = random.Random(number)
        with psycopg.connect(schema_dsn, autocommit=True) as connection:
            for _ in range(12):
                decision = uuid.uuid4()
                amount = Decimal(chance.randint(1, 9)) / 100
                (refused,) = connection.execute(RESERVE, (decision, amount)).fetchone()
                if refused:
                    continue
                if chance.random() < 0.3:
                    connection.execute("SELECT tinydancer.release_reservations(%s)", ([decision],))
                elif chance.random() < 0.2:
                    with connection.transaction(force_rollback=True):
                        settle(connection, decision, amount)
                else:
                    settle(connection, decision, amount)
                    spent += amount
        return spent

    # When 32 of them run at once
    with ThreadPoolExecutor(32) as pool:
        spent = sum(pool.map(session, range(32)))
    # Then what was spent is what they spent, and no limit was passed
    for name, limit in (("z-all", 5), ("m-agent", 4), ("a-gold", Decimal("4.5"))):
        total, reserved, _, _ = conn.execute(STATUS, (name,)).fetchone()
        assert total == spent
        assert total + reserved <= limit
        held = conn.execute(
            "SELECT coalesce(sum(amount), 0) FROM budget_reservations WHERE budget = %s", (name,)
        ).fetchone()
        assert held == (reserved,)
    assert spent > 1


def test_outcomes_dearer_than_estimated_are_all_in_the_ledger_and_only_they_pass_the_limit(
    conn, agent, schema_dsn
):
    conn.execute("SELECT ruvector_set_budget('all', 3.00)")

    def session(number: int) -> tuple[Decimal, Decimal]:
        spent, excess = Decimal(0), Decimal(0)
        chance = random.Random(number)
        with psycopg.connect(schema_dsn, autocommit=True) as connection:
            for _ in range(10):
                decision = uuid.uuid4()
                estimate = Decimal(chance.randint(1, 9)) / 100
                if connection.execute(RESERVE, (decision, estimate)).fetchone()[0]:
                    continue
                cost = estimate * chance.choice((0, 1, 2, 3))
                settle(connection, decision, cost)
                spent, excess = spent + cost, excess + max(cost - estimate, Decimal(0))
        return spent, excess

    with ThreadPoolExecutor(16) as pool:
        spent, excess = map(sum, zip(*pool.map(session, range(32)), strict=True))
    # Whether the race itself ends over the limit is chance; this one does.
    free = uuid.uuid4()
    assert conn.execute(RESERVE, (free, 0)).fetchone() == (None,)
    settle(conn, free, Decimal(5))
    spent, excess = spent + 5, excess + 5
    total, reserved, remaining, overrun = conn.execute(
        "SELECT spent, reserved, remaining, overrun FROM budget_status"
    ).fetchone()
    assert (total, reserved) == (spent, 0)
    assert remaining - overrun == 3 - spent
    # What was reserved never passed the limit: only what came on top of it did.
    assert spent - excess <= 3
    assert overrun == spent - 3 > 0
    assert conn.execute(RESERVE, (uuid.uuid4(), Decimal("0.000000001"))).fetchone() == ("all",)
    assert conn.execute(RESERVE, (uuid.uuid4(), 0)).fetchone() == (None,)


def settle(connection, decision, amount) -> None:
    connection.execute(
        "SELECT tinydancer.charge_budgets(ARRAY[ROW('default', %s, now(), %s, 'a', 'r', NULL,"
        " 'gold', NULL, NULL, %s, NULL, true, NULL, NULL)::tinydancer.usage])",
        (str(decision), decision, amount),
    )


def logged_decision(conn) -> str:
    row = conn.execute(
        "WITH made AS (SELECT (lpad(to_hex((extract(epoch FROM now()) * 1000)::bigint), 12, '0')"
        " || '7' || substr(md5(random()::text), 1, 19))::uuid AS id)"
        " INSERT INTO decisions (id, decided_at, request_hash, optimize_for, agent)"
        " SELECT id, uuid_time(id), 'x', 'cost', 'a' FROM made RETURNING id"
    ).fetchone()
    return str(row[0])


@pytest.mark.parametrize(
    ("call", "sqlstate", "message"),
    [
        ("ruvector_set_budget('b', -1)", "22003", "limit_amount is -1"),
        ("ruvector_set_budget('b', 'NaN')", "22003", "limit_amount is NaN"),
        ("ruvector_set_budget('b', NULL)", "22004", "limit_amount is NULL"),
        ("ruvector_set_budget('b', 1, 'planet')", "22023", "scope is 'planet'"),
        ("ruvector_set_budget('b', 1, 'agent')", "22023", "subject is NULL"),
        ("ruvector_set_budget('b', 1, 'all', 'x')", "22023", "subject is 'x'"),
        ("ruvector_set_budget('b', 1, period := 'fortnight')", "22023", "period is 'fortnight'"),
        ("ruvector_drop_budget('ghost')", "42704", "budget 'ghost' does not exist"),
    ],
)
def test_a_budget_that_makes_no_sense_is_refused(conn, call, sqlstate, message):
    with pytest.raises(psycopg.Error) as raised:
        conn.execute(f"SELECT {call}")
    assert raised.value.sqlstate == sqlstate
    assert message in raised.value.diag.message_primary
    assert raised.value.diag.message_hint


@pytest.mark.parametrize("scope", ["agent", "route"])
def test_a_budget_for_a_name_that_is_not_there_warns_that_it_limits_nothing(conn, scope):
    conn.execute("SELECT ruvector_register_agent('gpt-4')")
    conn.execute("INSERT INTO routes (name, target_agent) VALUES ('gpt-4', 'gpt-4')")
    notices = []
    conn.add_notice_handler(lambda notice: notices.append(notice.message_primary))
    conn.execute("SELECT ruvector_set_budget('right', 5, %s, 'gpt-4')", (scope,))
    assert notices == []
    conn.execute("SELECT ruvector_set_budget('wrong', 5, %s, 'gtp-4')", (scope,))
    assert notices == [f"there is no {scope} 'gtp-4'"]
    assert conn.execute("SELECT count(*) FROM budgets").fetchone() == (2,)
