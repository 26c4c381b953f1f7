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

CREATE OR REPLACE FUNCTION tinydancer.sum_usage() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    -- Sessions write into one of eight rows of each sum, so that they seldom wait for each other.
    -- Shard 0 is of days gone by, merged: see compact_sums.
    shard CONSTANT integer := pg_backend_pid() % 8 + 1;
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
                $2 * count(output_tokens), $2 * coalesce(sum(output_tokens), 0),
                $2 * count(decision_id)
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
                output_sum = present.output_sum + excluded.output_sum,
                decided = present.decided + excluded.decided
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
    -- Tenants are told apart by agent only, so all others' sums become one. Rows that somebody is
    -- adding to are left for the next time: this waits for nobody.
    WITH several AS (
        SELECT ctid FROM tinydancer.usage_hourly WHERE hour < past AND shard <> 0
        FOR UPDATE SKIP LOCKED
    ), gone AS (
        DELETE FROM tinydancer.usage_hourly AS old USING several WHERE old.ctid = several.ctid
        RETURNING old.*
    )
    INSERT INTO tinydancer.usage_hourly AS present
    SELECT CASE dimension WHEN 'agent' THEN tenant ELSE '' END, dimension, value, hour, 0,
        sum(requests), sum(successes), sum(cost), sum(latency_count), sum(latency_sum),
        sum(input_tokens), sum(output_tokens)
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
    SELECT CASE dimension WHEN 'agent' THEN tenant ELSE '' END, dimension, value, period, 0,
        bucket, sum(requests)
    FROM gone GROUP BY 1, 2, 3, 4, 6 ORDER BY 2, 4, 3, 1, 6
    ON CONFLICT (dimension, period, value, tenant, shard, bucket) DO UPDATE SET
        requests = present.requests + excluded.requests;
    GET DIAGNOSTICS merged = ROW_COUNT;
    RETURN merged;
END
$$;
COMMENT ON FUNCTION tinydancer.compact_sums() IS
    'Merges the shards of sums of days gone by, which few write to any more; how many rows of '
    'usage_latency came of it.';

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
