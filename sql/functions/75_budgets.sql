-- Budgets: reserve at the decision, settle at the outcome, give back what never was.
--
-- Every function locks rows of budget_periods in the order (budget, period_start) and holds them
-- to the end of its transaction: sums are exact, and no two sessions wait for each other in a ring.

CREATE OR REPLACE FUNCTION tinydancer.period_start(period text, at timestamptz) RETURNS timestamptz
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$
    SELECT CASE period WHEN 'total' THEN timestamptz '2000-01-01 00:00:00+00'
        ELSE pg_catalog.date_trunc(period, at, 'UTC') END
$$;
COMMENT ON FUNCTION tinydancer.period_start(text, timestamptz) IS
    'When the period of a budget that a time lies in has begun (UTC).';

CREATE OR REPLACE FUNCTION tinydancer.budgets_of(
    tenant text, agent text, route text, user_tier text
) RETURNS SETOF tinydancer.budgets
LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT budget.* FROM tinydancer.budgets AS budget
    WHERE budget.active
        AND (budget.tenant IS NULL OR budget.tenant = budgets_of.tenant)
        AND CASE budget.scope WHEN 'all' THEN true
            WHEN 'agent' THEN budget.subject = budgets_of.agent
            WHEN 'route' THEN budget.subject = budgets_of.route
            WHEN 'tenant' THEN budget.subject = budgets_of.tenant
            WHEN 'user_tier' THEN budget.subject = budgets_of.user_tier END
$$;
COMMENT ON FUNCTION tinydancer.budgets_of(text, text, text, text) IS
    'The active budgets that a request of a tenant to an agent comes under.';

CREATE OR REPLACE FUNCTION tinydancer.lock_periods(budgets text[], starts timestamptz[])
RETURNS void
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    wanted record;
BEGIN
    -- One by one: a row is made and locked before the next is looked at.
    FOR wanted IN
        SELECT DISTINCT name, start FROM unnest(budgets, starts) AS pairs (name, start)
        ORDER BY name, start
    LOOP
        INSERT INTO tinydancer.budget_periods (budget, period_start)
        SELECT budget.name, wanted.start FROM tinydancer.budgets AS budget
        WHERE budget.name = wanted.name
        ON CONFLICT DO NOTHING;
        PERFORM FROM tinydancer.budget_periods AS sums
        WHERE sums.budget = wanted.name AND sums.period_start = wanted.start FOR UPDATE;
    END LOOP;
END
$$;
COMMENT ON FUNCTION tinydancer.lock_periods(text[], timestamptz[]) IS
    'Locks periods of budgets in their order, and makes those that are missing.';

CREATE OR REPLACE FUNCTION tinydancer.reserve_budget(
    decision_id uuid, tenant text, agent text, route text, user_tier text, amount numeric
) RETURNS text
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_variable
DECLARE
    moment CONSTANT timestamptz := clock_timestamp();
    held record;
    names text[] := '{}';
    starts timestamptz[] := '{}';
BEGIN
    IF amount IS NULL OR amount NOT BETWEEN 0 AND 1e12 THEN
        RAISE EXCEPTION 'amount is %, not between 0 and 1000000000000', coalesce(amount::text, 'NULL')
        USING ERRCODE = 'numeric_value_out_of_range', HINT = 'Reserve the estimated cost.';
    END IF;
    IF EXISTS (SELECT FROM tinydancer.budget_reservations AS kept
               WHERE kept.decision_id = reserve_budget.decision_id) THEN
        RAISE EXCEPTION 'decision % has reserved already', decision_id
        USING ERRCODE = 'duplicate_object', HINT = 'Release it first: release_budget(decision_id).';
    END IF;
    PERFORM tinydancer.lock_periods(
        array_agg(budget.name), array_agg(tinydancer.period_start(budget.period, moment)))
    FROM tinydancer.budgets_of(tenant, agent, route, user_tier) AS budget;
    -- A statement of its own: it sees what those who held the locks have left, limits as well.
    FOR held IN
        SELECT sums.budget, sums.period_start, sums.spent, sums.reserved, budget.limit_amount
        FROM tinydancer.budget_periods AS sums
        JOIN tinydancer.budgets_of(tenant, agent, route, user_tier) AS budget
            ON budget.name = sums.budget
            AND sums.period_start = tinydancer.period_start(budget.period, moment)
        ORDER BY sums.budget, sums.period_start
    LOOP
        -- What costs nothing takes nothing, even from a budget that is overrun.
        IF amount > 0 AND held.spent + held.reserved + amount > held.limit_amount THEN
            RETURN held.budget;
        END IF;
        names := names || held.budget;
        starts := starts || held.period_start;
    END LOOP;
    UPDATE tinydancer.budget_periods AS sums SET reserved = sums.reserved + amount
    FROM unnest(names, starts) AS mine (budget, period_start)
    WHERE sums.budget = mine.budget AND sums.period_start = mine.period_start;
    INSERT INTO tinydancer.budget_reservations
    SELECT decision_id, mine.budget, mine.period_start, amount,
        moment + (SELECT reservation_timeout FROM tinydancer.settings)
    FROM unnest(names, starts) AS mine (budget, period_start);
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION tinydancer.reserve_budget(uuid, text, text, text, text, numeric) IS
    'Reserves an amount in every budget that a decision comes under, and returns NULL; or reserves '
    'nothing and returns the name of the first budget that has not so much left.';

CREATE OR REPLACE FUNCTION tinydancer.release_reservations(decisions uuid[]) RETURNS integer
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    released integer;
BEGIN
    PERFORM FROM tinydancer.budget_reservations AS kept
    WHERE kept.decision_id = ANY (decisions) ORDER BY kept.decision_id, kept.budget FOR UPDATE;
    PERFORM FROM tinydancer.budget_periods AS sums
    WHERE (sums.budget, sums.period_start) IN (
        SELECT kept.budget, kept.period_start FROM tinydancer.budget_reservations AS kept
        WHERE kept.decision_id = ANY (decisions))
    ORDER BY sums.budget, sums.period_start FOR UPDATE;
    WITH gone AS (
        DELETE FROM tinydancer.budget_reservations AS kept
        WHERE kept.decision_id = ANY (decisions)
        RETURNING kept.decision_id, kept.budget, kept.period_start, kept.amount
    ), given_back AS (
        UPDATE tinydancer.budget_periods AS sums SET reserved = sums.reserved - back.amount
        FROM (SELECT gone.budget, gone.period_start, sum(gone.amount) AS amount FROM gone
              GROUP BY 1, 2) AS back
        WHERE sums.budget = back.budget AND sums.period_start = back.period_start
    )
    SELECT count(DISTINCT gone.decision_id) INTO released FROM gone;
    RETURN released;
END
$$;
COMMENT ON FUNCTION tinydancer.release_reservations(uuid[]) IS
    'Gives back what decisions have reserved; how many of them had reserved anything.';

CREATE OR REPLACE FUNCTION tinydancer.expire_reservations() RETURNS integer
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    -- Those that somebody is settling right now are left to them.
    RETURN tinydancer.release_reservations(ARRAY(
        SELECT kept.decision_id FROM tinydancer.budget_reservations AS kept
        WHERE kept.expires_at < clock_timestamp()
        ORDER BY kept.expires_at LIMIT 1000 FOR UPDATE SKIP LOCKED));
END
$$;
COMMENT ON FUNCTION tinydancer.expire_reservations() IS
    'Gives back reservations whose outcome never came, a thousand at most; of how many decisions.';

CREATE OR REPLACE FUNCTION tinydancer.charge_budgets(outcomes tinydancer.usage[]) RETURNS void
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM tinydancer.budgets) THEN
        RETURN;
    END IF;
    -- Locked together and in order: what is given back below, and what is charged.
    PERFORM FROM tinydancer.budget_reservations AS kept
    WHERE kept.decision_id IN (SELECT outcome.decision_id FROM unnest(outcomes) AS outcome)
    ORDER BY kept.decision_id, kept.budget FOR UPDATE;
    PERFORM tinydancer.lock_periods(array_agg(budget), array_agg(start))
    FROM (
        SELECT kept.budget, kept.period_start FROM tinydancer.budget_reservations AS kept
        WHERE kept.decision_id IN (SELECT outcome.decision_id FROM unnest(outcomes) AS outcome)
        UNION
        SELECT budget.name, tinydancer.period_start(budget.period, outcome.occurred_at)
        FROM unnest(outcomes) AS outcome, LATERAL tinydancer.budgets_of(
            outcome.tenant, outcome.agent, outcome.route, outcome.user_tier) AS budget
    ) AS touched (budget, start);
    PERFORM tinydancer.release_reservations(ARRAY(
        SELECT outcome.decision_id FROM unnest(outcomes) AS outcome
        WHERE outcome.decision_id IS NOT NULL));
    UPDATE tinydancer.budget_periods AS sums SET spent = sums.spent + charge.cost
    FROM (
        SELECT budget.name, tinydancer.period_start(budget.period, outcome.occurred_at) AS start,
            sum(outcome.cost) AS cost
        FROM unnest(outcomes) AS outcome, LATERAL tinydancer.budgets_of(
            outcome.tenant, outcome.agent, outcome.route, outcome.user_tier) AS budget
        GROUP BY 1, 2
    ) AS charge
    WHERE sums.budget = charge.name AND sums.period_start = charge.start;
END
$$;
COMMENT ON FUNCTION tinydancer.charge_budgets(tinydancer.usage[]) IS
    'Settles outcomes: what their decisions reserved is given back, what they cost is spent.';

CREATE OR REPLACE VIEW tinydancer.budget_status AS
SELECT budgets.name, scope, subject, tenant, period, active, limit_amount,
    tinydancer.period_start(period, now()) AS period_start,
    coalesce(spent, 0) AS spent,
    coalesce(reserved, 0) AS reserved,
    greatest(limit_amount - coalesce(spent, 0) - coalesce(reserved, 0), 0) AS remaining,
    coalesce(spent, 0) + coalesce(reserved, 0) >= limit_amount * soft_threshold::numeric AS runs_low,
    greatest(coalesce(spent, 0) + coalesce(reserved, 0) - limit_amount, 0) AS overrun
FROM tinydancer.budgets
LEFT JOIN tinydancer.budget_periods
    ON budget = budgets.name AND period_start = tinydancer.period_start(period, now());
COMMENT ON VIEW tinydancer.budget_status IS
    'Each budget in its present period: spent, reserved, remaining, whether it runs low, and its '
    'overrun: by how much outcomes dearer than was reserved for them have passed the limit.';

CREATE OR REPLACE FUNCTION tinydancer.keep_reserved() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    sums record;
BEGIN
    SELECT period.spent, period.reserved INTO sums FROM tinydancer.budget_periods AS period
    WHERE period.budget = OLD.name
        AND period.period_start = tinydancer.period_start(NEW.period, now())
    FOR UPDATE;
    -- One that is overrun may stay as it is, or be raised to less than what was spent.
    IF NEW.limit_amount < sums.spent + sums.reserved
        AND (NEW.limit_amount < OLD.limit_amount OR NEW.period <> OLD.period)
    THEN
        RAISE EXCEPTION 'limit_amount of budget % is %, below the % that are spent and reserved',
            quote_literal(NEW.name), NEW.limit_amount, sums.spent + sums.reserved
        USING ERRCODE = 'object_not_in_prerequisite_state',
            DETAIL = format('Spent are %s, reserved %s.', sums.spent, sums.reserved),
            HINT = 'Choose a higher limit, or switch the agents off that spend.';
    END IF;
    RETURN NEW;
END
$$;
COMMENT ON FUNCTION tinydancer.keep_reserved() IS
    'Trigger: a limit is never lowered below what is spent and reserved already.';
CREATE OR REPLACE TRIGGER keep_reserved BEFORE UPDATE OF limit_amount, period ON tinydancer.budgets
FOR EACH ROW EXECUTE FUNCTION tinydancer.keep_reserved();

CREATE OR REPLACE FUNCTION tinydancer.ruvector_set_budget(
    name text,
    limit_amount numeric,
    scope text DEFAULT 'all',
    subject text DEFAULT NULL,
    period text DEFAULT 'month',
    soft_threshold double precision DEFAULT 0.8,
    tenant text DEFAULT NULL,
    active boolean DEFAULT true
) RETURNS boolean
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_variable
BEGIN
    PERFORM tinydancer.check_name('name', name),
        tinydancer.check_choice('scope', scope, ARRAY['all', 'agent', 'route', 'tenant', 'user_tier']),
        tinydancer.check_choice(
            'period', period, ARRAY['hour', 'day', 'week', 'month', 'year', 'total']),
        tinydancer.check_number('limit_amount', limit_amount::double precision, 0, 1e12),
        tinydancer.check_number('soft_threshold', soft_threshold, 0, 1);
    IF limit_amount IS NULL THEN
        RAISE EXCEPTION 'limit_amount is NULL'
        USING ERRCODE = 'null_value_not_allowed', HINT = 'Give what may be spent in a period.';
    ELSIF (scope = 'all') <> (subject IS NULL) THEN
        RAISE EXCEPTION 'subject is %, and scope is %', coalesce(quote_literal(subject), 'NULL'), scope
        USING ERRCODE = 'invalid_parameter_value',
            HINT = 'Name the agent, route, tenant or user tier; scope all has none.';
    ELSIF scope = 'agent' AND NOT EXISTS (
            SELECT FROM tinydancer.agents AS known WHERE known.name = subject)
        OR scope = 'route' AND NOT EXISTS (
            SELECT FROM tinydancer.routes AS known WHERE known.name = subject)
    THEN
        -- No error: it may be registered later. Misspelt, the money would have no limit.
        RAISE WARNING 'there is no % %', scope, quote_literal(subject)
        USING HINT = 'The budget limits nothing until one of that name is there.';
    END IF;
    INSERT INTO tinydancer.budgets AS present (
        name, scope, subject, tenant, period, limit_amount, soft_threshold, active)
    VALUES (name, scope, subject, tenant, period, limit_amount, coalesce(soft_threshold, 0.8),
        coalesce(active, true))
    ON CONFLICT ON CONSTRAINT budgets_pkey DO UPDATE SET
        scope = excluded.scope, subject = excluded.subject, tenant = excluded.tenant,
        period = excluded.period, limit_amount = excluded.limit_amount,
        soft_threshold = excluded.soft_threshold, active = excluded.active;
    RETURN true;
END
$$;
COMMENT ON FUNCTION tinydancer.ruvector_set_budget(
    text, numeric, text, text, text, double precision, text, boolean
) IS 'Makes a budget, or changes it; true. What was spent before it was made does not count.';

CREATE OR REPLACE FUNCTION tinydancer.ruvector_drop_budget(name text) RETURNS boolean
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    DELETE FROM tinydancer.budgets AS budget WHERE budget.name = ruvector_drop_budget.name;
    PERFORM tinydancer.check_found('budget', name, FOUND);
    RETURN true;
END
$$;
COMMENT ON FUNCTION tinydancer.ruvector_drop_budget(text) IS 'Drops a budget with its sums; true.';
