-- Learned quality follows the outcomes by itself, where settings say so.

ALTER TABLE tinydancer.agent_outcomes ADD COLUMN decided bigint NOT NULL DEFAULT 0;
COMMENT ON COLUMN tinydancer.agent_outcomes.decided IS
    'Outcomes that name their decision: what quality can be learned from.';
UPDATE tinydancer.agent_outcomes AS sums SET decided = known.decided
FROM (SELECT agent, count(decision_id) AS decided FROM tinydancer.usage GROUP BY agent) AS known
WHERE sums.agent = known.agent
    AND sums.shard = (SELECT min(shard) FROM tinydancer.agent_outcomes AS one
                      WHERE one.agent = sums.agent);

ALTER TABLE tinydancer.settings
    ADD COLUMN quality_refresh boolean NOT NULL DEFAULT true,
    ADD COLUMN quality_refresh_outcomes integer NOT NULL DEFAULT 1000,
    ADD COLUMN quality_refresh_interval interval NOT NULL DEFAULT '1 hour',
    ADD CONSTRAINT settings_quality_refresh_outcomes_is_in_range
        CHECK (quality_refresh_outcomes BETWEEN 20 AND 1000000000),
    ADD CONSTRAINT settings_quality_refresh_interval_is_in_range
        CHECK (quality_refresh_interval BETWEEN interval '1 second' AND interval '1 year');
COMMENT ON COLUMN tinydancer.settings.quality_refresh IS
    'Whether engines learn quality anew as outcomes come, and switch the new model on where it does '
    'better than the one in use on outcomes that neither has seen.';
COMMENT ON COLUMN tinydancer.settings.quality_refresh_outcomes IS
    'After how many new outcomes of decisions.';
COMMENT ON COLUMN tinydancer.settings.quality_refresh_interval IS
    'How long after the last training at least.';
