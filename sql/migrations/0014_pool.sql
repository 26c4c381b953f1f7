-- Which agents may be called right now: concurrency limits, circuit breakers, calls under way.

ALTER TABLE tinydancer.agents
    ADD COLUMN concurrency_limit integer,
    ADD COLUMN circuit_breaker boolean NOT NULL DEFAULT true,
    ADD CONSTRAINT agents_concurrency_limit_is_in_range
        CHECK (concurrency_limit BETWEEN 1 AND 1000000);
COMMENT ON COLUMN tinydancer.agents.concurrency_limit IS
    'Most calls at once: decisions that are kept and not yet settled. NULL for no limit.';
COMMENT ON COLUMN tinydancer.agents.circuit_breaker IS
    'Whether failures open its circuit, by the policy in settings.';

CREATE TABLE tinydancer.calls_in_flight (
    decision_id uuid PRIMARY KEY,
    agent text NOT NULL,
    probe boolean NOT NULL,
    reserved_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL
);
COMMENT ON TABLE tinydancer.calls_in_flight IS
    'Decisions that hold a place at an agent with a concurrency limit or a half-open circuit, until '
    'their outcome settles them or they expire.';
COMMENT ON COLUMN tinydancer.calls_in_flight.decision_id IS 'The decision.';
COMMENT ON COLUMN tinydancer.calls_in_flight.agent IS 'The agent.';
COMMENT ON COLUMN tinydancer.calls_in_flight.probe IS
    'Whether it tries an agent whose circuit is half open.';
COMMENT ON COLUMN tinydancer.calls_in_flight.reserved_at IS 'Since when.';
COMMENT ON COLUMN tinydancer.calls_in_flight.expires_at IS
    'From when on it no longer counts (settings.reservation_timeout).';
CREATE INDEX calls_in_flight_agent ON tinydancer.calls_in_flight (agent, expires_at);
CREATE INDEX calls_in_flight_expires_at ON tinydancer.calls_in_flight (expires_at);

CREATE TABLE tinydancer.recent_outcomes (
    agent text NOT NULL,
    shard smallint NOT NULL,
    as_of timestamptz NOT NULL,
    calls double precision NOT NULL,
    failures double precision NOT NULL,
    PRIMARY KEY (agent, shard)
) WITH (fillfactor = 50);
COMMENT ON TABLE tinydancer.recent_outcomes IS
    'Outcomes of each agent, weighted: one counts 1 when it happens and half as much each '
    'settings.breaker_half_life later. Kept by a trigger on usage; see the view agent_health.';
COMMENT ON COLUMN tinydancer.recent_outcomes.agent IS 'The agent.';
COMMENT ON COLUMN tinydancer.recent_outcomes.shard IS 'As in usage_hourly.';
COMMENT ON COLUMN tinydancer.recent_outcomes.as_of IS 'The time that the weights are of.';
COMMENT ON COLUMN tinydancer.recent_outcomes.calls IS 'Weight of all outcomes.';
COMMENT ON COLUMN tinydancer.recent_outcomes.failures IS 'Weight of those that failed.';

CREATE TABLE tinydancer.agent_breakers (
    agent text PRIMARY KEY,
    is_open boolean NOT NULL DEFAULT false,
    openings integer NOT NULL DEFAULT 0,
    opened_at timestamptz,
    retry_at timestamptz,
    proven integer NOT NULL DEFAULT 0,
    forgiven_at timestamptz NOT NULL DEFAULT now(),
    forgiven_calls double precision NOT NULL DEFAULT 0,
    forgiven_failures double precision NOT NULL DEFAULT 0,
    CONSTRAINT agent_breakers_open_has_times CHECK (
        NOT is_open OR (opened_at IS NOT NULL AND retry_at IS NOT NULL))
) WITH (fillfactor = 70);
COMMENT ON TABLE tinydancer.agent_breakers IS
    'Circuit breakers of agents that have failed; all others are closed. Functions move them.';
COMMENT ON COLUMN tinydancer.agent_breakers.agent IS 'The agent.';
COMMENT ON COLUMN tinydancer.agent_breakers.is_open IS
    'Whether it is not closed: open until retry_at, half open from then on.';
COMMENT ON COLUMN tinydancer.agent_breakers.openings IS
    'How often it has opened since it was last closed: each doubles the wait.';
COMMENT ON COLUMN tinydancer.agent_breakers.opened_at IS 'When it last opened.';
COMMENT ON COLUMN tinydancer.agent_breakers.retry_at IS 'From when on probes may try the agent.';
COMMENT ON COLUMN tinydancer.agent_breakers.proven IS 'Probes in a row that have succeeded.';
COMMENT ON COLUMN tinydancer.agent_breakers.forgiven_at IS 'When it was last closed.';
COMMENT ON COLUMN tinydancer.agent_breakers.forgiven_calls IS
    'Weight of the outcomes up to then, which no longer count.';
COMMENT ON COLUMN tinydancer.agent_breakers.forgiven_failures IS 'Weight of the failures up to then.';

ALTER TABLE tinydancer.settings
    ADD COLUMN circuit_breaker boolean NOT NULL DEFAULT true,
    ADD COLUMN breaker_failures double precision NOT NULL DEFAULT 4.5,
    ADD COLUMN breaker_share double precision NOT NULL DEFAULT 0.6,
    ADD COLUMN breaker_half_life interval NOT NULL DEFAULT '1 minute',
    ADD COLUMN breaker_cooldown interval NOT NULL DEFAULT '30 seconds',
    ADD COLUMN breaker_longest_cooldown interval NOT NULL DEFAULT '10 minutes',
    ADD COLUMN breaker_probes integer NOT NULL DEFAULT 1,
    ADD COLUMN breaker_successes integer NOT NULL DEFAULT 2,
    ADD CONSTRAINT settings_breaker_failures_is_in_range
        CHECK (breaker_failures BETWEEN 0.5 AND 1e6),
    ADD CONSTRAINT settings_breaker_share_is_a_share
        CHECK (breaker_share > 0 AND breaker_share <= 1),
    ADD CONSTRAINT settings_breaker_half_life_is_in_range
        CHECK (breaker_half_life BETWEEN interval '1 second' AND interval '1 day'),
    ADD CONSTRAINT settings_breaker_cooldown_is_in_range
        CHECK (breaker_cooldown BETWEEN interval '1 second' AND interval '1 day'),
    ADD CONSTRAINT settings_breaker_longest_cooldown_is_in_range
        CHECK (breaker_longest_cooldown BETWEEN interval '1 second' AND interval '30 days'),
    ADD CONSTRAINT settings_breaker_probes_is_in_range CHECK (breaker_probes BETWEEN 1 AND 1000),
    ADD CONSTRAINT settings_breaker_successes_is_in_range
        CHECK (breaker_successes BETWEEN 1 AND 1000);
COMMENT ON COLUMN tinydancer.settings.circuit_breaker IS
    'Whether agents that keep failing are left alone for a while.';
COMMENT ON COLUMN tinydancer.settings.breaker_failures IS
    'Weight of recent failures from which on a circuit opens: 4.5 are five within some 20 seconds.';
COMMENT ON COLUMN tinydancer.settings.breaker_share IS
    'It opens only where failures are at least this share of the recent outcomes.';
COMMENT ON COLUMN tinydancer.settings.breaker_half_life IS
    'After which time an outcome counts half as much.';
COMMENT ON COLUMN tinydancer.settings.breaker_cooldown IS
    'How long an open circuit lets nobody through; twice as long each time a probe fails.';
COMMENT ON COLUMN tinydancer.settings.breaker_longest_cooldown IS 'And no longer than that.';
COMMENT ON COLUMN tinydancer.settings.breaker_probes IS
    'Most calls at once to an agent whose circuit is half open.';
COMMENT ON COLUMN tinydancer.settings.breaker_successes IS
    'Probes in a row that must succeed for it to close; one that fails opens it again.';

-- They have more arguments now; two of a name would make calls ambiguous.
DROP FUNCTION IF EXISTS tinydancer.ruvector_register_agent(
    text, text, text[], numeric, numeric, double precision, double precision, jsonb,
    numeric, numeric, numeric, double precision, boolean, text);
DROP FUNCTION IF EXISTS tinydancer.ruvector_update_agent(
    text, text, text[], numeric, numeric, double precision, double precision, jsonb,
    numeric, numeric, numeric, double precision, boolean);
DROP FUNCTION IF EXISTS tinydancer.check_agent(
    text, text[], numeric, numeric, numeric, numeric, numeric,
    double precision, double precision, double precision, jsonb);
-- reserve_calls has taken the place of one, and the other says more.
DROP FUNCTION IF EXISTS tinydancer.reserve_budgets(uuid[], text[], text[], text[], text[], numeric[]);
DROP FUNCTION IF EXISTS tinydancer.reserve_team(uuid[], text[], text[], text[], text[], numeric[]);
