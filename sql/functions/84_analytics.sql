-- Looking back: what a time range cost and how it went.

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
SET search_path = pg_catalog, pg_temp SET timezone = 'UTC'
-- Histograms by the hour are some hundred thousand groups; compiling costs more than it gains.
SET work_mem = '32MB' SET jit = off AS $$
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
        -- By the hour these are hundreds of thousands, so they are kept cheap to add and to sort:
        -- counts as double precision (exact to 9e15), and no group's name where there is none.
        SELECT moment, value, bucket, sum(requests) AS requests FROM (
            SELECT CASE group_by WHEN 'tenant' THEN tenant WHEN 'day' THEN NULL WHEN 'hour' THEN NULL
                    ELSE nullif(value, '') END AS value,
                CASE WHEN group_by IN ('day', 'hour') THEN sums.period ELSE '-infinity' END
                    AS moment,
                bucket, requests::double precision
            FROM tinydancer.usage_latency AS sums, bounds
            WHERE sums.dimension = CASE group_by WHEN 'hour' THEN 'hour' ELSE bounds.dimension END
                AND sums.period >= CASE group_by WHEN 'hour' THEN first_hour ELSE first_day END
            UNION ALL
            SELECT nullif(tinydancer.usage_group(usage, group_by), ''),
                tinydancer.usage_moment(usage, group_by), tinydancer.latency_bucket(latency_ms), 1
            FROM tinydancer.usage, bounds
            WHERE occurred_at >= since AND latency_ms IS NOT NULL
                AND occurred_at < CASE group_by WHEN 'hour' THEN first_hour ELSE first_day END
        ) AS parts GROUP BY moment, value, bucket HAVING sum(requests) <> 0
    ), ranked AS (
        SELECT moment, value, bucket,
            sum(requests) OVER (PARTITION BY moment, value ORDER BY bucket ROWS UNBOUNDED PRECEDING)
                AS upto,
            sum(requests) OVER (PARTITION BY moment, value) AS all_of_them
        FROM buckets
    ), percentiles AS (
        SELECT moment, coalesce(value, '') AS value,
            tinydancer.bucket_latency(
                min(bucket) FILTER (WHERE 100 * upto >= 50 * all_of_them)) AS p50,
            tinydancer.bucket_latency(
                min(bucket) FILTER (WHERE 100 * upto >= 95 * all_of_them)) AS p95,
            tinydancer.bucket_latency(
                min(bucket) FILTER (WHERE 100 * upto >= 99 * all_of_them)) AS p99
        FROM ranked GROUP BY moment, value
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
    since timestamptz;
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
    BEGIN
        since := now() - length;
    EXCEPTION WHEN datetime_field_overflow THEN
        since := CASE WHEN length > interval '0' THEN timestamptz '-infinity' END;
    END;
    IF since >= now() IS NOT FALSE THEN
        RAISE EXCEPTION 'time_range is %, which does not lie in the past',
            coalesce(quote_literal(time_range), 'NULL')
        USING ERRCODE = 'invalid_parameter_value', HINT = 'Give a positive interval: 7 days.';
    END IF;
    -- Nothing is recorded of the time before.
    RETURN QUERY SELECT * FROM tinydancer.usage_analytics(
        greatest(since, '2000-01-01 00:00:00+00'), group_by);
END
$$;
COMMENT ON FUNCTION tinydancer.ruvector_routing_analytics(text, text) IS
    'What the last time_range cost and how it went, by agent, route, category, tenant, day, hour '
    '(UTC) or user_tier: the first column, agent, is whichever it is. Sums are exact, percentiles '
    'within 1%.';
