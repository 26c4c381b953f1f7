-- Sums over usage, kept exactly by triggers: by the hour, of latencies, of each agent.

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

CREATE OR REPLACE FUNCTION tinydancer.free_shard(written bigint) RETURNS smallint
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    many CONSTANT boolean := written >= 1000;
    shards CONSTANT integer := 8;
    home CONSTANT integer := pg_backend_pid() % shards;
    shard integer;
BEGIN
    -- A transaction has the shards that it writes into for itself, to its end. Few rows go into any
    -- of 1 to 8, many into the first that is free, from 0 on, that of merged sums: what one session
    -- after the other loads is merged as soon as it is there.
    IF many AND pg_try_advisory_xact_lock(hashtextextended('tinydancer.sums', 0)) THEN
        RETURN 0;
    END IF;
    FOR step IN 0 .. shards - 1 LOOP
        shard := 1 + CASE WHEN many THEN step ELSE (home + step) % shards END;
        IF pg_try_advisory_xact_lock(hashtextextended('tinydancer.sums', shard)) THEN
            RETURN shard;
        END IF;
    END LOOP;
    PERFORM pg_advisory_xact_lock(hashtextextended('tinydancer.sums', home + 1));
    RETURN home + 1;
END
$$;
COMMENT ON FUNCTION tinydancer.free_shard(bigint) IS
    'The shard of sums that so many written rows are to be added to: no other transaction has it until '
    'this one ends. Waits only where all are taken.';

CREATE OR REPLACE FUNCTION tinydancer.sum_usage() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    sign CONSTANT integer := TG_ARGV[0];
    written CONSTANT bigint := (SELECT count(*) FROM changed);
    shard smallint;
BEGIN
    IF written = 0 THEN
        RETURN NULL;
    END IF;
    shard := tinydancer.free_shard(written);
    -- Only by agent are tenants told apart: all else would be as many rows more for each of them.
    INSERT INTO tinydancer.usage_hourly AS present
    SELECT CASE grouping(agent) WHEN 0 THEN tenant ELSE '' END,
        CASE 0 WHEN grouping(agent) THEN 'agent' WHEN grouping(route) THEN 'route'
            WHEN grouping(category) THEN 'category' ELSE 'user_tier' END,
        coalesce(agent, route, category, user_tier), hour, shard,
        sign * count(*), sign * count(*) FILTER (WHERE success), sign * sum(cost),
        sign * count(latency_ms), sign * coalesce(sum(latency_ms::numeric), 0),
        sign * coalesce(sum(input_tokens), 0), sign * coalesce(sum(output_tokens), 0)
    FROM (
        SELECT tenant, agent, coalesce(route, '') AS route, coalesce(category, '') AS category,
            coalesce(user_tier, '') AS user_tier, date_trunc('hour', occurred_at, 'UTC') AS hour,
            success, cost, latency_ms, input_tokens, output_tokens
        FROM changed
    ) AS outcomes
    GROUP BY hour, GROUPING SETS ((tenant, agent), route, category, user_tier)
    ON CONFLICT ON CONSTRAINT usage_hourly_pkey DO UPDATE SET
        requests = present.requests + excluded.requests,
        successes = present.successes + excluded.successes,
        cost = present.cost + excluded.cost,
        latency_count = present.latency_count + excluded.latency_count,
        latency_sum = present.latency_sum + excluded.latency_sum,
        input_tokens = present.input_tokens + excluded.input_tokens,
        output_tokens = present.output_tokens + excluded.output_tokens;
    INSERT INTO tinydancer.usage_latency AS present
    SELECT CASE grouping(agent) WHEN 0 THEN tenant ELSE '' END,
        CASE 0 WHEN grouping(agent) THEN 'agent' WHEN grouping(route) THEN 'route'
            WHEN grouping(category) THEN 'category' WHEN grouping(user_tier) THEN 'user_tier'
            ELSE 'hour' END,
        coalesce(agent, route, category, user_tier, ''), coalesce(day, hour), shard, bucket,
        sign * count(*)
    FROM (
        SELECT tenant, agent, coalesce(route, '') AS route, coalesce(category, '') AS category,
            coalesce(user_tier, '') AS user_tier, date_trunc('day', occurred_at, 'UTC') AS day,
            date_trunc('hour', occurred_at, 'UTC') AS hour,
            tinydancer.latency_bucket(latency_ms) AS bucket
        FROM changed WHERE latency_ms IS NOT NULL
    ) AS outcomes
    GROUP BY bucket, GROUPING SETS (
        (day, tenant, agent), (day, route), (day, category), (day, user_tier), hour)
    ON CONFLICT ON CONSTRAINT usage_latency_pkey DO UPDATE SET
        requests = present.requests + excluded.requests;
    INSERT INTO tinydancer.category_outcomes AS present
    SELECT coalesce(category, ''), agent, date_trunc('day', occurred_at, 'UTC'), shard,
        sign * count(*), sign * sum(coalesce(quality::numeric, success::integer))
    FROM changed GROUP BY 1, 2, 3
    ON CONFLICT ON CONSTRAINT category_outcomes_pkey DO UPDATE SET
        requests = present.requests + excluded.requests,
        reward_sum = present.reward_sum + excluded.reward_sum;
    INSERT INTO tinydancer.agent_outcomes AS present
    SELECT agent, shard, sign * count(*), sign * count(*) FILTER (WHERE success),
        sign * count(latency_ms), sign * coalesce(sum(latency_ms::numeric), 0),
        sign * count(quality), sign * coalesce(sum(quality::numeric), 0),
        sign * sum(coalesce(quality::numeric, success::integer)),
        sign * count(output_tokens), sign * coalesce(sum(output_tokens), 0),
        sign * count(decision_id)
    FROM changed GROUP BY agent
    ON CONFLICT ON CONSTRAINT agent_outcomes_pkey DO UPDATE SET
        requests = present.requests + excluded.requests,
        successes = present.successes + excluded.successes,
        latency_count = present.latency_count + excluded.latency_count,
        latency_sum = present.latency_sum + excluded.latency_sum,
        quality_count = present.quality_count + excluded.quality_count,
        quality_sum = present.quality_sum + excluded.quality_sum,
        reward_sum = present.reward_sum + excluded.reward_sum,
        output_count = present.output_count + excluded.output_count,
        output_sum = present.output_sum + excluded.output_sum,
        decided = present.decided + excluded.decided;
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION tinydancer.sum_usage() IS
    'Trigger: adds the rows of its transition table to the sums over usage, 1 or -1 times.';
CREATE OR REPLACE TRIGGER sum_added AFTER INSERT ON tinydancer.usage
REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION tinydancer.sum_usage('1');
CREATE OR REPLACE TRIGGER sum_removed AFTER DELETE ON tinydancer.usage
REFERENCING OLD TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION tinydancer.sum_usage('-1');
CREATE OR REPLACE TRIGGER sum_changed_from AFTER UPDATE ON tinydancer.usage
REFERENCING OLD TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION tinydancer.sum_usage('-1');
CREATE OR REPLACE TRIGGER sum_changed_to AFTER UPDATE ON tinydancer.usage
REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION tinydancer.sum_usage('1');

CREATE OR REPLACE FUNCTION tinydancer.forget_sums() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    DELETE FROM tinydancer.usage_hourly;
    DELETE FROM tinydancer.usage_latency;
    DELETE FROM tinydancer.category_outcomes;
    DELETE FROM tinydancer.agent_outcomes;
    DELETE FROM tinydancer.usage_keys;
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION tinydancer.forget_sums() IS
    'Trigger: where usage is truncated, nothing is left of its sums and keys.';
CREATE OR REPLACE TRIGGER sum_truncated AFTER TRUNCATE ON tinydancer.usage
FOR EACH STATEMENT EXECUTE FUNCTION tinydancer.forget_sums();

CREATE OR REPLACE FUNCTION tinydancer.merge_shard(merged smallint, until timestamptz) RETURNS bigint
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    sums regclass;
    period name;
    keys text;
    measures text;
    totals text;
    additions text;
    written bigint;
    total bigint := 0;
BEGIN
    FOR sums, period IN VALUES
        ('tinydancer.usage_hourly'::regclass, 'hour'), ('tinydancer.usage_latency', 'period'),
        ('tinydancer.category_outcomes', 'day')
    LOOP
        -- What is not in the key is added up.
        SELECT string_agg(quote_ident(attname), ', ') FILTER (WHERE in_key AND attname <> 'shard'),
            string_agg(quote_ident(attname), ', ') FILTER (WHERE NOT in_key),
            string_agg(format('sum(%I)', attname), ', ') FILTER (WHERE NOT in_key),
            string_agg(format('%1$I = present.%1$I + excluded.%1$I', attname), ', ')
                FILTER (WHERE NOT in_key)
        INTO keys, measures, totals, additions
        FROM (
            SELECT attname, attnum = ANY (conkey) AS in_key
            FROM pg_attribute JOIN pg_constraint ON conrelid = attrelid AND contype = 'p'
            WHERE attrelid = sums AND attnum > 0 AND NOT attisdropped ORDER BY attnum
        ) AS columns;
        EXECUTE format($query$
            WITH gone AS (
                DELETE FROM %1$s WHERE shard <> 0 AND shard = $1 AND %2$I < $2 RETURNING *
            )
            INSERT INTO %1$s AS present (%3$s, shard, %4$s)
            SELECT %3$s, 0, %5$s FROM gone GROUP BY %3$s
            ON CONFLICT (%3$s, shard) DO UPDATE SET %6$s
            $query$, sums, period, keys, measures, totals, additions) USING merged, until;
        GET DIAGNOSTICS written = ROW_COUNT;
        total := total + written;
    END LOOP;
    RETURN total;
END
$$;
COMMENT ON FUNCTION tinydancer.merge_shard(smallint, timestamptz) IS
    'Adds the sums of a shard, of the time until then, to shard 0; how many rows that wrote. The '
    'caller has both to itself.';

CREATE OR REPLACE FUNCTION tinydancer.compact_sums() RETURNS bigint
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    past CONSTANT timestamptz := date_trunc('day', now(), 'UTC') - interval '1 day';
BEGIN
    IF NOT pg_try_advisory_xact_lock(hashtextextended('tinydancer.sums', 0)) THEN
        RETURN 0;
    END IF;
    -- One shard a call: writers have the others meanwhile, and neither waits for the other.
    FOR candidate IN 1 .. 8 LOOP
        CONTINUE WHEN NOT EXISTS (
            SELECT FROM tinydancer.usage_hourly
            WHERE shard <> 0 AND shard = candidate AND hour < past);
        CONTINUE WHEN NOT pg_try_advisory_xact_lock(hashtextextended('tinydancer.sums', candidate));
        RETURN tinydancer.merge_shard(candidate::smallint, past);
    END LOOP;
    RETURN 0;
END
$$;
COMMENT ON FUNCTION tinydancer.compact_sums() IS
    'Merges a shard of the sums of days gone by, which few write to any more; how many rows it wrote, '
    '0 where there is none that nobody is writing to.';

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
