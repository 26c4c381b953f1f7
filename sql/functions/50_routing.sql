-- Asking the engine for decisions. Functions validate, then read the foreign tables.
--
-- An optional argument becomes a qual only where it is given: planned anew for each call,
-- `x IS NULL OR column = x` folds to the qual alone or to nothing.

CREATE OR REPLACE FUNCTION tinydancer.check_constraints(
    optimize_for text, required_capabilities text[], max_cost double precision,
    max_latency_ms double precision, min_quality double precision, excluded_agents text[],
    budget_remaining double precision, expected_output_tokens integer
) RETURNS void
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF optimize_for IS NOT NULL THEN
        PERFORM tinydancer.check_choice('optimize_for', optimize_for, ARRAY[
            'cost', 'latency', 'quality', 'balanced', 'quality_per_dollar', 'total_cost']);
    END IF;
    IF required_capabilities IS NOT NULL THEN
        PERFORM tinydancer.check_names('required_capabilities', required_capabilities);
    END IF;
    IF excluded_agents IS NOT NULL THEN
        PERFORM tinydancer.check_names('excluded_agents', excluded_agents);
    END IF;
    IF max_cost IS NOT NULL THEN
        PERFORM tinydancer.check_number('max_cost', max_cost, 0, 1e12);
    END IF;
    IF max_latency_ms IS NOT NULL THEN
        PERFORM tinydancer.check_number('max_latency_ms', max_latency_ms, 0, 1e12);
    END IF;
    IF min_quality IS NOT NULL THEN
        PERFORM tinydancer.check_number('min_quality', min_quality, 0, 1);
    END IF;
    IF budget_remaining IS NOT NULL THEN
        PERFORM tinydancer.check_number('budget_remaining', budget_remaining, 0, 1e12);
    END IF;
    IF expected_output_tokens IS NOT NULL THEN
        PERFORM tinydancer.check_number(
            'expected_output_tokens', expected_output_tokens, 0, 10000000);
    END IF;
END
$$;
COMMENT ON FUNCTION tinydancer.check_constraints(
    text, text[], double precision, double precision, double precision, text[], double precision,
    integer
) IS 'Raises where a constraint of a decision is not allowed.';

CREATE OR REPLACE FUNCTION tinydancer.ruvector_embed(content text) RETURNS vector
LANGUAGE plpgsql STABLE PARALLEL RESTRICTED COST 1000
SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_custom_plan AS $$
#variable_conflict use_column
BEGIN
    PERFORM tinydancer.check_text('content', content);
    RETURN (
        SELECT made.embedding FROM tinydancer.request_embeddings AS made
        WHERE made.content = ruvector_embed.content);
END
$$;
COMMENT ON FUNCTION tinydancer.ruvector_embed(text) IS
    'The vector of a text, as the engine''s embedder makes it.';

CREATE OR REPLACE FUNCTION tinydancer.ruvector_route(
    request text,
    optimize_for text DEFAULT 'balanced',
    required_capabilities text[] DEFAULT NULL,
    max_cost double precision DEFAULT NULL,
    max_latency_ms double precision DEFAULT NULL,
    min_quality double precision DEFAULT NULL,
    excluded_agents text[] DEFAULT NULL,
    budget_remaining double precision DEFAULT NULL,
    expected_output_tokens integer DEFAULT NULL,
    user_tier text DEFAULT NULL,
    top_k integer DEFAULT NULL,
    tenant text DEFAULT NULL,
    session_key text DEFAULT NULL
)
RETURNS TABLE (
    agent_name text, confidence double precision, estimated_cost numeric,
    estimated_latency_ms double precision, expected_quality double precision,
    similarity double precision, score double precision, rank integer, reasoning text,
    explanation jsonb, decision_id uuid, fallbacks text[]
)
LANGUAGE plpgsql VOLATILE PARALLEL RESTRICTED ROWS 1 COST 1000
SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_custom_plan AS $$
#variable_conflict use_column
BEGIN
    PERFORM tinydancer.check_text('request', request);
    PERFORM tinydancer.check_constraints(
        optimize_for, required_capabilities, max_cost, max_latency_ms, min_quality,
        excluded_agents, budget_remaining, expected_output_tokens);
    IF top_k IS NOT NULL THEN
        PERFORM tinydancer.check_number('top_k', top_k, 1, 10000);
    END IF;
    IF session_key IS NOT NULL THEN
        PERFORM tinydancer.check_name('session_key', session_key);
    END IF;
    PERFORM tinydancer.warn_of_uncommitted();
    RETURN QUERY
        SELECT d.agent_name, d.confidence, d.estimated_cost, d.estimated_latency_ms,
            d.expected_quality, d.similarity, d.score, d.rank, d.reasoning, d.explanation,
            d.decision_id, d.fallbacks
        FROM tinydancer.route_decisions AS d
        WHERE d.request = ruvector_route.request
            AND (ruvector_route.optimize_for IS NULL
                OR d.optimize_for = ruvector_route.optimize_for)
            AND (ruvector_route.required_capabilities IS NULL
                OR d.required_capabilities = ruvector_route.required_capabilities)
            AND (ruvector_route.max_cost IS NULL OR d.max_cost = ruvector_route.max_cost)
            AND (ruvector_route.max_latency_ms IS NULL
                OR d.max_latency_ms = ruvector_route.max_latency_ms)
            AND (ruvector_route.min_quality IS NULL OR d.min_quality = ruvector_route.min_quality)
            AND (ruvector_route.excluded_agents IS NULL
                OR d.excluded_agents = ruvector_route.excluded_agents)
            AND (ruvector_route.budget_remaining IS NULL
                OR d.budget_remaining = ruvector_route.budget_remaining)
            AND (ruvector_route.expected_output_tokens IS NULL
                OR d.expected_output_tokens = ruvector_route.expected_output_tokens)
            AND (ruvector_route.user_tier IS NULL OR d.user_tier = ruvector_route.user_tier)
            AND (ruvector_route.tenant IS NULL OR d.tenant = ruvector_route.tenant)
            AND (ruvector_route.top_k IS NULL OR d.top_k = ruvector_route.top_k)
            AND (ruvector_route.session_key IS NULL
                OR d.session_key = ruvector_route.session_key)
        ORDER BY d.rank;
END
$$;
COMMENT ON FUNCTION tinydancer.ruvector_route(
    text, text, text[], double precision, double precision, double precision, text[],
    double precision, integer, text, integer, text, text
) IS
    'The agent that should serve a request: one row, or the top_k best. optimize_for is cost, '
    'latency, quality, balanced, quality_per_dollar or total_cost. Where no agent suits, '
    'agent_name is NULL and reasoning says which constraint refused whom. decision_id is what '
    'ruvector_record_usage and ruvector_fallback take; NULL where settings.decision_log is off. '
    'fallbacks are the agents to turn to if it fails, best first. With a session_key, the agent of '
    'that session is chosen as long as it suits.';

CREATE OR REPLACE FUNCTION tinydancer.check_batch_limits(
    optimize_for text, min_batch_quality double precision, total_budget double precision,
    agent_capacity jsonb
) RETURNS void
LANGUAGE plpgsql STABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    agent text;
    places jsonb;
BEGIN
    IF optimize_for IS DISTINCT FROM 'total_cost'
        AND num_nonnulls(min_batch_quality, total_budget, agent_capacity) > 0
    THEN
        RAISE EXCEPTION '% needs optimize_for = total_cost, not %',
            CASE WHEN min_batch_quality IS NOT NULL THEN 'min_batch_quality'
                WHEN total_budget IS NOT NULL THEN 'total_budget' ELSE 'agent_capacity' END,
            coalesce(optimize_for, 'NULL')
        USING ERRCODE = 'invalid_parameter_value',
            HINT = 'Only total_cost decides the batch as a whole: optimize_for := ''total_cost''.';
    END IF;
    PERFORM tinydancer.check_number('min_batch_quality', min_batch_quality, 0, 1);
    PERFORM tinydancer.check_number('total_budget', total_budget, 0, 1e12);
    IF jsonb_typeof(agent_capacity) <> 'object' THEN
        RAISE EXCEPTION 'agent_capacity is %, which is no object', left(agent_capacity::text, 100)
        USING ERRCODE = 'invalid_parameter_value',
            HINT = 'Give the most requests of each agent: ''{"gpt-4": 100}''.';
    END IF;
    FOR agent, places IN SELECT key, value FROM jsonb_each(coalesce(agent_capacity, '{}')) LOOP
        PERFORM tinydancer.check_found(
            'agent', agent, EXISTS (SELECT FROM tinydancer.agents WHERE agents.name = agent));
        IF places::text !~ '^[0-9]{1,9}$' THEN
            RAISE EXCEPTION 'agent_capacity of % is %, which is no number of requests',
                quote_literal(agent), left(places::text, 100)
            USING ERRCODE = 'invalid_parameter_value',
                HINT = 'Give a whole number from 0 to 999999999.';
        END IF;
    END LOOP;
END
$$;
COMMENT ON FUNCTION tinydancer.check_batch_limits(text, double precision, double precision, jsonb)
IS 'Raises where a limit of a whole batch is not allowed.';

-- It has had fewer arguments: both beside each other would be ambiguous.
DROP FUNCTION IF EXISTS
    tinydancer.ruvector_batch_route(
        text[], text, text[], double precision, double precision, double precision, text[],
        integer, text),
    tinydancer.ruvector_batch_route(
        text[], text, text[], double precision, double precision, double precision, text[],
        integer, text, text);
CREATE OR REPLACE FUNCTION tinydancer.ruvector_batch_route(
    requests text[],
    optimize_for text DEFAULT 'balanced',
    required_capabilities text[] DEFAULT NULL,
    max_cost double precision DEFAULT NULL,
    max_latency_ms double precision DEFAULT NULL,
    min_quality double precision DEFAULT NULL,
    excluded_agents text[] DEFAULT NULL,
    expected_output_tokens integer DEFAULT NULL,
    user_tier text DEFAULT NULL,
    tenant text DEFAULT NULL,
    min_batch_quality double precision DEFAULT NULL,
    total_budget double precision DEFAULT NULL,
    agent_capacity jsonb DEFAULT NULL
)
RETURNS TABLE (
    request_index integer, request text, agent_name text, confidence double precision,
    estimated_cost numeric, estimated_latency_ms double precision,
    expected_quality double precision, similarity double precision, score double precision,
    reasoning text, decision_id uuid
)
LANGUAGE plpgsql VOLATILE PARALLEL RESTRICTED COST 10000
SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_custom_plan AS $$
#variable_conflict use_column
DECLARE
    most CONSTANT integer := (SELECT max_batch FROM tinydancer.settings);
    -- The same texts, in one dimension that starts at 1: what comes back is compared with it.
    texts CONSTANT text[] := ARRAY(SELECT unnest(requests));
    places text[];
    place integer;
    content text;
BEGIN
    IF requests IS NULL THEN
        RAISE EXCEPTION 'requests is NULL'
        USING ERRCODE = 'null_value_not_allowed', HINT = 'Give an array of texts.';
    ELSIF cardinality(requests) > most THEN
        RAISE EXCEPTION 'requests has % texts, over the limit of %', cardinality(requests), most
        USING ERRCODE = 'program_limit_exceeded',
            HINT = 'Ask in parts, or raise max_batch in tinydancer.settings.';
    END IF;
    SELECT ordinality, candidate INTO place, content
    FROM unnest(requests) WITH ORDINALITY AS given (candidate, ordinality)
    WHERE candidate IS NULL OR btrim(candidate, E' \t\n\r\f\v') = ''
        OR octet_length(candidate) > (SELECT max_text_bytes FROM tinydancer.settings)
    ORDER BY ordinality LIMIT 1;
    IF FOUND THEN
        PERFORM tinydancer.check_text(format('requests[%s]', place), content);
    END IF;
    PERFORM tinydancer.check_constraints(
        optimize_for, required_capabilities, max_cost, max_latency_ms, min_quality,
        excluded_agents, NULL, expected_output_tokens);
    PERFORM tinydancer.check_batch_limits(
        optimize_for, min_batch_quality, total_budget, agent_capacity);
    PERFORM tinydancer.warn_of_uncommitted();
    IF agent_capacity IS NOT NULL THEN
        -- An agent that is not active gets nothing anyway.
        places := ARRAY(
            SELECT key || '=' || value FROM jsonb_each_text(agent_capacity)
            WHERE key IN (SELECT name FROM tinydancer.agents WHERE active) ORDER BY key);
    END IF;
    RETURN QUERY
        SELECT found.request_index::integer, found.request, found.agent_name,
            found.confidence, found.estimated_cost, found.estimated_latency_ms,
            found.expected_quality, found.similarity, found.score, found.reasoning,
            found.decision_id::uuid
        FROM tinydancer.batch_decisions AS b
        CROSS JOIN LATERAL ROWS FROM (
            unnest(texts),
            jsonb_to_recordset(b.decisions) AS (
                agent_name text, confidence double precision, estimated_cost numeric,
                estimated_latency_ms double precision, expected_quality double precision,
                similarity double precision, score double precision, reasoning text),
            jsonb_array_elements_text(b.decision_ids)
        ) WITH ORDINALITY AS found (
            request, agent_name, confidence, estimated_cost, estimated_latency_ms,
            expected_quality, similarity, score, reasoning, decision_id, request_index)
        WHERE b.requests = texts
            AND b.optimize_for = coalesce(ruvector_batch_route.optimize_for, 'balanced')
            AND (ruvector_batch_route.required_capabilities IS NULL
                OR b.required_capabilities = ruvector_batch_route.required_capabilities)
            AND (ruvector_batch_route.max_cost IS NULL
                OR b.max_cost = ruvector_batch_route.max_cost)
            AND (ruvector_batch_route.max_latency_ms IS NULL
                OR b.max_latency_ms = ruvector_batch_route.max_latency_ms)
            AND (ruvector_batch_route.min_quality IS NULL
                OR b.min_quality = ruvector_batch_route.min_quality)
            AND (ruvector_batch_route.excluded_agents IS NULL
                OR b.excluded_agents = ruvector_batch_route.excluded_agents)
            AND (ruvector_batch_route.expected_output_tokens IS NULL
                OR b.expected_output_tokens = ruvector_batch_route.expected_output_tokens)
            AND (ruvector_batch_route.user_tier IS NULL
                OR b.user_tier = ruvector_batch_route.user_tier)
            AND (ruvector_batch_route.tenant IS NULL
                OR b.tenant = ruvector_batch_route.tenant)
            AND (ruvector_batch_route.min_batch_quality IS NULL
                OR b.min_batch_quality = ruvector_batch_route.min_batch_quality)
            AND (ruvector_batch_route.total_budget IS NULL
                OR b.total_budget = ruvector_batch_route.total_budget)
            AND (places IS NULL OR b.agent_capacity = places)
        ORDER BY found.request_index;
END
$$;
COMMENT ON FUNCTION tinydancer.ruvector_batch_route(
    text[], text, text[], double precision, double precision, double precision, text[], integer,
    text, text, double precision, double precision, jsonb
) IS
    'A decision for each of many requests, in their order, by one question to the engine. A text '
    'that occurs twice is two requests, each with a decision_id of its own. With optimize_for '
    'total_cost the batch is decided as a whole: least total cost, with a mean quality of '
    'min_batch_quality at least, total_budget at most, and no agent above its agent_capacity.';
