-- Shard 0 is of merged sums alone, so that what is to be merged is found without reading them all;
-- merged sums tell tenants apart by agent only, so that looking back takes no longer for many of them.

UPDATE tinydancer.usage_hourly SET shard = 8 WHERE dimension <> 'agent' AND shard = 0;
UPDATE tinydancer.usage_latency SET shard = 8 WHERE dimension <> 'agent' AND shard = 0;
CREATE INDEX usage_hourly_unmerged ON tinydancer.usage_hourly (hour) WHERE shard <> 0;
CREATE INDEX usage_latency_unmerged ON tinydancer.usage_latency (period) WHERE shard <> 0;
COMMENT ON COLUMN tinydancer.usage_hourly.tenant IS
    'On whose behalf; empty in merged sums of all tenants.';
COMMENT ON COLUMN tinydancer.usage_hourly.shard IS
    'Sessions write into different rows, so that they seldom wait; a sum is over all shards. '
    'Shard 0 is of days gone by, merged; by agent for each tenant, else for all together.';
COMMENT ON COLUMN tinydancer.usage_latency.tenant IS
    'On whose behalf; empty in merged sums of all tenants.';
