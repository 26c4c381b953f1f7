"""Only the routes that have changed are read, and the copy is what reading all of them gives."""

from __future__ import annotations

import time

import numpy as np
import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tinydancer.store import routes as store_routes
from tinydancer.store.snapshots import Snapshots

CHANGES = {
    "priority": "UPDATE routes SET priority = priority + 1 WHERE name = %(name)s",
    "description": "UPDATE routes SET description = description || ' more' WHERE name = %(name)s",
    "rename": "UPDATE routes SET name = name || '+' WHERE name = %(name)s"
    " AND NOT EXISTS (SELECT FROM routes WHERE name = %(name)s || '+')",
    "off or on": "UPDATE routes SET active = NOT active WHERE name = %(name)s",
    "hybrid": "UPDATE routes SET matching = 'hybrid' WHERE name = %(name)s",
    "tiers": "UPDATE routes SET user_tiers = ARRAY['gold'], threshold = 0.5 WHERE name = %(name)s",
    "remove": "DELETE FROM routes WHERE name = %(name)s",
    "add": "INSERT INTO routes (name, description, target_agent)"
    " VALUES (%(name)s, 'new ' || %(name)s, 'a') ON CONFLICT DO NOTHING",
    "say": "INSERT INTO route_utterances (route, utterance)"
    " SELECT name, 'say ' || name FROM routes WHERE name = %(name)s ON CONFLICT DO NOTHING",
    "unsay": "DELETE FROM route_utterances WHERE route = %(name)s",
    "reword": "UPDATE route_utterances SET utterance = utterance || '!' WHERE route = %(name)s",
}
BESIDE = {
    "a setting": "UPDATE settings SET default_output_tokens = default_output_tokens",
    "an outcome": "SELECT ruvector_record_usage(agent_name := 'a', cost := 0)",
}
AT_ONCE, LATER = ["r1", "r2"], ["s1", "s2"]
OTHERS = [f"t{number}" for number in range(1, 17)]


def make_routes(conn):
    """A score of routes, some with utterances, and nothing of what was there before."""
    conn.execute("TRUNCATE routes CASCADE")
    conn.cursor().executemany(
        "INSERT INTO routes (name, description, target_agent) VALUES (%s, %s, 'a')",
        [(name, f"about {name}") for name in (*AT_ONCE, *LATER, *OTHERS)],
    )
    conn.execute(
        "INSERT INTO route_utterances VALUES ('r1', 'first'), ('r1', 'second'), ('r2', 'third'),"
        " ('s1', 'fourth'), ('t1', 'fifth')"
    )


def with_vectors_stored(database, embedder):
    """The snapshots of an engine that has nothing more to write back."""
    for _ in range(2):
        snapshots = Snapshots(database, lambda settings: embedder)
        snapshots.current()
        snapshots.close()
    snapshots = Snapshots(database, lambda settings: embedder)
    snapshots.current()
    return snapshots


def names_pending(snapshot):
    table, indexed = snapshot.routes, snapshot.indexed
    return {table.routes[owner].name for owner in indexed.owners} if indexed else set()


steps = st.lists(
    st.one_of(
        st.tuples(st.just("at once"), st.sampled_from(sorted(CHANGES)), st.sampled_from(AT_ONCE)),
        st.tuples(st.just("later"), st.sampled_from(sorted(CHANGES)), st.sampled_from(LATER)),
        st.tuples(st.just("beside"), st.sampled_from(sorted(BESIDE)), st.none()),
        st.just(("commit", None, None)),
    ),
    max_size=8,
)


@pytest.mark.parametrize("search", ["exact", "hnsw"])
@given(steps=steps)
@settings(max_examples=30, suppress_health_check=list(HealthCheck))
def test_after_any_changes_the_copy_is_what_reading_everything_gives(
    search, steps, conn, schema_dsn, database, embedder
):
    # Given a copy of some routes, and a transaction that takes its time
    make_routes(conn)
    conn.execute("INSERT INTO agents (name) VALUES ('a') ON CONFLICT DO NOTHING")
    conn.execute("UPDATE settings SET route_index = %s", (search,))
    snapshots = with_vectors_stored(database, embedder)
    with psycopg.connect(schema_dsn, options="-c search_path=tinydancer,public") as slow:
        # When routes are changed by it and by others, and the copy is read in between
        for when, change, name in steps:
            if when == "at once":
                conn.execute(CHANGES[change], {"name": name})
            elif when == "later":
                slow.execute(CHANGES[change], {"name": name})
            elif when == "beside":
                conn.execute(BESIDE[change])
            else:
                slow.commit()
            found = snapshots.current()
    found = snapshots.current()
    # Then it is the copy that another engine makes, but for vectors written back meanwhile
    everything = Snapshots(database, lambda settings: embedder)
    expected = everything.current()
    assert found.routes.routes == expected.routes.routes
    assert found.routes.starts.tolist() == expected.routes.starts.tolist()
    assert np.array_equal(found.routes.thresholds, expected.routes.thresholds, equal_nan=True)
    assert found.routes.vectors == pytest.approx(expected.routes.vectors, abs=1e-6)
    assert names_pending(found) >= names_pending(expected)
    snapshots.close()
    everything.close()


@pytest.fixture
def read_whole(monkeypatch):
    """How often all routes were read."""
    times = []
    read = store_routes._read

    def counted(conn, embedder, indexed, names):
        if names is None:
            times.append(1)
        return read(conn, embedder, indexed, names)

    monkeypatch.setattr(store_routes, "_read", counted)
    return times


def test_one_route_that_changed_is_read_alone(conn, database, embedder, read_whole):
    make_routes(conn)
    snapshots = with_vectors_stored(database, embedder)
    read_whole.clear()

    conn.execute("UPDATE routes SET priority = 7 WHERE name = 't3'")

    assert [r.priority for r in snapshots.current().routes.routes if r.name == "t3"] == [7]
    assert not read_whole
    snapshots.close()


def test_when_many_have_changed_all_are_read(conn, database, embedder, read_whole):
    make_routes(conn)
    snapshots = with_vectors_stored(database, embedder)
    read_whole.clear()

    conn.execute("UPDATE routes SET priority = 7")

    assert {route.priority for route in snapshots.current().routes.routes} == {7}
    assert read_whole
    snapshots.close()


def test_when_ids_have_gone_half_round_all_are_read(
    conn, database, embedder, read_whole, monkeypatch
):
    make_routes(conn)
    snapshots = with_vectors_stored(database, embedder)
    read_whole.clear()
    monkeypatch.setattr(store_routes, "MOST_IDS", 0)

    conn.execute("UPDATE routes SET priority = 7 WHERE name = 't3'")

    assert [r.priority for r in snapshots.current().routes.routes if r.name == "t3"] == [7]
    assert read_whole
    snapshots.close()


def test_routes_move_to_the_index_where_one_more_makes_them_many(conn, database, embedder):
    make_routes(conn)
    conn.execute("UPDATE settings SET route_index_from = 26")
    snapshots = with_vectors_stored(database, embedder)
    assert snapshots.current().indexed is None

    conn.execute("INSERT INTO routes (name, target_agent) VALUES ('new', 'a')")

    moved = snapshots.current()
    assert moved.indexed is not None
    assert len(moved.routes) == 21
    assert len(moved.routes.vectors) == 0
    snapshots.close()


def test_a_vector_that_could_not_be_written_back_is_tried_again(
    conn, connect, database, embedder, caplog
):
    # Given an engine that could not write a vector of many, since somebody held the row
    caplog.set_level("INFO", "tinydancer.store.snapshots")
    make_routes(conn)
    snapshots = with_vectors_stored(database, embedder)
    holder = connect()
    holder.autocommit = False
    conn.execute("UPDATE routes SET description = 'another' WHERE name = 't3'")
    holder.execute("SELECT FROM tinydancer.routes WHERE name = 't3' FOR UPDATE")
    snapshots.current()
    deadline = time.monotonic() + 10
    while "wrote 0 of 1 embeddings back" not in caplog.text:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    holder.rollback()

    # When another route changes
    conn.execute("UPDATE routes SET priority = 7 WHERE name = 't5'")
    snapshots.current()
    snapshots.close()

    source = "SELECT embedding_source = digest(description) FROM routes WHERE name = 't3'"
    assert conn.execute(source).fetchall() == [(True,)]
