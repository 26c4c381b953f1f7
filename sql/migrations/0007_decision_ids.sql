-- Functions whose answers gain a column are made anew.

DROP FUNCTION IF EXISTS tinydancer.ruvector_route(
    text, text, text[], double precision, double precision, double precision, text[],
    double precision, integer, text, integer);
DROP FUNCTION IF EXISTS tinydancer.ruvector_batch_route(
    text[], text, text[], double precision, double precision, double precision, text[], integer,
    text);
