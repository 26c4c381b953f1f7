"""Plain SQL on the tables: what they take, what they refuse, how embeddings follow."""

from __future__ import annotations

import psycopg
import pytest

from tinydancer.embeddings.base import Embedder
from tinydancer.store.snapshots import Snapshots


def test_a_name_alone_makes_an_agent(conn):
    conn.execute("INSERT INTO agents (name) VALUES ('someone')")
    row = conn.execute("SELECT type, cost_per_call, quality, active FROM agents").fetchone()
    assert row == ("llm", 0, 0.5, True)


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("name", "''"),
        ("name", "' padded '"),
        ("name", "E'two\\nlines'"),
        ("name", "repeat('x', 257)"),
        ("type", "'robot'"),
        ("capabilities", "ARRAY['code', NULL]"),
        ("capabilities", "ARRAY['']"),
        ("capabilities", "ARRAY[['a'], ['b']]"),
        ("cost_per_1k_input_tokens", "-0.01"),
        ("cost_per_1k_output_tokens", "'NaN'"),
        ("cost_per_call", "'Infinity'"),
        ("cost_per_second", "1e10"),
        ("avg_latency_ms", "'NaN'"),
        ("avg_latency_ms", "-1"),
        ("p99_latency_ms", "'Infinity'"),
        ("quality", "1.01"),
        ("quality", "'NaN'"),
        ("metadata", "'[]'"),
        ("embedding", "array_fill(0, ARRAY[384])::vector, embedding_model = 'new'"),
    ],
)
def test_an_agent_with_a_bad_value_is_refused_by_a_constraint_that_names_the_column(
    conn, column, value
):
    conn.execute(
        "INSERT INTO agents (name, embedding_model, embedding_space) VALUES ('a', 'm', 's')"
    )
    with pytest.raises(psycopg.errors.CheckViolation) as raised:
        conn.execute(f"UPDATE agents SET {column} = {value}")
    assert column in raised.value.diag.constraint_name


@pytest.mark.parametrize(
    ("values", "constraint"),
    [
        ("threshold = 1.5", "routes_threshold_is_a_cosine"),
        ("threshold = 'NaN'", "routes_threshold_is_a_cosine"),
        ("time_from = '9:00'", "routes_time_window_has_two_ends"),
        ("time_from = '9:00', time_to = '9:00'", "routes_time_window_is_not_empty"),
        ("time_zone = 'PST'", "routes_time_zone_is_a_place"),
        ("user_tiers = ARRAY[NULL]::text[]", "routes_user_tiers_are_a_list"),
        ("rate_limit_per_minute = 0", "routes_rate_limit_is_positive"),
        ("target_agent = ''", "routes_target_agent_is_plain"),
        ("description = repeat('x', 16385)", "routes_description_is_short"),
    ],
)
def test_a_route_with_a_bad_value_is_refused(conn, values, constraint):
    conn.execute("INSERT INTO routes (name, target_agent) VALUES ('r', 'a')")
    with pytest.raises(psycopg.errors.CheckViolation) as raised:
        conn.execute(f"UPDATE routes SET {values}")
    assert raised.value.diag.constraint_name == constraint


def test_a_time_zone_that_the_server_does_not_know_is_refused(conn):
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="Mars/Olympus"):
        conn.execute(
            "INSERT INTO routes (name, target_agent, time_zone) VALUES ('r', 'a', 'Mars/Olympus')"
        )


@pytest.mark.parametrize(
    "values",
    [
        "dimension = 3",
        "embedder = 'magic'",
        "default_output_tokens = -1",
        "route_threshold = 2",
        "route_index = 'ivf'",
        "max_text_bytes = 0",
        "max_batch = 0",
        "singleton = false",
    ],
)
def test_settings_refuse_what_makes_no_sense(conn, values):
    with pytest.raises(psycopg.errors.CheckViolation):
        conn.execute(f"UPDATE settings SET {values}")


def test_settings_have_one_row(conn):
    with pytest.raises(psycopg.errors.UniqueViolation):
        conn.execute("INSERT INTO settings DEFAULT VALUES")


def test_a_row_inserted_while_no_engine_ran_gets_its_embedding(conn, snapshots, embedder):
    conn.execute("INSERT INTO agents (name, capabilities) VALUES ('a', ARRAY['code', 'law'])")
    conn.execute("INSERT INTO routes (name, target_agent) VALUES ('billing', 'a')")
    conn.execute("INSERT INTO route_utterances VALUES ('billing', 'where is my invoice')")
    snapshots.current()
    snapshots.close()
    for table, text in (
        ("agents", "code, law"),
        ("routes", "billing"),
        ("route_utterances", "where is my invoice"),
    ):
        stored = conn.execute(
            "SELECT embedding::real[], embedding_model, embedding_space,"
            f" embedding_source = digest(%s) FROM {table}",
            (text,),
        ).fetchone()
        assert stored[0] == pytest.approx(embedder.embed([text])[0].tolist(), abs=1e-6)
        assert stored[1:] == (embedder.model, embedder.space, True)


def test_a_changed_text_is_embedded_anew_and_the_old_vector_never_compared(
    conn, database, embedder
):
    conn.execute("INSERT INTO agents (name, capabilities) VALUES ('a', ARRAY['code'])")
    first = Snapshots(database, lambda settings: embedder)
    first.current()
    first.close()
    conn.execute("UPDATE agents SET capabilities = ARRAY['cooking']")
    second = Snapshots(database, lambda settings: embedder)
    served = second.current().agents.embeddings[0]
    assert served.tolist() == pytest.approx(embedder.embed(["cooking"])[0].tolist(), abs=1e-6)
    second.close()
    fresh = conn.execute("SELECT embedding_source = digest('cooking') FROM agents").fetchone()
    assert fresh == (True,)


def test_a_vector_that_is_given_stays_and_is_known_by_its_model(conn, snapshots, embedder):
    snapshots.current()
    vector = str(embedder.embed(["something else"])[0].tolist())
    conn.execute(
        "INSERT INTO routes (name, target_agent, embedding) VALUES ('r', 'a', %s)", (vector,)
    )
    row = conn.execute("SELECT embedding_model, embedding_source FROM routes").fetchone()
    assert row == (embedder.model, None)
    served = snapshots.current().routes.vectors[0]
    assert served.tolist() == pytest.approx(
        embedder.embed(["something else"])[0].tolist(), abs=1e-6
    )
    conn.execute("UPDATE routes SET description = 'a new description'")
    assert snapshots.current().routes.vectors[0].tolist() == served.tolist()
    conn.execute("UPDATE routes SET embedding = NULL")
    derived = snapshots.current().routes.vectors[0]
    expected = embedder.embed(["a new description"])[0]
    assert derived.tolist() == pytest.approx(expected.tolist(), abs=1e-6)


def test_a_vector_changed_by_hand_is_taken_as_given(conn, database, embedder):
    conn.execute("INSERT INTO routes (name, description, target_agent) VALUES ('r', 'law', 'a')")
    snapshots = Snapshots(database, lambda settings: embedder)
    snapshots.current()
    snapshots.close()
    vector = str(embedder.embed(["tea"])[0].tolist())
    conn.execute("UPDATE routes SET embedding = %s", (vector,))
    assert conn.execute("SELECT embedding_source FROM routes").fetchone() == (None,)


def test_a_vector_given_before_any_engine_ran_is_refused_unless_it_names_its_model(conn):
    vector = str([1.0] * 384)
    insert = "INSERT INTO routes (name, target_agent, embedding) VALUES ('r', 'a', %s)"
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState) as raised:
        conn.execute(insert, (vector,))
    assert "Start an engine" in raised.value.diag.message_hint
    conn.execute(
        "INSERT INTO routes (name, target_agent, embedding, embedding_model, embedding_space)"
        " VALUES ('r', 'a', %s, 'mine-1', 'mine')",
        (vector,),
    )


def test_a_vector_of_another_space_is_not_served(conn, snapshots, embedder: Embedder):
    conn.execute(
        "INSERT INTO agents (name, capabilities, embedding, embedding_model, embedding_space)"
        " VALUES ('a', ARRAY['code'], %s, 'other-1', 'other')",
        (str([1.0] * 384),),
    )
    served = snapshots.current().agents.embeddings[0]
    assert served.tolist() == pytest.approx(embedder.embed(["code"])[0].tolist(), abs=1e-6)


def test_writing_vectors_back_changes_no_row_whose_text_has_moved_on(conn, database, embedder):
    from tinydancer.store.snapshot import read_snapshot
    from tinydancer.store.write_back import write_back

    conn.execute("INSERT INTO agents (name, capabilities) VALUES ('a', ARRAY['code'])")
    with database.connection() as engine:
        _, unsaved = read_snapshot(engine, embedder, None)
    conn.execute("UPDATE agents SET capabilities = ARRAY['law']")
    assert write_back(database, embedder, unsaved) == 0
    assert conn.execute("SELECT embedding FROM agents").fetchone() == (None,)


def test_writing_vectors_back_waits_for_nobody_and_wakes_no_engine(
    conn, schema_dsn, database, embedder
):
    from tinydancer.store.snapshot import read_snapshot
    from tinydancer.store.write_back import write_back

    conn.execute("INSERT INTO agents (name) VALUES ('held'), ('free')")
    with database.connection() as engine:
        _, unsaved = read_snapshot(engine, embedder, None)
    changes = conn.execute("SELECT count(*) FROM changes").fetchone()
    with psycopg.connect(schema_dsn) as holder:
        holder.execute("SELECT FROM tinydancer.agents WHERE name = 'held' FOR UPDATE")
        assert write_back(database, embedder, unsaved) == 1
    assert conn.execute("SELECT name FROM agents WHERE embedding IS NOT NULL").fetchall() == [
        ("free",)
    ]
    assert conn.execute("SELECT count(*) FROM changes").fetchone() == changes


def test_updated_at_follows_people_and_not_engines(conn, snapshots):
    conn.execute("INSERT INTO agents (name) VALUES ('a')")
    snapshots.current()
    snapshots.close()
    embedded = "SELECT updated_at > created_at, embedding IS NOT NULL FROM agents"
    assert conn.execute(embedded).fetchone() == (False, True)
    conn.execute("UPDATE agents SET quality = 0.7")
    assert conn.execute(embedded).fetchone() == (True, True)


def test_dropping_a_route_drops_its_utterances_and_counts(conn):
    conn.execute("INSERT INTO routes (name, target_agent) VALUES ('r', 'a')")
    conn.execute("INSERT INTO route_utterances VALUES ('r', 'hello')")
    conn.execute("SELECT take_route('r', 5)")
    conn.execute("DELETE FROM routes")
    for table in ("route_utterances", "route_usage", "route_takes"):
        assert conn.execute(f"SELECT count(*) FROM {table}").fetchone() == (0,)
