-- Sessions: the same key goes to the same agent, as long as that suits.

CREATE OR REPLACE FUNCTION tinydancer.hold_session(
    tenant text, session_key text, chosen text, suitable text[], OUT agent text, OUT before text
)
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    moment CONSTANT timestamptz := clock_timestamp();
    ttl CONSTANT interval := (SELECT session_ttl FROM tinydancer.settings);
BEGIN
    SELECT held.agent INTO before FROM tinydancer.sessions AS held
    WHERE held.tenant = hold_session.tenant AND held.session_key = hold_session.session_key
        AND held.expires_at > moment
    FOR UPDATE;
    INSERT INTO tinydancer.sessions AS held VALUES (
        hold_session.tenant, hold_session.session_key, chosen, moment, moment, moment + ttl)
    ON CONFLICT ON CONSTRAINT sessions_pkey DO UPDATE SET
        agent = CASE WHEN held.expires_at > moment AND held.agent = ANY (suitable)
            THEN held.agent ELSE excluded.agent END,
        since = CASE WHEN held.expires_at > moment
            AND (held.agent = ANY (suitable) OR held.agent = excluded.agent)
            THEN held.since ELSE excluded.since END,
        used_at = excluded.used_at,
        expires_at = excluded.expires_at
    RETURNING held.agent INTO agent;
    -- Somebody else began the session in between.
    IF before IS NULL AND agent <> chosen THEN
        before := agent;
    END IF;
END
$$;
COMMENT ON FUNCTION tinydancer.hold_session(text, text, text, text[], OUT text, OUT text) IS
    'The agent of a session: the one that it has, where that is among the suitable; else the chosen '
    'one, which it has from now on. before is whom it had until now, NULL for a new session.';

CREATE OR REPLACE FUNCTION tinydancer.expire_sessions() RETURNS integer
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    gone integer;
BEGIN
    DELETE FROM tinydancer.sessions WHERE (tenant, session_key) IN (
        SELECT held.tenant, held.session_key FROM tinydancer.sessions AS held
        WHERE held.expires_at < clock_timestamp()
        ORDER BY held.expires_at LIMIT 10000 FOR UPDATE SKIP LOCKED);
    GET DIAGNOSTICS gone = ROW_COUNT;
    RETURN gone;
END
$$;
COMMENT ON FUNCTION tinydancer.expire_sessions() IS
    'Forgets sessions that nobody has used for their time, ten thousand at most; how many.';

CREATE OR REPLACE FUNCTION tinydancer.ruvector_end_session(
    session_key text, tenant text DEFAULT 'default'
) RETURNS boolean
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM tinydancer.check_name('session_key', session_key),
        tinydancer.check_name('tenant', tenant);
    DELETE FROM tinydancer.sessions AS held
    WHERE held.tenant = ruvector_end_session.tenant
        AND held.session_key = ruvector_end_session.session_key;
    RETURN FOUND;
END
$$;
COMMENT ON FUNCTION tinydancer.ruvector_end_session(text, text) IS
    'Has a session forget its agent: the next decision for it is made anew. Whether it had one.';
