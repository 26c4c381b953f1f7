-- Recording outcomes: each once, priced, tied to its decision, charged to budgets.

CREATE OR REPLACE FUNCTION tinydancer.uuid_time(id uuid) RETURNS timestamptz
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$
    -- RFC 9562, section 5.7: the first 48 bits are milliseconds since 1970.
    SELECT timestamptz '1970-01-01 00:00:00+00' + interval '1 millisecond'
        * ('x' || pg_catalog.left(pg_catalog.replace(id::text, '-', ''), 12))::bit(48)::bigint
$$;
COMMENT ON FUNCTION tinydancer.uuid_time(uuid) IS 'The time in a UUID of version 7.';

CREATE OR REPLACE FUNCTION tinydancer.kept_decision(decision_id uuid)
RETURNS tinydancer.decisions
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    decision tinydancer.decisions;
    waited integer := 0;
BEGIN
    -- An engine that writes in batches is a moment behind the answers it gives.
    LOOP
        SELECT * INTO decision FROM tinydancer.decisions AS logged
        WHERE logged.id = decision_id AND logged.decided_at = tinydancer.uuid_time(decision_id);
        EXIT WHEN FOUND OR waited >= 40 OR tinydancer.uuid_time(decision_id)
            NOT BETWEEN clock_timestamp() - interval '5 seconds'
            AND clock_timestamp() + interval '5 seconds';
        PERFORM pg_sleep(0.05);
        waited := waited + 1;
    END LOOP;
    IF decision.id IS NULL AND current_setting('transaction_isolation') <> 'read committed'
        AND tinydancer.uuid_time(decision_id) BETWEEN now() - interval '5 seconds'
            AND clock_timestamp() + interval '5 seconds'
    THEN
        RAISE EXCEPTION 'decision % is not seen by this transaction, which is %',
            decision_id, current_setting('transaction_isolation')
        USING ERRCODE = 'serialization_failure',
            DETAIL = 'It sees what was committed when it began, and engines keep decisions within a '
                'second.',
            HINT = 'Try again in a new transaction, or use one that is READ COMMITTED.';
    ELSIF decision.id IS NULL THEN
        RAISE EXCEPTION 'decision % does not exist', decision_id
        USING ERRCODE = 'undefined_object',
            HINT = 'Decisions are kept where settings.decision_log is sync, or async (within '
                'a second). ruvector_record_usage takes agent_name alone, too.';
    END IF;
    RETURN decision;
END
$$;
COMMENT ON FUNCTION tinydancer.kept_decision(uuid) IS
    'A decision that was kept, or is about to be: waits for it two seconds at most. Raises, with a '
    'serialization failure where it may be there and this transaction not see it.';

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
    agents text[] := '{}';  -- that are registered
    partition text;
    partitions text[] := '{}';  -- that are there
BEGIN
    SELECT name INTO stray
    FROM jsonb_array_elements(outcomes) AS one, jsonb_object_keys(one) AS name
    WHERE name <> ALL (known) LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'an outcome has %, which is not known', quote_literal(stray)
        USING ERRCODE = 'invalid_parameter_value',
            HINT = format('Allowed are: %s.', array_to_string(known, ', '));
    END IF;
    FOR item IN SELECT value FROM jsonb_array_elements(outcomes) LOOP
        SELECT * INTO given FROM jsonb_to_record(item) AS fields (
            decision_id uuid, agent_name text, input_tokens bigint, output_tokens bigint,
            cost numeric, latency_ms double precision, success boolean, quality double precision,
            error text, occurred_at timestamptz, idempotency_key text, tenant text, route text,
            category text, user_tier text);
        PERFORM tinydancer.check_number('input_tokens', given.input_tokens, 0, 1e12),
            tinydancer.check_number('output_tokens', given.output_tokens, 0, 1e12),
            tinydancer.check_number('latency_ms', given.latency_ms, 0, 1e12),
            tinydancer.check_number('quality', given.quality, 0, 1),
            tinydancer.check_label('tenant', given.tenant),
            tinydancer.check_label('route', nullif(given.route, '')),
            tinydancer.check_label('category', nullif(given.category, '')),
            tinydancer.check_label('user_tier', nullif(given.user_tier, ''));
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
            decision := tinydancer.kept_decision(given.decision_id);
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
        END IF;
        IF outcome.agent <> ALL (agents) THEN
            PERFORM tinydancer.check_found('agent', outcome.agent, EXISTS (
                SELECT FROM tinydancer.agent_prices AS old WHERE old.agent = outcome.agent));
            agents := agents || outcome.agent;
        END IF;

        -- The values, however they were written: 1 and 1.0, and one moment in any time zone.
        content := sha256(convert_to(jsonb_strip_nulls(to_jsonb(given) || jsonb_build_object(
            'cost', trim_scale(given.cost), 'occurred_at', extract(epoch FROM given.occurred_at)
        ))::text, 'UTF8'));
        -- Whoever is said to have asked, the outcome of a decision is known by that one's tenant.
        INSERT INTO tinydancer.usage_keys (tenant, key, occurred_at, content)
        VALUES (coalesce(decision.tenant, outcome.tenant), outcome.key, outcome.occurred_at, content)
        ON CONFLICT DO NOTHING;
        IF NOT FOUND THEN
            SELECT present.content INTO earlier FROM tinydancer.usage_keys AS present
            WHERE present.tenant = coalesce(decision.tenant, outcome.tenant)
                AND present.key = outcome.key;
            IF given.idempotency_key IS NULL THEN
                RAISE EXCEPTION 'decision % has an outcome already', given.decision_id
                USING ERRCODE = 'duplicate_object',
                    HINT = 'Give an idempotency_key where recording may be tried again, or where '
                        'a decision has several outcomes.';
            ELSIF earlier NOT IN (content, sha256(convert_to(
                jsonb_strip_nulls(item)::text, 'UTF8')))  -- as it was before 0.3
            THEN
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
        PERFORM tinydancer.check_number('cost', outcome.cost::double precision, 0, 1e12);
        partition := 'tinydancer.usage_'
            || to_char(outcome.occurred_at AT TIME ZONE 'UTC', 'YYYY_MM');
        IF partition <> ALL (partitions) THEN
            PERFORM tinydancer.ensure_partitions(outcome.occurred_at, outcome.occurred_at)
            WHERE to_regclass(partition) IS NULL;
            partitions := partitions || partition;
        END IF;
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
