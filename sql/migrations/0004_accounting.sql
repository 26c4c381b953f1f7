-- What was decided, what came of it, and what it cost.
--
-- decisions and usage are partitioned by month; tenant is part of every key, so that a distributed
-- PostgreSQL can shard them by it.

CREATE TABLE tinydancer.agent_prices (
    agent text NOT NULL,
    valid_from timestamptz NOT NULL,
    cost_per_1k_input_tokens numeric NOT NULL,
    cost_per_1k_output_tokens numeric NOT NULL,
    cost_per_call numeric NOT NULL,
    cost_per_second numeric NOT NULL,
    PRIMARY KEY (agent, valid_from)
);
COMMENT ON TABLE tinydancer.agent_prices IS
    'Prices of agents over time, kept by a trigger: an outcome is priced as of when it happened.';
COMMENT ON COLUMN tinydancer.agent_prices.agent IS 'The agent; its prices outlive it.';
COMMENT ON COLUMN tinydancer.agent_prices.valid_from IS 'From when on.';
COMMENT ON COLUMN tinydancer.agent_prices.cost_per_1k_input_tokens IS 'Price of 1,000 input tokens.';
COMMENT ON COLUMN tinydancer.agent_prices.cost_per_1k_output_tokens IS
    'Price of 1,000 output tokens.';
COMMENT ON COLUMN tinydancer.agent_prices.cost_per_call IS 'Price of a call.';
COMMENT ON COLUMN tinydancer.agent_prices.cost_per_second IS 'Price of a second of its time.';
INSERT INTO tinydancer.agent_prices
SELECT name, created_at, cost_per_1k_input_tokens, cost_per_1k_output_tokens, cost_per_call,
    cost_per_second
FROM tinydancer.agents;

CREATE TABLE tinydancer.decisions (
    id uuid NOT NULL,
    tenant text NOT NULL DEFAULT 'default',
    decided_at timestamptz NOT NULL,
    request text,
    request_hash bytea NOT NULL,
    embedding vector(:dimension),
    embedding_model text,
    embedding_space text,
    agent text,
    route text,
    category text,
    user_tier text,
    optimize_for text NOT NULL,
    constraints jsonb NOT NULL DEFAULT '{}',
    candidates jsonb NOT NULL DEFAULT '[]',
    propensity double precision NOT NULL DEFAULT 1,
    confidence double precision,
    estimated_cost numeric,
    estimated_latency_ms double precision,
    expected_quality double precision,
    models jsonb NOT NULL DEFAULT '{}',
    PRIMARY KEY (id, tenant, decided_at),
    CONSTRAINT decisions_tenant_is_plain CHECK (octet_length(tenant) BETWEEN 1 AND 256),
    CONSTRAINT decisions_propensity_is_a_probability CHECK (propensity > 0 AND propensity <= 1),
    CONSTRAINT decisions_estimated_cost_is_in_range CHECK (estimated_cost BETWEEN 0 AND 1e12)
) PARTITION BY RANGE (decided_at);
COMMENT ON TABLE tinydancer.decisions IS
    'Decisions that were logged (settings.decision_log), partitioned by month.';
COMMENT ON COLUMN tinydancer.decisions.id IS
    'A UUID of version 7: it begins with the time, so that its partition is known from it.';
COMMENT ON COLUMN tinydancer.decisions.tenant IS 'On whose behalf.';
COMMENT ON COLUMN tinydancer.decisions.decided_at IS 'When, to the millisecond: the time in the id.';
COMMENT ON COLUMN tinydancer.decisions.request IS
    'The text; NULL where settings.decision_log_text says to keep only its hash.';
COMMENT ON COLUMN tinydancer.decisions.request_hash IS 'SHA-256 of the text.';
COMMENT ON COLUMN tinydancer.decisions.embedding IS 'Vector of the request.';
COMMENT ON COLUMN tinydancer.decisions.embedding_model IS 'Model that made it.';
COMMENT ON COLUMN tinydancer.decisions.embedding_space IS 'Vector space it lies in.';
COMMENT ON COLUMN tinydancer.decisions.agent IS 'The agent that was chosen; NULL where none suited.';
COMMENT ON COLUMN tinydancer.decisions.route IS 'The route that led to it, if one did.';
COMMENT ON COLUMN tinydancer.decisions.category IS 'Category of the request, where known.';
COMMENT ON COLUMN tinydancer.decisions.user_tier IS 'Tier of the user who asked.';
COMMENT ON COLUMN tinydancer.decisions.optimize_for IS 'The objective.';
COMMENT ON COLUMN tinydancer.decisions.constraints IS 'The constraints that were given.';
COMMENT ON COLUMN tinydancer.decisions.candidates IS 'Every candidate with estimates and score.';
COMMENT ON COLUMN tinydancer.decisions.propensity IS
    'Probability with which this agent was chosen: 1 unless exploration is on.';
COMMENT ON COLUMN tinydancer.decisions.confidence IS 'Probability that it would serve well.';
COMMENT ON COLUMN tinydancer.decisions.estimated_cost IS 'Expected cost.';
COMMENT ON COLUMN tinydancer.decisions.estimated_latency_ms IS 'Expected latency, milliseconds.';
COMMENT ON COLUMN tinydancer.decisions.expected_quality IS 'Expected quality, 0 to 1.';
COMMENT ON COLUMN tinydancer.decisions.models IS 'Versions of the models that took part.';
CREATE INDEX decisions_decided_at ON tinydancer.decisions (tenant, decided_at);

CREATE TABLE tinydancer.usage (
    tenant text NOT NULL DEFAULT 'default',
    key text NOT NULL DEFAULT gen_random_uuid()::text,
    occurred_at timestamptz NOT NULL DEFAULT now(),
    decision_id uuid,
    agent text NOT NULL,
    route text,
    category text,
    user_tier text,
    input_tokens bigint,
    output_tokens bigint,
    cost numeric NOT NULL,
    latency_ms double precision,
    success boolean NOT NULL DEFAULT true,
    quality double precision,
    error text,
    PRIMARY KEY (tenant, key, occurred_at),
    CONSTRAINT usage_tenant_is_plain CHECK (octet_length(tenant) BETWEEN 1 AND 256),
    CONSTRAINT usage_key_is_short CHECK (octet_length(key) BETWEEN 1 AND 256),
    CONSTRAINT usage_input_tokens_is_in_range CHECK (input_tokens BETWEEN 0 AND 1000000000000),
    CONSTRAINT usage_output_tokens_is_in_range CHECK (output_tokens BETWEEN 0 AND 1000000000000),
    CONSTRAINT usage_cost_is_in_range CHECK (cost BETWEEN 0 AND 1e12),
    CONSTRAINT usage_latency_ms_is_in_range CHECK (latency_ms BETWEEN 0 AND 1e12),
    CONSTRAINT usage_quality_is_a_share CHECK (quality BETWEEN 0 AND 1),
    CONSTRAINT usage_error_is_short CHECK (octet_length(error) <= 16384)
) PARTITION BY RANGE (occurred_at);
COMMENT ON TABLE tinydancer.usage IS
    'The ledger: what came of each request, partitioned by month. Sums over it are kept by triggers.';
COMMENT ON COLUMN tinydancer.usage.tenant IS 'On whose behalf.';
COMMENT ON COLUMN tinydancer.usage.key IS 'The key that makes recording it again do nothing.';
COMMENT ON COLUMN tinydancer.usage.occurred_at IS 'When the agent had answered.';
COMMENT ON COLUMN tinydancer.usage.decision_id IS 'The decision that it is the outcome of.';
COMMENT ON COLUMN tinydancer.usage.agent IS 'The agent that served it.';
COMMENT ON COLUMN tinydancer.usage.route IS 'The route that led to it.';
COMMENT ON COLUMN tinydancer.usage.category IS 'Category of the request.';
COMMENT ON COLUMN tinydancer.usage.user_tier IS 'Tier of the user.';
COMMENT ON COLUMN tinydancer.usage.input_tokens IS 'Tokens that it read.';
COMMENT ON COLUMN tinydancer.usage.output_tokens IS 'Tokens that it wrote.';
COMMENT ON COLUMN tinydancer.usage.cost IS
    'What it cost: as given, or by the agent''s prices of that time.';
COMMENT ON COLUMN tinydancer.usage.latency_ms IS 'How long it took, milliseconds.';
COMMENT ON COLUMN tinydancer.usage.success IS 'Whether it served the request.';
COMMENT ON COLUMN tinydancer.usage.quality IS 'How well, 0 to 1, where somebody judged.';
COMMENT ON COLUMN tinydancer.usage.error IS 'What went wrong.';
CREATE INDEX usage_occurred_at ON tinydancer.usage (occurred_at);
CREATE INDEX usage_decision_id ON tinydancer.usage (decision_id) WHERE decision_id IS NOT NULL;

CREATE TABLE tinydancer.usage_keys (
    tenant text NOT NULL,
    key text NOT NULL,
    occurred_at timestamptz NOT NULL,
    content bytea NOT NULL,
    PRIMARY KEY (tenant, key)
);
COMMENT ON TABLE tinydancer.usage_keys IS
    'Keys of recorded outcomes over all partitions: an outcome is recorded once.';
COMMENT ON COLUMN tinydancer.usage_keys.tenant IS 'On whose behalf.';
COMMENT ON COLUMN tinydancer.usage_keys.key IS 'The key.';
COMMENT ON COLUMN tinydancer.usage_keys.occurred_at IS 'When the outcome happened.';
COMMENT ON COLUMN tinydancer.usage_keys.content IS
    'SHA-256 of what was recorded: the same key with another outcome is an error.';
CREATE INDEX usage_keys_occurred_at ON tinydancer.usage_keys (occurred_at);

CREATE TABLE tinydancer.usage_hourly (
    tenant text NOT NULL,
    dimension text NOT NULL,
    value text NOT NULL,
    hour timestamptz NOT NULL,
    shard smallint NOT NULL,
    requests bigint NOT NULL,
    successes bigint NOT NULL,
    cost numeric NOT NULL,
    latency_count bigint NOT NULL,
    latency_sum numeric NOT NULL,
    input_tokens numeric NOT NULL,
    output_tokens numeric NOT NULL,
    PRIMARY KEY (dimension, hour, value, tenant, shard)
) WITH (fillfactor = 70);
COMMENT ON TABLE tinydancer.usage_hourly IS
    'Sums over usage by the hour, kept exactly by triggers on usage.';
COMMENT ON COLUMN tinydancer.usage_hourly.tenant IS 'On whose behalf.';
COMMENT ON COLUMN tinydancer.usage_hourly.dimension IS 'agent, route, category or user_tier.';
COMMENT ON COLUMN tinydancer.usage_hourly.value IS 'Which one; empty where usage has none.';
COMMENT ON COLUMN tinydancer.usage_hourly.hour IS 'Start of the hour.';
COMMENT ON COLUMN tinydancer.usage_hourly.shard IS
    'Sessions write into different rows, so that they seldom wait; a sum is over all shards.';
COMMENT ON COLUMN tinydancer.usage_hourly.requests IS 'Outcomes.';
COMMENT ON COLUMN tinydancer.usage_hourly.successes IS 'Those that served the request.';
COMMENT ON COLUMN tinydancer.usage_hourly.cost IS 'Sum of their costs.';
COMMENT ON COLUMN tinydancer.usage_hourly.latency_count IS 'Outcomes whose latency is known.';
COMMENT ON COLUMN tinydancer.usage_hourly.latency_sum IS 'Sum of those latencies, milliseconds.';
COMMENT ON COLUMN tinydancer.usage_hourly.input_tokens IS 'Sum of tokens read.';
COMMENT ON COLUMN tinydancer.usage_hourly.output_tokens IS 'Sum of tokens written.';

CREATE TABLE tinydancer.usage_latency (
    tenant text NOT NULL,
    dimension text NOT NULL,
    value text NOT NULL,
    period timestamptz NOT NULL,
    shard smallint NOT NULL,
    bucket smallint NOT NULL,
    requests bigint NOT NULL,
    PRIMARY KEY (dimension, period, value, tenant, shard, bucket)
) WITH (fillfactor = 70);
COMMENT ON TABLE tinydancer.usage_latency IS
    'Latencies as histograms whose buckets are 2% wide, which gives percentiles within 1%.';
COMMENT ON COLUMN tinydancer.usage_latency.tenant IS 'On whose behalf.';
COMMENT ON COLUMN tinydancer.usage_latency.dimension IS
    'agent, route, category or user_tier, by the day; hour, of everything, by the hour.';
COMMENT ON COLUMN tinydancer.usage_latency.value IS 'Which one; empty where usage has none.';
COMMENT ON COLUMN tinydancer.usage_latency.period IS 'Start of the day (UTC) or hour.';
COMMENT ON COLUMN tinydancer.usage_latency.shard IS 'As in usage_hourly.';
COMMENT ON COLUMN tinydancer.usage_latency.bucket IS
    'Latencies in (1.02^(bucket-1), 1.02^bucket] ms; -32768 for 0.';
COMMENT ON COLUMN tinydancer.usage_latency.requests IS 'How many lie in it.';

CREATE TABLE tinydancer.agent_outcomes (
    agent text NOT NULL,
    shard smallint NOT NULL,
    requests bigint NOT NULL,
    successes bigint NOT NULL,
    latency_count bigint NOT NULL,
    latency_sum numeric NOT NULL,
    quality_count bigint NOT NULL,
    quality_sum numeric NOT NULL,
    reward_sum numeric NOT NULL,
    output_count bigint NOT NULL,
    output_sum numeric NOT NULL,
    PRIMARY KEY (agent, shard)
) WITH (fillfactor = 50);
COMMENT ON TABLE tinydancer.agent_outcomes IS
    'Sums over all usage of an agent, kept exactly by triggers on usage; see the view agent_stats.';
COMMENT ON COLUMN tinydancer.agent_outcomes.agent IS 'The agent.';
COMMENT ON COLUMN tinydancer.agent_outcomes.shard IS 'As in usage_hourly.';
COMMENT ON COLUMN tinydancer.agent_outcomes.requests IS 'Outcomes.';
COMMENT ON COLUMN tinydancer.agent_outcomes.successes IS 'Those that served the request.';
COMMENT ON COLUMN tinydancer.agent_outcomes.latency_count IS 'Outcomes whose latency is known.';
COMMENT ON COLUMN tinydancer.agent_outcomes.latency_sum IS 'Sum of those latencies, milliseconds.';
COMMENT ON COLUMN tinydancer.agent_outcomes.quality_count IS 'Outcomes whose quality was judged.';
COMMENT ON COLUMN tinydancer.agent_outcomes.quality_sum IS 'Sum of those qualities.';
COMMENT ON COLUMN tinydancer.agent_outcomes.reward_sum IS
    'Sum over all outcomes of the judged quality, or of success as 1 and failure as 0 without one.';
COMMENT ON COLUMN tinydancer.agent_outcomes.output_count IS 'Outcomes whose output is known.';
COMMENT ON COLUMN tinydancer.agent_outcomes.output_sum IS 'Sum of those output tokens.';

ALTER TABLE tinydancer.settings
    ADD COLUMN decision_log text NOT NULL DEFAULT 'async',
    ADD COLUMN decision_log_text boolean NOT NULL DEFAULT true,
    ADD COLUMN decisions_retention interval,
    ADD COLUMN usage_retention interval,
    ADD COLUMN prior_weight double precision NOT NULL DEFAULT 10,
    ADD CONSTRAINT settings_decision_log_is_known CHECK (decision_log IN ('off', 'async', 'sync')),
    ADD CONSTRAINT settings_decisions_retention_is_positive
        CHECK (decisions_retention >= interval '1 day'),
    ADD CONSTRAINT settings_usage_retention_is_positive CHECK (usage_retention >= interval '1 day'),
    ADD CONSTRAINT settings_prior_weight_is_in_range CHECK (prior_weight BETWEEN 0.001 AND 1e6);
COMMENT ON COLUMN tinydancer.settings.decision_log IS
    'Whether decisions are kept: off, async (in batches, the last second may be lost) or sync.';
COMMENT ON COLUMN tinydancer.settings.decision_log_text IS
    'Whether a kept decision has the text of the request, or only its hash.';
COMMENT ON COLUMN tinydancer.settings.decisions_retention IS
    'How long decisions are kept, by whole months; NULL means for ever.';
COMMENT ON COLUMN tinydancer.settings.usage_retention IS
    'How long usage is kept, by whole months; NULL means for ever. Its sums stay.';
COMMENT ON COLUMN tinydancer.settings.prior_weight IS
    'Outcomes that an agent''s registered figures count for, beside the measured ones.';
