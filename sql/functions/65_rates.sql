-- Rate limits of routes: in no minute, wherever it starts, is a route taken more often than its limit
-- says, by all engines together and over their restarts.
--
-- It may be taken when its limit-th take from the last is a minute old: takes are numbered, so that
-- is one row to look at, however high the limit. The time is the database's. Where its clock was
-- ahead and is set back, what was taken meanwhile counts as taken when that shows: it was not later.

CREATE OR REPLACE FUNCTION tinydancer.take_route(route text, per_minute integer) RETURNS boolean
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
-- Plans made while the tables are all but empty are kept for when they are not.
SET enable_seqscan = off AS $$
DECLARE
    sums tinydancer.route_usage;
    moment timestamptz;
    oldest bigint;
BEGIN
    -- One session at a time; what follows sees all that those before it have taken.
    LOOP
        SELECT * INTO sums FROM tinydancer.route_usage AS present
        WHERE present.route = take_route.route FOR UPDATE;
        EXIT WHEN FOUND;
        INSERT INTO tinydancer.route_usage (route)
        SELECT name FROM tinydancer.routes WHERE name = take_route.route ON CONFLICT DO NOTHING;
        IF NOT FOUND AND NOT EXISTS (
            SELECT FROM tinydancer.routes WHERE name = take_route.route
        ) THEN
            RETURN false;
        END IF;
    END LOOP;
    moment := clock_timestamp();
    IF sums.last_at > moment THEN
        UPDATE tinydancer.route_takes AS old SET taken_at = moment
        WHERE old.route = take_route.route AND old.taken_at > moment;
        UPDATE tinydancer.route_usage AS present SET last_at = moment
        WHERE present.route = take_route.route;
    END IF;
    IF EXISTS (
        SELECT FROM tinydancer.route_takes AS old
        WHERE old.route = take_route.route AND old.number = sums.taken - per_minute + 1
            AND old.taken_at > moment - interval '1 minute'
    ) THEN
        RETURN false;
    END IF;
    INSERT INTO tinydancer.route_takes VALUES (take_route.route, sums.taken + 1, moment);
    UPDATE tinydancer.route_usage AS present SET taken = sums.taken + 1, last_at = moment
    WHERE present.route = take_route.route;
    -- Two are removed for one that is added: the table is never longer than the busiest minute.
    SELECT old.number INTO oldest FROM tinydancer.route_takes AS old
    WHERE old.route = take_route.route ORDER BY old.number LIMIT 1;
    DELETE FROM tinydancer.route_takes AS old
    WHERE old.route = take_route.route AND old.number IN (oldest, oldest + 1)
        AND old.taken_at <= moment - interval '1 minute';
    RETURN true;
END
$$;
COMMENT ON FUNCTION tinydancer.take_route(text, integer) IS
    'Counts a request for a route, where it was taken less than per_minute times within the last '
    'minute; whether it did. A route that does not exist can not be taken.';

CREATE OR REPLACE VIEW tinydancer.route_rates AS
SELECT routes.name AS route, rate_limit_per_minute, coalesce(recent.used, 0) AS used,
    greatest(rate_limit_per_minute - coalesce(recent.used, 0), 0) AS remaining,
    CASE WHEN bound.route IS NOT NULL
        THEN least(bound.taken_at, clock_timestamp()) + interval '1 minute' END AS free_at
FROM tinydancer.routes
LEFT JOIN tinydancer.route_usage ON route_usage.route = routes.name
LEFT JOIN LATERAL (
    SELECT count(*) AS used FROM tinydancer.route_takes
    WHERE route_takes.route = routes.name
        AND taken_at > clock_timestamp() - interval '1 minute'
) AS recent ON true
LEFT JOIN tinydancer.route_takes AS bound
    ON bound.route = routes.name AND bound.number = taken - rate_limit_per_minute + 1
    AND bound.taken_at > clock_timestamp() - interval '1 minute'
WHERE rate_limit_per_minute IS NOT NULL;
COMMENT ON VIEW tinydancer.route_rates IS
    'Each route with a rate limit: how often it was taken within the last minute, how often it may '
    'be taken yet, and, where it may not, from when on it may again.';
