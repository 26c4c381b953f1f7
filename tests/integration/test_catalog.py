"""What the schema promises of each of its objects: described, pinned, closed to PUBLIC."""

from __future__ import annotations

from tinydancer.store.settings import Settings, read_settings


def test_every_object_has_a_comment(conn):
    undescribed = conn.execute(
        """
        SELECT oid::regclass::text FROM pg_class
        WHERE relnamespace = 'tinydancer'::regnamespace AND relkind IN ('r', 'p', 'v', 'f', 'm')
            AND NOT relispartition AND obj_description(oid, 'pg_class') IS NULL
        UNION ALL
        SELECT attrelid::regclass || '.' || attname
        FROM pg_attribute JOIN pg_class ON pg_class.oid = attrelid
        WHERE relnamespace = 'tinydancer'::regnamespace AND relkind IN ('r', 'p', 'f')
            AND NOT relispartition
            AND attnum > 0 AND NOT attisdropped AND col_description(attrelid, attnum) IS NULL
        UNION ALL
        SELECT oid::regprocedure::text FROM pg_proc
        WHERE pronamespace = 'tinydancer'::regnamespace
            AND obj_description(oid, 'pg_proc') IS NULL
        UNION ALL
        SELECT typname FROM pg_type
        WHERE typnamespace = 'tinydancer'::regnamespace AND typtype IN ('d', 'e')
            AND obj_description(oid, 'pg_type') IS NULL
        """
    ).fetchall()
    assert undescribed == []


def test_every_function_pins_its_search_path_or_is_one_inlined_query(conn):
    unpinned = conn.execute(
        """
        SELECT oid::regprocedure::text FROM pg_proc
        WHERE pronamespace = 'tinydancer'::regnamespace
            AND prolang <> (SELECT oid FROM pg_language WHERE lanname = 'c')
            AND NOT coalesce(array_to_string(proconfig, ','), '') LIKE '%search_path=pg_catalog%'
            AND (prosecdef OR prolang <> (SELECT oid FROM pg_language WHERE lanname = 'sql'))
        """
    ).fetchall()
    assert unpinned == []


def test_public_may_do_nothing(conn):
    open_to_all = conn.execute(
        """
        SELECT oid::regprocedure::text
        FROM pg_proc, aclexplode(coalesce(proacl, acldefault('f', proowner)))
        WHERE pronamespace = 'tinydancer'::regnamespace AND grantee = 0
        UNION ALL
        SELECT oid::regclass::text FROM pg_class, aclexplode(relacl)
        WHERE relnamespace = 'tinydancer'::regnamespace AND grantee = 0
        UNION ALL
        SELECT nspname FROM pg_namespace, aclexplode(nspacl)
        WHERE nspname = 'tinydancer' AND grantee = 0
        """
    ).fetchall()
    assert open_to_all == []


def test_every_argument_has_a_name_and_all_that_can_have_a_default_has_one(conn):
    unnamed = conn.execute(
        """
        SELECT oid::regprocedure::text FROM pg_proc
        WHERE pronamespace = 'tinydancer'::regnamespace AND proname LIKE 'ruvector\\_%'
            AND pronargs > 0
            AND (proargnames IS NULL OR '' = ANY (proargnames[1:pronargs]))
        """
    ).fetchall()
    assert unnamed == []


def test_embeddings_have_an_hnsw_index_by_cosine(conn):
    tables = conn.execute(
        "SELECT tablename FROM pg_indexes WHERE schemaname = 'tinydancer'"
        " AND indexdef LIKE '%USING hnsw (embedding%vector_cosine_ops)%' ORDER BY 1"
    ).fetchall()
    assert [table for (table,) in tables][:3] == ["agents", "route_utterances", "routes"]


def test_the_settings_of_a_new_database_are_those_that_the_engine_takes_for_defaults(conn):
    assert read_settings(conn) == Settings()
