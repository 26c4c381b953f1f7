-- Asking the engine for plans: a team for one request, a month's budget over the agents.

-- It has had fewer arguments and columns.
DROP FUNCTION IF EXISTS tinydancer.ruvector_route_multi(
    text, integer, text, text, double precision, double precision, double precision, text[], integer);
CREATE OR REPLACE FUNCTION tinydancer.ruvector_route_multi(
    request text,
    num_agents integer DEFAULT NULL,
    strategy text DEFAULT 'pipeline',
    optimize_for text DEFAULT 'balanced',
    max_cost double precision DEFAULT NULL,
    max_latency_ms double precision DEFAULT NULL,
    min_quality double precision DEFAULT NULL,
    excluded_agents text[] DEFAULT NULL,
    expected_output_tokens integer DEFAULT NULL,
    user_tier text DEFAULT NULL,
    tenant text DEFAULT NULL
)
RETURNS TABLE (
    place integer, agent_name text, part text, capability text, estimated_cost numeric,
    estimated_latency_ms double precision, expected_quality double precision, team_cost numeric,
    team_latency_ms double precision, team_quality double precision, reasoning text,
    explanation jsonb, decision_id uuid
)
LANGUAGE plpgsql VOLATILE PARALLEL RESTRICTED ROWS 3 COST 5000
SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_custom_plan AS $$
#variable_conflict use_column
BEGIN
    PERFORM tinydancer.check_text('request', request);
    PERFORM tinydancer.check_choice('strategy', strategy, ARRAY['pipeline', 'parallel', 'ensemble']);
    PERFORM tinydancer.check_constraints(
        optimize_for, NULL, max_cost, max_latency_ms, min_quality, excluded_agents, NULL,
        expected_output_tokens);
    IF num_agents < 1 THEN
        RAISE EXCEPTION 'num_agents is %, and a team has a member at least', num_agents
        USING ERRCODE = 'numeric_value_out_of_range',
            HINT = 'Give how many agents are to work on the request.';
    END IF;
    PERFORM tinydancer.warn_of_uncommitted();
    RETURN QUERY
        SELECT p.place, p.agent_name, p.part, p.capability, p.estimated_cost,
            p.estimated_latency_ms, p.expected_quality, p.team_cost, p.team_latency_ms,
            p.team_quality, p.reasoning, p.explanation, p.decision_id
        FROM tinydancer.agent_plans AS p
        WHERE p.request = ruvector_route_multi.request
            AND p.strategy = ruvector_route_multi.strategy
            AND (ruvector_route_multi.num_agents IS NULL
                OR p.num_agents = ruvector_route_multi.num_agents)
            AND (ruvector_route_multi.optimize_for IS NULL
                OR p.optimize_for = ruvector_route_multi.optimize_for)
            AND (ruvector_route_multi.max_cost IS NULL
                OR p.max_cost = ruvector_route_multi.max_cost)
            AND (ruvector_route_multi.max_latency_ms IS NULL
                OR p.max_latency_ms = ruvector_route_multi.max_latency_ms)
            AND (ruvector_route_multi.min_quality IS NULL
                OR p.min_quality = ruvector_route_multi.min_quality)
            AND (ruvector_route_multi.excluded_agents IS NULL
                OR p.excluded_agents = ruvector_route_multi.excluded_agents)
            AND (ruvector_route_multi.expected_output_tokens IS NULL
                OR p.expected_output_tokens = ruvector_route_multi.expected_output_tokens)
            AND (ruvector_route_multi.user_tier IS NULL
                OR p.user_tier = ruvector_route_multi.user_tier)
            AND (ruvector_route_multi.tenant IS NULL OR p.tenant = ruvector_route_multi.tenant)
        ORDER BY p.place;
END
$$;
COMMENT ON FUNCTION tinydancer.ruvector_route_multi(
    text, integer, text, text, double precision, double precision, double precision, text[], integer,
    text, text
) IS
    'A team of agents for one request, a row a member: pipeline (one after another), parallel or '
    'ensemble (all on the same task). Constraints hold for the whole team, and budgets: the cost of every '
    'member is reserved, or nothing. decision_id is what ruvector_record_usage takes for the member. '
    'Where no team suits, agent_name is NULL and reasoning says why.';

CREATE OR REPLACE FUNCTION tinydancer.check_counts(argument text, given jsonb) RETURNS text[]
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    name text;
    number jsonb;
BEGIN
    IF jsonb_typeof(given) <> 'object' OR given = '{}' THEN
        RAISE EXCEPTION '% is %, which is no object with numbers', argument, left(given::text, 100)
        USING ERRCODE = 'invalid_parameter_value',
            HINT = 'Give a number for each name: ''{"name": 100}''.';
    END IF;
    FOR name, number IN SELECT key, value FROM jsonb_each(given) LOOP
        IF jsonb_typeof(number) <> 'number' OR number::numeric NOT BETWEEN 0 AND 1e9 THEN
            RAISE EXCEPTION '% of % is %, which is no number of requests', argument,
                quote_literal(left(name, 100)), left(number::text, 100)
            USING ERRCODE = 'invalid_parameter_value',
                HINT = 'Give a number from 0 to 1000000000.';
        END IF;
    END LOOP;
    RETURN ARRAY(
        SELECT key || '=' || value FROM jsonb_each_text(given) ORDER BY key COLLATE "C");
END
$$;
COMMENT ON FUNCTION tinydancer.check_counts(text, jsonb) IS
    'Numbers of requests by name, as the foreign tables take them: name=100. Raises for others.';

-- It has had fewer arguments: both beside each other would be ambiguous.
DROP FUNCTION IF EXISTS tinydancer.ruvector_optimize_budget(
    double precision, double precision, double precision, double precision, integer, integer);
CREATE OR REPLACE FUNCTION tinydancer.ruvector_optimize_budget(
    monthly_budget double precision,
    quality_threshold double precision DEFAULT 0.8,
    latency_threshold_ms double precision DEFAULT 5000,
    expected_requests double precision DEFAULT NULL,
    expected_input_tokens integer DEFAULT NULL,
    expected_output_tokens integer DEFAULT NULL,
    expected_by_category jsonb DEFAULT NULL,
    agent_capacity jsonb DEFAULT NULL
) RETURNS jsonb
LANGUAGE plpgsql VOLATILE PARALLEL RESTRICTED COST 10000
SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_custom_plan AS $$
#variable_conflict use_column
DECLARE
    forecast CONSTANT text[] := tinydancer.check_counts(
        'expected_by_category', ruvector_optimize_budget.expected_by_category);
    places CONSTANT text[] := tinydancer.check_counts(
        'agent_capacity', ruvector_optimize_budget.agent_capacity);
    found jsonb;
BEGIN
    IF monthly_budget IS NULL THEN
        RAISE EXCEPTION 'monthly_budget is NULL'
        USING ERRCODE = 'null_value_not_allowed', HINT = 'Give what may be spent in 30 days.';
    END IF;
    PERFORM tinydancer.check_number('monthly_budget', monthly_budget, 0, 1e12);
    PERFORM tinydancer.check_number('quality_threshold', quality_threshold, 0, 1);
    PERFORM tinydancer.check_number('latency_threshold_ms', latency_threshold_ms, 0, 1e12);
    PERFORM tinydancer.check_number('expected_requests', expected_requests, 0, 1e12);
    PERFORM tinydancer.check_number('expected_input_tokens', expected_input_tokens, 0, 10000000);
    PERFORM tinydancer.check_number('expected_output_tokens', expected_output_tokens, 0, 10000000);
    PERFORM tinydancer.warn_of_uncommitted();
    SELECT jsonb_build_object(
            'allocations', coalesce(
                jsonb_object_agg(a.agent_name, a.allocation) FILTER (WHERE a.allocation > 0), '{}'),
            'total_budget', monthly_budget,
            'period_days', 30,
            'spent', min(a.spent),
            'expected_quality', min(a.plan_quality),
            'budget_shadow_price', min(a.budget_shadow_price),
            'expected_requests', min(a.demand),
            'expected_by_category', min(a.demand_by_category::text)::jsonb,
            'demand_source', min(a.demand_source),
            'agents', jsonb_object_agg(a.agent_name, jsonb_build_object(
                'share', a.share, 'allocation', a.allocation,
                'expected_requests', a.expected_requests_served,
                'by_category', a.requests_by_category,
                'expected_quality', a.expected_quality,
                'shadow_price', a.shadow_price, 'shortfall', a.shortfall)))
    INTO found
    FROM tinydancer.budget_allocations AS a
    WHERE a.budget = monthly_budget
        AND (ruvector_optimize_budget.quality_threshold IS NULL
            OR a.quality_threshold = ruvector_optimize_budget.quality_threshold)
        AND (ruvector_optimize_budget.latency_threshold_ms IS NULL
            OR a.latency_threshold_ms = ruvector_optimize_budget.latency_threshold_ms)
        AND (ruvector_optimize_budget.expected_requests IS NULL
            OR a.expected_requests = ruvector_optimize_budget.expected_requests)
        AND (ruvector_optimize_budget.expected_input_tokens IS NULL
            OR a.expected_input_tokens = ruvector_optimize_budget.expected_input_tokens)
        AND (ruvector_optimize_budget.expected_output_tokens IS NULL
            OR a.expected_output_tokens = ruvector_optimize_budget.expected_output_tokens)
        AND (forecast IS NULL OR a.expected_by_category = forecast)
        AND (places IS NULL OR a.agent_capacity = places);
    RETURN found;
END
$$;
COMMENT ON FUNCTION tinydancer.ruvector_optimize_budget(
    double precision, double precision, double precision, double precision, integer, integer, jsonb,
    jsonb
) IS
    'How to spend a budget over 30 days for the highest expected quality: money for each agent under '
    'allocations, and beside it what the plan expects. Demand is expected_by_category '
    '({"code": 1000}), or expected_requests, mixed as they were lately; without either, what the '
    'ledger has of the last 30 days, by category, if it reaches back a day. agent_capacity '
    '({"gpt-4": 5000}) is the most requests that an agent can take.';
