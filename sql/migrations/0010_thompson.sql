-- Trying agents as often as they may be the best.

ALTER TABLE tinydancer.settings
    DROP CONSTRAINT settings_exploration_is_known,
    ADD COLUMN exploration_seed bigint,
    ADD CONSTRAINT settings_exploration_is_known
        CHECK (exploration IN ('none', 'epsilon', 'thompson')),
    ADD CONSTRAINT settings_exploration_seed_is_in_range CHECK (exploration_seed >= 0);
COMMENT ON COLUMN tinydancer.settings.exploration IS
    'Whether decisions that are kept try other agents than the best: none, epsilon, or thompson '
    '(each as often as it may be the best, its success uncertain as its outcomes are few). What the '
    'request asks for, and budgets, hold for those as well.';
COMMENT ON COLUMN tinydancer.settings.exploration_seed IS
    'NULL has each decision throw its own dice. A number throws them by it and the request, so that '
    'the same tables and request give the same agent: for tests.';
