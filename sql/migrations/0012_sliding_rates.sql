-- Rate limits by a minute that slides, in place of the clock's: twice the limit could pass at its turn.

ALTER TABLE tinydancer.route_usage ADD COLUMN taken bigint, ADD COLUMN last_at timestamptz;
UPDATE tinydancer.route_usage SET taken = used, last_at = least(minute + interval '1 minute', now());
CREATE TABLE tinydancer.route_takes (
    route text NOT NULL REFERENCES tinydancer.route_usage ON UPDATE CASCADE ON DELETE CASCADE,
    number bigint NOT NULL,
    taken_at timestamptz NOT NULL,
    PRIMARY KEY (route, number)
);
-- When in its minute a route was taken is not known: as late as can be, so that no limit is passed.
INSERT INTO tinydancer.route_takes
SELECT route, generate_series(1, used), last_at FROM tinydancer.route_usage
WHERE last_at > now() - interval '1 minute';
ALTER TABLE tinydancer.route_usage
    DROP COLUMN minute,
    DROP COLUMN used,
    ALTER COLUMN taken SET DEFAULT 0,
    ALTER COLUMN taken SET NOT NULL;
COMMENT ON TABLE tinydancer.route_usage IS
    'How often a route with a rate limit was taken, by all engines together; see route_rates.';
COMMENT ON COLUMN tinydancer.route_usage.taken IS 'How often it was taken, ever.';
COMMENT ON COLUMN tinydancer.route_usage.last_at IS 'When it was taken last.';
COMMENT ON TABLE tinydancer.route_takes IS
    'When routes with a rate limit were taken in the last minute; what is older is removed.';
COMMENT ON COLUMN tinydancer.route_takes.route IS 'The route.';
COMMENT ON COLUMN tinydancer.route_takes.number IS 'How many times it had been taken with this one.';
COMMENT ON COLUMN tinydancer.route_takes.taken_at IS 'When.';
