-- Fallbacks: the decision that follows one whose agent failed.

CREATE OR REPLACE FUNCTION tinydancer.new_decision_id() RETURNS uuid
LANGUAGE sql VOLATILE PARALLEL SAFE AS $$
    -- RFC 9562, section 5.7: the milliseconds since 1970 over a random UUID, and version 7.
    SELECT encode(set_bit(set_bit(overlay(uuid_send(gen_random_uuid())
        PLACING substring(int8send((extract(epoch FROM clock_timestamp()) * 1000)::bigint) FROM 3)
        FROM 1 FOR 6), 52, 1), 53, 1), 'hex')::uuid
$$;
COMMENT ON FUNCTION tinydancer.new_decision_id() IS 'An id for a decision: a UUID of version 7.';

CREATE OR REPLACE FUNCTION tinydancer.ruvector_fallback(
    decision_id uuid,
    error text DEFAULT NULL,
    cost numeric DEFAULT 0,
    latency_ms double precision DEFAULT NULL
)
RETURNS TABLE (
    agent_name text, estimated_cost numeric, estimated_latency_ms double precision,
    expected_quality double precision, new_decision_id uuid, attempt integer, fallbacks text[],
    reasoning text
)
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE ROWS 1 SECURITY DEFINER
SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    failed tinydancer.decisions;
    follower tinydancer.decisions;
    candidate record;
    refusing text;
    its_limit text;
    refused text[] := '{}';
BEGIN
    IF decision_id IS NULL THEN
        RAISE EXCEPTION 'decision_id is NULL'
        USING ERRCODE = 'null_value_not_allowed',
            HINT = 'Give the decision_id that ruvector_route returned.';
    END IF;
    failed := tinydancer.kept_decision(ruvector_fallback.decision_id);
    IF failed.agent IS NULL THEN
        RAISE EXCEPTION 'decision % went to no agent', failed.id
        USING ERRCODE = 'object_not_in_prerequisite_state',
            HINT = 'Only a decision for an agent can fall back to another.';
    END IF;
    -- Whoever asks the same at the same time waits, and finds what was decided. The decision is written,
    -- not only locked: a transaction that does not see what another has decided fails (40001).
    UPDATE tinydancer.decisions AS present SET attempt = present.attempt
    WHERE present.id = failed.id AND present.decided_at = failed.decided_at;
    SELECT * INTO follower FROM tinydancer.decisions AS next
    WHERE next.fallback_of = failed.id AND next.decided_at >= failed.decided_at;
    IF FOUND THEN
        RETURN QUERY SELECT follower.agent, follower.estimated_cost,
            follower.estimated_latency_ms, follower.expected_quality, follower.id,
            follower.attempt, tinydancer.other_candidates(follower),
            format('%s had taken over from %s.', follower.agent, failed.agent);
        RETURN;
    END IF;
    IF EXISTS (SELECT FROM tinydancer.usage AS outcome
               WHERE outcome.decision_id = failed.id AND outcome.success) THEN
        RAISE EXCEPTION 'decision % has succeeded', failed.id
        USING ERRCODE = 'object_not_in_prerequisite_state',
            HINT = 'Only what failed falls back. Its outcome is in tinydancer.usage.';
    END IF;
    -- Guards come before what recording locks.
    PERFORM tinydancer.lock_guards(tinydancer.guarded_agents(ARRAY(
        SELECT other ->> 'agent' FROM jsonb_array_elements(failed.candidates) AS other)));
    IF EXISTS (SELECT FROM tinydancer.usage AS outcome WHERE outcome.decision_id = failed.id) THEN
        PERFORM tinydancer.release_calls(ARRAY[failed.id]);
    ELSE
        PERFORM tinydancer.record_outcomes(jsonb_build_array(jsonb_strip_nulls(jsonb_build_object(
            'decision_id', failed.id, 'success', false, 'error', ruvector_fallback.error,
            'cost', coalesce(ruvector_fallback.cost, 0)::text,
            'latency_ms', ruvector_fallback.latency_ms::text))));
    END IF;

    follower := failed;
    follower.id := tinydancer.new_decision_id();
    follower.decided_at := tinydancer.uuid_time(follower.id);
    follower.fallback_of := failed.id;
    follower.attempt := failed.attempt + 1;
    follower.propensity := 1;
    follower.confidence := NULL;
    SELECT coalesce(jsonb_agg(other ORDER BY place), '[]') INTO follower.candidates
    FROM jsonb_array_elements(failed.candidates) WITH ORDINALITY AS others (other, place)
    WHERE other ->> 'agent' <> failed.agent;
    FOR candidate IN
        SELECT * FROM jsonb_to_recordset(follower.candidates) AS given (
            agent text, cost numeric, latency_ms double precision, quality double precision,
            route text)
    LOOP
        IF NOT EXISTS (SELECT FROM tinydancer.agents
                       WHERE agents.name = candidate.agent AND agents.active) THEN
            refused := refused || format('%s is no longer active', candidate.agent);
            CONTINUE;
        END IF;
        SELECT reserved.refusing[1], reserved.limits[1] INTO refusing, its_limit
        FROM tinydancer.reserve_calls(
            ARRAY[follower.id], ARRAY[failed.tenant], ARRAY[candidate.agent],
            ARRAY[candidate.route], ARRAY[failed.user_tier], ARRAY[candidate.cost]) AS reserved;
        IF refusing IS NULL THEN
            follower.agent := candidate.agent;
            follower.route := candidate.route;
            follower.estimated_cost := candidate.cost;
            follower.estimated_latency_ms := candidate.latency_ms;
            follower.expected_quality := candidate.quality;
            PERFORM tinydancer.ensure_partitions(follower.decided_at, follower.decided_at)
            WHERE to_regclass('tinydancer.decisions_'
                || to_char(follower.decided_at AT TIME ZONE 'UTC', 'YYYY_MM')) IS NULL;
            INSERT INTO tinydancer.decisions SELECT follower.*;
            UPDATE tinydancer.sessions AS held SET
                agent = follower.agent, since = follower.decided_at
            WHERE held.tenant = failed.tenant AND held.session_key = failed.session_key
                AND held.agent = failed.agent;
            RETURN QUERY SELECT follower.agent, follower.estimated_cost,
                follower.estimated_latency_ms, follower.expected_quality, follower.id,
                follower.attempt, tinydancer.other_candidates(follower),
                format('%s takes over from %s%s.', follower.agent, failed.agent,
                    coalesce('; ' || nullif(array_to_string(refused, '; '), ''), ''));
            RETURN;
        END IF;
        refused := refused || CASE refusing
            WHEN 'budget' THEN format('%s costs %s, more than budget %L has left',
                candidate.agent, candidate.cost, its_limit)
            WHEN 'concurrency_limit' THEN format('%s has its %s calls at once under way',
                candidate.agent, its_limit)
            ELSE format('%s has its circuit %s', candidate.agent, its_limit) END;
    END LOOP;
    RETURN QUERY SELECT NULL::text, NULL::numeric, NULL::double precision,
        NULL::double precision, NULL::uuid, NULL::integer, '{}'::text[],
        format('No agent is left: %s failed%s.', failed.agent,
            coalesce('; ' || nullif(array_to_string(refused, '; '), ''), ', and no other suits'));
END
$$;
COMMENT ON FUNCTION tinydancer.ruvector_fallback(uuid, text, numeric, double precision) IS
    'Records that a decision''s agent failed, at a cost of 0 unless told, and decides for the next '
    'best one that is active, within its budgets and limits, and not left alone for its failures: a '
    'decision of its own, with an outcome of its own. Asked again it answers the same. Where the '
    'chain is exhausted agent_name is NULL, and reasoning says who was refused by what.';

CREATE OR REPLACE FUNCTION tinydancer.other_candidates(decision tinydancer.decisions) RETURNS text[]
LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT ARRAY(
        SELECT other ->> 'agent'
        FROM jsonb_array_elements(decision.candidates) WITH ORDINALITY AS others (other, place)
        WHERE other ->> 'agent' <> decision.agent ORDER BY place)
$$;
COMMENT ON FUNCTION tinydancer.other_candidates(tinydancer.decisions) IS
    'Whom a decision can fall back to, best first.';
