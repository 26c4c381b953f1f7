-- Who is training a model; what routes' thresholds are fitted on.

ALTER TABLE tinydancer.models
    ADD worker uuid,
    ADD heartbeat_at timestamptz;
COMMENT ON COLUMN tinydancer.models.worker IS 'The process that trains it; NULL while it waits.';
COMMENT ON COLUMN tinydancer.models.heartbeat_at IS
    'When that process was last heard of; after two minutes of silence another takes over.';
CREATE INDEX models_in_training ON tinydancer.models (id) WHERE state = 'training';

CREATE TABLE tinydancer.route_examples (
    route text NOT NULL REFERENCES tinydancer.routes ON UPDATE CASCADE ON DELETE CASCADE,
    request text NOT NULL,
    matches boolean NOT NULL,
    PRIMARY KEY (route, request),
    CONSTRAINT route_examples_request_is_short CHECK (octet_length(request) BETWEEN 1 AND 1000)
);
COMMENT ON TABLE tinydancer.route_examples IS
    'Requests that a route should or should not match; its threshold is fitted on them.';
COMMENT ON COLUMN tinydancer.route_examples.route IS 'The route.';
COMMENT ON COLUMN tinydancer.route_examples.request IS 'The request.';
COMMENT ON COLUMN tinydancer.route_examples.matches IS 'Whether the route is right for it.';

ALTER TABLE tinydancer.routes ADD threshold_evidence jsonb;
COMMENT ON COLUMN tinydancer.routes.threshold_evidence IS
    'What a fitted threshold rests on: examples, precision, recall, F1, model; NULL where given.';
