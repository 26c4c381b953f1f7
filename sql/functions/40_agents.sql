-- Agents: registering, reading, changing and removing them.

CREATE OR REPLACE FUNCTION tinydancer.check_agent(
    agent_type text, capabilities text[],
    cost_per_1k_tokens numeric, cost_per_1k_input_tokens numeric, cost_per_1k_output_tokens numeric,
    cost_per_call numeric, cost_per_second numeric,
    avg_latency_ms double precision, p99_latency_ms double precision,
    quality_score double precision, metadata jsonb, concurrency_limit integer
) RETURNS void
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF agent_type IS NOT NULL THEN
        PERFORM tinydancer.check_choice(
            'agent_type', agent_type, ARRAY['llm', 'tool', 'api', 'human', 'ensemble']);
    END IF;
    PERFORM tinydancer.check_names('capabilities', capabilities),
        tinydancer.check_number('cost_per_1k_tokens', cost_per_1k_tokens, 0, 1e9),
        tinydancer.check_number('cost_per_1k_input_tokens', cost_per_1k_input_tokens, 0, 1e9),
        tinydancer.check_number('cost_per_1k_output_tokens', cost_per_1k_output_tokens, 0, 1e9),
        tinydancer.check_number('cost_per_call', cost_per_call, 0, 1e9),
        tinydancer.check_number('cost_per_second', cost_per_second, 0, 1e9),
        tinydancer.check_number('avg_latency_ms', avg_latency_ms, 0, 1e12),
        tinydancer.check_number('p99_latency_ms', p99_latency_ms, 0, 1e12),
        tinydancer.check_number('quality_score', quality_score, 0, 1),
        tinydancer.check_number('concurrency_limit', concurrency_limit, 0, 1000000);
    IF cost_per_1k_tokens IS NOT NULL
        AND (cost_per_1k_input_tokens IS NOT NULL OR cost_per_1k_output_tokens IS NOT NULL)
    THEN
        RAISE EXCEPTION 'cost_per_1k_tokens is given beside a price of input or output tokens'
        USING ERRCODE = 'invalid_parameter_value',
            HINT = 'cost_per_1k_tokens is both prices at once: give it alone, or the two others.';
    END IF;
    IF octet_length(capabilities::text) > 65536 THEN
        RAISE EXCEPTION 'capabilities have % bytes, over the limit of 65536',
            octet_length(capabilities::text)
        USING ERRCODE = 'program_limit_exceeded', HINT = 'Name each in a word or two.';
    END IF;
    IF jsonb_typeof(metadata) <> 'object' THEN
        RAISE EXCEPTION 'metadata is %, not an object', left(metadata::text, 100)
        USING ERRCODE = 'invalid_parameter_value',
            HINT = 'Give a JSON object such as {"provider": "openai"}.';
    END IF;
END
$$;
COMMENT ON FUNCTION tinydancer.check_agent(
    text, text[], numeric, numeric, numeric, numeric, numeric,
    double precision, double precision, double precision, jsonb, integer
) IS 'Raises where a property of an agent is not allowed.';

DROP FUNCTION IF EXISTS tinydancer.agent_missing(text);
CREATE OR REPLACE FUNCTION tinydancer.ruvector_register_agent(
    name text,
    agent_type text DEFAULT 'llm',
    capabilities text[] DEFAULT '{}',
    cost_per_1k_tokens numeric DEFAULT NULL,
    cost_per_call numeric DEFAULT NULL,
    avg_latency_ms double precision DEFAULT 1000,
    quality_score double precision DEFAULT 0.5,
    metadata jsonb DEFAULT '{}',
    cost_per_1k_input_tokens numeric DEFAULT NULL,
    cost_per_1k_output_tokens numeric DEFAULT NULL,
    cost_per_second numeric DEFAULT NULL,
    p99_latency_ms double precision DEFAULT NULL,
    active boolean DEFAULT true,
    on_conflict text DEFAULT 'error',
    concurrency_limit integer DEFAULT NULL,
    circuit_breaker boolean DEFAULT true
) RETURNS boolean
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    agent tinydancer.agents;
BEGIN
    PERFORM tinydancer.check_name('name', name);
    PERFORM tinydancer.check_choice('on_conflict', on_conflict, ARRAY['error', 'update']);
    PERFORM tinydancer.check_agent(
        agent_type, capabilities, cost_per_1k_tokens, cost_per_1k_input_tokens,
        cost_per_1k_output_tokens, cost_per_call, cost_per_second, avg_latency_ms, p99_latency_ms,
        quality_score, metadata, concurrency_limit);
    agent.name := name;
    agent.type := coalesce(agent_type, 'llm');
    agent.capabilities := coalesce(capabilities, '{}');
    agent.cost_per_1k_input_tokens := coalesce(cost_per_1k_input_tokens, cost_per_1k_tokens, 0);
    agent.cost_per_1k_output_tokens := coalesce(cost_per_1k_output_tokens, cost_per_1k_tokens, 0);
    agent.cost_per_call := coalesce(cost_per_call, 0);
    agent.cost_per_second := coalesce(cost_per_second, 0);
    agent.avg_latency_ms := coalesce(avg_latency_ms, 1000);
    agent.p99_latency_ms := p99_latency_ms;
    agent.quality := coalesce(quality_score, 0.5);
    agent.metadata := coalesce(metadata, '{}');
    agent.active := coalesce(active, true);
    agent.concurrency_limit := nullif(concurrency_limit, 0);
    agent.circuit_breaker := coalesce(circuit_breaker, true);

    INSERT INTO tinydancer.agents AS present (
        name, type, capabilities, cost_per_1k_input_tokens, cost_per_1k_output_tokens,
        cost_per_call, cost_per_second, avg_latency_ms, p99_latency_ms, quality, metadata, active,
        concurrency_limit, circuit_breaker
    ) VALUES (
        agent.name, agent.type, agent.capabilities, agent.cost_per_1k_input_tokens,
        agent.cost_per_1k_output_tokens, agent.cost_per_call, agent.cost_per_second,
        agent.avg_latency_ms, agent.p99_latency_ms, agent.quality, agent.metadata, agent.active,
        agent.concurrency_limit, agent.circuit_breaker
    )
    ON CONFLICT ON CONSTRAINT agents_pkey DO UPDATE SET
        type = excluded.type,
        capabilities = excluded.capabilities,
        cost_per_1k_input_tokens = excluded.cost_per_1k_input_tokens,
        cost_per_1k_output_tokens = excluded.cost_per_1k_output_tokens,
        cost_per_call = excluded.cost_per_call,
        cost_per_second = excluded.cost_per_second,
        avg_latency_ms = excluded.avg_latency_ms,
        p99_latency_ms = excluded.p99_latency_ms,
        quality = excluded.quality,
        metadata = excluded.metadata,
        active = excluded.active,
        concurrency_limit = excluded.concurrency_limit,
        circuit_breaker = excluded.circuit_breaker
    WHERE on_conflict = 'update';
    IF NOT FOUND THEN
        RAISE EXCEPTION 'agent % is registered already', quote_literal(name)
        USING ERRCODE = 'duplicate_object',
            HINT = 'Use ruvector_update_agent, or register with on_conflict := ''update''.';
    END IF;
    RETURN true;
END
$$;
COMMENT ON FUNCTION tinydancer.ruvector_register_agent(
    text, text, text[], numeric, numeric, double precision, double precision, jsonb,
    numeric, numeric, numeric, double precision, boolean, text, integer, boolean
) IS
    'Registers an agent; true. cost_per_1k_tokens is the price of input and of output tokens. '
    'Latency and quality are priors until outcomes are recorded. A name that is taken is an error, '
    'or is registered anew with on_conflict := ''update''.';

CREATE OR REPLACE VIEW tinydancer.agent_listing AS
SELECT name, type AS agent_type, capabilities,
    cost_per_1k_input_tokens, cost_per_1k_output_tokens, cost_per_call, cost_per_second,
    avg_latency_ms, p99_latency_ms, quality AS quality_score, metadata, active,
    created_at, updated_at, concurrency_limit, circuit_breaker
FROM tinydancer.agents;
COMMENT ON VIEW tinydancer.agent_listing IS
    'Agents as the functions show them: the table without its embeddings.';

CREATE OR REPLACE FUNCTION tinydancer.ruvector_list_agents(active_only boolean DEFAULT false)
RETURNS SETOF tinydancer.agent_listing
LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT * FROM tinydancer.agent_listing AS agent
    WHERE agent.active OR NOT coalesce(active_only, false)
    ORDER BY agent.name COLLATE pg_catalog."C"
$$;
COMMENT ON FUNCTION tinydancer.ruvector_list_agents(boolean) IS
    'The registered agents by name; only those that may be chosen with active_only := true.';

CREATE OR REPLACE FUNCTION tinydancer.ruvector_get_agent(name text)
RETURNS SETOF tinydancer.agent_listing
LANGUAGE plpgsql STABLE PARALLEL SAFE ROWS 1 SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RETURN QUERY SELECT * FROM tinydancer.agent_listing AS agent
        WHERE agent.name = ruvector_get_agent.name;
    PERFORM tinydancer.check_found('agent', name, FOUND);
END
$$;
COMMENT ON FUNCTION tinydancer.ruvector_get_agent(text) IS
    'One agent, as ruvector_list_agents shows it. A name that is not registered is an error.';

CREATE OR REPLACE FUNCTION tinydancer.ruvector_update_agent(
    name text,
    agent_type text DEFAULT NULL,
    capabilities text[] DEFAULT NULL,
    cost_per_1k_tokens numeric DEFAULT NULL,
    cost_per_call numeric DEFAULT NULL,
    avg_latency_ms double precision DEFAULT NULL,
    quality_score double precision DEFAULT NULL,
    metadata jsonb DEFAULT NULL,
    cost_per_1k_input_tokens numeric DEFAULT NULL,
    cost_per_1k_output_tokens numeric DEFAULT NULL,
    cost_per_second numeric DEFAULT NULL,
    p99_latency_ms double precision DEFAULT NULL,
    active boolean DEFAULT NULL,
    concurrency_limit integer DEFAULT NULL,
    circuit_breaker boolean DEFAULT NULL
) RETURNS boolean
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_variable
BEGIN
    PERFORM tinydancer.check_agent(
        agent_type, capabilities, cost_per_1k_tokens, cost_per_1k_input_tokens,
        cost_per_1k_output_tokens, cost_per_call, cost_per_second, avg_latency_ms, p99_latency_ms,
        quality_score, metadata, concurrency_limit);
    UPDATE tinydancer.agents AS agent SET
        type = coalesce(agent_type, agent.type),
        capabilities = coalesce(capabilities, agent.capabilities),
        cost_per_1k_input_tokens = coalesce(
            cost_per_1k_input_tokens, cost_per_1k_tokens, agent.cost_per_1k_input_tokens),
        cost_per_1k_output_tokens = coalesce(
            cost_per_1k_output_tokens, cost_per_1k_tokens, agent.cost_per_1k_output_tokens),
        cost_per_call = coalesce(cost_per_call, agent.cost_per_call),
        cost_per_second = coalesce(cost_per_second, agent.cost_per_second),
        avg_latency_ms = coalesce(avg_latency_ms, agent.avg_latency_ms),
        p99_latency_ms = coalesce(p99_latency_ms, agent.p99_latency_ms),
        quality = coalesce(quality_score, agent.quality),
        metadata = coalesce(metadata, agent.metadata),
        active = coalesce(active, agent.active),
        concurrency_limit = CASE WHEN concurrency_limit IS NULL THEN agent.concurrency_limit
            ELSE nullif(concurrency_limit, 0) END,
        circuit_breaker = coalesce(circuit_breaker, agent.circuit_breaker)
    WHERE agent.name = name;
    PERFORM tinydancer.check_found('agent', name, FOUND);
    RETURN true;
END
$$;
COMMENT ON FUNCTION tinydancer.ruvector_update_agent(
    text, text, text[], numeric, numeric, double precision, double precision, jsonb,
    numeric, numeric, numeric, double precision, boolean, integer, boolean
) IS
    'Changes what is given of an agent, and leaves the rest; true. A concurrency_limit of 0 takes '
    'the limit away.';

CREATE OR REPLACE FUNCTION tinydancer.ruvector_set_agent_active(
    name text, active boolean DEFAULT true
) RETURNS boolean
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_variable
BEGIN
    IF active IS NULL THEN
        RAISE EXCEPTION 'active is NULL'
        USING ERRCODE = 'null_value_not_allowed', HINT = 'Give true or false.';
    END IF;
    UPDATE tinydancer.agents AS agent SET active = active WHERE agent.name = name;
    PERFORM tinydancer.check_found('agent', name, FOUND);
    RETURN true;
END
$$;
COMMENT ON FUNCTION tinydancer.ruvector_set_agent_active(text, boolean) IS
    'Takes an agent into the choice, or out of it; true.';

CREATE OR REPLACE FUNCTION tinydancer.ruvector_remove_agent(name text) RETURNS boolean
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    DELETE FROM tinydancer.agents AS agent WHERE agent.name = ruvector_remove_agent.name;
    PERFORM tinydancer.check_found('agent', name, FOUND);
    RETURN true;
END
$$;
COMMENT ON FUNCTION tinydancer.ruvector_remove_agent(text) IS
    'Removes an agent; true. Routes that lead to it stay.';

CREATE OR REPLACE FUNCTION tinydancer.ruvector_find_agents_by_capability(
    capability text, top_k integer DEFAULT 10
)
RETURNS TABLE (agent_name text, similarity double precision, exact boolean, rank integer)
LANGUAGE plpgsql STABLE PARALLEL RESTRICTED ROWS 10
SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_custom_plan AS $$
#variable_conflict use_column
BEGIN
    PERFORM tinydancer.check_text('capability', capability),
        tinydancer.check_number('top_k', top_k, 1, 10000),
        tinydancer.warn_of_uncommitted();
    RETURN QUERY
        SELECT found.agent_name, found.similarity, found.exact, found.rank
        FROM tinydancer.capability_matches AS found
        WHERE found.capability = ruvector_find_agents_by_capability.capability
            AND (ruvector_find_agents_by_capability.top_k IS NULL
                OR found.top_k = ruvector_find_agents_by_capability.top_k)
        ORDER BY found.rank;
END
$$;
COMMENT ON FUNCTION tinydancer.ruvector_find_agents_by_capability(text, integer) IS
    'The agents that have a capability, by its exact name first, then by meaning.';
