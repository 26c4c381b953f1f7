"""Who may do what: each role what its work needs, and nothing more."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
import pytest
from psycopg import conninfo

from tinydancer.store.database import Database
from tinydancer.store.rates import RouteRates
from tinydancer.store.snapshots import Snapshots

READ = "SELECT * FROM tinydancer.ruvector_list_agents()"
ASK = "SELECT tinydancer.check_text('request', 'x')"
CHANGE = "SELECT tinydancer.ruvector_register_agent('x')"
INSERT = "INSERT INTO tinydancer.routes (name, target_agent) VALUES ('r', 'a')"
SET = "UPDATE tinydancer.settings SET default_output_tokens = 1"
FORGE = "INSERT INTO tinydancer.changes (xid, part) VALUES ('1', 'agents')"
PRUNE = "SELECT tinydancer.prune_changes()"
RENAME = "UPDATE tinydancer.agents SET name = 'y'"
EMBED = "UPDATE tinydancer.agents SET embedding = NULL"
COUNT = "SELECT tinydancer.take_route('r0', 5)"

ALLOWED = {
    "tinydancer_reader": {READ},
    "tinydancer_router": {READ, ASK},
    "tinydancer_admin": {READ, ASK, CHANGE, INSERT, SET, RENAME, EMBED},
    "tinydancer_engine": {PRUNE, EMBED, COUNT},
    "public": set(),
}
EVERYTHING = sorted({READ, ASK, CHANGE, INSERT, SET, FORGE, PRUNE, RENAME, EMBED, COUNT})


@contextmanager
def acting_as(conn: psycopg.Connection, role: str) -> Iterator[None]:
    with conn.transaction(force_rollback=True):
        if role == "public":
            conn.execute("CREATE ROLE tinydancer_test_nobody")
            conn.execute("SET LOCAL ROLE tinydancer_test_nobody")
        else:
            conn.execute(f"SET LOCAL ROLE {role}")
        yield


@pytest.mark.parametrize("statement", EVERYTHING)
@pytest.mark.parametrize("role", ALLOWED)
def test_a_role_may_do_its_work_and_nothing_else(conn, role, statement):
    conn.execute("INSERT INTO agents (name) VALUES ('x0')")
    conn.execute("INSERT INTO routes (name, target_agent) VALUES ('r0', 'x0')")
    with acting_as(conn, role):
        if statement in ALLOWED[role]:
            conn.execute(statement)
        else:
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                conn.execute(statement)


EVERYBODY = {"tinydancer_reader", "tinydancer_router", "tinydancer_admin", "tinydancer_engine"}
PEOPLE = EVERYBODY - {"tinydancer_engine"}
ADMIN, ENGINE = {"tinydancer_admin"}, {"tinydancer_engine"}
# Every table and view, so that who reads a new one is decided and not left to chance.
READERS: dict[str, set[str]] = {
    # what people asked, what came of it, and what was learned from their words
    **dict.fromkeys(("decisions", "usage", "labelled_requests", "models"), ADMIN | ENGINE),
    **dict.fromkeys(("route_examples", "sessions", "staged_embeddings"), ADMIN),
    "usage_keys": set(),
    # who may serve, and how this database routes
    **dict.fromkeys(("agents", "routes", "route_utterances", "settings", "migrations"), EVERYBODY),
    **dict.fromkeys(("changes", "model_activations", "agent_prices"), EVERYBODY),
    **dict.fromkeys(("route_usage", "route_takes"), EVERYBODY),
    # sums and states, in which nobody's text is
    **dict.fromkeys(("usage_hourly", "usage_latency", "agent_outcomes"), EVERYBODY),
    **dict.fromkeys(("category_outcomes", "recent_outcomes", "agent_breakers"), EVERYBODY),
    **dict.fromkeys(("budgets", "budget_periods", "budget_reservations"), EVERYBODY),
    **dict.fromkeys(("calls_in_flight", "agent_stats", "budget_status"), EVERYBODY),
    "open_circuits": EVERYBODY,
    **dict.fromkeys(("agent_listing", "route_listing", "model_listing"), PEOPLE),
    **dict.fromkeys(("agent_health", "route_rates"), PEOPLE),
}


def test_who_may_read_is_decided_for_each_table(conn):
    found = conn.execute(
        """
        SELECT relname, relispartition,
            array_agg(rolname::text)
                FILTER (WHERE has_any_column_privilege(rolname, c.oid, 'SELECT'))
        FROM pg_class AS c, pg_roles
        WHERE relnamespace = 'tinydancer'::regnamespace AND relkind IN ('r', 'p', 'v', 'm')
            AND rolname = ANY (%s)
        GROUP BY c.oid
        """,
        (list(EVERYBODY),),
    ).fetchall()
    tables = {name: set(roles or ()) for name, partition, roles in found if not partition}
    assert tables == READERS
    # A month is read through its table, never by itself.
    assert {name: roles for name, partition, roles in found if partition and roles} == {}


# By role, each table that it may write to, and how: what is not here functions write.
ALL_OF_IT = {"INSERT", "UPDATE", "DELETE", "TRUNCATE"}
WRITERS: dict[tuple[str, str], set[str]] = {
    **{
        ("tinydancer_admin", table): ALL_OF_IT
        for table in (
            *("agents", "routes", "route_utterances", "route_examples"),
            *("labelled_requests", "models", "model_activations"),
        )
    },
    ("tinydancer_admin", "budgets"): ALL_OF_IT - {"TRUNCATE"},
    ("tinydancer_admin", "staged_embeddings"): ALL_OF_IT - {"TRUNCATE"},
    ("tinydancer_admin", "settings"): {"UPDATE"},
    **{
        ("tinydancer_admin", table): {"DELETE"}
        for table in ("decisions", "usage", "sessions", "route_usage")
    },
    ("tinydancer_engine", "decisions"): {"INSERT"},
    # Columns of these: vectors, and what a training comes to.
    **{
        ("tinydancer_engine", table): {"UPDATE of columns"}
        for table in ("agents", "routes", "route_utterances", "settings")
    },
    ("tinydancer_engine", "models"): {"INSERT of columns", "UPDATE of columns"},
}


def test_who_may_write_is_decided_for_each_table(conn):
    found = conn.execute(
        """
        SELECT rolname::text, relname::text, array_agg(
            CASE WHEN has_table_privilege(rolname, c.oid, kind) THEN kind
                ELSE kind || ' of columns' END)
        FROM pg_class AS c, pg_roles, unnest(%s::text[]) AS kind
        WHERE relnamespace = 'tinydancer'::regnamespace AND relkind IN ('r', 'p', 'v', 'm', 'f')
            AND rolname = ANY (%s) AND (has_table_privilege(rolname, c.oid, kind)
                OR kind IN ('INSERT', 'UPDATE') AND has_any_column_privilege(rolname, c.oid, kind))
        GROUP BY rolname, c.oid
        """,
        (sorted(ALL_OF_IT), list(EVERYBODY)),
    ).fetchall()
    assert {(role, table): set(kinds) for role, table, kinds in found} == WRITERS


def test_a_month_that_is_made_later_is_read_like_the_others(conn):
    with conn.transaction(force_rollback=True):
        conn.execute("SELECT ensure_partitions('2031-05-01', '2031-05-02')")
        for role in ("tinydancer_admin", "tinydancer_engine"):
            conn.execute(f"SET LOCAL ROLE {role}")
            conn.execute("SELECT FROM tinydancer.decisions WHERE decided_at > '2031-05-01'")
        for role in EVERYBODY:
            conn.execute(f"SET LOCAL ROLE {role}")
            with pytest.raises(psycopg.errors.InsufficientPrivilege), conn.transaction():
                conn.execute("SELECT FROM tinydancer.decisions_2031_05")


@pytest.mark.parametrize("table", ["labelled_requests", "models", "route_examples"])
def test_an_upgrade_takes_back_what_readers_could_read_before(conn, table):
    from tinydancer.store import schema

    script = next(part for part in schema._scripts("functions") if part.name == "90_privileges")
    with conn.transaction(force_rollback=True):
        conn.execute(f"GRANT SELECT ON tinydancer.{table} TO tinydancer_reader, tinydancer_router")
        conn.execute(script.text.encode())
        for role in ("tinydancer_reader", "tinydancer_router"):
            conn.execute(f"SET LOCAL ROLE {role}")
            with pytest.raises(psycopg.errors.InsufficientPrivilege), conn.transaction():
                conn.execute(f"SELECT FROM tinydancer.{table}")


def test_who_reads_sees_what_was_trained_without_its_weights(conn):
    conn.execute(
        "INSERT INTO tinydancer.models (kind, name, weights) VALUES ('classifier', 'm', 'words')"
    )
    with acting_as(conn, "tinydancer_reader"):
        assert conn.execute(
            "SELECT name, bytes FROM tinydancer.ruvector_list_models()"
        ).fetchall() == [("m", 5)]


def test_an_engine_does_all_its_work_as_its_role(conn, schema_dsn, embedder):
    conn.execute("INSERT INTO agents (name) VALUES ('a')")
    conn.execute("INSERT INTO routes (name, target_agent) VALUES ('r', 'a')")
    database = Database(conninfo.make_conninfo(schema_dsn, options="-c role=tinydancer_engine"))
    snapshots = Snapshots(database, lambda settings: embedder)
    assert snapshots.current().agents.names == ("a",)
    assert RouteRates(database).take("r", 1)
    snapshots.close()
    database.close()
    assert conn.execute("SELECT count(embedding) FROM agents").fetchone() == (1,)


ADMINISTRATION = [
    "SELECT tinydancer.ruvector_register_agent('a', cost_per_call := 1)",
    "SELECT tinydancer.ruvector_set_budget('all', 10)",
    "SELECT tinydancer.ruvector_record_usage(agent_name := 'a', route := 'r', latency_ms := 5)",
    "SELECT tinydancer.ruvector_set_budget('all', 5)",
    "SELECT * FROM tinydancer.agent_stats",
    "SELECT * FROM tinydancer.budget_status",
    "SELECT * FROM tinydancer.agent_health",
    "SELECT tinydancer.ruvector_reset_breaker('a')",
    "SELECT * FROM tinydancer.sessions",
    "SELECT tinydancer.ruvector_end_session('k')",
    "SELECT * FROM tinydancer.ruvector_list_models()",
    "SELECT tinydancer.apply_retention()",
    "SELECT * FROM tinydancer.ruvector_routing_analytics(group_by := 'hour')",
    "SELECT * FROM tinydancer.ruvector_routing_analytics(group_by := 'route')",
    "UPDATE tinydancer.settings SET prior_weight = 5",
    "SELECT tinydancer.ruvector_drop_budget('all')",
    "SELECT tinydancer.ruvector_remove_agent('a')",
]


def test_an_administrator_keeps_accounts_and_budgets(conn):
    with acting_as(conn, "tinydancer_admin"):
        for statement in ADMINISTRATION:
            conn.execute(statement)
        # What is spent and reserved follows from decisions and outcomes alone.
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            conn.execute("UPDATE tinydancer.budget_periods SET reserved = 0")


@pytest.mark.parametrize(
    "group_by", ["agent", "route", "category", "tenant", "day", "hour", "user_tier"]
)
def test_an_engine_looks_back_over_rows_of_every_age(conn, group_by):
    conn.execute("SELECT ruvector_register_agent('a')")
    conn.execute("INSERT INTO usage (agent, cost, latency_ms) VALUES ('a', 1, 2)")
    with acting_as(conn, "tinydancer_engine"):
        row = conn.execute(
            "SELECT total_requests FROM tinydancer.usage_analytics(now() - interval '1 day', %s)",
            (group_by,),
        ).fetchone()
    assert row == (1,)


def test_who_asks_records_outcomes_but_never_writes_the_ledger(conn):
    conn.execute("SELECT ruvector_register_agent('a')")
    with acting_as(conn, "tinydancer_router"):
        conn.execute("SELECT tinydancer.ruvector_record_usage(agent_name := 'a')")
        with pytest.raises(psycopg.errors.InsufficientPrivilege), conn.transaction():
            conn.execute("INSERT INTO tinydancer.usage (agent, cost) VALUES ('a', 0)")
        with pytest.raises(psycopg.errors.InsufficientPrivilege), conn.transaction():
            conn.execute("SELECT * FROM tinydancer.usage")
        with pytest.raises(psycopg.errors.InsufficientPrivilege), conn.transaction():
            conn.execute("UPDATE tinydancer.budgets SET limit_amount = 1e9")


@pytest.mark.parametrize("role", ["tinydancer_reader", "tinydancer_router"])
def test_who_reads_sees_the_health_of_agents_and_changes_none(conn, role):
    conn.execute("SELECT ruvector_register_agent('a', concurrency_limit := 1)")
    with acting_as(conn, role):
        assert conn.execute("SELECT state, in_flight FROM tinydancer.agent_health").fetchall() == [
            ("closed", 0)
        ]
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            conn.execute("SELECT tinydancer.ruvector_reset_breaker('a')")


def test_a_role_without_createrole_is_told_what_is_missing(conn, server, empty_database):
    from tinydancer.store import schema

    roles = ("tinydancer_reader", "tinydancer_router", "tinydancer_admin", "tinydancer_engine")
    script = next(part for part in schema._scripts("functions") if part.name == "10_roles")
    with conn.transaction(force_rollback=True):
        conn.execute("CREATE ROLE tinydancer_test_nobody")
        conn.execute("ALTER ROLE tinydancer_reader RENAME TO tinydancer_reader_away")
        conn.execute("SET LOCAL ROLE tinydancer_test_nobody")
        with pytest.raises(psycopg.errors.InsufficientPrivilege) as raised:
            conn.execute(script.text.encode())
    assert "tinydancer_reader" in raised.value.diag.message_primary
    assert all(f"CREATE ROLE {role}" in raised.value.diag.message_hint for role in roles)


ASKED = {
    "tinydancer_reader": [
        "ruvector_list_agents()",
        "ruvector_routing_analytics('7 days', 'agent')",
    ],
    "tinydancer_router": [
        "ruvector_route('hi')",
        "ruvector_batch_route(ARRAY['hi', 'ho'], 'total_cost')",
        "ruvector_semantic_route('hi')",
        "ruvector_route_multi('hi', 1, 'pipeline')",
        "ruvector_optimize_budget(100)",
        "ruvector_classify_request('hi')",
        "ruvector_record_usage(agent_name := 'a', latency_ms := 1, success := true)",
        "ruvector_routing_analytics('7 days', 'agent')",
        "ruvector_route('hi', session_key := 'k')",
        "ruvector_end_session('k')",
    ],
}
ASKED["tinydancer_admin"] = [*ASKED["tinydancer_router"], "ruvector_fit_routes()"]


@pytest.mark.parametrize(
    ("role", "call"), [(role, call) for role, calls in ASKED.items() for call in calls]
)
def test_a_role_may_call_the_functions_of_its_work(db, role, call):
    db.execute(
        "SELECT ruvector_register_agent('a', 'llm', ARRAY['chat'], "
        "cost_per_call := 0.1, avg_latency_ms := 100, quality_score := 0.9)"
    )
    with db.transaction():
        db.execute(f"SET LOCAL ROLE {role}")
        db.execute(f"SELECT * FROM {call}")
