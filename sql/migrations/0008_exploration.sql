-- Trying another agent than the best, now and then.

ALTER TABLE tinydancer.settings
    ADD COLUMN exploration text NOT NULL DEFAULT 'none',
    ADD COLUMN exploration_rate double precision NOT NULL DEFAULT 0.05,
    ADD CONSTRAINT settings_exploration_is_known CHECK (exploration IN ('none', 'epsilon')),
    ADD CONSTRAINT settings_exploration_rate_is_a_share CHECK (exploration_rate BETWEEN 0 AND 1);
COMMENT ON COLUMN tinydancer.settings.exploration IS
    'Whether decisions that are kept try other agents than the best: none, or epsilon. What the '
    'request asks for, and budgets, hold for those as well.';
COMMENT ON COLUMN tinydancer.settings.exploration_rate IS
    'With epsilon: the share of decisions that go to any agent that qualifies, each as likely.';
