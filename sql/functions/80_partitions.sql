-- Monthly partitions of decisions and usage: made ahead of time, dropped after it.

CREATE OR REPLACE FUNCTION tinydancer.ensure_partitions(
    from_time timestamptz DEFAULT now(), to_time timestamptz DEFAULT now() + interval '1 month'
) RETURNS integer
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp SET timezone = 'UTC' AS $$
DECLARE
    parent text;
    month timestamptz := date_trunc('month', from_time);
    partition text;
    made integer := 0;
BEGIN
    IF from_time < '2000-01-01' OR to_time > now() + interval '10 years' OR from_time > to_time THEN
        RAISE EXCEPTION 'there are no partitions from % to %', from_time, to_time
        USING ERRCODE = 'invalid_parameter_value',
            HINT = 'Times start in the year 2000 and end ten years from now.';
    END IF;
    WHILE month <= to_time LOOP
        FOREACH parent IN ARRAY ARRAY['decisions', 'usage'] LOOP
            partition := format('%s_%s', parent, to_char(month, 'YYYY_MM'));
            IF to_regclass('tinydancer.' || partition) IS NULL THEN
                -- One session makes it; who waited finds it there. Attaching lets others write on.
                PERFORM pg_advisory_xact_lock(hashtextextended('tinydancer.' || partition, 0));
                IF to_regclass('tinydancer.' || partition) IS NULL THEN
                    EXECUTE format(
                        'CREATE TABLE tinydancer.%I (LIKE tinydancer.%I INCLUDING ALL)',
                        partition, parent);
                    EXECUTE format(
                        'ALTER TABLE tinydancer.%I ATTACH PARTITION tinydancer.%I '
                        'FOR VALUES FROM (%L) TO (%L)',
                        parent, partition, month, month + interval '1 month');
                    EXECUTE format('REVOKE ALL ON tinydancer.%I FROM PUBLIC', partition);
                    made := made + 1;
                END IF;
            END IF;
        END LOOP;
        month := month + interval '1 month';
    END LOOP;
    RETURN made;
END
$$;
COMMENT ON FUNCTION tinydancer.ensure_partitions(timestamptz, timestamptz) IS
    'Makes the monthly partitions of decisions and usage between two times; how many it made.';

CREATE OR REPLACE FUNCTION tinydancer.apply_retention() RETURNS text[]
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp SET timezone = 'UTC'
-- To drop a partition takes its parent from everybody, and all who come wait behind who waits.
SET lock_timeout = '200ms' AS $$
DECLARE
    old record;
    dropped text[] := '{}';
BEGIN
    FOR old IN
        SELECT child.relname
        FROM pg_inherits
        JOIN pg_class AS child ON child.oid = inhrelid
        JOIN pg_class AS parent ON parent.oid = inhparent
        CROSS JOIN tinydancer.settings
        WHERE parent.oid IN ('tinydancer.decisions'::regclass, 'tinydancer.usage'::regclass)
            AND child.relname ~ '_\d{4}_\d{2}$'
            AND to_timestamp(right(child.relname, 7), 'YYYY_MM') + interval '1 month' <= now() -
                CASE parent.relname WHEN 'decisions' THEN decisions_retention
                    ELSE usage_retention END
        ORDER BY child.relname
    LOOP
        BEGIN
            EXECUTE format('DROP TABLE IF EXISTS tinydancer.%I', old.relname);
            dropped := dropped || old.relname::text;
        EXCEPTION WHEN lock_not_available THEN
            -- Somebody reads it, or another partition: there is a next time.
            NULL;
        END;
    END LOOP;
    DELETE FROM tinydancer.usage_keys
    WHERE occurred_at < (SELECT date_trunc('month', now() - usage_retention)
                         FROM tinydancer.settings);
    RETURN dropped;
END
$$;
COMMENT ON FUNCTION tinydancer.apply_retention() IS
    'Drops the monthly partitions that settings no longer keep, and that nobody uses right now; '
    'their names. Sums stay.';

SELECT tinydancer.ensure_partitions(now() - interval '1 month', now() + interval '1 month');
