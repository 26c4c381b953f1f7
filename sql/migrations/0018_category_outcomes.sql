-- Sums tell tenants apart by agent only, from when they are written on, so that what was just loaded
-- is as few rows as what is merged; and outcomes of each agent are summed up by category, so that
-- demand is looked up without reading the rows.

DROP TRIGGER IF EXISTS sum_changed ON tinydancer.usage;

CREATE TABLE tinydancer.category_outcomes (
    category text NOT NULL,
    agent text NOT NULL,
    day timestamptz NOT NULL,
    shard smallint NOT NULL,
    requests bigint NOT NULL,
    reward_sum numeric NOT NULL,
    PRIMARY KEY (day, category, agent, shard)
) WITH (fillfactor = 70);
COMMENT ON TABLE tinydancer.category_outcomes IS
    'Sums over usage of each agent by category and day, kept exactly by triggers on usage.';
COMMENT ON COLUMN tinydancer.category_outcomes.category IS 'The category; empty where usage has none.';
COMMENT ON COLUMN tinydancer.category_outcomes.agent IS 'The agent.';
COMMENT ON COLUMN tinydancer.category_outcomes.day IS 'Start of the day (UTC).';
COMMENT ON COLUMN tinydancer.category_outcomes.shard IS 'As in usage_hourly.';
COMMENT ON COLUMN tinydancer.category_outcomes.requests IS 'Outcomes.';
COMMENT ON COLUMN tinydancer.category_outcomes.reward_sum IS 'As in agent_outcomes.';
CREATE INDEX category_outcomes_unmerged ON tinydancer.category_outcomes (day) WHERE shard <> 0;
INSERT INTO tinydancer.category_outcomes
SELECT coalesce(category, ''), agent, date_trunc('day', occurred_at, 'UTC'), 0, count(*),
    sum(coalesce(quality::numeric, success::integer))
FROM tinydancer.usage GROUP BY 1, 2, 3;

WITH gone AS (
    DELETE FROM tinydancer.usage_hourly WHERE dimension <> 'agent' AND tenant <> '' RETURNING *
)
INSERT INTO tinydancer.usage_hourly
SELECT '', dimension, value, hour, shard, sum(requests), sum(successes), sum(cost),
    sum(latency_count), sum(latency_sum), sum(input_tokens), sum(output_tokens)
FROM gone GROUP BY dimension, value, hour, shard;
WITH gone AS (
    DELETE FROM tinydancer.usage_latency WHERE dimension <> 'agent' AND tenant <> '' RETURNING *
)
INSERT INTO tinydancer.usage_latency
SELECT '', dimension, value, period, shard, bucket, sum(requests)
FROM gone GROUP BY dimension, value, period, shard, bucket;

COMMENT ON COLUMN tinydancer.usage_hourly.tenant IS
    'On whose behalf, by agent; empty in all other sums, which are of all tenants.';
COMMENT ON COLUMN tinydancer.usage_hourly.shard IS
    'Transactions that write at once do so into different rows, so that they seldom wait; a sum is '
    'over all shards. Shard 0 is of days gone by, merged, and of what was loaded in bulk.';
COMMENT ON COLUMN tinydancer.usage_latency.tenant IS
    'On whose behalf, by agent; empty in all other sums, which are of all tenants.';
