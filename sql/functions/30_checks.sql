-- What arguments may be. Each raises, naming the argument and its value; NULL means "not given".

CREATE OR REPLACE FUNCTION tinydancer.check_text(argument text, content text) RETURNS void
LANGUAGE plpgsql STABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    longest CONSTANT integer := (SELECT max_text_bytes FROM tinydancer.settings);
BEGIN
    IF content IS NULL THEN
        RAISE EXCEPTION '% is NULL', argument
        USING ERRCODE = 'null_value_not_allowed', HINT = format('Give %s a text.', argument);
    ELSIF btrim(content, E' \t\n\r\f\v') = '' THEN
        RAISE EXCEPTION '% is empty', argument
        USING ERRCODE = 'invalid_parameter_value', HINT = format('Give %s a text.', argument);
    ELSIF octet_length(content) > longest THEN
        RAISE EXCEPTION '% has % bytes, over the limit of %',
            argument, octet_length(content), longest
        USING ERRCODE = 'program_limit_exceeded',
            HINT = 'Shorten it, or raise max_text_bytes in tinydancer.settings.';
    END IF;
END
$$;
COMMENT ON FUNCTION tinydancer.check_text(text, text) IS
    'Raises unless a text is there, is not empty and is within the limit.';

CREATE OR REPLACE FUNCTION tinydancer.check_number(
    argument text, value double precision, lowest double precision, highest double precision
) RETURNS void
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    -- NaN is above every number, so it is never between two of them.
    IF value NOT BETWEEN lowest AND highest THEN
        RAISE EXCEPTION '% is %, not between % and %', argument, value, lowest, highest
        USING ERRCODE = 'numeric_value_out_of_range',
            HINT = format('Give %s a number from %s to %s.', argument, lowest, highest);
    END IF;
END
$$;
COMMENT ON FUNCTION tinydancer.check_number(
    text, double precision, double precision, double precision
) IS 'Raises where a number is NaN or outside its limits.';

CREATE OR REPLACE FUNCTION tinydancer.check_choice(argument text, value text, allowed text[])
RETURNS void
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF value IS NULL OR value <> ALL (allowed) THEN
        RAISE EXCEPTION '% is %, which is not known', argument, coalesce(quote_literal(value), 'NULL')
        USING ERRCODE = 'invalid_parameter_value',
            HINT = format('Allowed are: %s.', array_to_string(allowed, ', '));
    END IF;
END
$$;
COMMENT ON FUNCTION tinydancer.check_choice(text, text, text[]) IS
    'Raises, with the list of what is allowed, where a value is not one of it.';

CREATE OR REPLACE FUNCTION tinydancer.check_names(argument text, names text[]) RETURNS void
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF array_ndims(names) > 1 OR array_position(names, NULL) IS NOT NULL
        OR array_position(names, '') IS NOT NULL OR cardinality(names) > 256
    THEN
        RAISE EXCEPTION '% is %, which is not a plain list of names', argument, left(names::text, 200)
        USING ERRCODE = 'invalid_parameter_value',
            HINT = 'Give at most 256 names, none of them NULL or empty: ARRAY[''code'', ''math''].';
    END IF;
END
$$;
COMMENT ON FUNCTION tinydancer.check_names(text, text[]) IS
    'Raises where a list has several dimensions, NULLs, empty texts or more than 256 names.';

CREATE OR REPLACE FUNCTION tinydancer.check_name(argument text, name text) RETURNS void
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF name IS NULL THEN
        RAISE EXCEPTION '% is NULL', argument
        USING ERRCODE = 'null_value_not_allowed', HINT = format('Give %s a name.', argument);
    ELSIF octet_length(name) NOT BETWEEN 1 AND 256 OR name <> btrim(name) OR name ~ '[[:cntrl:]]' THEN
        RAISE EXCEPTION '% is %, which is not a name', argument, quote_literal(left(name, 100))
        USING ERRCODE = 'invalid_parameter_value',
            HINT = 'A name has 1 to 256 bytes, no control characters, and no blanks at its ends.';
    END IF;
END
$$;
COMMENT ON FUNCTION tinydancer.check_name(text, text) IS 'Raises where a text can''t be a name.';

-- Takes the vector as text: the type's own functions lie wherever pgvector was installed.
CREATE OR REPLACE FUNCTION tinydancer.check_dimension(argument text, vector text) RETURNS void
LANGUAGE plpgsql STABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    wanted CONSTANT integer := (SELECT dimension FROM tinydancer.settings);
    given CONSTANT integer := cardinality(string_to_array(vector, ','));
BEGIN
    IF given <> wanted THEN
        RAISE EXCEPTION '% has % dimensions, not %', argument, given, wanted
        USING ERRCODE = 'invalid_parameter_value',
            HINT = 'Make it with tinydancer.ruvector_embed(text), or leave it out.';
    END IF;
END
$$;
COMMENT ON FUNCTION tinydancer.check_dimension(text, text) IS
    'Raises where a vector is not as long as the embeddings of this database.';

CREATE OR REPLACE FUNCTION tinydancer.warn_of_uncommitted() RETURNS void
LANGUAGE plpgsql STABLE PARALLEL RESTRICTED SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF pg_current_xact_id_if_assigned() IS NOT NULL AND EXISTS (
        SELECT FROM tinydancer.changes WHERE xid = pg_current_xact_id_if_assigned()
    ) THEN
        RAISE WARNING 'the engine does not see what this transaction has changed'
        USING HINT = 'It decides by what is committed: COMMIT agents and routes before asking.';
    END IF;
END
$$;
COMMENT ON FUNCTION tinydancer.warn_of_uncommitted() IS
    'Warns where the caller''s own transaction has changed agents, routes or settings.';

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
