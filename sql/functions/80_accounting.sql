-- The ledger: partitions, prices of the time, outcomes and the sums over them.

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
SET search_path = pg_catalog, pg_temp SET timezone = 'UTC' AS $$
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
        EXECUTE format('DROP TABLE tinydancer.%I', old.relname);
        dropped := dropped || old.relname::text;
    END LOOP;
    DELETE FROM tinydancer.usage_keys
    WHERE occurred_at < (SELECT date_trunc('month', now() - usage_retention)
                         FROM tinydancer.settings);
    RETURN dropped;
END
$$;
COMMENT ON FUNCTION tinydancer.apply_retention() IS
    'Drops the monthly partitions that settings no longer keep; their names. Sums stay.';

CREATE OR REPLACE FUNCTION tinydancer.uuid_time(id uuid) RETURNS timestamptz
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$
    -- RFC 9562, section 5.7: the first 48 bits are milliseconds since 1970.
    SELECT timestamptz '1970-01-01 00:00:00+00' + interval '1 millisecond'
        * ('x' || pg_catalog.left(pg_catalog.replace(id::text, '-', ''), 12))::bit(48)::bigint
$$;
COMMENT ON FUNCTION tinydancer.uuid_time(uuid) IS 'The time in a UUID of version 7.';

CREATE OR REPLACE FUNCTION tinydancer.note_prices() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    INSERT INTO tinydancer.agent_prices VALUES (
        NEW.name, clock_timestamp(), NEW.cost_per_1k_input_tokens, NEW.cost_per_1k_output_tokens,
        NEW.cost_per_call, NEW.cost_per_second)
    ON CONFLICT (agent, valid_from) DO UPDATE SET
        cost_per_1k_input_tokens = excluded.cost_per_1k_input_tokens,
        cost_per_1k_output_tokens = excluded.cost_per_1k_output_tokens,
        cost_per_call = excluded.cost_per_call,
        cost_per_second = excluded.cost_per_second;
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION tinydancer.note_prices() IS 'Trigger: keeps the history of prices.';
CREATE OR REPLACE TRIGGER note_prices AFTER INSERT ON tinydancer.agents
FOR EACH ROW EXECUTE FUNCTION tinydancer.note_prices();
CREATE OR REPLACE TRIGGER note_changed_prices AFTER UPDATE ON tinydancer.agents
FOR EACH ROW WHEN (
    (OLD.name, OLD.cost_per_1k_input_tokens, OLD.cost_per_1k_output_tokens, OLD.cost_per_call,
        OLD.cost_per_second)
    IS DISTINCT FROM
    (NEW.name, NEW.cost_per_1k_input_tokens, NEW.cost_per_1k_output_tokens, NEW.cost_per_call,
        NEW.cost_per_second)
) EXECUTE FUNCTION tinydancer.note_prices();

CREATE OR REPLACE FUNCTION tinydancer.sum_usage() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    -- Sessions write into one of eight rows of each sum, so that they seldom wait for each other.
    shard CONSTANT integer := pg_backend_pid() % 8;
    source text;
    sign integer;
BEGIN
    FOR source, sign IN
        SELECT * FROM (VALUES ('added', 1), ('removed', -1)) AS sides
        WHERE (column1 = 'added' AND TG_OP IN ('INSERT', 'UPDATE'))
            OR (column1 = 'removed' AND TG_OP IN ('DELETE', 'UPDATE'))
    LOOP
        -- Rows are locked in the order of their keys, the same in every session.
        EXECUTE format($query$
            INSERT INTO tinydancer.usage_hourly AS present
            SELECT tenant, dimension, value, date_trunc('hour', occurred_at, 'UTC'), $1,
                $2 * count(*), $2 * count(*) FILTER (WHERE success), $2 * sum(cost),
                $2 * count(latency_ms), $2 * coalesce(sum(latency_ms::numeric), 0),
                $2 * coalesce(sum(input_tokens), 0), $2 * coalesce(sum(output_tokens), 0)
            FROM %I, LATERAL (VALUES
                ('agent', agent), ('route', coalesce(route, '')),
                ('category', coalesce(category, '')), ('user_tier', coalesce(user_tier, ''))
            ) AS sides (dimension, value)
            GROUP BY 1, 2, 3, 4 ORDER BY 2, 4, 3, 1
            ON CONFLICT (dimension, hour, value, tenant, shard) DO UPDATE SET
                requests = present.requests + excluded.requests,
                successes = present.successes + excluded.successes,
                cost = present.cost + excluded.cost,
                latency_count = present.latency_count + excluded.latency_count,
                latency_sum = present.latency_sum + excluded.latency_sum,
                input_tokens = present.input_tokens + excluded.input_tokens,
                output_tokens = present.output_tokens + excluded.output_tokens
            $query$, source) USING shard, sign;
        EXECUTE format($query$
            INSERT INTO tinydancer.usage_latency AS present
            SELECT tenant, dimension, value, period, $1, bucket, $2 * count(*)
            FROM %I, LATERAL (SELECT tinydancer.latency_bucket(latency_ms) AS bucket) AS found,
                LATERAL (VALUES
                    ('agent', agent, date_trunc('day', occurred_at, 'UTC')),
                    ('route', coalesce(route, ''), date_trunc('day', occurred_at, 'UTC')),
                    ('category', coalesce(category, ''), date_trunc('day', occurred_at, 'UTC')),
                    ('user_tier', coalesce(user_tier, ''), date_trunc('day', occurred_at, 'UTC')),
                    ('hour', '', date_trunc('hour', occurred_at, 'UTC'))
                ) AS sides (dimension, value, period)
            WHERE latency_ms IS NOT NULL
            GROUP BY tenant, dimension, value, period, bucket ORDER BY 2, 4, 3, 1, 6
            ON CONFLICT (dimension, period, value, tenant, shard, bucket) DO UPDATE SET
                requests = present.requests + excluded.requests
            $query$, source) USING shard, sign;
        EXECUTE format($query$
            INSERT INTO tinydancer.agent_outcomes AS present
            SELECT agent, $1, $2 * count(*), $2 * count(*) FILTER (WHERE success),
                $2 * count(latency_ms), $2 * coalesce(sum(latency_ms::numeric), 0),
                $2 * count(quality), $2 * coalesce(sum(quality::numeric), 0),
                $2 * sum(coalesce(quality::numeric, success::integer)),
                $2 * count(output_tokens), $2 * coalesce(sum(output_tokens), 0)
            FROM %I GROUP BY agent ORDER BY agent
            ON CONFLICT (agent, shard) DO UPDATE SET
                requests = present.requests + excluded.requests,
                successes = present.successes + excluded.successes,
                latency_count = present.latency_count + excluded.latency_count,
                latency_sum = present.latency_sum + excluded.latency_sum,
                quality_count = present.quality_count + excluded.quality_count,
                quality_sum = present.quality_sum + excluded.quality_sum,
                reward_sum = present.reward_sum + excluded.reward_sum,
                output_count = present.output_count + excluded.output_count,
                output_sum = present.output_sum + excluded.output_sum
            $query$, source) USING shard, sign;
    END LOOP;
    IF TG_OP = 'TRUNCATE' THEN
        DELETE FROM tinydancer.usage_hourly;
        DELETE FROM tinydancer.usage_latency;
        DELETE FROM tinydancer.agent_outcomes;
        DELETE FROM tinydancer.usage_keys;
    END IF;
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION tinydancer.sum_usage() IS
    'Trigger: keeps the sums over usage, whatever statement changes it.';
CREATE OR REPLACE TRIGGER sum_added AFTER INSERT ON tinydancer.usage
REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION tinydancer.sum_usage();
CREATE OR REPLACE TRIGGER sum_removed AFTER DELETE ON tinydancer.usage
REFERENCING OLD TABLE AS removed FOR EACH STATEMENT EXECUTE FUNCTION tinydancer.sum_usage();
CREATE OR REPLACE TRIGGER sum_changed AFTER UPDATE ON tinydancer.usage
REFERENCING NEW TABLE AS added OLD TABLE AS removed
FOR EACH STATEMENT EXECUTE FUNCTION tinydancer.sum_usage();
CREATE OR REPLACE TRIGGER sum_truncated AFTER TRUNCATE ON tinydancer.usage
FOR EACH STATEMENT EXECUTE FUNCTION tinydancer.sum_usage();

CREATE OR REPLACE FUNCTION tinydancer.compact_sums() RETURNS bigint
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    past CONSTANT timestamptz := date_trunc('day', now(), 'UTC') - interval '1 day';
    merged bigint;
BEGIN
    IF NOT pg_try_advisory_xact_lock(hashtextextended('tinydancer.compact_sums', 0)) THEN
        RETURN 0;
    END IF;
    -- Rows that somebody is adding to are left for the next time: this waits for nobody.
    WITH several AS (
        SELECT ctid FROM tinydancer.usage_hourly WHERE hour < past AND shard <> 0
        FOR UPDATE SKIP LOCKED
    ), gone AS (
        DELETE FROM tinydancer.usage_hourly AS old USING several WHERE old.ctid = several.ctid
        RETURNING old.*
    )
    INSERT INTO tinydancer.usage_hourly AS present
    SELECT tenant, dimension, value, hour, 0, sum(requests), sum(successes), sum(cost),
        sum(latency_count), sum(latency_sum), sum(input_tokens), sum(output_tokens)
    FROM gone GROUP BY 1, 2, 3, 4 ORDER BY 2, 4, 3, 1
    ON CONFLICT (dimension, hour, value, tenant, shard) DO UPDATE SET
        requests = present.requests + excluded.requests,
        successes = present.successes + excluded.successes,
        cost = present.cost + excluded.cost,
        latency_count = present.latency_count + excluded.latency_count,
        latency_sum = present.latency_sum + excluded.latency_sum,
        input_tokens = present.input_tokens + excluded.input_tokens,
        output_tokens = present.output_tokens + excluded.output_tokens;
    WITH several AS (
        SELECT ctid FROM tinydancer.usage_latency WHERE period < past AND shard <> 0
        FOR UPDATE SKIP LOCKED
    ), gone AS (
        DELETE FROM tinydancer.usage_latency AS old USING several WHERE old.ctid = several.ctid
        RETURNING old.*
    )
    INSERT INTO tinydancer.usage_latency AS present
    SELECT tenant, dimension, value, period, 0, bucket, sum(requests)
    FROM gone GROUP BY tenant, dimension, value, period, bucket ORDER BY 2, 4, 3, 1, 6
    ON CONFLICT (dimension, period, value, tenant, shard, bucket) DO UPDATE SET
        requests = present.requests + excluded.requests;
    GET DIAGNOSTICS merged = ROW_COUNT;
    RETURN merged;
END
$$;
COMMENT ON FUNCTION tinydancer.compact_sums() IS
    'Merges the shards of sums of days gone by, which few write to any more; how many it merged.';

CREATE OR REPLACE FUNCTION tinydancer.latency_bucket(latency_ms double precision) RETURNS smallint
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$
    SELECT CASE WHEN latency_ms <= 0 THEN -32768
        ELSE greatest(-32767, ceil(ln(latency_ms) / ln(1.02::double precision))) END::smallint
$$;
COMMENT ON FUNCTION tinydancer.latency_bucket(double precision) IS
    'The bucket of a latency: see usage_latency.';

CREATE OR REPLACE FUNCTION tinydancer.bucket_latency(bucket smallint) RETURNS double precision
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$
    -- Masson, Rim & Lee 2019 (DDSketch): off by at most (1.02 - 1) / (1.02 + 1) < 1%.
    SELECT CASE WHEN bucket = -32768 THEN 0 ELSE 2 * 1.02::double precision ^ bucket / 2.02 END
$$;
COMMENT ON FUNCTION tinydancer.bucket_latency(smallint) IS
    'The latency that stands for a bucket, within 1% of all in it.';

CREATE OR REPLACE FUNCTION tinydancer.price(
    agent text, at timestamptz, input_tokens bigint, output_tokens bigint,
    latency_ms double precision
) RETURNS numeric
LANGUAGE plpgsql STABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    prices tinydancer.agent_prices;
    missing text;
BEGIN
    -- As of then; before the first price that is known, the first.
    SELECT * INTO prices FROM (
        (SELECT * FROM tinydancer.agent_prices AS old
         WHERE old.agent = price.agent AND old.valid_from <= at ORDER BY old.valid_from DESC LIMIT 1)
        UNION ALL
        (SELECT * FROM tinydancer.agent_prices AS old
         WHERE old.agent = price.agent ORDER BY old.valid_from LIMIT 1)
    ) AS known LIMIT 1;
    missing := CASE
        WHEN prices.cost_per_1k_input_tokens > 0 AND input_tokens IS NULL THEN 'input_tokens'
        WHEN prices.cost_per_1k_output_tokens > 0 AND output_tokens IS NULL THEN 'output_tokens'
        WHEN prices.cost_per_second > 0 AND latency_ms IS NULL THEN 'latency_ms' END;
    IF missing IS NOT NULL THEN
        RAISE EXCEPTION '% is NULL, and agent % has a price on it', missing, quote_literal(agent)
        USING ERRCODE = 'null_value_not_allowed', HINT = format('Give cost, or %s.', missing);
    END IF;
    RETURN round(
        coalesce(input_tokens, 0) * prices.cost_per_1k_input_tokens / 1000
        + coalesce(output_tokens, 0) * prices.cost_per_1k_output_tokens / 1000
        + prices.cost_per_call
        + coalesce(latency_ms, 0)::numeric / 1000 * prices.cost_per_second, 9);
END
$$;
COMMENT ON FUNCTION tinydancer.price(text, timestamptz, bigint, bigint, double precision) IS
    'The cost of a request by the agent''s prices of a time: the one cost formula, on what happened.';

CREATE OR REPLACE FUNCTION tinydancer.record_outcomes(outcomes jsonb) RETURNS integer
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_variable
DECLARE
    known CONSTANT text[] := ARRAY[
        'decision_id', 'agent_name', 'input_tokens', 'output_tokens', 'cost', 'latency_ms',
        'success', 'quality', 'error', 'occurred_at', 'idempotency_key', 'tenant', 'route',
        'category', 'user_tier'];
    item jsonb;
    given record;
    decision tinydancer.decisions;
    outcome tinydancer.usage;
    recorded tinydancer.usage[] := '{}';
    content bytea;
    earlier bytea;
    stray text;
    waited integer;
BEGIN
    FOR item IN SELECT value FROM jsonb_array_elements(outcomes) LOOP
        SELECT name INTO stray FROM jsonb_object_keys(item) AS name WHERE name <> ALL (known) LIMIT 1;
        IF FOUND THEN
            RAISE EXCEPTION 'an outcome has %, which is not known', quote_literal(stray)
            USING ERRCODE = 'invalid_parameter_value',
                HINT = format('Allowed are: %s.', array_to_string(known, ', '));
        END IF;
        SELECT * INTO given FROM jsonb_to_record(item) AS fields (
            decision_id uuid, agent_name text, input_tokens bigint, output_tokens bigint,
            cost numeric, latency_ms double precision, success boolean, quality double precision,
            error text, occurred_at timestamptz, idempotency_key text, tenant text, route text,
            category text, user_tier text);
        PERFORM tinydancer.check_number('input_tokens', given.input_tokens, 0, 1e12),
            tinydancer.check_number('output_tokens', given.output_tokens, 0, 1e12),
            tinydancer.check_number('cost', given.cost::double precision, 0, 1e12),
            tinydancer.check_number('latency_ms', given.latency_ms, 0, 1e12),
            tinydancer.check_number('quality', given.quality, 0, 1);
        IF given.occurred_at > clock_timestamp() + interval '5 seconds' THEN
            RAISE EXCEPTION 'occurred_at is %, which is in the future', given.occurred_at
            USING ERRCODE = 'invalid_parameter_value',
                HINT = 'Record an outcome when it is known; check the clocks.';
        END IF;
        IF given.idempotency_key IS NOT NULL THEN
            PERFORM tinydancer.check_name('idempotency_key', given.idempotency_key);
        END IF;

        decision := NULL;
        IF given.decision_id IS NOT NULL THEN
            -- An engine that writes in batches is a moment behind the answers it gives.
            waited := 0;
            LOOP
                SELECT * INTO decision FROM tinydancer.decisions AS logged
                WHERE logged.id = given.decision_id
                    AND logged.decided_at = tinydancer.uuid_time(given.decision_id);
                EXIT WHEN FOUND OR waited >= 40 OR tinydancer.uuid_time(given.decision_id)
                    NOT BETWEEN clock_timestamp() - interval '5 seconds'
                    AND clock_timestamp() + interval '5 seconds';
                PERFORM pg_sleep(0.05);
                waited := waited + 1;
            END LOOP;
            IF decision.id IS NULL THEN
                RAISE EXCEPTION 'decision % does not exist', given.decision_id
                USING ERRCODE = 'undefined_object',
                    HINT = 'Decisions are kept where settings.decision_log is sync, or async (within '
                        'a second). Or give agent_name alone.';
            END IF;
        END IF;
        outcome.tenant := coalesce(given.tenant, decision.tenant, 'default');
        outcome.occurred_at := coalesce(given.occurred_at, clock_timestamp());
        outcome.decision_id := given.decision_id;
        outcome.agent := coalesce(given.agent_name, decision.agent);
        outcome.route := coalesce(given.route, decision.route);
        outcome.category := coalesce(given.category, decision.category);
        outcome.user_tier := coalesce(given.user_tier, decision.user_tier);
        outcome.input_tokens := given.input_tokens;
        outcome.output_tokens := given.output_tokens;
        outcome.latency_ms := given.latency_ms;
        outcome.success := coalesce(given.success, given.error IS NULL);
        outcome.quality := given.quality;
        outcome.error := left(given.error, 4096);
        outcome.key := coalesce(
            given.idempotency_key, given.decision_id::text, gen_random_uuid()::text);
        IF outcome.agent IS NULL THEN
            RAISE EXCEPTION 'an outcome names neither a decision with an agent nor an agent'
            USING ERRCODE = 'null_value_not_allowed', HINT = 'Give decision_id or agent_name.';
        ELSIF NOT EXISTS (
            SELECT FROM tinydancer.agent_prices AS old WHERE old.agent = outcome.agent
        ) THEN
            PERFORM tinydancer.agent_missing(outcome.agent);
        END IF;

        content := sha256(convert_to(jsonb_strip_nulls(item)::text, 'UTF8'));
        INSERT INTO tinydancer.usage_keys (tenant, key, occurred_at, content)
        VALUES (outcome.tenant, outcome.key, outcome.occurred_at, content)
        ON CONFLICT DO NOTHING;
        IF NOT FOUND THEN
            SELECT present.content INTO earlier FROM tinydancer.usage_keys AS present
            WHERE present.tenant = outcome.tenant AND present.key = outcome.key;
            IF given.idempotency_key IS NULL THEN
                RAISE EXCEPTION 'decision % has an outcome already', given.decision_id
                USING ERRCODE = 'duplicate_object',
                    HINT = 'Give an idempotency_key where recording may be tried again, or where '
                        'a decision has several outcomes.';
            ELSIF earlier <> content THEN
                RAISE EXCEPTION 'idempotency_key % was used for another outcome',
                    quote_literal(given.idempotency_key)
                USING ERRCODE = 'duplicate_object',
                    HINT = 'Try again with the same values, or record it under a key of its own.';
            END IF;
            CONTINUE;
        END IF;
        outcome.cost := coalesce(given.cost, tinydancer.price(
            outcome.agent, outcome.occurred_at, outcome.input_tokens, outcome.output_tokens,
            outcome.latency_ms));
        PERFORM tinydancer.ensure_partitions(outcome.occurred_at, outcome.occurred_at)
        WHERE to_regclass('tinydancer.usage_'
            || to_char(outcome.occurred_at AT TIME ZONE 'UTC', 'YYYY_MM')) IS NULL;
        recorded := recorded || outcome;
    END LOOP;
    INSERT INTO tinydancer.usage SELECT * FROM unnest(recorded);
    PERFORM tinydancer.charge_budgets(recorded);
    RETURN cardinality(recorded);
END
$$;
COMMENT ON FUNCTION tinydancer.record_outcomes(jsonb) IS
    'Records outcomes, each once, priced as of then; how many were new. All of them or none.';

CREATE OR REPLACE FUNCTION tinydancer.ruvector_record_usage(
    decision_id uuid DEFAULT NULL,
    agent_name text DEFAULT NULL,
    input_tokens bigint DEFAULT NULL,
    output_tokens bigint DEFAULT NULL,
    cost numeric DEFAULT NULL,
    latency_ms double precision DEFAULT NULL,
    success boolean DEFAULT NULL,
    quality double precision DEFAULT NULL,
    error text DEFAULT NULL,
    occurred_at timestamptz DEFAULT NULL,
    idempotency_key text DEFAULT NULL,
    tenant text DEFAULT NULL,
    route text DEFAULT NULL,
    category text DEFAULT NULL,
    user_tier text DEFAULT NULL
) RETURNS boolean
LANGUAGE sql VOLATILE PARALLEL UNSAFE AS $$
    SELECT tinydancer.record_outcomes(pg_catalog.jsonb_build_array(
        pg_catalog.jsonb_strip_nulls(pg_catalog.jsonb_build_object(
            'decision_id', decision_id, 'agent_name', agent_name, 'input_tokens', input_tokens,
            'output_tokens', output_tokens, 'cost', cost::text, 'latency_ms', latency_ms::text,
            'success', success, 'quality', quality::text, 'error', error,
            'occurred_at', occurred_at, 'idempotency_key', idempotency_key, 'tenant', tenant,
            'route', route, 'category', category, 'user_tier', user_tier)))) = 1
$$;
COMMENT ON FUNCTION tinydancer.ruvector_record_usage(
    uuid, text, bigint, bigint, numeric, double precision, boolean, double precision, text,
    timestamptz, text, text, text, text, text
) IS
    'Records what came of a decision, or of a request to an agent; true, or false where the '
    'idempotency_key shows that it was recorded before. Without a cost, the agent''s prices of that '
    'time make it; without success, it is one unless there is an error.';

CREATE OR REPLACE FUNCTION tinydancer.ruvector_record_usage_batch(outcomes jsonb) RETURNS integer
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    most CONSTANT integer := (SELECT max_batch FROM tinydancer.settings);
BEGIN
    IF jsonb_typeof(outcomes) IS DISTINCT FROM 'array' OR EXISTS (
        SELECT FROM jsonb_array_elements(outcomes) AS item WHERE jsonb_typeof(item) <> 'object'
    ) THEN
        RAISE EXCEPTION 'outcomes is not an array of objects'
        USING ERRCODE = 'invalid_parameter_value',
            HINT = 'Give [{"agent_name": "gpt-4", "cost": 0.01, "latency_ms": 900}, ...].';
    ELSIF jsonb_array_length(outcomes) > most THEN
        RAISE EXCEPTION 'outcomes has % objects, over the limit of %',
            jsonb_array_length(outcomes), most
        USING ERRCODE = 'program_limit_exceeded',
            HINT = 'Record in parts, or raise max_batch in tinydancer.settings.';
    END IF;
    RETURN tinydancer.record_outcomes(outcomes);
END
$$;
COMMENT ON FUNCTION tinydancer.ruvector_record_usage_batch(jsonb) IS
    'Records many outcomes, an object each with the names of ruvector_record_usage''s arguments; '
    'how many were new. All of them or none.';

CREATE OR REPLACE VIEW tinydancer.agent_stats AS
SELECT agents.name AS agent,
    coalesce(requests, 0) AS outcomes,
    coalesce(successes, 0) AS successes,
    prior_weight / (prior_weight + coalesce(requests, 0)) AS prior_share,
    (prior_weight * agents.quality + coalesce(successes, 0))
        / (prior_weight + coalesce(requests, 0)) AS success_rate,
    (prior_weight * agents.quality + coalesce(reward_sum, 0)::double precision)
        / (prior_weight + coalesce(requests, 0)) AS quality,
    (prior_weight * agents.avg_latency_ms + coalesce(latency_sum, 0)::double precision)
        / (prior_weight + coalesce(latency_count, 0)) AS latency_ms,
    (output_sum / nullif(output_count, 0))::double precision AS output_tokens,
    coalesce(latency_count, 0) AS latencies,
    (latency_sum / nullif(latency_count, 0))::double precision AS measured_latency_ms,
    coalesce(quality_count, 0) AS judged,
    (quality_sum / nullif(quality_count, 0))::double precision AS measured_quality
FROM tinydancer.agents CROSS JOIN tinydancer.settings
LEFT JOIN (
    SELECT agent, sum(requests)::bigint AS requests, sum(successes)::bigint AS successes,
        sum(latency_count)::bigint AS latency_count, sum(latency_sum) AS latency_sum,
        sum(quality_count)::bigint AS quality_count, sum(quality_sum) AS quality_sum,
        sum(reward_sum) AS reward_sum,
        sum(output_count)::bigint AS output_count, sum(output_sum) AS output_sum
    FROM tinydancer.agent_outcomes GROUP BY agent
) AS sums ON sums.agent = agents.name;
COMMENT ON VIEW tinydancer.agent_stats IS
    'What outcomes say of each agent. success_rate is the mean of a Beta distribution, quality and '
    'latency_ms are means, all drawn towards what was registered, which counts for prior_weight '
    'outcomes; prior_share is how much of them still is prior. Where nobody judged the quality of an '
    'outcome, success counts as 1 and failure as 0.';

CREATE OR REPLACE FUNCTION tinydancer.usage_group(outcome tinydancer.usage, group_by text)
RETURNS text
LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT CASE group_by WHEN 'agent' THEN outcome.agent WHEN 'tenant' THEN outcome.tenant
        WHEN 'route' THEN coalesce(outcome.route, '')
        WHEN 'category' THEN coalesce(outcome.category, '')
        WHEN 'user_tier' THEN coalesce(outcome.user_tier, '') ELSE '' END
$$;
COMMENT ON FUNCTION tinydancer.usage_group(tinydancer.usage, text) IS
    'The group that an outcome belongs to; empty where it has none, and by day and hour.';

CREATE OR REPLACE FUNCTION tinydancer.usage_moment(outcome tinydancer.usage, group_by text)
RETURNS timestamptz
LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT CASE WHEN group_by IN ('day', 'hour')
        THEN pg_catalog.date_trunc(group_by, outcome.occurred_at, 'UTC') ELSE '-infinity' END
$$;
COMMENT ON FUNCTION tinydancer.usage_moment(tinydancer.usage, text) IS
    'The day or hour that an outcome belongs to; -infinity by any other grouping.';

-- With its owner's rights: sums are for all who may look back, single outcomes for few.
CREATE OR REPLACE FUNCTION tinydancer.usage_analytics(since timestamptz, group_by text)
RETURNS TABLE (
    agent text, total_requests bigint, total_cost numeric, avg_latency_ms double precision,
    success_rate double precision, p50_latency_ms double precision,
    p95_latency_ms double precision, p99_latency_ms double precision, cost_per_success numeric,
    share double precision, input_tokens numeric, output_tokens numeric
)
LANGUAGE sql STABLE PARALLEL SAFE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp SET timezone = 'UTC' AS $$
    WITH bounds AS (
        SELECT CASE WHEN group_by IN ('route', 'category', 'user_tier') THEN group_by
                ELSE 'agent' END AS dimension,
            date_trunc('hour', since - interval '1 microsecond') + interval '1 hour' AS first_hour,
            date_trunc('day', since - interval '1 microsecond') + interval '1 day' AS first_day
    ), whole AS (
        -- Whole hours from the sums, the rest of the first hour from the rows themselves. A group
        -- is a value or, by day and hour, a moment: made readable when all is summed up.
        SELECT CASE group_by WHEN 'tenant' THEN tenant WHEN 'day' THEN '' WHEN 'hour' THEN ''
                ELSE value END AS value,
            CASE group_by WHEN 'day' THEN date_trunc('day', hour) WHEN 'hour' THEN hour
                ELSE '-infinity' END AS moment,
            requests, successes, cost, latency_count, latency_sum, input_tokens, output_tokens
        FROM tinydancer.usage_hourly AS sums, bounds
        WHERE sums.dimension = bounds.dimension AND hour >= first_hour
        UNION ALL
        SELECT tinydancer.usage_group(usage, group_by), tinydancer.usage_moment(usage, group_by),
            1, success::integer, cost, (latency_ms IS NOT NULL)::integer,
            coalesce(latency_ms, 0)::numeric, coalesce(input_tokens, 0), coalesce(output_tokens, 0)
        FROM tinydancer.usage, bounds
        WHERE occurred_at >= since AND occurred_at < first_hour
    ), totals AS (
        SELECT value, moment, sum(requests)::bigint AS requests,
            sum(successes)::bigint AS successes, sum(cost) AS cost,
            sum(latency_count)::bigint AS latency_count, sum(latency_sum) AS latency_sum,
            sum(input_tokens) AS input_tokens, sum(output_tokens) AS output_tokens
        FROM whole GROUP BY value, moment HAVING sum(requests) <> 0
    ), buckets AS (
        SELECT value, moment, bucket, sum(requests)::bigint AS requests FROM (
            SELECT CASE group_by WHEN 'tenant' THEN tenant WHEN 'day' THEN '' WHEN 'hour' THEN ''
                    ELSE value END AS value,
                CASE WHEN group_by IN ('day', 'hour') THEN sums.period ELSE '-infinity' END
                    AS moment,
                bucket, requests
            FROM tinydancer.usage_latency AS sums, bounds
            WHERE sums.dimension = CASE group_by WHEN 'hour' THEN 'hour' ELSE bounds.dimension END
                AND sums.period >= CASE group_by WHEN 'hour' THEN first_hour ELSE first_day END
            UNION ALL
            SELECT tinydancer.usage_group(usage, group_by),
                tinydancer.usage_moment(usage, group_by), tinydancer.latency_bucket(latency_ms), 1
            FROM tinydancer.usage, bounds
            WHERE occurred_at >= since AND latency_ms IS NOT NULL
                AND occurred_at < CASE group_by WHEN 'hour' THEN first_hour ELSE first_day END
        ) AS parts GROUP BY value, moment, bucket
    ), ranked AS (
        SELECT value, moment, bucket,
            sum(requests) OVER (PARTITION BY value, moment ORDER BY bucket ROWS UNBOUNDED PRECEDING)
                AS upto,
            sum(requests) OVER (PARTITION BY value, moment) AS all_of_them
        FROM buckets
    ), percentiles AS (
        SELECT value, moment,
            tinydancer.bucket_latency(min(bucket) FILTER (WHERE upto >= 0.50 * all_of_them)) AS p50,
            tinydancer.bucket_latency(min(bucket) FILTER (WHERE upto >= 0.95 * all_of_them)) AS p95,
            tinydancer.bucket_latency(min(bucket) FILTER (WHERE upto >= 0.99 * all_of_them)) AS p99
        FROM ranked GROUP BY value, moment
    )
    SELECT CASE group_by WHEN 'day' THEN to_char(totals.moment, 'YYYY-MM-DD')
            WHEN 'hour' THEN to_char(totals.moment, 'YYYY-MM-DD HH24:00')
            ELSE nullif(totals.value, '') END,
        requests, cost, (latency_sum / nullif(latency_count, 0))::double precision,
        successes::double precision / requests, p50, p95, p99,
        round(cost / nullif(successes, 0), 9),
        requests::double precision / sum(requests) OVER (), input_tokens, output_tokens
    FROM totals LEFT JOIN percentiles USING (value, moment)
    ORDER BY totals.moment, cost DESC, totals.value COLLATE "C"
$$;
COMMENT ON FUNCTION tinydancer.usage_analytics(timestamptz, text) IS
    'Sums over usage since a time: exact, but for the percentiles, which are within 1%.';

CREATE OR REPLACE FUNCTION tinydancer.ruvector_routing_analytics(
    time_range text DEFAULT '7 days', group_by text DEFAULT 'agent'
)
RETURNS TABLE (
    agent text, total_requests bigint, total_cost numeric, avg_latency_ms double precision,
    success_rate double precision, p50_latency_ms double precision,
    p95_latency_ms double precision, p99_latency_ms double precision, cost_per_success numeric,
    share double precision, input_tokens numeric, output_tokens numeric
)
LANGUAGE plpgsql STABLE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    length interval;
BEGIN
    PERFORM tinydancer.check_choice('group_by', group_by, ARRAY[
        'agent', 'route', 'category', 'tenant', 'day', 'hour', 'user_tier']);
    BEGIN
        length := time_range::interval;
    EXCEPTION WHEN data_exception THEN
        RAISE EXCEPTION 'time_range is %, which is no interval', quote_literal(left(time_range, 100))
        USING ERRCODE = 'invalid_datetime_format',
            HINT = 'Give what PostgreSQL reads as an interval: 7 days, 12 hours, 1 month.';
    END;
    IF length IS NULL OR now() - length >= now() OR now() - length < '2000-01-01' THEN
        RAISE EXCEPTION 'time_range is %, which does not lie in the past',
            coalesce(quote_literal(time_range), 'NULL')
        USING ERRCODE = 'invalid_parameter_value', HINT = 'Give a positive interval: 7 days.';
    END IF;
    RETURN QUERY SELECT * FROM tinydancer.usage_analytics(now() - length, group_by);
END
$$;
COMMENT ON FUNCTION tinydancer.ruvector_routing_analytics(text, text) IS
    'What the last time_range cost and how it went, by agent, route, category, tenant, day, hour '
    '(UTC) or user_tier: the first column, agent, is whichever it is. Sums are exact, percentiles '
    'within 1%.';

SELECT tinydancer.ensure_partitions(now() - interval '1 month', now() + interval '1 month');
