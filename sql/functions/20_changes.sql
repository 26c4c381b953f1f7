-- How a commit reaches the engines: each transaction that changes what they keep in memory leaves
-- its id in tinydancer.changes. An engine asks for ids that its own snapshot did not see.

CREATE OR REPLACE FUNCTION tinydancer.note_change() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    -- An engine writing vectors back changes nothing that another would decide differently.
    IF current_setting('tinydancer.write_back', true) IS DISTINCT FROM 'on' THEN
        INSERT INTO tinydancer.changes (xid, part) VALUES (pg_current_xact_id(), TG_ARGV[0])
        ON CONFLICT DO NOTHING;
    END IF;
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION tinydancer.note_change() IS
    'Trigger: records that this transaction changed a part that engines keep in memory.';

CREATE OR REPLACE FUNCTION tinydancer.prune_changes() RETURNS void
LANGUAGE sql VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    -- Committed ids that this very statement could not have seen come from another cluster, by
    -- dump and restore. Nobody's snapshot will ever cover them.
    DELETE FROM tinydancer.changes
    WHERE xid >= pg_snapshot_xmax(pg_current_snapshot())
        AND xid IS DISTINCT FROM pg_current_xact_id_if_assigned();

    -- Every snapshot from now on covers the ids below xmin. The highest of them stays as the
    -- floor: whoever's snapshot began at or below it may have missed a row, and reads again.
    WITH old AS (
        SELECT xid, part FROM tinydancer.changes
        WHERE xid < pg_snapshot_xmin(pg_current_snapshot())
    ), floors AS (
        SELECT DISTINCT ON (part) xid, part FROM old ORDER BY part, xid DESC
    ), marked AS (
        UPDATE tinydancer.changes AS change SET is_floor = true FROM floors
        WHERE change.xid = floors.xid AND change.part = floors.part AND NOT change.is_floor
    )
    DELETE FROM tinydancer.changes AS change USING floors
    WHERE change.part = floors.part AND change.xid < floors.xid;
$$;
COMMENT ON FUNCTION tinydancer.prune_changes() IS
    'Removes old rows of tinydancer.changes so that no engine can miss one. Engines call it.';

CREATE OR REPLACE FUNCTION tinydancer.touch() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    NEW.updated_at := now();
    RETURN NEW;
END
$$;
COMMENT ON FUNCTION tinydancer.touch() IS 'Trigger: keeps updated_at.';

CREATE OR REPLACE FUNCTION tinydancer.keep_provenance() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    NEW.embedding_source := NULL;
    NEW.embedding_model := NULL;
    NEW.embedding_space := NULL;
    IF NEW.embedding IS NOT NULL THEN
        SELECT settings.embedding_model, settings.embedding_space
        INTO NEW.embedding_model, NEW.embedding_space
        FROM tinydancer.settings;
        IF NEW.embedding_model IS NULL THEN
            RAISE EXCEPTION 'the model of an embedding given to %.% is not known',
                TG_TABLE_SCHEMA, TG_TABLE_NAME
            USING ERRCODE = 'object_not_in_prerequisite_state',
                HINT = 'Start an engine once, so that the settings name the model; '
                    'or give embedding_model and embedding_space with the vector.';
        END IF;
    END IF;
    RETURN NEW;
END
$$;
COMMENT ON FUNCTION tinydancer.keep_provenance() IS
    'Trigger: a vector that is given without its model is taken to be of the stored model.';

-- ALWAYS: a restore or replication that silences triggers must not hide a change from an engine.
DO $$
DECLARE
    watched record;
BEGIN
    FOR watched IN
        SELECT * FROM (VALUES
            ('agents', 'agents'), ('routes', 'routes'), ('route_utterances', 'routes'),
            ('settings', 'settings'), ('models', 'models'),
            ('agent_outcomes', 'performance'), ('budgets', 'budgets'),
            ('agent_breakers', 'health')
        ) AS tables (name, part)
    LOOP
        EXECUTE format(
            'CREATE OR REPLACE TRIGGER note_change '
            'AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON tinydancer.%I '
            'FOR EACH STATEMENT EXECUTE FUNCTION tinydancer.note_change(%L)',
            watched.name, watched.part);
        EXECUTE format('ALTER TABLE tinydancer.%I ENABLE ALWAYS TRIGGER note_change', watched.name);
    END LOOP;

    FOR watched IN SELECT unnest(ARRAY['agents', 'routes', 'route_utterances']) AS name LOOP
        EXECUTE format(
            'CREATE OR REPLACE TRIGGER keep_provenance_of_new BEFORE INSERT ON tinydancer.%I '
            'FOR EACH ROW WHEN (NEW.embedding IS NOT NULL AND NEW.embedding_model IS NULL) '
            'EXECUTE FUNCTION tinydancer.keep_provenance()', watched.name);
        -- A vector that changes while its source and model do not was given by hand.
        EXECUTE format(
            'CREATE OR REPLACE TRIGGER keep_provenance BEFORE UPDATE OF embedding ON tinydancer.%I '
            'FOR EACH ROW WHEN (NEW.embedding::text IS DISTINCT FROM OLD.embedding::text '
            'AND NEW.embedding_source IS NOT DISTINCT FROM OLD.embedding_source '
            'AND NEW.embedding_model IS NOT DISTINCT FROM OLD.embedding_model) '
            'EXECUTE FUNCTION tinydancer.keep_provenance()', watched.name);
    END LOOP;
END
$$;

CREATE OR REPLACE TRIGGER touch BEFORE UPDATE OF
    name, type, capabilities, cost_per_1k_input_tokens, cost_per_1k_output_tokens, cost_per_call,
    cost_per_second, avg_latency_ms, p99_latency_ms, quality, metadata, active,
    concurrency_limit, circuit_breaker
ON tinydancer.agents FOR EACH ROW EXECUTE FUNCTION tinydancer.touch();

CREATE OR REPLACE TRIGGER touch BEFORE UPDATE OF
    name, description, target_agent, priority, threshold, active, time_from, time_to, time_zone,
    user_tiers, rate_limit_per_minute, matching
ON tinydancer.routes FOR EACH ROW EXECUTE FUNCTION tinydancer.touch();

CREATE OR REPLACE FUNCTION tinydancer.digest(content text) RETURNS bytea
LANGUAGE sql STABLE STRICT PARALLEL SAFE AS $$
    SELECT pg_catalog.sha256(pg_catalog.convert_to(content, 'UTF8'))
$$;
COMMENT ON FUNCTION tinydancer.digest(text) IS
    'SHA-256 of a text in UTF-8: what embedding_source holds.';

CREATE OR REPLACE FUNCTION tinydancer.agent_text(name text, capabilities text[]) RETURNS text
LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT coalesce(nullif(pg_catalog.array_to_string(capabilities, ', '), ''), name)
$$;
COMMENT ON FUNCTION tinydancer.agent_text(text, text[]) IS
    'What an agent''s embedding is made from: its capabilities, or its name where it lists none.';

CREATE OR REPLACE FUNCTION tinydancer.route_text(name text, description text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT coalesce(nullif(description, ''), name)
$$;
COMMENT ON FUNCTION tinydancer.route_text(text, text) IS
    'What a route''s own embedding is made from: its description, or its name without one.';
