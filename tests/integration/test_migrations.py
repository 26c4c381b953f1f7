"""Installing and upgrading: all or nothing, once each, and always the same result."""

from __future__ import annotations

import threading

import psycopg
import pytest

from tinydancer import __version__
from tinydancer.errors import InvalidInput, NotReady
from tinydancer.store import schema
from tinydancer.store.front_doors import EngineAddress, available_front_doors
from tinydancer.store.schema import Script

# All that describes a schema, but for what is numbered in the order of creation.
SIGNATURE = """
SELECT 'column', attrelid::regclass::text, attname,
    format_type(atttypid, atttypmod) || ' ' || attnotnull
        || coalesce(' ' || pg_get_expr(adbin, adrelid), '')
        || coalesce(' ' || col_description(attrelid, attnum), '')
FROM pg_attribute JOIN pg_class ON pg_class.oid = attrelid
LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
WHERE relnamespace = 'tinydancer'::regnamespace AND attnum > 0 AND NOT attisdropped
UNION ALL
SELECT 'relation', oid::regclass::text, relkind::text,
    coalesce(obj_description(oid, 'pg_class'), '') || coalesce(relacl::text, '')
        || coalesce(reloptions::text, '')
FROM pg_class WHERE relnamespace = 'tinydancer'::regnamespace
UNION ALL
SELECT 'index', indexrelid::regclass::text, '', pg_get_indexdef(indexrelid)
FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid
WHERE relnamespace = 'tinydancer'::regnamespace
UNION ALL
SELECT 'constraint', conrelid::regclass::text, conname, pg_get_constraintdef(oid)
FROM pg_constraint WHERE connamespace = 'tinydancer'::regnamespace
UNION ALL
SELECT 'function', oid::regprocedure::text, '',
    pg_get_functiondef(oid) || coalesce(proacl::text, '')
        || coalesce(obj_description(oid, 'pg_proc'), '')
FROM pg_proc WHERE pronamespace = 'tinydancer'::regnamespace
UNION ALL
SELECT 'trigger', tgrelid::regclass::text, tgname,
    pg_get_triggerdef(pg_trigger.oid) || tgenabled::text
FROM pg_trigger JOIN pg_class ON pg_class.oid = tgrelid
WHERE relnamespace = 'tinydancer'::regnamespace AND NOT tgisinternal
ORDER BY 1, 2, 3, 4
"""


def signature(dsn: str) -> list[tuple]:
    with psycopg.connect(dsn) as connection:
        return connection.execute(SIGNATURE).fetchall()


def connect(dsn: str) -> psycopg.Connection:
    return psycopg.connect(dsn, autocommit=True)


def migrations_before(name):
    """The migrations of the version before the one that brought this migration."""
    every = schema.migrations()
    return every[: [script.name for script in every].index(name)]


def install_older(connection, monkeypatch, migrations):
    """What a version with these migrations installs: its tables, none of today's functions."""
    with monkeypatch.context() as older:
        older.setattr(schema, "migrations", lambda: migrations)
        older.setattr(schema, "_scripts", lambda folder: ())
        schema.install(connection)


@pytest.mark.parametrize("first", range(1, len(schema.migrations()) + 1))
def test_an_upgraded_schema_equals_a_fresh_one(server, empty_database, monkeypatch, first):
    # Given a database that an older version installed
    every = schema.migrations()
    with connect(empty_database) as connection:
        install_older(connection, monkeypatch, every[:first])
        # When it is upgraded
        schema.upgrade(connection)
        assert schema.version(connection).migration == every[-1].name
    # Then it is like one that was installed today
    with server.database() as fresh:
        with connect(server.dsn(fresh)) as connection:
            schema.install(connection)
        assert signature(empty_database) == signature(server.dsn(fresh))


def test_an_upgrade_forgets_no_request_that_a_rate_limit_has_counted(empty_database, monkeypatch):
    # Given routes taken by the minute of the clock, now and long ago
    with connect(empty_database) as connection:
        install_older(connection, monkeypatch, migrations_before("0012_sliding_rates"))
        connection.execute(
            "INSERT INTO tinydancer.routes (name, target_agent) VALUES ('now', 'a'), ('ago', 'a');"
            "INSERT INTO tinydancer.route_usage VALUES"
            " ('now', date_trunc('minute', now()), 3), ('ago', now() - interval '1 hour', 3)"
        )
        # When it is upgraded
        schema.upgrade(connection)
        # Then what may be of this minute counts
        taken = connection.execute(
            "SELECT route, tinydancer.take_route(route, 4), tinydancer.take_route(route, 4)"
            " FROM tinydancer.route_usage ORDER BY route"
        ).fetchall()
        assert taken == [("ago", True, True), ("now", True, False)]


def test_an_upgrade_sums_up_what_was_recorded_before(empty_database, monkeypatch):
    # Given outcomes of two tenants, whose sums by route an older version kept apart
    with connect(empty_database) as connection:
        install_older(connection, monkeypatch, migrations_before("0018_category_outcomes"))
        connection.execute(
            """
            CREATE TABLE tinydancer.usage_then PARTITION OF tinydancer.usage
                FOR VALUES FROM ('2020-01-01') TO ('2020-02-01');
            INSERT INTO tinydancer.usage (tenant, agent, category, occurred_at, cost, quality)
            SELECT 't' || n % 2, 'a', CASE WHEN n > 2 THEN 'code' END, '2020-01-05 10:30Z', 1, 0.75
            FROM generate_series(1, 6) AS n;
            INSERT INTO tinydancer.usage_hourly
            SELECT tenant, dimension, 'a', '2020-01-05 10:00Z', 2, 3, 3, 3, 0, 0, 0, 0
            FROM unnest(ARRAY['t0', 't1']) AS tenant, unnest(ARRAY['agent', 'route']) AS dimension;
            INSERT INTO tinydancer.usage_latency
            SELECT tenant, dimension, 'a', '2020-01-05Z', 2, bucket, 3
            FROM unnest(ARRAY['t0', 't1']) AS tenant, unnest(ARRAY['agent', 'route']) AS dimension,
                generate_series(1, 2) AS bucket
            """
        )
        # When it is upgraded
        schema.upgrade(connection)
        # Then the sums are of all tenants but by agent, and of each agent by category
        assert connection.execute(
            "SELECT dimension, tenant, requests FROM tinydancer.usage_hourly ORDER BY 1, 2"
        ).fetchall() == [("agent", "t0", 3), ("agent", "t1", 3), ("route", "", 6)]
        assert connection.execute(
            "SELECT dimension, count(*), sum(requests) FROM tinydancer.usage_latency"
            " GROUP BY 1 ORDER BY 1"
        ).fetchall() == [("agent", 4, 12), ("route", 2, 12)]
        assert connection.execute(
            "SELECT category, agent, requests, reward_sum FROM tinydancer.category_outcomes"
            " ORDER BY 1"
        ).fetchall() == [("", "a", 2, 1.5), ("code", "a", 4, 3)]
        # And they follow what is changed from there on, each change once
        connection.execute("UPDATE tinydancer.usage SET quality = 1 WHERE category = 'code'")
        assert connection.execute(
            "SELECT sum(requests), sum(reward_sum) FROM tinydancer.category_outcomes"
        ).fetchall() == [(6, 5.5)]


def test_installing_again_changes_nothing_and_keeps_rows(new_schema_dsn):
    before = signature(new_schema_dsn)
    with connect(new_schema_dsn) as connection:
        connection.execute("INSERT INTO tinydancer.agents (name) VALUES ('kept')")
        schema.install(connection)
        schema.upgrade(connection)
        assert connection.execute("SELECT name FROM tinydancer.agents").fetchall() == [("kept",)]
    assert signature(new_schema_dsn) == before


def test_an_upgrade_keeps_calls_in_batches(empty_database):
    support = (
        "SELECT prosupport::text FROM pg_proc"
        " WHERE oid = 'tinydancer.ruvector_classify_request(text)'::regprocedure"
    )
    with connect(empty_database) as connection:
        if "native" not in available_front_doors(connection):
            pytest.skip("this server has no library tinydancer_fdw")
        address = EngineAddress(socket="/nowhere")
        schema.install(connection, front_doors=["native"], engine_address=address)
        schema.upgrade(connection)
        assert connection.execute(support).fetchone() == ("tinydancer.tinydancer_native_support",)


def test_what_fails_on_the_way_leaves_nothing(empty_database):
    with connect(empty_database) as connection:
        # The front door comes last, and an address that is none is found out there.
        with pytest.raises(InvalidInput, match="address"):
            schema.install(connection, front_doors=["native"], engine_address=EngineAddress())
        assert schema.version(connection) is None
        assert connection.execute("SELECT to_regnamespace('tinydancer')").fetchone() == (None,)


def test_two_installs_at_once_make_one_schema(empty_database):
    errors = []

    def install() -> None:
        with connect(empty_database) as connection:
            try:
                schema.install(connection)
            except Exception as error:
                errors.append(error)

    threads = [threading.Thread(target=install) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    with connect(empty_database) as connection:
        assert schema.version(connection).migration == schema.migrations()[-1].name


def test_a_schema_tells_the_version_that_installed_it(schema_dsn):
    with connect(schema_dsn) as connection:
        assert schema.version(connection).version == __version__


def test_a_migration_that_has_changed_since_it_ran_is_refused(schema_dsn, monkeypatch):
    first, *rest = schema.migrations()
    forged = (Script(first.name, first.text + "\n-- edited"), *rest)
    monkeypatch.setattr(schema, "migrations", lambda: forged)
    with connect(schema_dsn) as connection, pytest.raises(NotReady, match="has changed"):
        schema.upgrade(connection)


def test_a_database_of_a_newer_version_is_left_alone(new_schema_dsn):
    with connect(new_schema_dsn) as connection:
        connection.execute("INSERT INTO tinydancer.migrations VALUES ('9999_future', 'x')")
        with pytest.raises(NotReady, match="9999_future"):
            schema.upgrade(connection)


def test_another_dimension_is_refused_and_a_dimension_out_of_range_too(schema_dsn):
    with connect(schema_dsn) as connection:
        with pytest.raises(NotReady, match="dimension 384, not 768"):
            schema.install(connection, dimension=768)
        with pytest.raises(InvalidInput, match="2001"):
            schema.install(connection, dimension=2001)


def test_upgrading_what_is_not_installed_says_so(empty_database):
    with connect(empty_database) as connection, pytest.raises(NotReady, match="not installed"):
        schema.upgrade(connection)


def test_another_dimension_is_chosen_at_install(empty_database):
    with connect(empty_database) as connection:
        schema.install(connection, dimension=768)
        assert schema.version(connection).dimension == 768
        row = connection.execute(
            "SELECT format_type(atttypid, atttypmod) FROM pg_attribute"
            " WHERE attrelid = 'tinydancer.agents'::regclass AND attname = 'embedding'"
        ).fetchone()
    assert row[0].endswith("vector(768)")


def test_pgvector_may_live_in_any_schema_and_the_search_path_be_anything(empty_database, embedder):
    from tinydancer.store.database import Database
    from tinydancer.store.snapshots import Snapshots

    with connect(empty_database) as connection:
        connection.execute("CREATE SCHEMA extensions; CREATE EXTENSION vector SCHEMA extensions")
        connection.execute("SET search_path = pg_catalog")
        schema.install(connection)
        connection.execute("SELECT tinydancer.ruvector_register_agent('a')")
        connection.execute("SELECT tinydancer.ruvector_create_route('r', 'd', 'a')")
    database = Database(empty_database)
    snapshots = Snapshots(database, lambda settings: embedder)
    assert snapshots.current().agents.names == ("a",)
    snapshots.close()
    database.close()


def test_each_migration_is_numbered_and_named_for_what_it_does():
    names = [script.name for script in schema.migrations()]
    assert names == sorted(names)
    assert [name.split("_")[0] for name in names] == [
        f"{number:04}" for number in range(1, len(names) + 1)
    ]


@pytest.mark.parametrize("encoding", ["SQL_ASCII", "LATIN1"])
def test_a_database_whose_bytes_are_no_text_is_refused_and_other_encodings_do(server, encoding):
    name = f"tinydancer_test_{encoding.lower()}"
    with psycopg.connect(server.superuser_dsn, autocommit=True) as maintenance:
        maintenance.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
        maintenance.execute(
            f"CREATE DATABASE {name} ENCODING '{encoding}' LOCALE 'C' TEMPLATE template0"
        )
        try:
            with psycopg.connect(server.dsn(name), autocommit=True) as connection:
                if encoding == "SQL_ASCII":
                    with pytest.raises(NotReady, match="SQL_ASCII") as raised:
                        schema.install(connection)
                    assert "UTF8" in raised.value.hint
                else:
                    schema.install(connection)
        finally:
            maintenance.execute(f"DROP DATABASE {name} WITH (FORCE)")
