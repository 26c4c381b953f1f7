-- What follows a decision that failed, and sessions that keep their agent.

ALTER TABLE tinydancer.decisions
    ADD COLUMN session_key text,
    ADD COLUMN fallback_of uuid,
    ADD COLUMN attempt integer NOT NULL DEFAULT 1,
    ADD CONSTRAINT decisions_session_key_is_short CHECK (octet_length(session_key) BETWEEN 1 AND 256),
    ADD CONSTRAINT decisions_attempt_is_in_range CHECK (attempt BETWEEN 1 AND 1000);
COMMENT ON COLUMN tinydancer.decisions.session_key IS 'The session that it was made for, if any.';
COMMENT ON COLUMN tinydancer.decisions.fallback_of IS
    'The decision before it, whose agent failed: see ruvector_fallback.';
COMMENT ON COLUMN tinydancer.decisions.attempt IS
    'How many agents have been decided on for this request, this one included.';
CREATE INDEX decisions_fallback_of ON tinydancer.decisions (fallback_of)
    WHERE fallback_of IS NOT NULL;

CREATE TABLE tinydancer.sessions (
    tenant text NOT NULL,
    session_key text NOT NULL,
    agent text NOT NULL,
    since timestamptz NOT NULL,
    used_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    PRIMARY KEY (tenant, session_key),
    CONSTRAINT sessions_tenant_is_plain CHECK (octet_length(tenant) BETWEEN 1 AND 256),
    CONSTRAINT sessions_session_key_is_short CHECK (octet_length(session_key) BETWEEN 1 AND 256)
) WITH (fillfactor = 70);
COMMENT ON TABLE tinydancer.sessions IS
    'Which agent serves each session: as long as it suits, the next decision goes to it as well.';
COMMENT ON COLUMN tinydancer.sessions.tenant IS 'On whose behalf; the same key is another''s too.';
COMMENT ON COLUMN tinydancer.sessions.session_key IS 'The key that decisions are asked with.';
COMMENT ON COLUMN tinydancer.sessions.agent IS 'The agent that serves it.';
COMMENT ON COLUMN tinydancer.sessions.since IS 'Since when that agent does.';
COMMENT ON COLUMN tinydancer.sessions.used_at IS 'When it was last decided for.';
COMMENT ON COLUMN tinydancer.sessions.expires_at IS
    'When it is forgotten (settings.session_ttl after its last use).';
CREATE INDEX sessions_expires_at ON tinydancer.sessions (expires_at);

ALTER TABLE tinydancer.settings
    ADD COLUMN session_ttl interval NOT NULL DEFAULT '30 minutes',
    ADD CONSTRAINT settings_session_ttl_is_in_range
        CHECK (session_ttl BETWEEN interval '1 second' AND interval '1 year');
COMMENT ON COLUMN tinydancer.settings.session_ttl IS
    'How long after its last use a session keeps its agent.';

-- It has one argument and one column more now.
DROP FUNCTION IF EXISTS tinydancer.ruvector_route(
    text, text, text[], double precision, double precision, double precision, text[],
    double precision, integer, text, integer, text);
