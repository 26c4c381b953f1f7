-- Who may do what. PUBLIC may do nothing; each role has what its work needs.

REVOKE ALL ON SCHEMA tinydancer FROM PUBLIC;
REVOKE ALL ON ALL TABLES IN SCHEMA tinydancer FROM PUBLIC;
REVOKE ALL ON ALL ROUTINES IN SCHEMA tinydancer FROM PUBLIC;

GRANT USAGE ON SCHEMA tinydancer
    TO tinydancer_reader, tinydancer_router, tinydancer_admin, tinydancer_engine;

GRANT SELECT ON
    tinydancer.migrations, tinydancer.settings, tinydancer.agents, tinydancer.routes,
    tinydancer.route_utterances, tinydancer.route_usage, tinydancer.route_takes, tinydancer.changes,
    tinydancer.model_activations, tinydancer.agent_prices, tinydancer.usage_hourly,
    tinydancer.usage_latency, tinydancer.agent_outcomes, tinydancer.category_outcomes,
    tinydancer.budgets, tinydancer.budget_periods, tinydancer.budget_reservations,
    tinydancer.recent_outcomes, tinydancer.agent_breakers, tinydancer.calls_in_flight
TO tinydancer_reader, tinydancer_router, tinydancer_admin, tinydancer_engine;

GRANT INSERT, UPDATE, DELETE, TRUNCATE ON
    tinydancer.agents, tinydancer.routes, tinydancer.route_utterances,
    tinydancer.labelled_requests, tinydancer.models, tinydancer.model_activations,
    tinydancer.route_examples
TO tinydancer_admin;
GRANT UPDATE ON tinydancer.settings TO tinydancer_admin;
-- What people asked and what came of it is read by few, and written by functions only. A model is
-- made of what people asked: its weights hold their words. Without them it is in model_listing.
GRANT SELECT ON
    tinydancer.decisions, tinydancer.usage, tinydancer.labelled_requests, tinydancer.models
TO tinydancer_admin, tinydancer_engine;
GRANT SELECT ON tinydancer.route_examples TO tinydancer_admin;
-- Versions before 0.4 let more roles read them.
REVOKE SELECT ON tinydancer.labelled_requests, tinydancer.models, tinydancer.route_examples
FROM tinydancer_reader, tinydancer_router;
REVOKE SELECT ON tinydancer.route_examples FROM tinydancer_engine;
GRANT DELETE ON tinydancer.decisions, tinydancer.usage TO tinydancer_admin;
-- Keys of sessions may be people's names.
GRANT SELECT, DELETE ON tinydancer.sessions TO tinydancer_admin;
GRANT INSERT, UPDATE, DELETE ON tinydancer.budgets TO tinydancer_admin;
-- Before 0.4 who lowered a limit had to lock the sums by it.
REVOKE UPDATE ON tinydancer.budget_periods FROM tinydancer_admin;
GRANT INSERT ON tinydancer.decisions TO tinydancer_engine;
GRANT DELETE ON tinydancer.route_usage TO tinydancer_admin;
-- A change of embedder is an administrator's command.
GRANT SELECT, INSERT, UPDATE, DELETE ON tinydancer.staged_embeddings TO tinydancer_admin;

GRANT SELECT ON tinydancer.agent_listing, tinydancer.route_listing, tinydancer.model_listing,
    tinydancer.agent_stats, tinydancer.budget_status, tinydancer.route_rates,
    tinydancer.agent_health, tinydancer.open_circuits
TO tinydancer_reader, tinydancer_router, tinydancer_admin;
GRANT EXECUTE ON FUNCTION
    tinydancer.ruvector_list_agents(boolean), tinydancer.ruvector_get_agent(text),
    tinydancer.ruvector_list_routes(boolean), tinydancer.ruvector_list_models(text),
    tinydancer.ruvector_version(),
    tinydancer.check_found(text, text, boolean)
TO tinydancer_reader, tinydancer_router, tinydancer_admin;
-- What a router asks goes through the foreign tables, whose privileges stand beside them.
DO $$
DECLARE
    routine record;
BEGIN
    FOR routine IN
        SELECT oid::regprocedure AS signature,
            proname = ANY (ARRAY[
                'ruvector_route', 'ruvector_batch_route', 'ruvector_semantic_route',
                'ruvector_route_multi', 'ruvector_optimize_budget',
                'ruvector_find_agents_by_capability', 'ruvector_embed',
                'ruvector_classify_request', 'check_constraints', 'warn_of_uncommitted',
                'ruvector_record_usage', 'ruvector_record_usage_batch', 'record_outcomes',
                'ruvector_fallback', 'ruvector_end_session'
            ]) OR proname LIKE 'check\_%' AS for_router,
            proname LIKE 'ruvector\_%' OR proname = ANY (ARRAY[
                'usage_analytics', 'usage_group', 'usage_moment', 'latency_bucket',
                'bucket_latency', 'period_start', 'budgets_of', 'ensure_partitions',
                'apply_retention', 'compact_sums', 'uuid_time', 'release_reservations',
                'release_calls'
            ]) AS for_admin
        FROM pg_catalog.pg_proc WHERE pronamespace = 'tinydancer'::regnamespace
    LOOP
        IF routine.for_router THEN
            EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO tinydancer_router', routine.signature);
        END IF;
        IF routine.for_router OR routine.for_admin THEN
            EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO tinydancer_admin', routine.signature);
        END IF;
    END LOOP;
END
$$;

-- The engine keeps embeddings and counts; it never changes what people wrote.
GRANT UPDATE (embedding, embedding_model, embedding_space, embedding_source) ON
    tinydancer.agents, tinydancer.routes, tinydancer.route_utterances
TO tinydancer_engine;
GRANT UPDATE (embedding_model, embedding_space) ON tinydancer.settings TO tinydancer_engine;
-- It trains models; switching one on is a person's decision, or that of a setting of theirs.
GRANT INSERT (kind, name, state, weights, embedding_space, metrics, training, seed, parents, message)
    ON tinydancer.models TO tinydancer_engine;
GRANT UPDATE (state, weights, embedding_space, metrics, training, progress, message, finished_at,
    parents, worker, heartbeat_at)
    ON tinydancer.models TO tinydancer_engine;

GRANT EXECUTE ON FUNCTION
    tinydancer.prune_changes(), tinydancer.expire_reservations(), tinydancer.apply_retention(),
    tinydancer.compact_sums(), tinydancer.take_route(text, integer), tinydancer.ensure_partitions(timestamptz, timestamptz),
    tinydancer.reserve_calls(
        uuid[], text[], text[], text[], text[], numeric[], OUT text[], OUT text[]),
    tinydancer.reserve_team(
        uuid[], text[], text[], text[], text[], numeric[], OUT text[], OUT text[]),
    tinydancer.release_calls(uuid[]), tinydancer.expire_calls(), tinydancer.call_refusal(text),
    tinydancer.guards_of(text[], timestamptz), tinydancer.guard_refusal(
        integer, timestamptz, integer, integer, integer, timestamptz),
    tinydancer.hold_session(text, text, text, text[], OUT text, OUT text),
    tinydancer.expire_sessions(),
    tinydancer.release_reservations(uuid[]), tinydancer.budgets_of(text, text, text, text),
    tinydancer.period_start(text, timestamptz), tinydancer.uuid_time(uuid),
    tinydancer.usage_analytics(timestamptz, text), tinydancer.latency_bucket(double precision),
    tinydancer.bucket_latency(smallint), tinydancer.usage_group(tinydancer.usage, text),
    tinydancer.usage_moment(tinydancer.usage, text), tinydancer.refresh_quality(),
    tinydancer.activate_refreshed(bigint, bigint), tinydancer.ruvector_version()
TO tinydancer_engine;
GRANT SELECT ON tinydancer.agent_stats, tinydancer.budget_status, tinydancer.open_circuits
TO tinydancer_engine;
-- Looking back is open to all who may read the ledger's sums.
GRANT EXECUTE ON FUNCTION
    tinydancer.ruvector_routing_analytics(text, text), tinydancer.usage_analytics(timestamptz, text),
    tinydancer.check_choice(text, text, text[])
TO tinydancer_reader, tinydancer_router, tinydancer_admin;
GRANT EXECUTE ON FUNCTION tinydancer.period_start(text, timestamptz),
    tinydancer.decayed(double precision, interval, interval),
    tinydancer.recent_weights(text, timestamptz, OUT double precision, OUT double precision)
TO tinydancer_admin, tinydancer_reader, tinydancer_router;
GRANT EXECUTE ON FUNCTION
    tinydancer.digest(text), tinydancer.agent_text(text, text[]), tinydancer.route_text(text, text)
TO tinydancer_engine, tinydancer_admin;
