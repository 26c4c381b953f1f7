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

CREATE OR REPLACE FUNCTION tinydancer.check_label(argument text, label text) RETURNS void
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF btrim(label, E' \t\n\r\f\v') = '' THEN
        RAISE EXCEPTION '% is %, which is empty', argument, quote_literal(left(label, 100))
        USING ERRCODE = 'invalid_parameter_value',
            HINT = format('Give %s a name, or leave it out.', argument);
    ELSIF octet_length(label) > 256 THEN
        RAISE EXCEPTION '% has % bytes, over the limit of 256', argument, octet_length(label)
        USING ERRCODE = 'program_limit_exceeded', HINT = format('Give %s a shorter name.', argument);
    END IF;
END
$$;
COMMENT ON FUNCTION tinydancer.check_label(text, text) IS
    'Raises where a text is empty or too long to be what sums are kept by: a tenant, a tier.';

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
    ELSIF vector !~ '[1-9]' THEN
        RAISE EXCEPTION '% has no direction: all of it is 0', argument
        USING ERRCODE = 'invalid_parameter_value',
            HINT = 'Make it with tinydancer.ruvector_embed(text), or leave it out.';
    END IF;
END
$$;
COMMENT ON FUNCTION tinydancer.check_dimension(text, text) IS
    'Raises where a vector is not as long as the embeddings of this database, or has no direction.';

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

CREATE OR REPLACE FUNCTION tinydancer.check_found(kind text, name text, is_there boolean)
RETURNS void
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF NOT is_there THEN
        RAISE EXCEPTION '% % does not exist', kind, coalesce(quote_literal(left(name, 256)), 'NULL')
        USING ERRCODE = 'undefined_object',
            HINT = format('See SELECT name FROM tinydancer.%s;', CASE kind
                WHEN 'agent' THEN 'ruvector_list_agents()'
                WHEN 'route' THEN 'ruvector_list_routes()'
                WHEN 'budget' THEN 'budget_status' END);
    END IF;
END
$$;
COMMENT ON FUNCTION tinydancer.check_found(text, text, boolean) IS
    'Raises that there is no agent, route or budget of that name, unless it was found.';
