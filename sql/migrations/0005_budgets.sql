-- What may be spent, what is reserved for decisions under way, and what was spent.

CREATE TABLE tinydancer.budgets (
    name text PRIMARY KEY,
    scope text NOT NULL DEFAULT 'all',
    subject text,
    tenant text,
    period text NOT NULL DEFAULT 'month',
    limit_amount numeric NOT NULL,
    soft_threshold double precision NOT NULL DEFAULT 0.8,
    active boolean NOT NULL DEFAULT true,
    created_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT budgets_name_is_plain CHECK (
        octet_length(name) BETWEEN 1 AND 256 AND name = btrim(name) AND name !~ '[[:cntrl:]]'),
    CONSTRAINT budgets_scope_is_known
        CHECK (scope IN ('all', 'agent', 'route', 'tenant', 'user_tier')),
    CONSTRAINT budgets_subject_goes_with_scope CHECK ((scope = 'all') = (subject IS NULL)),
    CONSTRAINT budgets_subject_is_plain CHECK (
        octet_length(subject) BETWEEN 1 AND 256 AND subject = btrim(subject)),
    CONSTRAINT budgets_tenant_is_plain CHECK (octet_length(tenant) BETWEEN 1 AND 256),
    CONSTRAINT budgets_period_is_known
        CHECK (period IN ('hour', 'day', 'week', 'month', 'year', 'total')),
    CONSTRAINT budgets_limit_amount_is_in_range CHECK (limit_amount BETWEEN 0 AND 1e12),
    CONSTRAINT budgets_soft_threshold_is_a_share CHECK (soft_threshold BETWEEN 0 AND 1)
);
COMMENT ON TABLE tinydancer.budgets IS 'What may be spent, by whom or on what, in which time.';
COMMENT ON COLUMN tinydancer.budgets.name IS 'Unique name.';
COMMENT ON COLUMN tinydancer.budgets.scope IS 'all, agent, route, tenant or user_tier.';
COMMENT ON COLUMN tinydancer.budgets.subject IS 'Which agent, route, tenant or user tier.';
COMMENT ON COLUMN tinydancer.budgets.tenant IS 'The tenant it is for; NULL means all together.';
COMMENT ON COLUMN tinydancer.budgets.period IS
    'hour, day, week, month, year (UTC; it starts anew with each) or total.';
COMMENT ON COLUMN tinydancer.budgets.limit_amount IS 'Most that may be spent in a period.';
COMMENT ON COLUMN tinydancer.budgets.soft_threshold IS
    'Share of the limit from which on budget_status says that it runs low.';
COMMENT ON COLUMN tinydancer.budgets.active IS 'Whether it holds.';
COMMENT ON COLUMN tinydancer.budgets.created_at IS 'When it was made.';

CREATE TABLE tinydancer.budget_periods (
    budget text NOT NULL REFERENCES tinydancer.budgets ON UPDATE CASCADE ON DELETE CASCADE,
    period_start timestamptz NOT NULL,
    spent numeric NOT NULL DEFAULT 0,
    reserved numeric NOT NULL DEFAULT 0,
    PRIMARY KEY (budget, period_start),
    CONSTRAINT budget_periods_spent_is_not_negative CHECK (spent >= 0),
    CONSTRAINT budget_periods_reserved_is_not_negative CHECK (reserved >= 0)
) WITH (fillfactor = 50);
COMMENT ON TABLE tinydancer.budget_periods IS
    'What of each budget is spent and reserved in each period. Functions lock its rows in order.';
COMMENT ON COLUMN tinydancer.budget_periods.budget IS 'The budget.';
COMMENT ON COLUMN tinydancer.budget_periods.period_start IS 'Start of the period.';
COMMENT ON COLUMN tinydancer.budget_periods.spent IS 'Sum of what was spent.';
COMMENT ON COLUMN tinydancer.budget_periods.reserved IS 'Sum of what is reserved and not settled.';

CREATE TABLE tinydancer.budget_reservations (
    decision_id uuid NOT NULL,
    budget text NOT NULL,
    period_start timestamptz NOT NULL,
    amount numeric NOT NULL,
    expires_at timestamptz NOT NULL,
    PRIMARY KEY (decision_id, budget),
    FOREIGN KEY (budget, period_start) REFERENCES tinydancer.budget_periods
        ON UPDATE CASCADE ON DELETE CASCADE,
    CONSTRAINT budget_reservations_amount_is_in_range CHECK (amount BETWEEN 0 AND 1e12)
);
COMMENT ON TABLE tinydancer.budget_reservations IS
    'What decisions have reserved, until their outcome settles it or it expires.';
COMMENT ON COLUMN tinydancer.budget_reservations.decision_id IS 'The decision.';
COMMENT ON COLUMN tinydancer.budget_reservations.budget IS 'The budget.';
COMMENT ON COLUMN tinydancer.budget_reservations.period_start IS 'Its period.';
COMMENT ON COLUMN tinydancer.budget_reservations.amount IS 'How much.';
COMMENT ON COLUMN tinydancer.budget_reservations.expires_at IS 'When it is given back.';
CREATE INDEX budget_reservations_expires_at ON tinydancer.budget_reservations (expires_at);

ALTER TABLE tinydancer.settings
    ADD COLUMN reservation_timeout interval NOT NULL DEFAULT '15 minutes',
    ADD CONSTRAINT settings_reservation_timeout_is_in_range
        CHECK (reservation_timeout BETWEEN interval '1 second' AND interval '30 days');
COMMENT ON COLUMN tinydancer.settings.reservation_timeout IS
    'After which time a reservation whose outcome never came is given back.';
