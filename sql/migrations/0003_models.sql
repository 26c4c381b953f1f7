-- What the engine learns from, and what it has learned.

CREATE TABLE tinydancer.labelled_requests (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    request text NOT NULL,
    category text NOT NULL,
    capabilities text[] NOT NULL DEFAULT '{}',
    split text NOT NULL DEFAULT 'train',
    source text,
    created_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT labelled_requests_request_is_a_text CHECK (octet_length(request) BETWEEN 1 AND 65536),
    CONSTRAINT labelled_requests_category_is_plain CHECK (
        octet_length(category) BETWEEN 1 AND 256 AND category = btrim(category)
        AND category !~ '[[:cntrl:]]'),
    CONSTRAINT labelled_requests_capabilities_are_a_list CHECK (
        coalesce(array_ndims(capabilities), 1) = 1 AND cardinality(capabilities) <= 256
        AND array_position(capabilities, NULL) IS NULL
        AND array_position(capabilities, '') IS NULL),
    CONSTRAINT labelled_requests_split_is_known
        CHECK (split IN ('train', 'valid', 'test', 'out_of_scope'))
);
COMMENT ON TABLE tinydancer.labelled_requests IS
    'Requests whose category is known: what a classifier is trained, tuned and tested on.';
COMMENT ON COLUMN tinydancer.labelled_requests.id IS 'Number of the row.';
COMMENT ON COLUMN tinydancer.labelled_requests.request IS 'The text of the request.';
COMMENT ON COLUMN tinydancer.labelled_requests.category IS 'What it is.';
COMMENT ON COLUMN tinydancer.labelled_requests.capabilities IS 'What it calls for, where known.';
COMMENT ON COLUMN tinydancer.labelled_requests.split IS
    'What it is for: train, valid, test, or out_of_scope where it belongs to no category.';
COMMENT ON COLUMN tinydancer.labelled_requests.source IS 'Where the label comes from.';
COMMENT ON COLUMN tinydancer.labelled_requests.created_at IS 'When it was written.';
CREATE INDEX labelled_requests_category ON tinydancer.labelled_requests (category);

CREATE TABLE tinydancer.models (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    kind text NOT NULL,
    name text NOT NULL,
    state text NOT NULL DEFAULT 'ready',
    active boolean NOT NULL DEFAULT false,
    weights bytea,
    checksum bytea GENERATED ALWAYS AS (sha256(weights)) STORED,
    embedding_space text,
    metrics jsonb NOT NULL DEFAULT '{}',
    training jsonb NOT NULL DEFAULT '{}',
    seed bigint,
    parents bigint[] NOT NULL DEFAULT '{}',
    progress double precision NOT NULL DEFAULT 0,
    message text,
    created_at timestamptz NOT NULL DEFAULT now(),
    finished_at timestamptz,
    CONSTRAINT models_kind_is_known CHECK (kind IN ('classifier', 'quality', 'calibration')),
    CONSTRAINT models_name_is_plain CHECK (
        octet_length(name) BETWEEN 1 AND 256 AND name = btrim(name) AND name !~ '[[:cntrl:]]'),
    CONSTRAINT models_state_is_known CHECK (state IN ('training', 'ready', 'failed')),
    CONSTRAINT models_ready_has_weights CHECK (state <> 'ready' OR octet_length(weights) > 0),
    CONSTRAINT models_active_is_ready CHECK (NOT active OR state = 'ready'),
    CONSTRAINT models_metrics_is_an_object CHECK (jsonb_typeof(metrics) = 'object'),
    CONSTRAINT models_training_is_an_object CHECK (jsonb_typeof(training) = 'object'),
    CONSTRAINT models_progress_is_a_share CHECK (progress BETWEEN 0 AND 1),
    CONSTRAINT models_weights_have_a_limit CHECK (octet_length(weights) <= 268435456)
);
COMMENT ON TABLE tinydancer.models IS
    'Models the engine has trained, a row each, never changed once ready; one of a kind is active.';
COMMENT ON COLUMN tinydancer.models.id IS 'Number of the model.';
COMMENT ON COLUMN tinydancer.models.kind IS 'What it does: classifier, quality or calibration.';
COMMENT ON COLUMN tinydancer.models.name IS 'What people call it.';
COMMENT ON COLUMN tinydancer.models.state IS 'training, ready or failed.';
COMMENT ON COLUMN tinydancer.models.active IS 'Whether engines use it.';
COMMENT ON COLUMN tinydancer.models.weights IS 'The model itself, as safetensors.';
COMMENT ON COLUMN tinydancer.models.checksum IS 'SHA-256 of the weights.';
COMMENT ON COLUMN tinydancer.models.embedding_space IS 'Vector space of what it reads, if vectors.';
COMMENT ON COLUMN tinydancer.models.metrics IS 'How good it is, on held-out rows.';
COMMENT ON COLUMN tinydancer.models.training IS 'How it was trained: data, rows, options.';
COMMENT ON COLUMN tinydancer.models.seed IS 'Seed of its training.';
COMMENT ON COLUMN tinydancer.models.parents IS 'Models that it was made from.';
COMMENT ON COLUMN tinydancer.models.progress IS 'How far its training is, 0 to 1.';
COMMENT ON COLUMN tinydancer.models.message IS 'What it is doing, or why it failed.';
COMMENT ON COLUMN tinydancer.models.created_at IS 'When its training began.';
COMMENT ON COLUMN tinydancer.models.finished_at IS 'When it was ready, or failed.';
-- At most one model of a kind is active.
CREATE UNIQUE INDEX models_active ON tinydancer.models (kind) WHERE active;

CREATE TABLE tinydancer.model_activations (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    kind text NOT NULL,
    model bigint REFERENCES tinydancer.models ON DELETE CASCADE,
    activated_at timestamptz NOT NULL DEFAULT now(),
    activated_by text NOT NULL DEFAULT session_user
);
COMMENT ON TABLE tinydancer.model_activations IS
    'Which model of a kind was switched on when, and by whom: what a rollback goes back through.';
COMMENT ON COLUMN tinydancer.model_activations.id IS 'Order of the switches.';
COMMENT ON COLUMN tinydancer.model_activations.kind IS 'Kind of model.';
COMMENT ON COLUMN tinydancer.model_activations.model IS
    'The model; NULL where the kind went back to what is built in.';
COMMENT ON COLUMN tinydancer.model_activations.activated_at IS 'When.';
COMMENT ON COLUMN tinydancer.model_activations.activated_by IS 'Login of who did it.';
