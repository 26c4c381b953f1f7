-- Circuit breakers: closed, open, half open (M. Nygard, Release It!, 2nd edition, 2018, chapter 5).
--
-- Outcomes are weighed as they are recorded, in shards like the other sums, so that writers seldom
-- wait. Only a failure, or an outcome while the circuit is not closed, locks the agent's breaker.

CREATE OR REPLACE FUNCTION tinydancer.decayed(
    weight double precision, age interval, half_life interval
) RETURNS double precision
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    -- Below a billionth it is nothing: ever smaller numbers would end in an underflow.
    SELECT CASE WHEN age <= interval '0' THEN weight
        WHEN weight < 1e-9 OR age > 60 * half_life THEN 0
        ELSE weight * 0.5::double precision
            ^ (extract(epoch FROM age) / extract(epoch FROM half_life))::double precision END
$$;
COMMENT ON FUNCTION tinydancer.decayed(double precision, interval, interval) IS
    'A weight some time later: half as much after each half-life.';

CREATE OR REPLACE FUNCTION tinydancer.recent_weights(
    agent text, moment timestamptz, OUT calls double precision, OUT failures double precision
)
LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT greatest(0, coalesce(sum(tinydancer.decayed(
                recent.calls, moment - recent.as_of, breaker_half_life)), 0)
            - coalesce(max(tinydancer.decayed(
                forgiven_calls, moment - forgiven_at, breaker_half_life)), 0)),
        greatest(0, coalesce(sum(tinydancer.decayed(
                recent.failures, moment - recent.as_of, breaker_half_life)), 0)
            - coalesce(max(tinydancer.decayed(
                forgiven_failures, moment - forgiven_at, breaker_half_life)), 0))
    FROM tinydancer.settings
    LEFT JOIN tinydancer.recent_outcomes AS recent ON recent.agent = recent_weights.agent
    LEFT JOIN tinydancer.agent_breakers AS breaker ON breaker.agent = recent_weights.agent
$$;
COMMENT ON FUNCTION tinydancer.recent_weights(text, timestamptz, OUT double precision, OUT double precision) IS
    'Weights of an agent''s outcomes and failures at a time, since its circuit was last closed.';

CREATE OR REPLACE FUNCTION tinydancer.open_circuit(agent text, moment timestamptz) RETURNS void
LANGUAGE sql VOLATILE PARALLEL UNSAFE AS $$
    UPDATE tinydancer.agent_breakers AS breaker SET
        is_open = true,
        openings = breaker.openings + 1,
        opened_at = moment,
        retry_at = moment + least(
            breaker_cooldown * 2 ^ least(breaker.openings, 22), breaker_longest_cooldown),
        proven = 0
    FROM tinydancer.settings WHERE breaker.agent = open_circuit.agent
$$;
COMMENT ON FUNCTION tinydancer.open_circuit(text, timestamptz) IS
    'Opens an agent''s circuit: for breaker_cooldown, and twice as long each time until it closes.';

CREATE OR REPLACE FUNCTION tinydancer.close_circuit(agent text, moment timestamptz) RETURNS void
LANGUAGE sql VOLATILE PARALLEL UNSAFE AS $$
    UPDATE tinydancer.agent_breakers AS breaker SET
        is_open = false, openings = 0, proven = 0, forgiven_at = moment,
        forgiven_calls = sums.calls, forgiven_failures = sums.failures
    FROM (
        SELECT coalesce(sum(tinydancer.decayed(
                recent.calls, moment - recent.as_of, breaker_half_life)), 0) AS calls,
            coalesce(sum(tinydancer.decayed(
                recent.failures, moment - recent.as_of, breaker_half_life)), 0) AS failures
        FROM tinydancer.settings
        LEFT JOIN tinydancer.recent_outcomes AS recent ON recent.agent = close_circuit.agent
    ) AS sums
    WHERE breaker.agent = close_circuit.agent
$$;
COMMENT ON FUNCTION tinydancer.close_circuit(text, timestamptz) IS
    'Closes an agent''s circuit: what went wrong until then is forgiven.';

CREATE OR REPLACE FUNCTION tinydancer.lock_breaker(agent text) RETURNS tinydancer.agent_breakers
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    locked tinydancer.agent_breakers;
BEGIN
    SELECT * INTO locked FROM tinydancer.agent_breakers AS breaker
    WHERE breaker.agent = lock_breaker.agent FOR UPDATE;
    IF NOT FOUND THEN
        INSERT INTO tinydancer.agent_breakers (agent)
        SELECT name FROM tinydancer.agents WHERE name = lock_breaker.agent
        ON CONFLICT DO NOTHING;
        SELECT * INTO locked FROM tinydancer.agent_breakers AS breaker
        WHERE breaker.agent = lock_breaker.agent FOR UPDATE;
    END IF;
    RETURN locked;
END
$$;
COMMENT ON FUNCTION tinydancer.lock_breaker(text) IS
    'The breaker of an agent, locked; all NULL where no such agent is registered.';

CREATE OR REPLACE FUNCTION tinydancer.is_breakdown(outcome tinydancer.usage) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT NOT outcome.success AND (outcome.error IS NOT NULL OR outcome.quality IS NULL)
$$;
COMMENT ON FUNCTION tinydancer.is_breakdown(tinydancer.usage) IS
    'Whether an outcome speaks against calling the agent again. An answer whose quality somebody '
    'judged did come, however bad it was.';

CREATE OR REPLACE FUNCTION tinydancer.watch_usage() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    shard smallint;
    moment CONSTANT timestamptz := clock_timestamp();
    policy tinydancer.settings;
    breaker tinydancer.agent_breakers;
    recent record;
    touched text;
    proof record;
    in_a_row integer;
    unnamed integer;
    probes uuid[];
BEGIN
    -- An outcome settles the call that it is of.
    WITH settled AS (
        DELETE FROM tinydancer.calls_in_flight AS held USING added
        WHERE held.decision_id = added.decision_id
        RETURNING held.decision_id, held.probe
    )
    SELECT array_agg(decision_id) FILTER (WHERE probe) INTO probes FROM settled;

    SELECT * INTO policy FROM tinydancer.settings;
    IF policy.circuit_breaker IS NOT TRUE THEN
        RETURN NULL;
    END IF;
    shard := tinydancer.free_shard((SELECT count(*) FROM added));
    INSERT INTO tinydancer.recent_outcomes AS present
    SELECT agent, shard, moment, sum(weight),
        coalesce(sum(weight) FILTER (WHERE tinydancer.is_breakdown(added)), 0)
    FROM added, LATERAL (SELECT tinydancer.decayed(
        1, moment - occurred_at, policy.breaker_half_life)) AS weighed (weight)
    GROUP BY agent ORDER BY agent
    ON CONFLICT ON CONSTRAINT recent_outcomes_pkey DO UPDATE SET
        as_of = greatest(present.as_of, excluded.as_of),
        calls = excluded.calls + tinydancer.decayed(
            present.calls, excluded.as_of - present.as_of, policy.breaker_half_life),
        failures = excluded.failures + tinydancer.decayed(
            present.failures, excluded.as_of - present.as_of, policy.breaker_half_life);

    FOR touched IN
        SELECT DISTINCT added.agent FROM added
        JOIN tinydancer.agents ON agents.name = added.agent AND agents.circuit_breaker
        WHERE tinydancer.is_breakdown(added) OR EXISTS (
            SELECT FROM tinydancer.agent_breakers AS other
            WHERE other.agent = added.agent AND other.is_open)
        ORDER BY 1
    LOOP
        -- Who waited for the lock sees what the other has recorded.
        breaker := tinydancer.lock_breaker(touched);
        CONTINUE WHEN breaker.agent IS NULL;
        IF NOT breaker.is_open THEN
            SELECT * INTO recent FROM tinydancer.recent_weights(touched, moment);
            IF recent.failures >= policy.breaker_failures
                AND recent.failures >= policy.breaker_share * recent.calls
            THEN
                PERFORM tinydancer.open_circuit(touched, moment);
            END IF;
            CONTINUE;
        END IF;
        -- Only a call that began when the circuit was half open proves anything: a probe, or one
        -- that is recorded by the agent's name.
        in_a_row := breaker.proven;
        unnamed := 0;
        FOR proof IN
            SELECT tinydancer.is_breakdown(added) AS failed, decision_id FROM added
            WHERE agent = touched AND CASE WHEN decision_id IS NOT NULL
                THEN decision_id = ANY (probes)
                ELSE occurred_at - interval '1 millisecond' * coalesce(latency_ms, 0)
                    >= breaker.retry_at END
            ORDER BY occurred_at, failed DESC
        LOOP
            unnamed := unnamed + (proof.decision_id IS NULL)::integer;
            in_a_row := CASE WHEN proof.failed THEN -1 ELSE in_a_row + 1 END;
            EXIT WHEN in_a_row < 0 OR in_a_row >= policy.breaker_successes;
        END LOOP;
        IF in_a_row < 0 THEN
            PERFORM tinydancer.open_circuit(touched, moment);
        ELSIF in_a_row >= policy.breaker_successes THEN
            PERFORM tinydancer.close_circuit(touched, moment);
        ELSIF in_a_row > breaker.proven THEN
            UPDATE tinydancer.agent_breakers AS other SET proven = in_a_row
            WHERE other.agent = touched;
        END IF;
        -- An outcome that names no decision is the oldest probe's, or nobody would ever settle it.
        DELETE FROM tinydancer.calls_in_flight WHERE decision_id IN (
            SELECT held.decision_id FROM tinydancer.calls_in_flight AS held
            WHERE held.agent = touched AND held.probe
            ORDER BY held.reserved_at LIMIT unnamed FOR UPDATE SKIP LOCKED);
    END LOOP;
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION tinydancer.watch_usage() IS
    'Trigger: settles calls in flight, weighs recent outcomes, and moves circuit breakers.';
CREATE OR REPLACE TRIGGER watch_added AFTER INSERT ON tinydancer.usage
REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION tinydancer.watch_usage();

CREATE OR REPLACE FUNCTION tinydancer.ruvector_reset_breaker(agent_name text) RETURNS boolean
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    breaker tinydancer.agent_breakers;
BEGIN
    PERFORM tinydancer.check_found('agent', agent_name, EXISTS (
        SELECT FROM tinydancer.agents WHERE name = agent_name));
    breaker := tinydancer.lock_breaker(agent_name);
    PERFORM tinydancer.close_circuit(agent_name, clock_timestamp());
    RETURN breaker.is_open;
END
$$;
COMMENT ON FUNCTION tinydancer.ruvector_reset_breaker(text) IS
    'Closes the circuit of an agent and forgives its failures; whether it was not closed before.';

CREATE OR REPLACE VIEW tinydancer.agent_health AS
SELECT agents.name AS agent,
    CASE WHEN NOT (settings.circuit_breaker AND agents.circuit_breaker) THEN 'off'
        WHEN breaker.is_open IS NOT TRUE THEN 'closed'
        WHEN now() < breaker.retry_at THEN 'open' ELSE 'half_open' END AS state,
    weights.failures, weights.calls,
    CASE WHEN is_open THEN breaker.opened_at END AS opened_at,
    CASE WHEN is_open THEN breaker.retry_at END AS retry_at,
    coalesce(breaker.openings, 0) AS openings,
    coalesce(breaker.proven, 0) AS proven,
    CASE WHEN agents.concurrency_limit IS NOT NULL OR is_open THEN held.calls END AS in_flight,
    agents.concurrency_limit
FROM tinydancer.agents
CROSS JOIN tinydancer.settings
LEFT JOIN tinydancer.agent_breakers AS breaker ON breaker.agent = agents.name
CROSS JOIN LATERAL tinydancer.recent_weights(agents.name, now()) AS weights
CROSS JOIN LATERAL (
    SELECT count(*) AS calls FROM tinydancer.calls_in_flight AS held
    WHERE held.agent = agents.name AND held.expires_at > now()
) AS held;
COMMENT ON VIEW tinydancer.agent_health IS
    'Whether each agent can be called: the state of its circuit (closed, open, half_open or off), '
    'the weights of its recent outcomes and failures, when it opened and when probes may try it, how '
    'often it opened in a row and how many probes have succeeded; calls in flight and their limit. '
    'Calls are counted only where there is a limit or the circuit is not closed.';
