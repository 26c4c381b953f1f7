-- Budgets: reserve at the decision, settle at the outcome, give back what never was.
--
-- What a budget has spent and reserved in a period is one row of budget_periods. Whoever changes it,
-- or lowers the limit that it is held against, locks it first, all rows in the order (budget,
-- period_start), and holds it to the end of the transaction: sums are exact, and no two sessions
-- wait for each other in a ring. Who makes the row of a period holds the budget as well, against a
-- change of it that is under way. Reservations come after their periods: dropping a budget takes
-- its rows in that order, too.

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
RETURNS SETOF tinydancer.budget_periods
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    wanted record;
BEGIN
    -- One by one: a row is made and locked before the next is looked at.
    FOR wanted IN
        SELECT DISTINCT name, start FROM unnest(budgets, starts) AS pairs (name, start)
        ORDER BY name, start
    LOOP
        RETURN QUERY SELECT sums.* FROM tinydancer.budget_periods AS sums
        WHERE sums.budget = wanted.name AND sums.period_start = wanted.start FOR UPDATE;
        CONTINUE WHEN FOUND;
        -- A change of the limit looks at the periods that there are: it waits for one that is made,
        -- and is waited for. Locked as by an update, so that who waits for the one to make it has
        -- nothing that this one may want.
        INSERT INTO tinydancer.budget_periods (budget, period_start)
        SELECT budget.name, wanted.start FROM tinydancer.budgets AS budget
        WHERE budget.name = wanted.name FOR NO KEY UPDATE
        ON CONFLICT DO NOTHING;
        RETURN QUERY SELECT sums.* FROM tinydancer.budget_periods AS sums
        WHERE sums.budget = wanted.name AND sums.period_start = wanted.start FOR UPDATE;
    END LOOP;
END
$$;
COMMENT ON FUNCTION tinydancer.lock_periods(text[], timestamptz[]) IS
    'Locks periods of budgets in their order, and makes those that are missing; as they are then. '
    'Those of budgets that were dropped are left out.';

CREATE OR REPLACE FUNCTION tinydancer.hold_budgets(
    tenants text[], agents text[], routes text[], user_tiers text[]
) RETURNS TABLE (
    payer integer, budget text, period_start timestamptz, used numeric, limit_amount numeric
)
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    moment timestamptz;
    found record;
    locked tinydancer.budget_periods[] := '{}';
BEGIN
    -- Who waited for a lock looks again: budgets were made or changed, or a period has turned.
    LOOP
        moment := clock_timestamp();
        SELECT array_agg(payer.number) AS payers, array_agg(budget.name) AS names,
            array_agg(tinydancer.period_start(budget.period, moment)) AS starts,
            array_agg(budget.limit_amount) AS limits
        INTO found
        FROM unnest(tenants, agents, routes, user_tiers) WITH ORDINALITY
            AS payer (tenant, agent, route, user_tier, number)
        CROSS JOIN LATERAL tinydancer.budgets_of(
            payer.tenant, payer.agent, payer.route, payer.user_tier) AS budget;
        EXIT WHEN NOT EXISTS (
            SELECT name, start FROM unnest(found.names, found.starts) AS wanted (name, start)
            EXCEPT SELECT sums.budget, sums.period_start FROM unnest(locked) AS sums);
        locked := ARRAY(SELECT sums FROM tinydancer.lock_periods(found.names, found.starts) AS sums);
    END LOOP;
    RETURN QUERY SELECT held.payer::integer, held.name, held.start, sums.spent + sums.reserved,
        held.most
    FROM unnest(found.payers, found.names, found.starts, found.limits)
        AS held (payer, name, start, most)
    JOIN unnest(locked) AS sums ON sums.budget = held.name AND sums.period_start = held.start
    ORDER BY held.payer, held.name;
END
$$;
COMMENT ON FUNCTION tinydancer.hold_budgets(text[], text[], text[], text[]) IS
    'Locks the present periods of all budgets that payers come under: for each payer, by its number, '
    'its budgets in their order, what of each is used (spent or reserved), and its limit.';

CREATE OR REPLACE FUNCTION tinydancer.release_reservations(decisions uuid[]) RETURNS integer
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    released integer;
BEGIN
    PERFORM tinydancer.lock_periods(array_agg(kept.budget), array_agg(kept.period_start))
    FROM tinydancer.budget_reservations AS kept WHERE kept.decision_id = ANY (decisions);
    -- A statement of its own: what another has released meanwhile is no longer there.
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
LANGUAGE sql VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT tinydancer.release_reservations(ARRAY(
        SELECT kept.decision_id FROM tinydancer.budget_reservations AS kept
        WHERE kept.expires_at < clock_timestamp() ORDER BY kept.expires_at LIMIT 1000))
$$;
COMMENT ON FUNCTION tinydancer.expire_reservations() IS
    'Gives back reservations whose outcome never came, a thousand at most; of how many decisions.';

CREATE OR REPLACE FUNCTION tinydancer.charge_budgets(outcomes tinydancer.usage[]) RETURNS void
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    decisions CONSTANT uuid[] := ARRAY(
        SELECT outcome.decision_id FROM unnest(outcomes) AS outcome
        WHERE outcome.decision_id IS NOT NULL);
    charge record;
BEGIN
    IF NOT EXISTS (SELECT FROM tinydancer.budgets) THEN
        RETURN;
    END IF;
    -- What was reserved is spent in the period that had room for it, though the outcome comes when
    -- the next has begun: that one's limit knows nothing of it.
    SELECT array_agg(bill.budget) AS budgets, array_agg(bill.start) AS starts,
        array_agg(bill.cost) AS costs
    INTO charge
    FROM (
        SELECT budget.name, coalesce(kept.period_start,
            tinydancer.period_start(budget.period, outcome.occurred_at)), sum(outcome.cost)
        FROM unnest(outcomes) AS outcome
        CROSS JOIN LATERAL tinydancer.budgets_of(
            outcome.tenant, outcome.agent, outcome.route, outcome.user_tier) AS budget
        LEFT JOIN tinydancer.budget_reservations AS kept
            ON kept.decision_id = outcome.decision_id AND kept.budget = budget.name
        GROUP BY 1, 2
    ) AS bill (budget, start, cost);
    -- Locked together: what is given back, and what is charged.
    PERFORM tinydancer.lock_periods(array_agg(touched.budget), array_agg(touched.start))
    FROM (
        SELECT kept.budget, kept.period_start FROM tinydancer.budget_reservations AS kept
        WHERE kept.decision_id = ANY (decisions)
        UNION ALL SELECT * FROM unnest(charge.budgets, charge.starts)
    ) AS touched (budget, start);
    PERFORM tinydancer.release_reservations(decisions);
    UPDATE tinydancer.budget_periods AS sums SET spent = sums.spent + bill.cost
    FROM unnest(charge.budgets, charge.starts, charge.costs) AS bill (budget, start, cost)
    WHERE sums.budget = bill.budget AND sums.period_start = bill.start;
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
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    present CONSTANT timestamptz := tinydancer.period_start(NEW.period, clock_timestamp());
    sums record;
BEGIN
    -- One that is overrun may stay as it is, or be raised to less than what was spent.
    IF NEW.limit_amount >= OLD.limit_amount AND NEW.period = OLD.period THEN
        RETURN NEW;
    END IF;
    PERFORM tinydancer.lock_periods(ARRAY[OLD.name], ARRAY[present]);
    -- Later ones are there where an outcome or a clock was ahead. They are written, not only locked:
    -- a transaction that still sees the limit as it was can't reserve in them any more.
    WITH held AS (
        UPDATE tinydancer.budget_periods AS period SET reserved = period.reserved
        WHERE period.budget = OLD.name AND period.period_start >= present
            AND period.period_start = tinydancer.period_start(NEW.period, period.period_start)
        RETURNING period.spent, period.reserved
    )
    SELECT held.spent, held.reserved INTO sums FROM held
    ORDER BY held.spent + held.reserved DESC LIMIT 1;
    IF NEW.limit_amount < sums.spent + sums.reserved THEN
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
        tinydancer.check_number('soft_threshold', soft_threshold, 0, 1),
        tinydancer.check_label('tenant', tenant);
    IF subject IS NOT NULL THEN
        PERFORM tinydancer.check_name('subject', subject);
    END IF;
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
