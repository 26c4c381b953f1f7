"""Circuit breakers in SQL: moved by recorded outcomes, wherever and by whomever they come."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor
from uuid import uuid4

import psycopg
import pytest
from tests.breaker_model import Breaker, Policy, advance, after


@pytest.fixture
def agents(conn: psycopg.Connection) -> psycopg.Connection:
    conn.execute("SELECT ruvector_register_agent('a'), ruvector_register_agent('b')")
    return conn


def record(conn: psycopg.Connection, *successes: bool, agent: str = "a") -> None:
    for success in successes:
        conn.execute(
            "SELECT ruvector_record_usage(agent_name := %s, success := %s)", (agent, success)
        )


def state(conn: psycopg.Connection, agent: str = "a") -> str:
    row = conn.execute("SELECT state FROM agent_health WHERE agent = %s", (agent,)).fetchone()
    return row[0]


def pass_time(conn: psycopg.Connection, seconds: float) -> None:
    """Have all that breakers know be that much older."""
    conn.execute(
        """
        UPDATE recent_outcomes SET as_of = as_of - make_interval(secs => %(s)s);
        UPDATE agent_breakers SET opened_at = opened_at - make_interval(secs => %(s)s),
            retry_at = retry_at - make_interval(secs => %(s)s),
            forgiven_at = forgiven_at - make_interval(secs => %(s)s);
        UPDATE calls_in_flight SET reserved_at = reserved_at - make_interval(secs => %(s)s)
        """.replace("%(s)s", str(float(seconds)))
    )


def test_failures_open_it_the_cooldown_half_opens_it_and_probes_close_it(agents):
    record(agents, *[False] * 4)
    assert state(agents) == "closed"
    record(agents, False)
    assert (state(agents), state(agents, "b")) == ("open", "closed")
    waits = "SELECT retry_at - opened_at FROM agent_health WHERE agent = 'a'"
    assert agents.execute(waits).fetchone()[0].total_seconds() == 30
    pass_time(agents, 31)
    assert state(agents) == "half_open"
    record(agents, True)
    assert state(agents) == "half_open"
    record(agents, True)
    assert state(agents) == "closed"


def test_a_probe_that_fails_opens_it_for_twice_as_long_up_to_a_limit(agents):
    agents.execute("UPDATE settings SET breaker_longest_cooldown = '200 seconds'")
    record(agents, *[False] * 5)
    waits = []
    for _ in range(5):
        row = agents.execute("SELECT retry_at - opened_at FROM agent_health WHERE agent = 'a'")
        waits.append(row.fetchone()[0].total_seconds())
        pass_time(agents, waits[-1] + 1)
        record(agents, False)
    assert waits == [30, 60, 120, 200, 200]


def test_an_agent_that_stays_down_for_good_waits_the_longest_time(agents):
    agents.execute(
        "UPDATE settings SET breaker_cooldown = '1 day', breaker_longest_cooldown = '30 days'"
    )
    record(agents, *[False] * 5)
    agents.execute("UPDATE agent_breakers SET openings = 2000, retry_at = now()")
    record(agents, False)
    waits = "SELECT retry_at - opened_at FROM agent_health WHERE agent = 'a'"
    assert agents.execute(waits).fetchone()[0].days == 30


def test_failures_decay_so_that_rare_ones_never_add_up(agents):
    for _ in range(20):
        record(agents, False)
        pass_time(agents, 60)
    assert state(agents) == "closed"
    (failures,) = agents.execute("SELECT failures FROM agent_health WHERE agent = 'a'").fetchone()
    assert failures == pytest.approx(1, abs=0.01)


def test_failures_among_many_successes_do_not_open_it(agents):
    record(agents, *[True] * 6, *[False] * 8)
    assert state(agents) == "closed"


def test_an_outcome_of_a_call_that_began_before_proves_nothing(agents):
    record(agents, *[False] * 5, True, True, True)
    assert state(agents) == "open"
    pass_time(agents, 31)
    slow = "SELECT ruvector_record_usage(agent_name := 'a', success := false, latency_ms := 60000)"
    agents.execute(slow)
    assert agents.execute(
        "SELECT state, openings FROM agent_health WHERE agent = 'a'"
    ).fetchone() == ("half_open", 1)


def test_old_outcomes_that_are_recorded_late_do_not_open_it(agents):
    agents.execute(
        "SELECT ruvector_record_usage(agent_name := 'a', success := false,"
        " occurred_at := now() - interval '1 hour') FROM generate_series(1, 20)"
    )
    assert state(agents) == "closed"


def test_answers_that_somebody_judged_to_be_bad_do_not_open_it_but_errors_do(agents):
    bad = "SELECT ruvector_record_usage(agent_name := 'a', success := false, quality := 0.1{})"
    for _ in range(10):
        agents.execute(bad.format(""))
    assert state(agents) == "closed"
    agents.execute("SELECT ruvector_reset_breaker('a')")
    for _ in range(5):
        agents.execute(bad.format(", error := 'cut off'"))
    assert state(agents) == "open"


def test_a_batch_of_failures_opens_it_and_a_failed_batch_does_not(agents):
    batch = "SELECT ruvector_record_usage_batch(%s::jsonb)"
    failures = ", ".join(['{"agent_name": "a", "success": false}'] * 6)
    with pytest.raises(psycopg.errors.UndefinedObject):
        agents.execute(batch, (f'[{failures}, {{"agent_name": "nobody"}}]',))
    assert state(agents) == "closed"
    agents.execute(batch, (f"[{failures}]",))
    assert state(agents) == "open"


def test_outcomes_of_a_batch_prove_in_the_order_in_which_they_happened(agents):
    record(agents, *[False] * 5)
    pass_time(agents, 91)
    # Given a failure that is the first of them, and the last in the batch
    agents.execute(
        """
        SELECT ruvector_record_usage_batch(jsonb_agg(jsonb_build_object(
            'agent_name', 'a', 'success', ago < 3,
            'occurred_at', now() - make_interval(secs => ago))))
        FROM generate_series(1, 3) AS ago
        """
    )
    assert state(agents) == "open"
    # And one that comes when two successes have closed the circuit
    pass_time(agents, 91)
    agents.execute(
        """
        SELECT ruvector_record_usage_batch(jsonb_agg(jsonb_build_object(
            'agent_name', 'a', 'success', ago > 1,
            'occurred_at', now() - make_interval(secs => ago))))
        FROM generate_series(1, 3) AS ago
        """
    )
    assert state(agents) == "closed"


PROBE = (
    "SELECT limits[1] FROM reserve_calls(ARRAY[%s::uuid], ARRAY['default'], ARRAY['a'],"
    " ARRAY[NULL], ARRAY[NULL], ARRAY[0.0])"
)


def test_an_outcome_that_names_no_decision_settles_the_oldest_probe(agents):
    agents.execute("UPDATE settings SET breaker_probes = 2, breaker_successes = 3")
    record(agents, *[False] * 5)
    pass_time(agents, 31)
    first, second = uuid4(), uuid4()
    for probe in (first, second):
        assert agents.execute(PROBE, (probe,)).fetchone() == (None,)
    record(agents, True)
    assert agents.execute("SELECT decision_id FROM calls_in_flight").fetchall() == [(second,)]


def test_a_probe_from_before_the_circuit_opened_again_takes_no_place_of_the_next(agents):
    # Given two probes under way, one of which fails
    agents.execute("UPDATE settings SET breaker_probes = 2")
    record(agents, *[False] * 5)
    pass_time(agents, 31)
    for _ in range(2):
        agents.execute(PROBE, (uuid4(),))
    record(agents, False)
    # When the circuit is half open again
    pass_time(agents, 61)
    assert state(agents) == "half_open"
    # Then two more may try it, and no third
    refused = [agents.execute(PROBE, (uuid4(),)).fetchone()[0] for _ in range(3)]
    assert refused == [None, None, "half open with 2 of 2 probes under way"]


def test_sessions_that_fail_at_once_are_all_counted(agents, schema_dsn):
    def fail(_: int) -> None:
        with psycopg.connect(
            schema_dsn, autocommit=True, options="-c search_path=tinydancer,public"
        ) as connection:
            record(connection, False)

    agents.execute("UPDATE settings SET breaker_failures = 15.5")
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(fail, range(16)))
    assert state(agents) == "open"
    assert agents.execute("SELECT openings FROM agent_breakers").fetchone() == (1,)


def test_it_is_reset_by_hand_and_what_went_wrong_is_forgiven(agents):
    record(agents, *[False] * 5)
    assert agents.execute("SELECT ruvector_reset_breaker('a')").fetchone() == (True,)
    assert state(agents) == "closed"
    record(agents, *[False] * 4)
    assert state(agents) == "closed"
    assert agents.execute("SELECT ruvector_reset_breaker('b')").fetchone() == (False,)
    with pytest.raises(psycopg.errors.UndefinedObject, match="'nobody' does not exist"):
        agents.execute("SELECT ruvector_reset_breaker('nobody')")


def test_it_can_be_off_for_all_or_for_one(agents):
    agents.execute("SELECT ruvector_update_agent('a', circuit_breaker := false)")
    record(agents, *[False] * 9)
    assert (state(agents), state(agents, "b")) == ("off", "closed")
    agents.execute("UPDATE settings SET circuit_breaker = false")
    record(agents, *[False] * 9, agent="b")
    assert state(agents, "b") == "off"
    assert agents.execute("SELECT count(*) FROM open_circuits").fetchone() == (0,)


@pytest.mark.parametrize("seed", range(6))
def test_any_run_of_outcomes_moves_it_as_the_reference_says(agents, seed):
    # Given settings off the round numbers, so that the milliseconds a test takes change nothing
    policy = Policy(failures=2.97, share=0.47, half_life=60, cooldown=30, longest_cooldown=100)
    agents.execute(
        "UPDATE settings SET breaker_failures = 2.97, breaker_share = 0.47,"
        " breaker_longest_cooldown = '100 seconds', breaker_probes = 1000"
    )
    dice = random.Random(seed)
    expected, clock = Breaker(), 0.0
    seen = set()
    for _ in range(60):
        # When outcomes come some time after each other
        wait = dice.choice([0.5, 2.5, 7.5, 33.5, 61.5, 101.5])
        pass_time(agents, wait)
        clock += wait
        success = dice.random() < 0.4
        expected = after(advance(expected, clock, policy), success, policy)
        record(agents, success)
        # Then the state is the reference's
        row = agents.execute(
            "SELECT state, openings, proven, failures, calls FROM agent_health WHERE agent = 'a'"
        ).fetchone()
        assert row[:3] == (expected.state, expected.openings, expected.proven)
        assert row[3:] == pytest.approx((expected.failures, expected.calls), abs=0.05)
        seen.add(row[0])
    assert seen >= {"closed", "open"}


def test_settings_that_could_never_work_are_refused(conn):
    for name, value in [
        ("breaker_failures", "0"),
        ("breaker_failures", "'NaN'"),
        ("breaker_share", "0"),
        ("breaker_share", "1.5"),
        ("breaker_half_life", "'0'"),
        ("breaker_cooldown", "'-1 s'"),
        ("breaker_probes", "0"),
    ]:
        with pytest.raises(psycopg.errors.CheckViolation, match=name):
            conn.execute(f"UPDATE settings SET {name} = {value}")
