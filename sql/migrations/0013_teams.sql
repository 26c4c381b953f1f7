-- Members of a team have a decision each.

ALTER TABLE tinydancer.decisions ADD COLUMN team uuid;
COMMENT ON COLUMN tinydancer.decisions.team IS
    'For the member of a team, the id of the first member''s decision; request is its part then.';
