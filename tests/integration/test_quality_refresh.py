"""Quality is learned anew as outcomes come, and the new model takes over where it is better."""

from __future__ import annotations

import time

import psycopg
import pytest

# Sums and poems, each served by one of two agents by chance. `turned` has them change places.
SERVED = """
WITH asked AS (
    SELECT n, gen_random_uuid() AS id, n %% 2 = 0 AS poem,
        CASE WHEN n %% 2 = 0 THEN 'Write a poem about ' || n %% 7 || ' seas'
             ELSE 'Compute ' || n || ' + ' || n * 7 %% 31 END AS request,
        CASE WHEN n / 2 %% 2 = 0 THEN 'logician' ELSE 'poet' END AS agent
    FROM generate_series(%(first)s::int + 1, %(first)s::int + %(count)s::int) AS n
), logged AS (
    INSERT INTO decisions (id, decided_at, request, request_hash, agent, optimize_for, propensity)
    SELECT id, now() - interval '1 hour' + n * interval '1 second', request,
        sha256(request::bytea), agent, 'quality', 0.5
    FROM asked
)
INSERT INTO usage (decision_id, agent, cost, success)
SELECT id, agent, 0, ((poem = (agent = 'poet')) <> %(turned)s) <> (n %% 19 = 0) FROM asked
"""
POEM = "SELECT agent_name FROM ruvector_route('Write a poem about the sea', 'quality')"


@pytest.fixture
def agents(db: psycopg.Connection) -> psycopg.Connection:
    db.execute(
        "UPDATE settings SET quality_refresh_outcomes = 200, quality_refresh_interval = '1 second'"
    )
    db.execute(
        "SELECT ruvector_register_agent(name, quality_score := 0.6)"
        " FROM unnest(ARRAY['logician', 'poet']) AS name"
    )
    return db


def serve(db: psycopg.Connection, first: int, count: int, turned: bool = False) -> None:
    db.execute(SERVED, {"first": first, "count": count, "turned": turned})


def refreshed(db: psycopg.Connection, models: int) -> tuple[int, bool, str]:
    """The last of so many models when it is done: its id, whether it is in use, and its message."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        db.execute("NOTIFY tinydancer_trainings")  # an engine looks every half minute by itself
        rows = db.execute("SELECT id, state, active, message FROM models ORDER BY id").fetchall()
        if len(rows) == models and rows[-1][1] != "training":
            assert rows[-1][1] == "ready", rows[-1]
            time.sleep(0.2)  # it is switched on a moment after
            return db.execute(
                "SELECT id, active, message FROM models ORDER BY id DESC LIMIT 1"
            ).fetchone()
        time.sleep(0.1)
    raise AssertionError(f"no model is learned: {rows}")


def test_a_model_is_learned_switched_on_replaced_and_kept_as_outcomes_come(agents):
    # Given enough outcomes
    serve(agents, 0, 400)
    # Then a first model is learned, and used since it beats each agent's mean.
    first, active, message = refreshed(agents, 1)
    assert active
    assert message.startswith("switched on: Quality is learned from 400 outcomes")
    assert agents.execute(POEM).fetchone() == ("poet",)
    assert agents.execute(
        "SELECT training ->> 'decided', name FROM ruvector_list_models('quality')"
    ).fetchone() == ("400", "refresh")
    # When outcomes go on as before, the next one is no better, and is kept back.
    serve(agents, 400, 300)
    _, active, message = refreshed(agents, 2)
    assert not active
    assert message.startswith("kept back: over 150 decisions that neither has seen")
    assert message.endswith(f"(model {first})")
    # When the agents change places, it is better, and takes over.
    serve(agents, 700, 1200, turned=True)
    last, active, message = refreshed(agents, 3)
    assert active, message
    assert message.startswith("switched on: over 750 decisions")
    assert agents.execute(POEM).fetchone() == ("logician",)
    (metrics,) = agents.execute("SELECT metrics FROM models WHERE id = %s", (last,)).fetchone()
    assert metrics["against_the_model_in_use"]["choices"]["gain"] > 0.2
    # And one goes back as after any other switch.
    assert agents.execute("SELECT ruvector_rollback_model('quality')").fetchone() == (first,)


def test_noise_is_not_switched_on(agents):
    agents.execute(
        SERVED.replace("(n %% 19 = 0)", "(hashint4(n) %% 2 = 0)"),
        {"first": 0, "count": 300, "turned": False},
    )
    _, active, message = refreshed(agents, 1)
    assert not active
    assert message.startswith("kept back: Quality is each agent's mean")


def due(db: psycopg.Connection) -> bool:
    """Whether a training of quality would be queued now."""
    with db.transaction(force_rollback=True):
        return db.execute("SELECT refresh_quality() IS NOT NULL").fetchone() == (True,)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ("quality_refresh = true", True),
        ("quality_refresh = false", False),
        ("quality_refresh_outcomes = 401", False),
        ("decision_log_text = false", False),
    ],
)
def test_when_quality_is_learned_anew_is_a_setting(conn, change, expected):
    conn.execute("INSERT INTO agents (name) VALUES ('logician'), ('poet')")
    conn.execute("UPDATE settings SET quality_refresh_outcomes = 400")
    conn.execute(f"UPDATE settings SET {change}")
    serve(conn, 0, 400)
    assert due(conn) is expected


def test_one_training_at_a_time_and_none_too_soon(conn):
    conn.execute("INSERT INTO agents (name) VALUES ('logician'), ('poet')")
    conn.execute("UPDATE settings SET quality_refresh_outcomes = 100")
    serve(conn, 0, 400)
    assert conn.execute("SELECT refresh_quality()").fetchone() != (None,)
    assert not due(conn)  # one is queued
    conn.execute("UPDATE models SET state = 'failed'")
    assert not due(conn)  # the hour is not over
    conn.execute("UPDATE models SET created_at = now() - interval '2 hours'")
    assert due(conn)  # a failure taught nothing
    conn.execute("UPDATE models SET training = training || '{\"decided\": 301}'")
    assert not due(conn)  # 99 new outcomes
    conn.execute("INSERT INTO usage (agent, cost) SELECT 'poet', 0 FROM generate_series(1, 9)")
    assert not due(conn)  # nobody knows what those were about
    serve(conn, 400, 1)
    assert due(conn)


def test_the_last_five_that_are_not_in_use_stay(conn):
    conn.execute("INSERT INTO agents (name) VALUES ('logician'), ('poet')")
    conn.execute("UPDATE settings SET quality_refresh_outcomes = 100")
    conn.execute(
        "INSERT INTO models (kind, name, weights, training, active, created_at)"
        " SELECT 'quality', 'refresh', 'x', '{\"refresh\": true}', n = 1, now() - interval '1 day'"
        " FROM generate_series(1, 8) AS n"
    )
    serve(conn, 0, 100)
    conn.execute("SELECT refresh_quality()")
    kept = conn.execute("SELECT id FROM models ORDER BY id").fetchall()
    assert [row[0] for row in kept] == [1, 4, 5, 6, 7, 8, 9]


def test_an_engine_switches_on_nothing_but_what_was_compared(conn):
    conn.execute(
        "INSERT INTO models (kind, name, weights, training) VALUES"
        " ('quality', 'mine', 'x', '{}'), ('quality', 'refresh', 'x', '{\"refresh\": true}'),"
        " ('classifier', 'other', 'x', '{\"refresh\": true}')"
    )

    def activate(model: int, instead_of: int | None) -> bool:
        with conn.transaction():
            conn.execute("SET LOCAL ROLE tinydancer_engine")
            return conn.execute(
                "SELECT activate_refreshed(%s, %s)", (model, instead_of)
            ).fetchone()[0]

    assert not activate(1, None)
    assert not activate(3, None)
    assert not activate(2, 1)  # it was compared with one that is not in use
    conn.execute("UPDATE settings SET quality_refresh = false")
    assert not activate(2, None)
    conn.execute("UPDATE settings SET quality_refresh = true")
    assert activate(2, None)
    with conn.transaction(force_rollback=True):
        conn.execute("SET LOCAL ROLE tinydancer_engine")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            conn.execute("SELECT ruvector_activate_model(1)")
