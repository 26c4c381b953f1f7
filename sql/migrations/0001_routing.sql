-- Agents, routes, settings, and the record of changes that engines watch.
-- Runs with pgvector's schema on the search path; :dimension is the length of every embedding.

CREATE TABLE tinydancer.settings (
    singleton boolean PRIMARY KEY DEFAULT true,
    dimension integer NOT NULL DEFAULT :dimension,
    embedder text NOT NULL DEFAULT 'static',
    embedder_model text,
    embedder_url text,
    cascade_threshold double precision NOT NULL DEFAULT 0.06,
    embedding_model text,
    embedding_space text,
    default_output_tokens integer NOT NULL DEFAULT 256,
    route_threshold double precision NOT NULL DEFAULT 0.125,
    route_index text NOT NULL DEFAULT 'auto',
    route_index_from integer NOT NULL DEFAULT 50000,
    route_index_ef_search integer NOT NULL DEFAULT 200,
    max_text_bytes integer NOT NULL DEFAULT 1048576,
    max_batch integer NOT NULL DEFAULT 10000,
    CONSTRAINT settings_has_one_row CHECK (singleton),
    CONSTRAINT settings_dimension_is_fixed CHECK (dimension = :dimension),
    CONSTRAINT settings_embedder_is_known
        CHECK (embedder IN ('static', 'minilm', 'cascade', 'openai', 'sentence-transformers')),
    CONSTRAINT settings_cascade_threshold_is_a_margin CHECK (cascade_threshold BETWEEN 0 AND 2),
    CONSTRAINT settings_embedding_model_has_a_space
        CHECK ((embedding_model IS NULL) = (embedding_space IS NULL)),
    CONSTRAINT settings_default_output_tokens_is_in_range
        CHECK (default_output_tokens BETWEEN 0 AND 10000000),
    CONSTRAINT settings_route_threshold_is_a_cosine CHECK (route_threshold BETWEEN -1 AND 1),
    CONSTRAINT settings_route_index_is_known CHECK (route_index IN ('auto', 'exact', 'hnsw')),
    CONSTRAINT settings_route_index_from_is_in_range
        CHECK (route_index_from BETWEEN 1 AND 10000000),
    CONSTRAINT settings_route_index_ef_search_is_in_range
        CHECK (route_index_ef_search BETWEEN 1 AND 1000),
    CONSTRAINT settings_max_text_bytes_is_in_range
        CHECK (max_text_bytes BETWEEN 256 AND 16777216),
    CONSTRAINT settings_max_batch_is_in_range CHECK (max_batch BETWEEN 1 AND 1000000)
);
COMMENT ON TABLE tinydancer.settings IS
    'How this database routes: one row, read by every engine. A change is seen by the next scan.';
COMMENT ON COLUMN tinydancer.settings.singleton IS 'Always true: there is one row.';
COMMENT ON COLUMN tinydancer.settings.dimension IS 'Length of every embedding; fixed at install.';
COMMENT ON COLUMN tinydancer.settings.embedder IS
    'What turns text into vectors: static, minilm, cascade, openai or sentence-transformers.';
COMMENT ON COLUMN tinydancer.settings.embedder_model IS
    'Model that the embedder is asked for, where it offers several (openai, sentence-transformers).';
COMMENT ON COLUMN tinydancer.settings.embedder_url IS
    'Base address of an OpenAI-compatible endpoint. Its key is the engine''s business, never stored.';
COMMENT ON COLUMN tinydancer.settings.cascade_threshold IS
    'With cascade: margin between the best two choices, 0 to 2, below which MiniLM takes over.';
COMMENT ON COLUMN tinydancer.settings.embedding_model IS
    'Model of the stored embeddings; written by the first engine and by a change of embedder.';
COMMENT ON COLUMN tinydancer.settings.embedding_space IS
    'Vector space of the stored embeddings: only vectors of one space are compared.';
COMMENT ON COLUMN tinydancer.settings.default_output_tokens IS
    'Output tokens expected of an answer where neither the caller nor the agent''s history says.';
COMMENT ON COLUMN tinydancer.settings.route_threshold IS
    'Least cosine for a match with a route that has no threshold of its own, -1 to 1.';
COMMENT ON COLUMN tinydancer.settings.route_index IS
    'How routes are searched: exact (in the engine), hnsw (in pgvector''s index) or auto.';
COMMENT ON COLUMN tinydancer.settings.route_index_from IS
    'With auto: number of route vectors from which on the index is used.';
COMMENT ON COLUMN tinydancer.settings.route_index_ef_search IS
    'hnsw.ef_search for a search of routes: more finds more, and takes longer.';
COMMENT ON COLUMN tinydancer.settings.max_text_bytes IS 'Longest text that is routed, in bytes.';
COMMENT ON COLUMN tinydancer.settings.max_batch IS 'Most requests in one scan.';
INSERT INTO tinydancer.settings DEFAULT VALUES;

CREATE TABLE tinydancer.agents (
    name text PRIMARY KEY,
    type text NOT NULL DEFAULT 'llm',
    capabilities text[] NOT NULL DEFAULT '{}',
    cost_per_1k_input_tokens numeric NOT NULL DEFAULT 0,
    cost_per_1k_output_tokens numeric NOT NULL DEFAULT 0,
    cost_per_call numeric NOT NULL DEFAULT 0,
    cost_per_second numeric NOT NULL DEFAULT 0,
    avg_latency_ms double precision NOT NULL DEFAULT 1000,
    p99_latency_ms double precision,
    quality double precision NOT NULL DEFAULT 0.5,
    metadata jsonb NOT NULL DEFAULT '{}',
    active boolean NOT NULL DEFAULT true,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    embedding vector(:dimension),
    embedding_model text,
    embedding_space text,
    embedding_source bytea,
    -- An upper bound refuses NaN and infinity as well: PostgreSQL sorts both above every number.
    CONSTRAINT agents_name_is_plain CHECK (
        octet_length(name) BETWEEN 1 AND 256 AND name = btrim(name) AND name !~ '[[:cntrl:]]'),
    CONSTRAINT agents_type_is_known CHECK (type IN ('llm', 'tool', 'api', 'human', 'ensemble')),
    CONSTRAINT agents_capabilities_are_a_list CHECK (
        coalesce(array_ndims(capabilities), 1) = 1 AND cardinality(capabilities) <= 256
        AND array_position(capabilities, NULL) IS NULL
        AND array_position(capabilities, '') IS NULL
        AND octet_length(capabilities::text) <= 65536),
    CONSTRAINT agents_cost_per_1k_input_tokens_is_in_range
        CHECK (cost_per_1k_input_tokens BETWEEN 0 AND 1e9),
    CONSTRAINT agents_cost_per_1k_output_tokens_is_in_range
        CHECK (cost_per_1k_output_tokens BETWEEN 0 AND 1e9),
    CONSTRAINT agents_cost_per_call_is_in_range CHECK (cost_per_call BETWEEN 0 AND 1e9),
    CONSTRAINT agents_cost_per_second_is_in_range CHECK (cost_per_second BETWEEN 0 AND 1e9),
    CONSTRAINT agents_avg_latency_ms_is_in_range CHECK (avg_latency_ms BETWEEN 0 AND 1e12),
    CONSTRAINT agents_p99_latency_ms_is_in_range CHECK (p99_latency_ms BETWEEN 0 AND 1e12),
    CONSTRAINT agents_quality_is_a_share CHECK (quality BETWEEN 0 AND 1),
    CONSTRAINT agents_metadata_is_an_object CHECK (jsonb_typeof(metadata) = 'object'),
    CONSTRAINT agents_embedding_has_provenance CHECK (
        embedding IS NULL OR (embedding_model IS NOT NULL AND embedding_space IS NOT NULL)),
    CONSTRAINT agents_embedding_has_a_direction CHECK (vector_norm(embedding) > 0)
);
COMMENT ON TABLE tinydancer.agents IS
    'Who can serve a request: LLMs, tools, APIs, people, ensembles. Plain SQL may change it.';
COMMENT ON COLUMN tinydancer.agents.name IS 'Unique name.';
COMMENT ON COLUMN tinydancer.agents.type IS 'llm, tool, api, human or ensemble.';
COMMENT ON COLUMN tinydancer.agents.capabilities IS 'What it can do, in words of your own.';
COMMENT ON COLUMN tinydancer.agents.cost_per_1k_input_tokens IS 'Price of 1,000 input tokens.';
COMMENT ON COLUMN tinydancer.agents.cost_per_1k_output_tokens IS 'Price of 1,000 output tokens.';
COMMENT ON COLUMN tinydancer.agents.cost_per_call IS 'Price of a call.';
COMMENT ON COLUMN tinydancer.agents.cost_per_second IS 'Price of a second of its time.';
COMMENT ON COLUMN tinydancer.agents.avg_latency_ms IS
    'Average latency in milliseconds, as registered: a prior until outcomes are recorded.';
COMMENT ON COLUMN tinydancer.agents.p99_latency_ms IS
    '99th percentile of its latency in milliseconds, where known.';
COMMENT ON COLUMN tinydancer.agents.quality IS
    'Expected quality of its answers, 0 to 1, as registered: a prior until outcomes are recorded.';
COMMENT ON COLUMN tinydancer.agents.metadata IS 'Anything else worth keeping, as a JSON object.';
COMMENT ON COLUMN tinydancer.agents.active IS 'Whether requests may be routed to it.';
COMMENT ON COLUMN tinydancer.agents.created_at IS 'When it was registered.';
COMMENT ON COLUMN tinydancer.agents.updated_at IS 'When it was last changed.';
COMMENT ON COLUMN tinydancer.agents.embedding IS
    'Vector of its capabilities, or of its name where it lists none. Kept by the engine.';
COMMENT ON COLUMN tinydancer.agents.embedding_model IS 'Model that made the vector.';
COMMENT ON COLUMN tinydancer.agents.embedding_space IS 'Vector space that it lies in.';
COMMENT ON COLUMN tinydancer.agents.embedding_source IS
    'SHA-256 of the text it was made from; NULL where the vector was given.';
CREATE INDEX agents_capabilities ON tinydancer.agents USING gin (capabilities);
CREATE INDEX agents_embedding ON tinydancer.agents USING hnsw (embedding vector_cosine_ops)
    WITH (m = 16, ef_construction = 128);

CREATE TABLE tinydancer.routes (
    name text PRIMARY KEY,
    description text NOT NULL DEFAULT '',
    target_agent text NOT NULL,
    priority integer NOT NULL DEFAULT 0,
    threshold double precision,
    active boolean NOT NULL DEFAULT true,
    time_from time,
    time_to time,
    time_zone text NOT NULL DEFAULT 'UTC',
    user_tiers text[] NOT NULL DEFAULT '{}',
    rate_limit_per_minute integer,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    embedding vector(:dimension),
    embedding_model text,
    embedding_space text,
    embedding_source bytea,
    CONSTRAINT routes_name_is_plain CHECK (
        octet_length(name) BETWEEN 1 AND 256 AND name = btrim(name) AND name !~ '[[:cntrl:]]'),
    CONSTRAINT routes_description_is_short CHECK (octet_length(description) <= 16384),
    CONSTRAINT routes_target_agent_is_plain CHECK (
        octet_length(target_agent) BETWEEN 1 AND 256 AND target_agent = btrim(target_agent)
        AND target_agent !~ '[[:cntrl:]]'),
    CONSTRAINT routes_threshold_is_a_cosine CHECK (threshold BETWEEN -1 AND 1),
    CONSTRAINT routes_time_window_has_two_ends CHECK ((time_from IS NULL) = (time_to IS NULL)),
    CONSTRAINT routes_time_window_is_not_empty CHECK (time_from <> time_to),
    CONSTRAINT routes_time_zone_is_a_place CHECK (
        time_zone = 'UTC' OR time_zone ~ '^[A-Z][A-Za-z_]*(/[A-Za-z0-9_+-]+)+$'),
    -- Raises "time zone not recognized" where PostgreSQL knows no such place.
    CONSTRAINT routes_time_zone_is_known CHECK (
        timestamptz '2000-01-01 00:00:00+00' AT TIME ZONE time_zone IS NOT NULL),
    CONSTRAINT routes_user_tiers_are_a_list CHECK (
        coalesce(array_ndims(user_tiers), 1) = 1 AND cardinality(user_tiers) <= 256
        AND array_position(user_tiers, NULL) IS NULL AND array_position(user_tiers, '') IS NULL),
    CONSTRAINT routes_rate_limit_is_positive CHECK (rate_limit_per_minute >= 1),
    CONSTRAINT routes_embedding_has_provenance CHECK (
        embedding IS NULL OR (embedding_model IS NOT NULL AND embedding_space IS NOT NULL)),
    CONSTRAINT routes_embedding_has_a_direction CHECK (vector_norm(embedding) > 0)
);
COMMENT ON TABLE tinydancer.routes IS
    'Named meanings of a request, each leading to an agent. Plain SQL may change it.';
COMMENT ON COLUMN tinydancer.routes.name IS 'Unique name.';
COMMENT ON COLUMN tinydancer.routes.description IS 'What requests it is for; embedded to match them.';
COMMENT ON COLUMN tinydancer.routes.target_agent IS
    'The agent it leads to; it may be registered later, or be known to the application only.';
COMMENT ON COLUMN tinydancer.routes.priority IS 'Among routes that match equally, the higher goes first.';
COMMENT ON COLUMN tinydancer.routes.threshold IS
    'Least cosine for a match, -1 to 1; NULL means the one in settings.';
COMMENT ON COLUMN tinydancer.routes.active IS 'Whether requests are matched with it.';
COMMENT ON COLUMN tinydancer.routes.time_from IS
    'Start of the daily time window, included; NULL means all day.';
COMMENT ON COLUMN tinydancer.routes.time_to IS
    'End of the window, excluded; where it is before the start, the window goes over midnight.';
COMMENT ON COLUMN tinydancer.routes.time_zone IS 'Time zone of the window: UTC, or as in Europe/Berlin.';
COMMENT ON COLUMN tinydancer.routes.user_tiers IS 'Tiers of users it is for; empty means everyone.';
COMMENT ON COLUMN tinydancer.routes.rate_limit_per_minute IS
    'Most requests it takes in a minute of the clock; NULL means no limit.';
COMMENT ON COLUMN tinydancer.routes.created_at IS 'When it was created.';
COMMENT ON COLUMN tinydancer.routes.updated_at IS 'When it was last changed.';
COMMENT ON COLUMN tinydancer.routes.embedding IS
    'Vector of its description, kept by the engine; or one that was given, and stays.';
COMMENT ON COLUMN tinydancer.routes.embedding_model IS 'Model that made the vector.';
COMMENT ON COLUMN tinydancer.routes.embedding_space IS 'Vector space that it lies in.';
COMMENT ON COLUMN tinydancer.routes.embedding_source IS
    'SHA-256 of the text it was made from; NULL where the vector was given.';
CREATE INDEX routes_embedding ON tinydancer.routes USING hnsw (embedding vector_cosine_ops)
    WITH (m = 16, ef_construction = 128);

CREATE TABLE tinydancer.route_utterances (
    route text NOT NULL REFERENCES tinydancer.routes ON UPDATE CASCADE ON DELETE CASCADE,
    utterance text NOT NULL,
    embedding vector(:dimension),
    embedding_model text,
    embedding_space text,
    embedding_source bytea,
    PRIMARY KEY (route, utterance),
    -- Route and utterance together stay below what a B-tree takes as a key.
    CONSTRAINT route_utterances_utterance_is_short CHECK (octet_length(utterance) BETWEEN 1 AND 2000),
    CONSTRAINT route_utterances_embedding_has_provenance CHECK (
        embedding IS NULL OR (embedding_model IS NOT NULL AND embedding_space IS NOT NULL)),
    CONSTRAINT route_utterances_embedding_has_a_direction CHECK (vector_norm(embedding) > 0)
);
COMMENT ON TABLE tinydancer.route_utterances IS
    'Examples of what people say when they mean a route; a request may match any of them.';
COMMENT ON COLUMN tinydancer.route_utterances.route IS 'The route.';
COMMENT ON COLUMN tinydancer.route_utterances.utterance IS 'The example.';
COMMENT ON COLUMN tinydancer.route_utterances.embedding IS 'Its vector, kept by the engine.';
COMMENT ON COLUMN tinydancer.route_utterances.embedding_model IS 'Model that made the vector.';
COMMENT ON COLUMN tinydancer.route_utterances.embedding_space IS 'Vector space that it lies in.';
COMMENT ON COLUMN tinydancer.route_utterances.embedding_source IS
    'SHA-256 of the text it was made from; NULL where the vector was given.';
CREATE INDEX route_utterances_embedding
    ON tinydancer.route_utterances USING hnsw (embedding vector_cosine_ops)
    WITH (m = 16, ef_construction = 128);

CREATE TABLE tinydancer.route_usage (
    route text PRIMARY KEY REFERENCES tinydancer.routes ON UPDATE CASCADE ON DELETE CASCADE,
    minute timestamptz NOT NULL,
    used integer NOT NULL,
    CONSTRAINT route_usage_used_is_positive CHECK (used >= 1)
) WITH (fillfactor = 50);
COMMENT ON TABLE tinydancer.route_usage IS
    'How often a route with a rate limit was taken in its latest minute; shared by all engines.';
COMMENT ON COLUMN tinydancer.route_usage.route IS 'The route.';
COMMENT ON COLUMN tinydancer.route_usage.minute IS 'Start of that minute.';
COMMENT ON COLUMN tinydancer.route_usage.used IS 'Requests it took in that minute.';

CREATE TABLE tinydancer.changes (
    xid xid8 NOT NULL,
    part text NOT NULL,
    is_floor boolean NOT NULL DEFAULT false,
    PRIMARY KEY (xid, part)
);
COMMENT ON TABLE tinydancer.changes IS
    'Which transactions changed what engines keep in memory; engines watch it, and prune it.';
COMMENT ON COLUMN tinydancer.changes.xid IS 'The transaction.';
COMMENT ON COLUMN tinydancer.changes.part IS 'What it changed: agents, routes or settings.';
COMMENT ON COLUMN tinydancer.changes.is_floor IS
    'Whether this row stands for all of its part that were pruned below it.';
