"""The ledger: outcomes recorded once, priced as of then, summed exactly."""

from __future__ import annotations

import json
import secrets
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import datetime, timezone
from decimal import Decimal

import psycopg
import pytest
from psycopg.types.json import Jsonb


@pytest.fixture
def agent(conn) -> None:
    conn.execute(
        "SELECT ruvector_register_agent('a', cost_per_1k_input_tokens := 1,"
        " cost_per_1k_output_tokens := 2, cost_per_call := 0.5, cost_per_second := 0.1,"
        " avg_latency_ms := 1000, quality_score := 0.5)"
    )


def decision(conn, at: datetime | None = None, **columns) -> str:
    milliseconds = int((at.timestamp() if at else time.time()) * 1000)
    number = (milliseconds << 80) | (7 << 76) | (2 << 62) | secrets.randbits(61)
    text = f"{number:032x}"
    values = {"agent": "a", "route": None, "category": None, "user_tier": None} | columns
    row = conn.execute(
        "INSERT INTO decisions (id, decided_at, request_hash, optimize_for, agent, route, category,"
        " user_tier) VALUES (%(id)s, uuid_time(%(id)s), 'x', 'cost', %(agent)s, %(route)s,"
        " %(category)s, %(user_tier)s) RETURNING id",
        {"id": text, **values},
    ).fetchone()
    return str(row[0])


def test_an_outcome_without_a_cost_is_priced_by_every_price_of_its_agent(conn, agent):
    conn.execute(
        "SELECT ruvector_record_usage(agent_name := 'a', input_tokens := 1000,"
        " output_tokens := 500, latency_ms := 2000)"
    )
    # 1 for input, 1 for output, 0.5 for the call, 0.2 for two seconds
    assert conn.execute("SELECT cost FROM usage").fetchone() == (Decimal("2.7"),)


def test_a_price_beyond_what_the_ledger_takes_is_refused_with_its_name(conn, agent):
    conn.execute("UPDATE agents SET cost_per_1k_input_tokens = 1e9")
    with pytest.raises(psycopg.errors.NumericValueOutOfRange, match="cost is 1e\\+18") as raised:
        conn.execute(
            "SELECT ruvector_record_usage(agent_name := 'a', input_tokens := 1000000000000,"
            " output_tokens := 0, latency_ms := 0)"
        )
    assert raised.value.diag.message_hint


def test_an_outcome_is_priced_as_of_when_it_happened(conn, agent):
    conn.execute("UPDATE agent_prices SET valid_from = now() - interval '3 days'")
    conn.execute("SELECT ruvector_update_agent('a', cost_per_call := 7)")
    conn.execute("SELECT ruvector_remove_agent('a')")
    record = (
        "SELECT ruvector_record_usage(agent_name := 'a', input_tokens := 0, output_tokens := 0,"
        " latency_ms := 0, occurred_at := now() - %s::interval)"
    )
    for ago in ("0", "1 day", "9 days"):
        conn.execute(record, (ago,))
    costs = conn.execute("SELECT cost FROM usage ORDER BY occurred_at DESC").fetchall()
    assert [float(cost) for (cost,) in costs] == [7, 0.5, 0.5]


def test_the_outcome_of_a_decision_takes_over_what_was_decided(conn, agent):
    decided = decision(conn, route="support", category="code", user_tier="gold")
    conn.execute("SELECT ruvector_record_usage(%s, cost := 1)", (decided,))
    row = conn.execute("SELECT agent, route, category, user_tier, success FROM usage").fetchone()
    assert row == ("a", "support", "code", "gold", True)


@pytest.mark.parametrize("isolation", ["REPEATABLE READ", "SERIALIZABLE"])
def test_a_decision_that_a_transaction_does_not_see_yet_may_be_tried_again(
    conn, connect, agent, isolation
):
    other = connect()
    other.execute(f"SET default_transaction_isolation = '{isolation}'")
    record = "SELECT ruvector_record_usage(%s, cost := 1)"
    with pytest.raises(psycopg.errors.SerializationFailure) as raised, other.transaction():
        other.execute("SELECT count(*) FROM decisions")
        made = decision(conn)
        other.execute(record, (made,))
    assert made in raised.value.diag.message_primary
    assert "new transaction" in raised.value.diag.message_hint
    assert other.execute(record, (made,)).fetchone() == (True,)


def test_a_decision_of_long_ago_that_is_not_there_is_no_serialization_failure(connect):
    other = connect()
    other.execute("SET default_transaction_isolation = 'REPEATABLE READ'")
    with pytest.raises(psycopg.errors.UndefinedObject, match="does not exist"):
        other.execute("SELECT ruvector_record_usage('018f0000-0000-7000-8000-000000000000')")


@pytest.mark.parametrize(
    ("given", "success"),
    [("", True), (", error := 'x'", False), (", error := 'x', success := true", True)],
)
def test_an_outcome_is_a_success_unless_it_has_an_error_or_says_so(conn, agent, given, success):
    conn.execute(f"SELECT ruvector_record_usage(agent_name := 'a', cost := 0{given})")
    assert conn.execute("SELECT success FROM usage").fetchone() == (success,)


def test_of_a_long_error_the_beginning_is_kept(conn, agent):
    conn.execute(
        "SELECT ruvector_record_usage(agent_name := 'a', cost := 0, error := 'top' || %s)",
        ("x" * 5000,),
    )
    (kept,) = conn.execute("SELECT error FROM usage").fetchone()
    assert kept == "top" + "x" * 4093


def test_the_same_outcome_twice_is_an_error_unless_its_key_says_it_is_a_retry(conn, agent):
    decided = decision(conn)
    conn.execute("SELECT ruvector_record_usage(%s, cost := 1)", (decided,))
    with pytest.raises(psycopg.errors.DuplicateObject, match="has an outcome already"):
        conn.execute("SELECT ruvector_record_usage(%s, cost := 1)", (decided,))
    keyed = "SELECT ruvector_record_usage(agent_name := 'a', cost := %s, idempotency_key := 'k')"
    assert conn.execute(keyed, (2,)).fetchone() == (True,)
    assert conn.execute(keyed, (2,)).fetchone() == (False,)
    with pytest.raises(psycopg.errors.DuplicateObject, match="another outcome"):
        conn.execute(keyed, (3,))
    assert conn.execute("SELECT sum(cost) FROM usage").fetchone() == (3,)


def test_a_decision_has_one_outcome_whichever_tenant_is_named(conn, agent):
    decided = decision(conn)
    conn.execute("SELECT ruvector_record_usage(%s, cost := 1, tenant := 'another')", (decided,))
    with pytest.raises(psycopg.errors.DuplicateObject, match="has an outcome already"):
        conn.execute("SELECT ruvector_record_usage(%s, cost := 1)", (decided,))
    assert conn.execute("SELECT tenant FROM usage").fetchall() == [("another",)]


def test_a_retry_may_write_the_same_values_another_way(conn, agent):
    keyed = (
        "SELECT ruvector_record_usage(agent_name := 'a', cost := {}, latency_ms := 5,"
        " occurred_at := timestamptz '2026-01-01 10:00+00', idempotency_key := 'k')"
    )
    assert conn.execute(keyed.format("1.50")).fetchone() == (True,)
    try:
        conn.execute("SET TimeZone = 'Asia/Kolkata'")
        assert conn.execute(keyed.format("1.5")).fetchone() == (False,)
        batch = {"agent_name": "a", "cost": 1.5, "latency_ms": 5.0, "idempotency_key": "k"}
        batch["occurred_at"] = "2026-01-01T11:00:00+01:00"
        assert conn.execute(
            "SELECT ruvector_record_usage_batch(%s)", (Jsonb([batch]),)
        ).fetchone() == (0,)
    finally:
        conn.execute("RESET TimeZone")
    with pytest.raises(psycopg.errors.DuplicateObject, match="another outcome"):
        conn.execute(keyed.format("1.51"))


def test_a_retry_of_what_an_older_version_recorded_is_known(conn, agent):
    keyed = "SELECT ruvector_record_usage(agent_name := 'a', cost := 1.50, idempotency_key := 'k')"
    assert conn.execute(keyed).fetchone() == (True,)
    conn.execute(
        "UPDATE usage_keys SET content = sha256(convert_to(%s, 'UTF8'))",
        ('{"cost": "1.50", "agent_name": "a", "idempotency_key": "k"}',),
    )
    assert conn.execute(keyed).fetchone() == (False,)


# Arguments, SQLSTATE, words of the message.
REFUSED = [
    ("agent_name := 'a', cost := -1", "22003", "cost is -1"),
    ("agent_name := 'a', cost := 'NaN'", "22003", "cost is NaN"),
    ("agent_name := 'a', cost := 1, latency_ms := 'Infinity'", "22003", "latency_ms is Infinity"),
    ("agent_name := 'a', cost := 1, quality := 1.5", "22003", "quality is 1.5"),
    ("agent_name := 'a', input_tokens := -1", "22003", "input_tokens is -1"),
    ("agent_name := 'a', cost := 1, occurred_at := now() + interval '1 h'", "22023", "future"),
    ("agent_name := 'a', cost := 1, occurred_at := '1999-12-31'", "22023", "partitions from 1999"),
    ("agent_name := 'ghost', cost := 1", "42704", "agent 'ghost' does not exist"),
    ("agent_name := 'a'", "22004", "input_tokens is NULL"),
    ("cost := 1", "22004", "neither a decision"),
    (
        "decision_id := '018f0000-0000-7000-8000-000000000000', cost := 1",
        "42704",
        "decision 018f0000-0000-7000-8000-000000000000 does not exist",
    ),
    ("agent_name := 'a', cost := 1, idempotency_key := ''", "22023", "idempotency_key"),
]


@pytest.mark.parametrize(("arguments", "sqlstate", "message"), REFUSED)
def test_a_bad_outcome_is_refused_and_nothing_written(conn, agent, arguments, sqlstate, message):
    with pytest.raises(psycopg.Error) as raised:
        conn.execute(f"SELECT ruvector_record_usage({arguments})")
    assert raised.value.sqlstate == sqlstate
    assert message in raised.value.diag.message_primary
    assert raised.value.diag.message_hint
    for table in ("usage", "usage_keys", "usage_hourly", "agent_outcomes"):
        assert conn.execute(f"SELECT count(*) FROM {table}").fetchone() == (0,)


def test_a_batch_is_recorded_whole_or_not_at_all(conn, agent):
    batch = [{"agent_name": "a", "cost": 1, "idempotency_key": str(n)} for n in range(5)]
    record = "SELECT ruvector_record_usage_batch(%s)"
    with pytest.raises(psycopg.Error):
        conn.execute(record, (Jsonb([*batch, {"agent_name": "a", "cost": -1}]),))
    assert conn.execute(record, (Jsonb(batch),)).fetchone() == (5,)
    assert conn.execute(record, (Jsonb([*batch, {"agent_name": "a", "cost": 4}]),)).fetchone() == (
        1,
    )
    assert conn.execute("SELECT sum(cost) FROM usage").fetchone() == (9,)
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="'costs', which is not known"):
        conn.execute(record, (Jsonb([{"agent_name": "a", "costs": 4}]),))
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="array of objects"):
        conn.execute(record, (Jsonb({"agent_name": "a"}),))


def test_sums_are_exact_under_writers_at_once(conn, agent, schema_dsn):
    def write(writer: int) -> None:
        with psycopg.connect(schema_dsn, autocommit=True) as connection:
            for number in range(25):
                connection.execute(
                    "SELECT tinydancer.ruvector_record_usage(agent_name := 'a', cost := 0.01,"
                    " latency_ms := %s, success := %s)",
                    (writer * 25 + number, number % 5 != 0),
                )

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, range(8)))
    row = conn.execute(
        "SELECT total_requests, total_cost, avg_latency_ms, success_rate"
        " FROM ruvector_routing_analytics()"
    ).fetchone()
    assert row == (200, Decimal("2.00"), 99.5, 0.8)
    stats = conn.execute(
        "SELECT outcomes, successes, measured_latency_ms FROM agent_stats WHERE agent = 'a'"
    ).fetchone()
    assert stats == (200, 160, 99.5)


def test_plain_sql_on_the_ledger_keeps_the_sums(conn, agent):
    conn.execute(
        "INSERT INTO usage (agent, cost, latency_ms) SELECT 'a', 1, n FROM generate_series(1, 10) n"
    )
    conn.execute("UPDATE usage SET cost = 2, success = false WHERE latency_ms <= 5")
    conn.execute("DELETE FROM usage WHERE latency_ms = 10")
    row = conn.execute(
        "SELECT total_requests, total_cost, success_rate, avg_latency_ms"
        " FROM ruvector_routing_analytics()"
    ).fetchone()
    assert row == (9, Decimal(14), pytest.approx(4 / 9), 5.0)
    assert conn.execute(
        "SELECT sum(requests) FROM usage_latency WHERE dimension = 'agent'"
    ).fetchone() == (9,)
    conn.execute("TRUNCATE usage")
    assert conn.execute("SELECT * FROM ruvector_routing_analytics()").fetchall() == []


def merge(conn) -> None:
    for _ in range(8):  # a shard a call
        if conn.execute("SELECT compact_sums()").fetchone() == (0,):
            break


def test_sums_of_days_gone_by_are_merged_and_stay_the_same(conn, agent, schema_dsn):
    conn.execute("SELECT ensure_partitions(now() - interval '40 days', now())")
    for _ in range(4):
        with psycopg.connect(schema_dsn, autocommit=True) as session:
            session.execute(
                "INSERT INTO tinydancer.usage (tenant, agent, route, category, occurred_at, cost,"
                " latency_ms) SELECT 't' || n % 3, 'a', 'r' || n % 2, 'c' || n % 4,"
                " now() - n * interval '9 hours', 0.1, n FROM generate_series(0, 40) n"
            )

    def analytics() -> list[list[tuple]]:
        ask_by = "SELECT * FROM ruvector_routing_analytics('30 days', %s)"
        return [
            conn.execute(ask_by, (by,)).fetchall()
            for by in ("agent", "route", "category", "tenant", "user_tier", "day", "hour")
        ]

    before = analytics()
    merge(conn)
    assert analytics() == before
    # What comes late, or is taken back, counts as well: beside what is merged, then with it.
    conn.execute("DELETE FROM usage WHERE latency_ms = 20")
    conn.execute(
        "INSERT INTO usage (tenant, agent, occurred_at, cost, latency_ms)"
        " VALUES ('t9', 'a', now() - interval '10 days', 7, 5000)"
    )
    late = analytics()
    assert [sum(row[1] for row in rows) for rows in late] == [4 * 41 - 4 + 1] * 7
    assert late[0][0][2] == Decimal("0.1") * 160 + 7
    merge(conn)
    assert analytics() == late
    left = conn.execute(
        "SELECT count(*) FROM usage_hourly"
        " WHERE shard <> 0 AND hour < date_trunc('day', now(), 'UTC') - interval '1 day'"
    )
    assert left.fetchone() == (0,)
    assert conn.execute("SELECT compact_sums()").fetchone() == (0,)


LOAD = """
INSERT INTO tinydancer.usage (tenant, agent, route, category, occurred_at, cost, latency_ms)
SELECT 't' || n % 3, 'a', CASE n % 3 WHEN 0 THEN 'r' WHEN 1 THEN '' END, 'c' || n % 4,
    now() - n * interval '20 minutes', 0.1, n
FROM generate_series(0, 1999) AS n
"""


def test_what_is_loaded_at_once_is_merged_at_once(conn, agent, schema_dsn):
    conn.execute("SELECT ensure_partitions(now() - interval '40 days', now())")
    # When sessions load a history one after the other
    for _ in range(3):
        with psycopg.connect(schema_dsn, autocommit=True) as session:
            session.execute(LOAD)
    # Then there is a row for each sum, of all tenants but by agent
    rows = conn.execute(
        "SELECT dimension, count(*), count(DISTINCT (value, hour)), sum(requests), max(tenant)"
        " FROM usage_hourly GROUP BY 1 ORDER BY 1"
    ).fetchall()
    for dimension, rows_of_it, sums, requests, tenant in rows:
        assert requests == 6000
        assert (tenant == "") == (dimension != "agent")
        assert rows_of_it == sums or dimension == "agent"
    assert conn.execute("SELECT compact_sums()").fetchone() == (0,)


def test_writers_do_not_wait_for_each_other(conn, agent, schema_dsn):
    # Given transactions under way that have added to the same sums, many rows or one
    record = "SELECT tinydancer.ruvector_record_usage(agent_name := 'a', cost := 1)"
    at_once = "INSERT INTO tinydancer.usage (agent, cost) SELECT 'a', 1 FROM generate_series(1, %s)"
    conn.execute("INSERT INTO usage (agent, cost) SELECT 'a', 1 FROM generate_series(1, 2000)")
    with ExitStack() as open_transactions:
        sessions = [
            open_transactions.enter_context(
                psycopg.connect(schema_dsn, options="-c lock_timeout=2s")
            )
            for _ in range(9)
        ]
        # When each writes before another commits, then none runs into the timeout
        sessions[0].execute(at_once, (1000,))
        for session in sessions[1:]:
            session.execute(record)
        # A transaction that writes again goes on where it was.
        sessions[0].execute(at_once, (1000,))
        for session in sessions[1:]:
            session.execute(record)
        # Upkeep does not wait either.
        assert conn.execute("SELECT compact_sums()").fetchone() == (0,)
        for session in sessions:
            session.commit()
    assert conn.execute("SELECT outcomes FROM agent_stats").fetchone() == (2000 + 2 * 1000 + 2 * 8,)
    assert conn.execute(
        "SELECT total_requests, total_cost FROM ruvector_routing_analytics('1 day', 'route')"
    ).fetchall() == [(4016, 4016)]


def test_no_writer_waits_while_sums_are_merged(conn, agent, schema_dsn):
    conn.execute("SELECT ensure_partitions(now() - interval '40 days', now())")
    late = (
        "INSERT INTO tinydancer.usage (agent, cost, latency_ms, occurred_at)"
        " VALUES ('a', 1, 5, date_trunc('day', now() - interval '9 days'))"
    )
    conn.execute(late)
    with ExitStack() as open_transactions:
        upkeep, *sessions = [
            open_transactions.enter_context(
                psycopg.connect(schema_dsn, options="-c lock_timeout=2s")
            )
            for _ in range(8)
        ]
        # Given upkeep in the midst of merging, when each writes to the same hour, none has to wait
        assert upkeep.execute("SELECT tinydancer.compact_sums()").fetchone() > (0,)
        for session in sessions:
            session.execute(late)
        upkeep.commit()
        for session in sessions:
            session.commit()
    merge(conn)
    assert conn.execute(
        "SELECT dimension, shard, requests FROM usage_hourly ORDER BY 1"
    ).fetchall() == [(name, 0, 8) for name in ("agent", "category", "route", "user_tier")]


def test_outcomes_of_each_agent_are_summed_up_by_category(conn, agent):
    conn.execute("SELECT ensure_partitions(now() - interval '40 days', now())")
    conn.execute(
        "INSERT INTO usage (agent, category, occurred_at, cost, success, quality)"
        " SELECT 'a' || n % 2, nullif('c' || n % 3, 'c0'), now() - n * interval '5 hours', 1,"
        " n % 5 > 0, CASE WHEN n % 4 = 0 THEN 0.25 END FROM generate_series(0, 120) n"
    )
    conn.execute("UPDATE usage SET category = 'c1', quality = 0.5 WHERE agent = 'a1' AND success")
    conn.execute("DELETE FROM usage WHERE occurred_at < now() - interval '20 days'")
    sums = (
        "SELECT category, agent, day, sum(requests), sum(reward_sum) FROM category_outcomes"
        " GROUP BY 1, 2, 3 HAVING sum(requests) <> 0 ORDER BY 1, 2, 3"
    )
    rows = (
        "SELECT coalesce(category, ''), agent, date_trunc('day', occurred_at, 'UTC'), count(*),"
        " sum(coalesce(quality::numeric, success::integer)) FROM usage GROUP BY 1, 2, 3"
        " ORDER BY 1, 2, 3"
    )
    expected = conn.execute(rows).fetchall()
    assert len(expected) > 50
    assert conn.execute(sums).fetchall() == expected
    assert conn.execute("SELECT compact_sums()").fetchone() > (0,)
    assert conn.execute(sums).fetchall() == expected


def test_a_prior_gives_way_to_outcomes_as_they_come(conn, agent):
    stats = "SELECT prior_share, success_rate, quality, latency_ms FROM agent_stats"
    assert conn.execute(stats).fetchone() == (1, 0.5, 0.5, 1000)
    conn.execute(
        "INSERT INTO usage (agent, cost, latency_ms, quality)"
        " SELECT 'a', 1, 100, 0.9 FROM generate_series(1, 30)"
    )
    share, success, quality, latency = conn.execute(stats).fetchone()
    assert share == pytest.approx(10 / 40)
    assert success == pytest.approx((5 + 30) / 40)
    assert quality == pytest.approx((5 + 27) / 40)
    assert latency == pytest.approx((10_000 + 3_000) / 40)


def test_analytics_equal_the_rows_themselves_by_every_grouping(conn, agent):
    conn.execute("SELECT ensure_partitions(now() - interval '40 days', now())")
    conn.execute(
        """
        INSERT INTO usage (tenant, occurred_at, agent, route, category, user_tier, cost, latency_ms,
            success)
        SELECT 't' || n % 2, now() - n * interval '3 hours 17 minutes', 'a' || n % 3,
            CASE WHEN n % 4 > 0 THEN 'r' || n % 4 END, 'c' || n % 5, 'u' || n % 2, n * 0.001,
            exp(n % 70 / 10.0), n % 7 > 0
        FROM generate_series(1, 250) AS n
        """
    )
    # Some just within the range and some just outside it, in one hour unless that has just turned.
    conn.execute(
        """
        INSERT INTO usage (tenant, occurred_at, agent, route, category, user_tier, cost, latency_ms)
        SELECT 't0', now() - interval '20 days' + n * interval '30 seconds', 'a0', 'r1', 'c0', 'u0',
            1, 10
        FROM generate_series(-3, 3) AS n WHERE n <> 0
        """
    )
    for group_by, column in {
        "agent": "agent",
        "route": "route",
        "category": "category",
        "tenant": "tenant",
        "user_tier": "user_tier",
        "day": "to_char(occurred_at AT TIME ZONE 'UTC', 'YYYY-MM-DD')",
        "hour": "to_char(occurred_at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:00')",
    }.items():
        with conn.transaction():
            found = conn.execute(
                "SELECT agent, total_requests, total_cost, avg_latency_ms, success_rate,"
                " p50_latency_ms, p99_latency_ms, cost_per_success, share"
                " FROM ruvector_routing_analytics('20 days', %s)",
                (group_by,),
            ).fetchall()
            expected = conn.execute(
                f"""
                SELECT {column}, count(*), sum(cost), avg(latency_ms),
                    avg(success::integer)::float8,
                    percentile_disc(0.5) WITHIN GROUP (ORDER BY latency_ms),
                    percentile_disc(0.99) WITHIN GROUP (ORDER BY latency_ms),
                    round(sum(cost) / nullif(count(*) FILTER (WHERE success), 0), 9),
                    count(*)::float8 / sum(count(*)) OVER ()
                FROM usage WHERE occurred_at >= now() - interval '20 days' GROUP BY 1
                """
            ).fetchall()
        assert len(found) == len(expected)
        by_value = {row[0]: row for row in expected}
        for row in found:
            right = by_value[row[0]]
            assert (row[1], row[2], row[7]) == (right[1], right[2], right[7])
            assert row[3:5] == pytest.approx(right[3:5])
            assert row[5:7] == pytest.approx(right[5:7], rel=0.01)
            assert row[8] == pytest.approx(right[8])


@pytest.mark.parametrize("time_range", ["60 years", "1000000 years"])
def test_a_range_longer_than_there_are_accounts_is_all_of_them(conn, agent, time_range):
    conn.execute("SELECT ruvector_record_usage(agent_name := 'a', cost := 1)")
    assert conn.execute(
        "SELECT total_requests FROM ruvector_routing_analytics(%s)", (time_range,)
    ).fetchall() == [(1,)]


@pytest.mark.parametrize(
    ("arguments", "sqlstate", "message"),
    [
        ("group_by := 'colour'", "22023", "group_by is 'colour'"),
        ("time_range := 'soon'", "22007", "time_range is 'soon'"),
        ("time_range := '-1 day'", "22023", "does not lie in the past"),
        ("time_range := '-1000000 years'", "22023", "does not lie in the past"),
        ("time_range := NULL", "22023", "time_range is NULL"),
    ],
)
def test_analytics_refuse_what_makes_no_sense(conn, arguments, sqlstate, message):
    with pytest.raises(psycopg.Error) as raised:
        conn.execute(f"SELECT * FROM ruvector_routing_analytics({arguments})")
    assert raised.value.sqlstate == sqlstate
    assert message in raised.value.diag.message_primary
    assert raised.value.diag.message_hint


def test_old_partitions_go_when_settings_say_so_and_their_sums_stay(conn, agent):
    old = "SELECT ruvector_record_usage(agent_name := 'a', cost := 1, occurred_at := %s)"
    conn.execute(old, (datetime(2020, 5, 5, tzinfo=timezone.utc),))
    conn.execute(old, (datetime.now(timezone.utc),))
    assert conn.execute("SELECT apply_retention()").fetchone() == ([],)
    conn.execute("UPDATE settings SET usage_retention = '90 days', decisions_retention = '90 days'")
    (dropped,) = conn.execute("SELECT apply_retention()").fetchone()
    assert {"usage_2020_05", "decisions_2020_05"} <= set(dropped)
    assert conn.execute("SELECT count(*) FROM usage").fetchone() == (1,)
    assert conn.execute("SELECT count(*) FROM usage_keys").fetchone() == (1,)
    assert conn.execute("SELECT outcomes FROM agent_stats").fetchone() == (2,)


def test_retention_keeps_nobody_waiting_behind_a_long_report(conn, schema_dsn, agent):
    old = "SELECT ruvector_record_usage(agent_name := 'a', cost := 1, occurred_at := %s)"
    conn.execute(old, (datetime(2020, 5, 5, tzinfo=timezone.utc),))
    conn.execute("UPDATE settings SET usage_retention = '90 days', decisions_retention = '90 days'")
    with psycopg.connect(schema_dsn) as report:
        report.execute("SELECT count(*) FROM tinydancer.usage")
        conn.execute("SET statement_timeout = '10s'")
        (dropped,) = conn.execute("SELECT apply_retention()").fetchone()
        assert "usage_2020_05" not in dropped
        assert "decisions_2020_05" in dropped
    assert conn.execute("SELECT apply_retention()").fetchone() == (["usage_2020_05"],)


def test_the_time_in_a_decisions_id_is_its_time(conn):
    at = datetime(2026, 3, 4, 5, 6, 7, 891000, tzinfo=timezone.utc)
    decided = (
        decision(conn, at=at)
        if conn.execute("SELECT ensure_partitions(%s, %s)", (at, at))
        else None
    )
    assert conn.execute(
        "SELECT decided_at FROM decisions WHERE id = %s", (decided,)
    ).fetchone() == (at,)


def test_tenant_is_part_of_every_key_of_what_could_be_sharded(conn):
    keys = conn.execute(
        "SELECT conrelid::regclass::text, array_agg(attname::text) FROM pg_constraint"
        " JOIN pg_attribute ON attrelid = conrelid AND attnum = ANY (conkey)"
        " WHERE contype = 'p' AND conrelid IN ('decisions'::regclass, 'usage'::regclass,"
        " 'usage_keys'::regclass, 'usage_hourly'::regclass, 'usage_latency'::regclass)"
        " GROUP BY 1"
    ).fetchall()
    assert len(keys) == 5
    assert all("tenant" in columns for _, columns in keys), json.dumps(keys)
