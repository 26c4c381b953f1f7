-- Semantic routes: creating, reading, dropping and matching them.

CREATE OR REPLACE FUNCTION tinydancer.check_route(
    name text, description text, target_agent text, utterances text[], threshold double precision,
    time_from time, time_to time, time_zone text, user_tiers text[], rate_limit_per_minute integer
) RETURNS void
LANGUAGE plpgsql STABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    too_long text;
BEGIN
    PERFORM tinydancer.check_name('name', name),
        tinydancer.check_name('target_agent', target_agent),
        tinydancer.check_text('description', description),
        tinydancer.check_number('threshold', threshold, -1, 1),
        tinydancer.check_number('rate_limit_per_minute', rate_limit_per_minute, 1, 2147483647),
        tinydancer.check_names('user_tiers', user_tiers);
    IF octet_length(description) > 16384 THEN
        RAISE EXCEPTION 'description has % bytes, over the limit of 16384', octet_length(description)
        USING ERRCODE = 'program_limit_exceeded', HINT = 'Say it shorter; give examples as utterances.';
    END IF;
    IF array_ndims(utterances) > 1 OR array_position(utterances, NULL) IS NOT NULL
        OR array_position(utterances, '') IS NOT NULL
    THEN
        RAISE EXCEPTION 'utterances is not a plain list of texts'
        USING ERRCODE = 'invalid_parameter_value',
            HINT = 'Give texts, none of them NULL or empty: ARRAY[''reset my password''].';
    END IF;
    SELECT given.utterance INTO too_long FROM unnest(utterances) AS given (utterance)
    WHERE octet_length(given.utterance) > 2000 LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'an utterance has % bytes, over the limit of 2000', octet_length(too_long)
        USING ERRCODE = 'program_limit_exceeded', HINT = 'Shorten it to what someone would say.';
    END IF;
    IF (time_from IS NULL) <> (time_to IS NULL) OR time_from = time_to THEN
        RAISE EXCEPTION 'the time window from % to % has no two ends',
            coalesce(time_from::text, 'NULL'), coalesce(time_to::text, 'NULL')
        USING ERRCODE = 'invalid_parameter_value',
            HINT = 'Give time_from and time_to, different from each other, or neither.';
    END IF;
    IF time_zone <> 'UTC' THEN
        IF time_zone !~ '^[A-Z][A-Za-z_]*(/[A-Za-z0-9_+-]+)+$'
            OR NOT EXISTS (SELECT FROM pg_timezone_names AS zone WHERE zone.name = time_zone)
        THEN
            RAISE EXCEPTION 'time_zone is %, which is not known', quote_literal(left(time_zone, 100))
            USING ERRCODE = 'invalid_parameter_value',
                HINT = 'Give UTC, or a place such as Europe/Berlin: see pg_timezone_names.';
        END IF;
    END IF;
END
$$;
COMMENT ON FUNCTION tinydancer.check_route(
    text, text, text, text[], double precision, time, time, text, text[], integer
) IS 'Raises where a property of a route is not allowed.';

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
    PERFORM tinydancer.check_found('route', name, FOUND);
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
