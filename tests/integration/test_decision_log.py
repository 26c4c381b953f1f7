"""Decisions are kept as the settings say, through outages, with what is lost counted."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timezone
from decimal import Decimal
from hashlib import sha256

import numpy as np
import psycopg
import pytest
from psycopg import conninfo

from tinydancer.budgets import Claim, Payer, Refusal
from tinydancer.decisions import Decision, decision_time, new_decision_id
from tinydancer.errors import Unavailable
from tinydancer.store import decision_log
from tinydancer.store.database import Database
from tinydancer.store.decision_log import DecisionLog
from tinydancer.store.reservations import Reservations


def decision(**fields) -> Decision:
    whole = Decision(
        id=new_decision_id(datetime.now(timezone.utc)),
        request="Write a poem",
        optimize_for="cost",
        agent="a",
        embedding=np.full(384, 0.5, np.float32),
        embedding_model="m",
        embedding_space="s",
        constraints={"max_cost": 1},
        candidates=[{"agent": "a", "score": 1.0}],
        estimated_cost=Decimal("0.000123456"),
    )
    return replace(whole, **fields)


@pytest.fixture
def log(database):
    log = DecisionLog(database)
    yield log
    log.close()


def test_a_decision_is_kept_whole_and_its_outcome_finds_it(conn, log):
    kept = decision(route="r", user_tier="gold", propensity=0.25)
    log.keep([kept], mode="sync", text=True)
    row = conn.execute(
        "SELECT id, decided_at, request, request_hash, embedding::real[], constraints, candidates,"
        " propensity, estimated_cost, models FROM decisions"
    ).fetchone()
    assert row == (
        kept.id,
        decision_time(kept.id),
        "Write a poem",
        sha256(b"Write a poem").digest(),
        [0.5] * 384,
        {"max_cost": 1},
        [{"agent": "a", "score": 1.0}],
        0.25,
        Decimal("0.000123456"),
        {},
    )
    conn.execute("SELECT ruvector_register_agent('a')")
    conn.execute("SELECT ruvector_record_usage(%s, cost := 1)", (kept.id,))
    assert conn.execute("SELECT route, user_tier FROM usage").fetchone() == ("r", "gold")


def test_only_the_hash_is_kept_where_settings_say_so(conn, log):
    log.keep([decision()], mode="sync", text=False)
    row = conn.execute("SELECT request, request_hash IS NOT NULL FROM decisions").fetchone()
    assert row == (None, True)


def test_off_keeps_nothing(conn, log):
    log.keep([decision()], mode="off", text=True)
    assert log.flush()
    assert conn.execute("SELECT count(*) FROM decisions").fetchone() == (0,)


def test_async_writes_batches_soon_and_all_of_them_at_the_end(conn, database):
    log = DecisionLog(database)
    for _ in range(50):
        log.keep([decision() for _ in range(20)], mode="async", text=True)
    log.close()
    assert (log.written, log.dropped) == (1000, 0)
    assert conn.execute("SELECT count(*) FROM decisions").fetchone() == (1000,)


def test_a_partition_that_is_missing_is_made(conn, log):
    old = new_decision_id(datetime(2021, 3, 3, tzinfo=timezone.utc))
    log.keep([decision(id=old)], mode="sync", text=True)
    assert conn.execute("SELECT tableoid::regclass::text FROM decisions").fetchone() == (
        "decisions_2021_03",
    )


def test_while_the_database_is_away_the_oldest_are_dropped_and_counted(monkeypatch):
    monkeypatch.setattr(decision_log, "MOST_WAITING", 10)
    monkeypatch.setattr(decision_log, "RETRY_SECONDS", 0.01)
    log = DecisionLog(Database("host=127.0.0.1 port=1 dbname=none user=nobody"))
    with pytest.raises(Unavailable):
        log.keep([decision()], mode="sync", text=True)
    log.keep([decision() for _ in range(25)], mode="async", text=True)
    assert not log.flush(timeout=0.3)
    assert log.dropped == 15
    assert log.written == 0
    log.close(timeout=0)
    assert log.dropped == 25  # and those that still waited as it ended


def test_a_database_that_is_away_all_night_is_said_once_with_the_reason(monkeypatch, caplog):
    monkeypatch.setattr(decision_log, "RETRY_SECONDS", 0.01)
    monkeypatch.setattr(decision_log, "FLUSH_SECONDS", 0.01)
    with caplog.at_level("INFO", logger="tinydancer"):
        log = DecisionLog(Database("host=127.0.0.1 port=1 dbname=none user=nobody"))
        log.keep([decision() for _ in range(3)], mode="async", text=True)
        assert not log.flush(timeout=0.5)
        log.close(timeout=0)
    waits, lost = (record.getMessage() for record in caplog.records)
    assert waits.startswith("decisions wait for the database: ")
    assert "refused" in waits
    assert lost == "3 decisions are lost: the database has not taken them in time"


def test_the_end_of_an_interruption_is_said(conn, log, caplog):
    with caplog.at_level("INFO", logger="tinydancer"):
        conn.execute("ALTER TABLE decisions RENAME TO elsewhere")
        try:
            log.keep([decision()], mode="async", text=True)
            assert not log.flush(timeout=1)
        finally:
            conn.execute("ALTER TABLE elsewhere RENAME TO decisions")
        assert log.flush()
    assert [record.getMessage() for record in caplog.records] == [
        'decisions wait for the database: 42P01: relation "tinydancer.decisions" does not exist',
        "decisions are written again",
    ]


def test_a_decision_that_the_table_refuses_does_not_hold_up_the_next(conn, log):
    log.keep([decision(propensity=0.0)], mode="async", text=True)
    assert log.flush()
    log.keep([decision()], mode="async", text=True)
    assert log.flush()
    assert (log.written, log.dropped) == (1, 1)


def test_a_decision_that_the_table_refuses_takes_no_other_with_it(conn, log):
    log.keep([decision(), decision(propensity=0.0), decision()], mode="async", text=True)
    assert log.flush()
    assert (log.written, log.dropped) == (2, 1)
    assert conn.execute("SELECT count(*) FROM decisions").fetchone() == (2,)


def test_what_people_asked_is_not_in_the_log_of_what_is_refused(conn, log, caplog):
    log.keep([decision(request="my salary", propensity=0.0)], mode="async", text=True)
    assert log.flush()
    assert "23514" in caplog.text  # a check_violation, whose detail has the row
    assert "salary" not in caplog.text


def test_decisions_whose_writing_is_cancelled_are_written_later(conn, schema_dsn, log):
    writing = "query LIKE 'COPY tinydancer.decisions%' AND wait_event_type = 'Lock'"
    with psycopg.connect(schema_dsn) as other:
        other.execute("LOCK TABLE tinydancer.decisions IN EXCLUSIVE MODE")
        log.keep([decision()], mode="async", text=True)
        assert not log.flush(timeout=0.5)
        cancelled = conn.execute(
            f"SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE {writing}"
        ).fetchall()
    assert cancelled == [(True,)]
    assert log.flush()
    assert (log.written, log.dropped) == (1, 0)


def test_ids_carry_their_time_and_are_different(conn):
    now = datetime(2026, 7, 8, 9, 10, 11, 123000, tzinfo=timezone.utc)
    ids = {new_decision_id(now) for _ in range(1000)}
    assert len(ids) == 1000
    one = ids.pop()
    assert (one.version, one.variant) == (7, "specified in RFC 4122")
    assert decision_time(one) == now
    assert conn.execute("SELECT uuid_time(%s)", (one,)).fetchone() == (now,)


def test_budgets_tell_what_remains_and_reserve_it(conn, database):
    conn.execute("SELECT ruvector_set_budget('all', 10)")
    conn.execute("SELECT ruvector_set_budget('dear', 2, 'agent', 'dear', soft_threshold := 0.4)")
    budgets, payer = Reservations(database, database), Payer()
    first, second = (new_decision_id(datetime.now(timezone.utc)) for _ in range(2))
    assert budgets.reserve([Claim(first, payer, "dear", Decimal(1))]) == [None]
    assert budgets.reserve([Claim(second, payer, "dear", Decimal("1.01"))]) == [
        Refusal("budget", "dear")
    ]
    remaining = budgets.remaining(payer, ["dear", "other"])
    assert (remaining["dear"].budget, remaining["dear"].amount) == ("dear", 1)
    assert remaining["dear"].runs_low
    assert (remaining["other"].budget, remaining["other"].amount) == ("all", 9)
    budgets.release([first])
    assert budgets.remaining(payer, ["dear"])["dear"].amount == 2


def test_the_engines_role_may_keep_and_reserve(conn, schema_dsn):
    database = Database(conninfo.make_conninfo(schema_dsn, options="-c role=tinydancer_engine"))
    log = DecisionLog(database)
    log.keep([decision()], mode="sync", text=True)
    budgets = Reservations(database, database)
    assert budgets.remaining(Payer(), ["a"]) == {}
    id_ = new_decision_id(datetime.now(timezone.utc))
    assert budgets.reserve([Claim(id_, Payer(), "a", Decimal(1))]) == [None]
    log.close()
    database.close()
