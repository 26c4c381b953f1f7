-- Routes that are matched by their words as well.

ALTER TABLE tinydancer.routes
    ADD matching text NOT NULL DEFAULT 'dense',
    ADD CONSTRAINT routes_matching_is_known CHECK (matching IN ('dense', 'hybrid'));
COMMENT ON COLUMN tinydancer.routes.matching IS
    'dense: by likeness. hybrid: also where a request and one of its texts share all words of one.';

-- It has one argument more now; two of the name would make calls ambiguous.
DROP FUNCTION IF EXISTS tinydancer.ruvector_create_route(
    text, text, text, integer, vector, text[], double precision, time, time, text, text[], integer,
    boolean, text);
