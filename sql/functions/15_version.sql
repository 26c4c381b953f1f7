-- Which version of Tiny Dancer the functions of this schema are of. Migrations alone do not tell: a
-- version may have none.

CREATE OR REPLACE FUNCTION tinydancer.ruvector_version() RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$
    SELECT '0.5.0'
$$;
COMMENT ON FUNCTION tinydancer.ruvector_version() IS
    'The version of Tiny Dancer that installed or last upgraded this schema.';
