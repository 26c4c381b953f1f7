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
    IF agents <> '{}' AND current_setting('transaction_isolation') <> 'read committed' THEN
        RAISE EXCEPTION 'places at agents are not taken in a transaction that is %',
            current_setting('transaction_isolation')
        USING ERRCODE = 'feature_not_supported',
            DETAIL = format('It does not see all calls under way to %s.',
                array_to_string(agents, ', ')),
            HINT = 'Ask in one that is READ COMMITTED.';
    END IF;
    FOR agent IN SELECT DISTINCT name FROM unnest(agents) AS name ORDER BY name LOOP
        PERFORM pg_advisory_xact_lock(hashtextextended('tinydancer.guard.' || agent, 0));
    END LOOP;
END
$$;
COMMENT ON FUNCTION tinydancer.lock_guards(text[]) IS
    'Has others wait who would take a place at these agents, to the end of the transaction. Raises '
    'where it would not see all places that are taken.';

CREATE OR REPLACE FUNCTION tinydancer.guards_of(agents text[], moment timestamptz)
RETURNS TABLE (agent text, most integer, retry_at timestamptz, calls integer, probes integer)
LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT guarded.name, registered.concurrency_limit, circuit.retry_at, taken.calls, taken.probes
    FROM unnest(agents) AS guarded (name)
    LEFT JOIN tinydancer.agents AS registered ON registered.name = guarded.name
    LEFT JOIN tinydancer.open_circuits AS circuit ON circuit.agent = guarded.name
    CROSS JOIN LATERAL (
        SELECT count(*)::integer AS calls, count(*) FILTER (
            WHERE call.probe AND call.reserved_at >= circuit.retry_at)::integer AS probes
        FROM tinydancer.calls_in_flight AS call
        WHERE call.agent = guarded.name AND call.expires_at > moment
    ) AS taken
$$;
COMMENT ON FUNCTION tinydancer.guards_of(text[], timestamptz) IS
    'Of each agent its limit of calls, when its circuit lets probes through (NULL where closed), and '
    'the calls and probes that are under way.';

CREATE OR REPLACE FUNCTION tinydancer.guard_refusal(
    most integer, retry_at timestamptz, calls integer, probes integer, most_probes integer,
    moment timestamptz
) RETURNS text[]
LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT CASE
        WHEN moment < retry_at THEN ARRAY['circuit_breaker', 'open until '
            || pg_catalog.to_char(retry_at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS"+00:00"')]
        WHEN calls >= most THEN ARRAY['concurrency_limit', most::text]
        WHEN retry_at IS NOT NULL AND probes >= most_probes THEN ARRAY['circuit_breaker',
            pg_catalog.format('half open with %s of %s probes under way', probes, most_probes)]
    END
$$;
COMMENT ON FUNCTION tinydancer.guard_refusal(
    integer, timestamptz, integer, integer, integer, timestamptz
) IS 'Why an agent in that state can''t be called: the constraint and its limit; NULL where it can.';

CREATE OR REPLACE FUNCTION tinydancer.call_refusal(agent text) RETURNS text[]
LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT tinydancer.guard_refusal(guard.most, guard.retry_at, guard.calls, guard.probes,
        settings.breaker_probes, clock.moment)
    FROM (SELECT pg_catalog.clock_timestamp() AS moment) AS clock
    CROSS JOIN LATERAL tinydancer.guards_of(ARRAY[call_refusal.agent], clock.moment) AS guard
    CROSS JOIN tinydancer.settings
$$;
COMMENT ON FUNCTION tinydancer.call_refusal(text) IS
    'Why an agent can''t be called right now: the constraint and its limit; NULL where it can.';

CREATE OR REPLACE FUNCTION tinydancer.reserve_calls(
    decisions uuid[], tenants text[], agents text[], routes text[], user_tiers text[],
    amounts numeric[], OUT refusing text[], OUT limits text[]
)
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    budgeted CONSTANT boolean := EXISTS (SELECT FROM tinydancer.budgets WHERE active);
    policy tinydancer.settings;
    moment timestamptz;
    payers record;  -- combinations of tenant, agent, route and tier: many claims have few
    payer_of integer[];  -- of each claim
    guarded text[];
    guards record;  -- in the order of guarded
    guard_of integer[];  -- of each payer; NULL where its agent is not guarded
    calls integer[];  -- under way at each guard
    probes integer[];
    held record;
    names text[] := '{}';  -- of budgets
    starts timestamptz[] := '{}';
    used numeric[] := '{}';
    most numeric[] := '{}';
    taken numeric[] := '{}';
    members integer[] := '{}';  -- budgets of the first payer, then those of the next
    last integer[];  -- of each payer
    sizes integer[];
    payer integer;
    guard integer;
    budget integer;
    amount numeric;
    refusal text[];
    said text;
BEGIN
    WITH payer AS (
        SELECT claim.tenant, claim.agent, claim.route, claim.user_tier,
            array_agg(claim.place) AS places, row_number() OVER () AS number
        FROM unnest(tenants, agents, routes, user_tiers) WITH ORDINALITY
            AS claim (tenant, agent, route, user_tier, place)
        GROUP BY 1, 2, 3, 4
    )
    SELECT array_agg(payer.tenant ORDER BY payer.number) AS tenants,
        array_agg(payer.agent ORDER BY payer.number) AS agents,
        array_agg(payer.route ORDER BY payer.number) AS routes,
        array_agg(payer.user_tier ORDER BY payer.number) AS user_tiers, (
            SELECT array_agg(payer.number::integer ORDER BY place)
            FROM payer, unnest(payer.places) AS place
        ) AS of_claims
    INTO payers FROM payer;
    payer_of := payers.of_claims;

    -- All guards and then all periods at once, in order, since the claims come in any order.
    guarded := tinydancer.guarded_agents(payers.agents);
    PERFORM tinydancer.lock_guards(guarded);
    last := array_fill(0, ARRAY[coalesce(cardinality(payers.agents), 0)]);
    sizes := last;
    IF budgeted THEN
        FOR held IN SELECT * FROM tinydancer.hold_budgets(
            payers.tenants, payers.agents, payers.routes, payers.user_tiers)
        LOOP
            budget := array_position(names, held.budget);
            IF budget IS NULL THEN
                budget := cardinality(names) + 1;
                names[budget] := held.budget;
                starts[budget] := held.period_start;
                used[budget] := held.used;
                most[budget] := held.limit_amount;
                taken[budget] := 0;
            END IF;
            members := array_append(members, budget);
            last[held.payer] := cardinality(members);
            sizes[held.payer] := sizes[held.payer] + 1;
        END LOOP;
    END IF;
    SELECT * INTO policy FROM tinydancer.settings;
    moment := clock_timestamp();
    SELECT array_agg(guard.most ORDER BY place) AS most,
        array_agg(guard.retry_at ORDER BY place) AS retry_at,
        array_agg(guard.calls ORDER BY place) AS calls,
        array_agg(guard.probes ORDER BY place) AS probes
    INTO guards
    FROM tinydancer.guards_of(guarded, moment) AS guard,
        array_position(guarded, guard.agent) AS place;
    calls := guards.calls;
    probes := guards.probes;
    guard_of := ARRAY(
        SELECT array_position(guarded, agent) FROM unnest(payers.agents) WITH ORDINALITY
            AS payer (agent, number) ORDER BY number);

    -- Claim by claim, in arrays: the first ones get what there is, and each refusal leaves room for
    -- what comes after it.
    refusing := array_fill(NULL::text, ARRAY[cardinality(decisions)]);
    limits := refusing;
    FOR place IN 1 .. cardinality(decisions) LOOP
        payer := payer_of[place];
        guard := guard_of[payer];
        amount := amounts[place];
        refusal := NULL;
        IF guard IS NOT NULL THEN
            refusal := tinydancer.guard_refusal(guards.most[guard], guards.retry_at[guard],
                calls[guard], probes[guard], policy.breaker_probes, moment);
        END IF;
        IF refusal IS NULL AND budgeted THEN
            IF amount IS NULL OR amount NOT BETWEEN 0 AND 1e12 THEN
                RAISE EXCEPTION 'amount is %, not between 0 and 1000000000000',
                    coalesce(amount::text, 'NULL')
                USING ERRCODE = 'numeric_value_out_of_range', HINT = 'Reserve the estimated cost.';
            END IF;
            FOR at IN last[payer] - sizes[payer] + 1 .. last[payer] LOOP
                budget := members[at];
                -- What costs nothing takes nothing, even from a budget that is overrun.
                IF amount > 0 AND used[budget] + taken[budget] + amount > most[budget] THEN
                    refusal := ARRAY['budget', names[budget]];
                    EXIT;
                END IF;
            END LOOP;
        END IF;
        IF refusal IS NOT NULL THEN
            refusing[place] := refusal[1];
            limits[place] := refusal[2];
            CONTINUE;
        END IF;
        FOR at IN last[payer] - sizes[payer] + 1 .. last[payer] LOOP
            budget := members[at];
            taken[budget] := taken[budget] + amount;
        END LOOP;
        IF guard IS NOT NULL THEN
            calls[guard] := calls[guard] + 1;
            probes[guard] := probes[guard] + 1;
        END IF;
    END LOOP;

    UPDATE tinydancer.budget_periods AS sums SET reserved = sums.reserved + mine.amount
    FROM unnest(names, starts, taken) AS mine (budget, period_start, amount)
    WHERE sums.budget = mine.budget AND sums.period_start = mine.period_start AND mine.amount > 0;
    BEGIN
        INSERT INTO tinydancer.budget_reservations
        SELECT claim.decision_id, names[members[at]], starts[members[at]], claim.amount,
            moment + policy.reservation_timeout
        FROM unnest(decisions, amounts, payer_of, limits)
                AS claim (decision_id, amount, payer, refused),
            generate_series(last[claim.payer] - sizes[claim.payer] + 1, last[claim.payer]) AS at
        WHERE claim.refused IS NULL;
        INSERT INTO tinydancer.calls_in_flight
        SELECT claim.decision_id, guarded[guard_of[claim.payer]],
            guards.retry_at[guard_of[claim.payer]] IS NOT NULL,
            moment, moment + policy.reservation_timeout
        FROM unnest(decisions, payer_of, limits) AS claim (decision_id, payer, refused)
        WHERE claim.refused IS NULL AND guard_of[claim.payer] IS NOT NULL;
    EXCEPTION WHEN unique_violation THEN
        GET STACKED DIAGNOSTICS said = PG_EXCEPTION_DETAIL;
        RAISE EXCEPTION 'a decision has reserved already'
        USING ERRCODE = 'duplicate_object', DETAIL = said,
            HINT = 'Release it first: release_calls(ARRAY[decision_id]).';
    END;
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
