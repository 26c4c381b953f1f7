"""A commit is seen by the next scan: agents, routes, utterances and settings."""

from __future__ import annotations

import threading
import time
from datetime import datetime, timedelta, timezone

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tinydancer.errors import NotReady, Unavailable
from tinydancer.store import snapshots as store_snapshots
from tinydancer.store.database import Database
from tinydancer.store.snapshots import Snapshots


@pytest.fixture
def server_place(conn) -> str:
    """What a front door of this server writes before its number of commits."""
    (identifier, started) = conn.execute(
        "SELECT system_identifier, pg_postmaster_start_time() FROM pg_control_system()"
    ).fetchone()
    since_2000 = started - datetime(2000, 1, 1, tzinfo=timezone.utc)
    return f"{identifier}/{since_2000 // timedelta(microseconds=1)}/"


def end_connections(conn) -> None:
    """What a server that breaks down does to an engine."""
    conn.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE application_name = 'tinydancer' AND datname = current_database()"
    )


def stored_by_now(conn) -> None:
    """Waits until the engine has written the vectors of agents back."""
    deadline = time.monotonic() + 10
    while conn.execute("SELECT name FROM agents WHERE embedding IS NULL").fetchone():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_committed_agent_is_in_the_next_snapshot(conn, snapshots):
    assert snapshots.current().agents.names == ()
    conn.execute("INSERT INTO agents (name) VALUES ('gpt-4')")
    assert snapshots.current().agents.names == ("gpt-4",)
    conn.execute("UPDATE agents SET quality = 0.9")
    assert snapshots.current().agents.quality.tolist() == [0.9]
    conn.execute("UPDATE agents SET active = false")
    assert snapshots.current().agents.names == ()
    conn.execute("UPDATE agents SET active = true")
    conn.execute("DELETE FROM agents")
    assert snapshots.current().agents.names == ()


def test_copy_and_truncate_are_seen(conn, snapshots):
    snapshots.current()
    with conn.cursor().copy("COPY agents (name, capabilities) FROM STDIN") as copy:
        copy.write_row(("a", ["code"]))
        copy.write_row(("b", ["law"]))
    assert snapshots.current().agents.names == ("a", "b")
    conn.execute("TRUNCATE agents")
    assert snapshots.current().agents.names == ()


def test_routes_utterances_and_settings_are_seen(conn, snapshots):
    snapshots.current()
    conn.execute("INSERT INTO routes (name, target_agent) VALUES ('help', 'desk')")
    assert [route.name for route in snapshots.current().routes.routes] == ["help"]
    conn.execute("INSERT INTO route_utterances (route, utterance) VALUES ('help', 'I am stuck')")
    snapshot = snapshots.current()
    assert snapshot.routes.routes[0].utterances == ("I am stuck",)
    assert len(snapshot.routes.vectors) == 2
    conn.execute("UPDATE settings SET default_output_tokens = 77")
    assert snapshots.current().settings.default_output_tokens == 77


def test_measured_performance_is_in_the_next_snapshot(conn, snapshots):
    conn.execute("INSERT INTO agents (name, quality, avg_latency_ms) VALUES ('a', 0.5, 1000)")
    before = snapshots.current()
    assert before.agents.outcomes.tolist() == [0]
    assert before.agents.latency_ms.tolist() == [1000]
    for _ in range(10):
        conn.execute(
            "SELECT ruvector_record_usage(agent_name := 'a', cost := 0, latency_ms := 0,"
            " output_tokens := 40, success := false)"
        )
    after = snapshots.current()
    assert after.agents.outcomes.tolist() == [10]
    assert after.agents.latency_ms.tolist() == [500]
    assert after.agents.quality.tolist() == [0.25]
    assert after.agents.output_tokens.tolist() == [40]


def test_an_outcome_leaves_the_roster_and_the_routes_as_they_were(conn, snapshots):
    conn.execute("INSERT INTO agents (name) VALUES ('a'), ('b')")
    conn.execute("INSERT INTO routes (name, target_agent) VALUES ('help', 'a')")
    snapshots.current()
    stored_by_now(conn)
    conn.execute("SELECT ruvector_record_usage(agent_name := 'b', cost := 0)")
    before = snapshots.current()

    conn.execute("SELECT ruvector_record_usage(agent_name := 'b', cost := 0)")

    after = snapshots.current()
    assert after.agents.outcomes.tolist() == [0, 2]
    assert after.agents.roster is before.agents.roster
    assert after.routes is before.routes


def test_an_outcome_beside_another_change_hides_neither(conn, snapshots):
    conn.execute("INSERT INTO agents (name) VALUES ('a'), ('b')")
    snapshots.current()
    with conn.transaction():
        conn.execute("SELECT ruvector_record_usage(agent_name := 'b', cost := 0)")
        conn.execute("UPDATE settings SET default_output_tokens = 77")
        conn.execute("UPDATE agents SET active = false WHERE name = 'a'")
    after = snapshots.current()
    assert after.agents.names == ("b",)
    assert after.agents.outcomes.tolist() == [1]
    assert after.settings.default_output_tokens == 77


def test_a_change_is_seen_where_triggers_are_silenced(conn, snapshots):
    snapshots.current()
    conn.execute("SET session_replication_role = replica")
    conn.execute("INSERT INTO agents (name) VALUES ('restored')")
    assert snapshots.current().agents.names == ("restored",)


def test_nothing_uncommitted_is_seen_and_nothing_rolled_back(conn, schema_dsn, snapshots):
    snapshots.current()
    with psycopg.connect(schema_dsn) as writer:
        writer.execute("INSERT INTO tinydancer.agents (name) VALUES ('later')")
        assert snapshots.current().agents.names == ()
        writer.commit()
        assert snapshots.current().agents.names == ("later",)
        writer.execute("DELETE FROM tinydancer.agents")
        writer.rollback()
    assert snapshots.current().agents.names == ("later",)


def test_a_change_in_a_savepoint_that_is_rolled_back_does_not_hide_the_next(conn, snapshots):
    snapshots.current()
    with conn.transaction():
        conn.execute("SAVEPOINT s")
        conn.execute("INSERT INTO agents (name) VALUES ('undone')")
        conn.execute("ROLLBACK TO s")
        conn.execute("INSERT INTO agents (name) VALUES ('kept')")
    assert snapshots.current().agents.names == ("kept",)


def test_a_transaction_that_began_before_a_snapshot_and_commits_after_it_is_seen(
    schema_dsn, conn, snapshots
):
    with psycopg.connect(schema_dsn) as slow:
        slow.execute("INSERT INTO tinydancer.agents (name) VALUES ('slow')")
        conn.execute("INSERT INTO agents (name) VALUES ('quick')")
        assert snapshots.current().agents.names == ("quick",)
        # Pruning now must not take away what tells of the slow one.
        conn.execute("SELECT prune_changes()")
        slow.commit()
    assert snapshots.current().agents.names == ("quick", "slow")


def test_an_unchanged_database_keeps_the_same_snapshot(conn, snapshots):
    conn.execute("INSERT INTO agents (name) VALUES ('a')")
    conn.execute("INSERT INTO routes (name, target_agent) VALUES ('r', 'a')")
    first = snapshots.current()
    assert snapshots.current() is first
    conn.execute("UPDATE agents SET quality = 0.1")
    second = snapshots.current()
    assert second is not first
    assert second.routes is first.routes


def test_rows_of_another_cluster_do_not_make_every_scan_read_again(conn, snapshots):
    conn.execute("INSERT INTO changes (xid, part) VALUES ('4000000000000', 'agents')")
    snapshots.current()
    snapshots.close()
    conn.execute("SELECT prune_changes()")
    assert conn.execute("SELECT count(*) FROM changes WHERE xid > '1000000000'").fetchone() == (0,)


def test_outcomes_alone_leave_few_rows_of_changes(conn, snapshots, monkeypatch):
    monkeypatch.setattr(store_snapshots, "READINGS_BETWEEN_PRUNINGS", 4)
    conn.execute("INSERT INTO agents (name) VALUES ('a')")
    for _ in range(40):
        conn.execute("SELECT ruvector_record_usage(agent_name := 'a', cost := 0)")
        snapshots.current()
    [(rows,)] = conn.execute("SELECT count(*) FROM changes WHERE part = 'performance'").fetchall()
    assert rows <= 6


def test_a_pruning_that_fails_fails_no_scan(snapshots, monkeypatch, caplog):
    monkeypatch.setattr(store_snapshots, "PRUNE", "SELECT 1 / 0")
    assert snapshots.current().agents.names == ()
    assert "division by zero" in caplog.text


def test_tables_dropped_and_restored_are_read_again(new_schema_dsn, embedder):
    database = Database(new_schema_dsn)
    snapshots = Snapshots(database, lambda settings: embedder)
    with psycopg.connect(new_schema_dsn, autocommit=True) as conn:
        conn.execute("INSERT INTO tinydancer.agents (name) VALUES ('before')")
        snapshots.current()
        # As pg_restore --clean does: the rows arrive before the triggers do.
        conn.execute("SET search_path = tinydancer")
        conn.execute("ALTER TABLE agents DISABLE TRIGGER note_change")
        with conn.transaction():
            conn.execute("ALTER TABLE changes RENAME TO changes_before")
            conn.execute("CREATE TABLE changes (LIKE changes_before INCLUDING ALL)")
            conn.execute("UPDATE agents SET name = 'after'")
    assert snapshots.current().agents.names == ("after",)
    snapshots.close()
    database.close()


STEPS = st.lists(st.sampled_from(["change", "prune", "read", "begin", "commit"]), max_size=12)


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(steps=STEPS, told=st.booleans())
def test_no_order_of_changes_prunings_and_readings_hides_a_commit(
    steps, told, conn, schema_dsn, snapshots, server_place
):
    # Given an engine, a writer who commits at once and one who takes their time
    conn.execute("UPDATE settings SET default_output_tokens = 0")
    conn.execute("DELETE FROM agents")
    conn.execute("INSERT INTO agents (name, avg_latency_ms) VALUES ('a', 0)")
    expected, latency = 0, 0
    with psycopg.connect(schema_dsn) as slow:
        for step in steps:
            if step == "change":
                expected += 1
                conn.execute("UPDATE settings SET default_output_tokens = %s", (expected,))
            elif step == "prune":
                conn.execute("SELECT prune_changes()")
            elif step == "begin":
                slow.execute("UPDATE tinydancer.agents SET avg_latency_ms = avg_latency_ms + 1")
            elif step == "commit":
                slow.commit()
                row = conn.execute("SELECT avg_latency_ms FROM agents").fetchone()
                latency = row[0]
            # Then every snapshot has all that was committed before it
            commits = f"{server_place}{expected}+{latency}" if told else ""
            snapshot = snapshots.finish(snapshots.begin(commits))
            assert snapshot.settings.default_output_tokens == expected
            assert snapshot.agents.latency_ms.tolist() == [latency]
        slow.rollback()


def test_where_a_front_door_tells_of_no_commit_since_nothing_is_asked(
    conn, snapshots, server_place
):
    # given a snapshot that was found fresh at some place
    place = f"{server_place}7"
    first = snapshots.current()
    assert snapshots.finish(snapshots.begin(place)) is first
    # when a scan comes from the same place, then it need not wait for any answer
    question = snapshots.begin(place)
    assert question.answered
    assert snapshots.finish(question) is first
    # and one from a later place, or from another server's, has to
    assert not snapshots.begin(f"{server_place}8").answered
    assert not snapshots.begin("1/2/7").answered
    snapshots.finish(snapshots.begin("1/2/7"))
    assert not snapshots.begin("1/2/7").answered


def test_a_place_says_nothing_once_the_server_has_ended_our_connection(
    conn, snapshots, server_place
):
    # given a snapshot that was found fresh, and a server that forgets its count in a crash
    place = f"{server_place}7"
    snapshots.current()
    snapshots.finish(snapshots.begin(place))
    end_connections(conn)
    conn.execute("INSERT INTO agents (name) VALUES ('after the crash')")
    # then a scan from a place of the same name sees what was committed in between
    snapshot = snapshots.finish(snapshots.begin(place))
    assert snapshot.agents.names == ("after the crash",)


def test_every_of_many_scans_at_once_sees_what_was_committed_before_it(conn, snapshots):
    conn.execute("INSERT INTO agents (name, avg_latency_ms) VALUES ('a', 0)")
    committed, stop, wrong = [0], threading.Event(), []

    def scan():
        while not stop.is_set():
            at_least = committed[0]
            seen = snapshots.current().agents.latency_ms[0]
            if seen < at_least:
                wrong.append((seen, at_least))

    scans = [threading.Thread(target=scan) for _ in range(6)]
    for thread in scans:
        thread.start()
    for number in range(1, 101):
        conn.execute("UPDATE agents SET avg_latency_ms = %s", (number,))
        committed[0] = number
    stop.set()
    for thread in scans:
        thread.join()
    assert wrong == []


def test_a_server_that_ends_every_connection_is_connected_to_again(conn, snapshots):
    conn.execute("INSERT INTO agents (name) VALUES ('a')")
    snapshots.current()
    end_connections(conn)
    conn.execute("INSERT INTO agents (name) VALUES ('b')")
    assert snapshots.current().agents.names == ("a", "b")


def test_a_database_that_is_not_there_is_unavailable_within_seconds(embedder):
    database = Database("host=127.0.0.1 port=1 dbname=none user=nobody")
    snapshots = Snapshots(database, lambda settings: embedder)
    started = time.monotonic()
    with pytest.raises(Unavailable) as raised:
        snapshots.current()
    assert time.monotonic() - started < 5
    assert "serve --dsn" in raised.value.hint
    snapshots.close()


def test_a_database_without_the_schema_is_not_ready(empty_database, embedder):
    database = Database(empty_database)
    with pytest.raises(NotReady, match="not installed"):
        Snapshots(database, lambda settings: embedder).current()


def test_a_settings_row_that_was_deleted_is_named(conn, snapshots):
    conn.execute("DELETE FROM settings")
    with pytest.raises(NotReady, match="settings has no row"):
        snapshots.current()
    conn.execute("INSERT INTO settings DEFAULT VALUES")
    snapshots.current()
