-- Who may do what. PUBLIC may do nothing; each role has what its work needs.

REVOKE ALL ON SCHEMA tinydancer FROM PUBLIC;
REVOKE ALL ON ALL TABLES IN SCHEMA tinydancer FROM PUBLIC;
REVOKE ALL ON ALL ROUTINES IN SCHEMA tinydancer FROM PUBLIC;

GRANT USAGE ON SCHEMA tinydancer
    TO tinydancer_reader, tinydancer_router, tinydancer_admin, tinydancer_engine;

GRANT SELECT ON
    tinydancer.migrations, tinydancer.settings, tinydancer.agents, tinydancer.routes,
    tinydancer.route_utterances, tinydancer.route_usage, tinydancer.changes
TO tinydancer_reader, tinydancer_router, tinydancer_admin, tinydancer_engine;

GRANT INSERT, UPDATE, DELETE, TRUNCATE ON
    tinydancer.agents, tinydancer.routes, tinydancer.route_utterances
TO tinydancer_admin;
GRANT UPDATE ON tinydancer.settings TO tinydancer_admin;
GRANT DELETE ON tinydancer.route_usage TO tinydancer_admin;

-- The engine keeps embeddings and counts; it never changes what people wrote.
GRANT UPDATE (embedding, embedding_model, embedding_space, embedding_source) ON
    tinydancer.agents, tinydancer.routes, tinydancer.route_utterances
TO tinydancer_engine;
GRANT UPDATE (embedding_model, embedding_space) ON tinydancer.settings TO tinydancer_engine;
GRANT INSERT, UPDATE ON tinydancer.route_usage TO tinydancer_engine;

GRANT EXECUTE ON FUNCTION tinydancer.prune_changes() TO tinydancer_engine;
GRANT EXECUTE ON FUNCTION tinydancer.digest(text) TO tinydancer_engine;
