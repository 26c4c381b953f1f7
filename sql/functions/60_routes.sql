-- Semantic routes: creating, reading, dropping and matching them.

CREATE OR REPLACE FUNCTION tinydancer.ruvector_create_route(
    name text,
    description text,
    target_agent text,
    priority integer DEFAULT 0,
    embedding vector DEFAULT NULL,
    utterances text[] DEFAULT '{}',
    threshold double precision DEFAULT NULL,
    time_from time DEFAULT NULL,
    time_to time DEFAULT NULL,
    time_zone text DEFAULT 'UTC',
    user_tiers text[] DEFAULT '{}',
    rate_limit_per_minute integer DEFAULT NULL,
    active boolean DEFAULT true,
    on_conflict text DEFAULT 'error',
    matching text DEFAULT 'dense'
) RETURNS boolean
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_variable
BEGIN
    PERFORM tinydancer.check_route(
        name, description, target_agent, utterances, threshold, time_from, time_to, time_zone,
        user_tiers, rate_limit_per_minute);
    PERFORM tinydancer.check_choice('on_conflict', on_conflict, ARRAY['error', 'update']);
    PERFORM tinydancer.check_choice('matching', matching, ARRAY['dense', 'hybrid']);
    PERFORM tinydancer.check_dimension('embedding', embedding::text);
    INSERT INTO tinydancer.routes AS present (
        name, description, target_agent, priority, threshold, time_from, time_to, time_zone,
        user_tiers, rate_limit_per_minute, active, embedding, matching
    ) VALUES (
        name, description, target_agent, coalesce(priority, 0), threshold, time_from, time_to,
        coalesce(time_zone, 'UTC'), coalesce(user_tiers, '{}'), rate_limit_per_minute,
        coalesce(active, true), embedding, matching
    )
    ON CONFLICT ON CONSTRAINT routes_pkey DO UPDATE SET
        description = excluded.description,
        target_agent = excluded.target_agent,
        priority = excluded.priority,
        threshold = excluded.threshold,
        time_from = excluded.time_from,
        time_to = excluded.time_to,
        time_zone = excluded.time_zone,
        user_tiers = excluded.user_tiers,
        rate_limit_per_minute = excluded.rate_limit_per_minute,
        active = excluded.active,
        matching = excluded.matching,
        embedding = excluded.embedding,
        embedding_model = excluded.embedding_model,
        embedding_space = excluded.embedding_space,
        embedding_source = excluded.embedding_source
    WHERE on_conflict = 'update';
    IF NOT FOUND THEN
        RAISE EXCEPTION 'route % exists already', quote_literal(name)
        USING ERRCODE = 'duplicate_object',
            HINT = 'Drop it with ruvector_drop_route, or create it with on_conflict := ''update''.';
    END IF;
    DELETE FROM tinydancer.route_utterances AS old
    WHERE old.route = name AND old.utterance <> ALL (coalesce(utterances, '{}'));
    INSERT INTO tinydancer.route_utterances (route, utterance)
    SELECT name, given.utterance FROM unnest(utterances) AS given (utterance)
    ON CONFLICT DO NOTHING;
    RETURN true;
END
$$;
COMMENT ON FUNCTION tinydancer.ruvector_create_route(
    text, text, text, integer, vector, text[], double precision, time, time, text, text[], integer,
    boolean, text, text
) IS
    'Creates a route: requests that mean its description, or one of its utterances, lead to '
    'target_agent, which need not be registered. Without an embedding, the engine makes one of the '
    'description. With matching := ''hybrid'' a request that shares all words of a text with it '
    'leads there as well. true.';

CREATE OR REPLACE VIEW tinydancer.route_listing AS
SELECT name, description, target_agent, priority, threshold, active, time_from, time_to, time_zone,
    user_tiers, rate_limit_per_minute,
    ARRAY(
        SELECT example.utterance FROM tinydancer.route_utterances AS example
        WHERE example.route = routes.name ORDER BY example.utterance COLLATE pg_catalog."C"
    ) AS utterances,
    created_at, updated_at, matching
FROM tinydancer.routes;
COMMENT ON VIEW tinydancer.route_listing IS
    'Routes as the functions show them: with their utterances, without embeddings.';

CREATE OR REPLACE FUNCTION tinydancer.ruvector_list_routes(active_only boolean DEFAULT false)
RETURNS SETOF tinydancer.route_listing
LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT * FROM tinydancer.route_listing AS route
    WHERE route.active OR NOT coalesce(active_only, false)
    ORDER BY route.name COLLATE pg_catalog."C"
$$;
COMMENT ON FUNCTION tinydancer.ruvector_list_routes(boolean) IS
    'The routes by name; only those that are matched with active_only := true.';

CREATE OR REPLACE FUNCTION tinydancer.ruvector_drop_route(name text) RETURNS boolean
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    DELETE FROM tinydancer.routes AS route WHERE route.name = ruvector_drop_route.name;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'route % does not exist', coalesce(quote_literal(left(name, 256)), 'NULL')
        USING ERRCODE = 'undefined_object',
            HINT = 'See SELECT name FROM tinydancer.ruvector_list_routes();';
    END IF;
    RETURN true;
END
$$;
COMMENT ON FUNCTION tinydancer.ruvector_drop_route(text) IS
    'Drops a route with its utterances; true. It is matched no more from the commit on.';

CREATE OR REPLACE FUNCTION tinydancer.ruvector_semantic_route(
    query text, top_k integer DEFAULT 3, user_tier text DEFAULT NULL
)
RETURNS TABLE (
    route_name text, similarity double precision, target_agent text, confidence double precision,
    priority integer, rank integer
)
LANGUAGE plpgsql VOLATILE PARALLEL RESTRICTED ROWS 3 COST 1000
SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_custom_plan AS $$
#variable_conflict use_column
BEGIN
    PERFORM tinydancer.check_text('query', query);
    PERFORM tinydancer.check_number('top_k', top_k, 1, 10000);
    PERFORM tinydancer.warn_of_uncommitted();
    RETURN QUERY
        SELECT found.route_name, found.similarity, found.target_agent, found.confidence,
            found.priority, found.rank
        FROM tinydancer.semantic_matches AS found
        WHERE found.query = ruvector_semantic_route.query
            AND (ruvector_semantic_route.top_k IS NULL
                OR found.top_k = ruvector_semantic_route.top_k)
            AND (ruvector_semantic_route.user_tier IS NULL
                OR found.user_tier = ruvector_semantic_route.user_tier)
        ORDER BY found.rank;
END
$$;
COMMENT ON FUNCTION tinydancer.ruvector_semantic_route(text, integer, text) IS
    'The routes that a query means, best first; none where none is near enough.';
