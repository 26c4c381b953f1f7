-- Calls: a decision takes a place at its agent and reserves its cost, both or neither.
--
-- An agent is guarded where it has a concurrency limit or a circuit that is not closed; all others
-- are never counted. Who takes a place holds the guard of the agent to the end of its transaction.
-- Locks are taken in one order: guards by agent, then circuits, then periods of budgets.

CREATE OR REPLACE VIEW tinydancer.open_circuits AS
SELECT agent, retry_at, opened_at, openings, proven FROM tinydancer.agent_breakers
JOIN tinydancer.agents ON agents.name = agent AND agents.circuit_breaker
CROSS JOIN tinydancer.settings
WHERE is_open AND settings.circuit_breaker;
COMMENT ON VIEW tinydancer.open_circuits IS
    'Circuits that are not closed: open until retry_at, half open from then on.';

CREATE OR REPLACE FUNCTION tinydancer.guarded_agents(agents text[]) RETURNS text[]
LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT ARRAY(
        SELECT agent.name FROM tinydancer.agents AS agent
        WHERE agent.name = ANY (agents) AND agent.concurrency_limit IS NOT NULL
        UNION
        SELECT circuit.agent FROM tinydancer.open_circuits AS circuit
        WHERE circuit.agent = ANY (agents)
        ORDER BY 1)
$$;
COMMENT ON FUNCTION tinydancer.guarded_agents(text[]) IS
    'Those of some agents that have a concurrency limit or a circuit that is not closed, in order.';

CREATE OR REPLACE FUNCTION tinydancer.lock_guards(agents text[]) RETURNS void
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    agent text;
BEGIN
    FOR agent IN SELECT DISTINCT name FROM unnest(agents) AS name ORDER BY name LOOP
        PERFORM pg_advisory_xact_lock(hashtextextended('tinydancer.guard.' || agent, 0));
    END LOOP;
END
$$;
COMMENT ON FUNCTION tinydancer.lock_guards(text[]) IS
    'Has others wait who would take a place at these agents, to the end of the transaction.';

CREATE OR REPLACE FUNCTION tinydancer.call_refusal(agent text) RETURNS text[]
LANGUAGE plpgsql STABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    moment CONSTANT timestamptz := clock_timestamp();
    most CONSTANT integer := (
        SELECT concurrency_limit FROM tinydancer.agents WHERE name = call_refusal.agent);
    probes CONSTANT integer := (SELECT breaker_probes FROM tinydancer.settings);
    ready timestamptz;
    taken record;
BEGIN
    SELECT circuit.retry_at INTO ready FROM tinydancer.open_circuits AS circuit
    WHERE circuit.agent = call_refusal.agent;
    IF moment < ready THEN
        RETURN ARRAY['circuit_breaker', 'open until '
            || to_char(ready AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS"+00:00"')];
    END IF;
    SELECT count(*) AS calls,
        count(*) FILTER (WHERE call.probe AND call.reserved_at >= ready) AS probes
    INTO taken FROM tinydancer.calls_in_flight AS call
    WHERE call.agent = call_refusal.agent AND call.expires_at > moment;
    IF taken.calls >= most THEN
        RETURN ARRAY['concurrency_limit', most::text];
    ELSIF ready IS NOT NULL AND taken.probes >= probes THEN
        RETURN ARRAY['circuit_breaker', format('half open with %s of %s probes under way',
            taken.probes, probes)];
    END IF;
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION tinydancer.call_refusal(text) IS
    'Why an agent can''t be called right now: the constraint and its limit; NULL where it can.';

CREATE OR REPLACE FUNCTION tinydancer.reserve_calls(
    decisions uuid[], tenants text[], agents text[], routes text[], user_tiers text[],
    amounts numeric[], OUT refusing text[], OUT limits text[]
)
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    budgeted CONSTANT boolean := EXISTS (SELECT FROM tinydancer.budgets WHERE active);
    moment CONSTANT timestamptz := clock_timestamp();
    refusal text[];
    guarded text[];
    names text[];
    starts timestamptz[];
    fitting boolean;
BEGIN
    refusing := '{}';
    limits := '{}';
    -- All guards and then all periods at once, in order, since the claims come in any order.
    guarded := tinydancer.guarded_agents(agents);
    PERFORM tinydancer.lock_guards(guarded);
    IF budgeted THEN
        SELECT array_agg(touched.name), array_agg(touched.start) INTO names, starts
        FROM (
            SELECT DISTINCT budget.name, tinydancer.period_start(budget.period, moment) AS start
            FROM (
                SELECT DISTINCT claim.tenant, claim.agent, claim.route, claim.user_tier
                FROM unnest(tenants, agents, routes, user_tiers)
                    AS claim (tenant, agent, route, user_tier)
            ) AS claim, LATERAL tinydancer.budgets_of(
                claim.tenant, claim.agent, claim.route, claim.user_tier) AS budget
        ) AS touched;
        PERFORM tinydancer.lock_periods(names, starts);
    END IF;
    IF budgeted AND guarded = '{}' AND cardinality(decisions) > 1
        AND 0 <= ALL (amounts) AND 1e12 >= ALL (amounts)
    THEN
        -- Where the budgets have room for all claims together, one statement reserves them: updating
        -- the sums claim by claim takes the longer, the more there are.
        WITH claim AS (
            SELECT * FROM unnest(decisions, tenants, agents, routes, user_tiers, amounts)
                AS claim (decision_id, tenant, agent, route, user_tier, amount)
        ), held AS (
            SELECT claim.decision_id, claim.amount, budget.name, budget.limit_amount,
                tinydancer.period_start(budget.period, moment) AS start
            FROM (SELECT DISTINCT tenant, agent, route, user_tier FROM claim) AS payer
            CROSS JOIN LATERAL tinydancer.budgets_of(
                payer.tenant, payer.agent, payer.route, payer.user_tier) AS budget
            JOIN claim ON claim.tenant = payer.tenant AND claim.agent = payer.agent
                AND coalesce(claim.route, '') = coalesce(payer.route, '')
                AND coalesce(claim.user_tier, '') = coalesce(payer.user_tier, '')
            JOIN unnest(names, starts) AS locked (name, start) ON locked.name = budget.name
                AND locked.start = tinydancer.period_start(budget.period, moment)
        ), total AS (
            SELECT name, start, limit_amount, sum(amount) AS amount FROM held GROUP BY 1, 2, 3
        ), room AS (
            SELECT NOT EXISTS (
                SELECT FROM total JOIN tinydancer.budget_periods AS sums
                    ON sums.budget = total.name AND sums.period_start = total.start
                WHERE sums.spent + sums.reserved + total.amount > total.limit_amount) AS for_all
        ), raised AS (
            UPDATE tinydancer.budget_periods AS sums SET reserved = sums.reserved + total.amount
            FROM total, room
            WHERE room.for_all AND sums.budget = total.name AND sums.period_start = total.start
        ), reserved AS (
            INSERT INTO tinydancer.budget_reservations
            SELECT held.decision_id, held.name, held.start, held.amount,
                moment + settings.reservation_timeout
            FROM held CROSS JOIN room CROSS JOIN tinydancer.settings
            JOIN tinydancer.budget_periods AS sums
                ON sums.budget = held.name AND sums.period_start = held.start
            WHERE room.for_all
        )
        SELECT for_all INTO fitting FROM room;
        IF fitting THEN
            refusing := array_fill(NULL::text, ARRAY[cardinality(decisions)]);
            limits := refusing;
            RETURN;
        END IF;
    END IF;
    FOR place IN 1 .. cardinality(decisions) LOOP
        refusal := NULL;
        IF agents[place] = ANY (guarded) THEN
            refusal := tinydancer.call_refusal(agents[place]);
        END IF;
        IF refusal IS NULL AND budgeted THEN
            refusal := ARRAY['budget', tinydancer.reserve_budget(
                decisions[place], tenants[place], agents[place], routes[place],
                user_tiers[place], amounts[place])];
        END IF;
        IF refusal[2] IS NULL AND agents[place] = ANY (guarded) THEN
            INSERT INTO tinydancer.calls_in_flight
            SELECT decisions[place], agents[place],
                EXISTS (SELECT FROM tinydancer.open_circuits WHERE agent = agents[place]),
                clock_timestamp(), clock_timestamp() + reservation_timeout
            FROM tinydancer.settings;
        END IF;
        refusing := array_append(refusing, CASE WHEN refusal[2] IS NOT NULL THEN refusal[1] END);
        limits := array_append(limits, refusal[2]);
    END LOOP;
END
$$;
COMMENT ON FUNCTION tinydancer.reserve_calls(
    uuid[], text[], text[], text[], text[], numeric[], OUT text[], OUT text[]
) IS
    'Reserves for each decision, in their order, a place at its agent and its cost in every budget '
    'that it comes under. For each the constraint that refuses it, and its limit, where it reserved '
    'nothing; NULL and NULL where it did.';

CREATE OR REPLACE FUNCTION tinydancer.release_calls(decisions uuid[]) RETURNS integer
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    DELETE FROM tinydancer.calls_in_flight WHERE decision_id = ANY (decisions);
    RETURN tinydancer.release_reservations(decisions);
END
$$;
COMMENT ON FUNCTION tinydancer.release_calls(uuid[]) IS
    'Gives back the places and the money that decisions have reserved; how many had reserved money.';

CREATE OR REPLACE FUNCTION tinydancer.reserve_team(
    decisions uuid[], tenants text[], agents text[], routes text[], user_tiers text[],
    amounts numeric[], OUT refusing text[], OUT limits text[]
)
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    SELECT reserved.refusing, reserved.limits INTO refusing, limits
    FROM tinydancer.reserve_calls(
        decisions, tenants, agents, routes, user_tiers, amounts) AS reserved;
    IF cardinality(array_remove(limits, NULL)) > 0 THEN
        PERFORM tinydancer.release_calls(decisions);
    END IF;
END
$$;
COMMENT ON FUNCTION tinydancer.reserve_team(
    uuid[], text[], text[], text[], text[], numeric[], OUT text[], OUT text[]
) IS 'reserve_calls for the members of a team: for all, or where one is refused for none.';

CREATE OR REPLACE FUNCTION tinydancer.expire_calls() RETURNS integer
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    gone integer;
BEGIN
    -- They have not counted since they expired: this only makes room.
    DELETE FROM tinydancer.calls_in_flight WHERE decision_id IN (
        SELECT call.decision_id FROM tinydancer.calls_in_flight AS call
        WHERE call.expires_at < clock_timestamp()
        ORDER BY call.expires_at LIMIT 1000 FOR UPDATE SKIP LOCKED);
    GET DIAGNOSTICS gone = ROW_COUNT;
    RETURN gone;
END
$$;
COMMENT ON FUNCTION tinydancer.expire_calls() IS
    'Deletes calls whose outcome never came, a thousand at most; how many.';
