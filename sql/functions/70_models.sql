-- Models: which there are, which is active, switching and going back.

CREATE OR REPLACE VIEW tinydancer.model_listing AS
SELECT id, kind, name, state, active, progress, message, metrics, training, seed, parents,
    embedding_space, octet_length(weights) AS bytes, encode(checksum, 'hex') AS checksum,
    created_at, finished_at
FROM tinydancer.models;
COMMENT ON VIEW tinydancer.model_listing IS 'Models without their weights.';

CREATE OR REPLACE FUNCTION tinydancer.ruvector_list_models(kind text DEFAULT NULL)
RETURNS SETOF tinydancer.model_listing
LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT * FROM tinydancer.model_listing AS model
    WHERE ruvector_list_models.kind IS NULL OR model.kind = ruvector_list_models.kind
    ORDER BY model.id DESC
$$;
COMMENT ON FUNCTION tinydancer.ruvector_list_models(text) IS
    'The models, or those of a kind, the newest first.';

CREATE OR REPLACE FUNCTION tinydancer.ruvector_activate_model(model_id bigint) RETURNS boolean
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    wanted record;
BEGIN
    -- One switch at a time: each sees what the one before has left.
    LOCK TABLE tinydancer.model_activations IN SHARE ROW EXCLUSIVE MODE;
    SELECT kind, state, active INTO wanted FROM tinydancer.models WHERE id = model_id;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'model % does not exist', coalesce(model_id::text, 'NULL')
        USING ERRCODE = 'undefined_object',
            HINT = 'See SELECT id, name, state FROM tinydancer.ruvector_list_models();';
    ELSIF wanted.state <> 'ready' THEN
        RAISE EXCEPTION 'model % is %, not ready', model_id, wanted.state
        USING ERRCODE = 'object_not_in_prerequisite_state',
            HINT = 'Wait for its training, or choose another: the active model stays as it is.';
    ELSIF wanted.active THEN
        RETURN false;
    END IF;
    UPDATE tinydancer.models SET active = false WHERE kind = wanted.kind AND active;
    UPDATE tinydancer.models SET active = true WHERE id = model_id;
    INSERT INTO tinydancer.model_activations (kind, model) VALUES (wanted.kind, model_id);
    RETURN true;
END
$$;
COMMENT ON FUNCTION tinydancer.ruvector_activate_model(bigint) IS
    'Makes a model the active one of its kind, for every engine from the commit on; false where it '
    'was already.';

CREATE OR REPLACE FUNCTION tinydancer.ruvector_rollback_model(kind text) RETURNS bigint
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    present bigint;
    previous bigint;
BEGIN
    PERFORM tinydancer.check_choice(
        'kind', ruvector_rollback_model.kind, ARRAY['classifier', 'quality', 'calibration']);
    LOCK TABLE tinydancer.model_activations IN SHARE ROW EXCLUSIVE MODE;
    SELECT id INTO present FROM tinydancer.models AS model
    WHERE model.kind = ruvector_rollback_model.kind AND model.active;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'no model of kind % is active', quote_literal(ruvector_rollback_model.kind)
        USING ERRCODE = 'object_not_in_prerequisite_state',
            HINT = 'Switch one on with ruvector_activate_model(id).';
    END IF;
    -- The switch to go back over is the last one; what was active before it is the one below.
    DELETE FROM tinydancer.model_activations
    WHERE id = (SELECT max(id) FROM tinydancer.model_activations AS switch
                WHERE switch.kind = ruvector_rollback_model.kind);
    SELECT switch.model INTO previous FROM tinydancer.model_activations AS switch
    WHERE switch.kind = ruvector_rollback_model.kind ORDER BY switch.id DESC LIMIT 1;
    UPDATE tinydancer.models SET active = false WHERE id = present;
    UPDATE tinydancer.models SET active = true WHERE id = previous;
    RETURN previous;
END
$$;
COMMENT ON FUNCTION tinydancer.ruvector_rollback_model(text) IS
    'Goes back to the model that was active before, and returns its id; NULL where that is what is '
    'built in.';

CREATE OR REPLACE FUNCTION tinydancer.keep_model() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RAISE EXCEPTION 'model % is ready, and is never changed', OLD.id
    USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'Insert a new model instead.';
END
$$;
COMMENT ON FUNCTION tinydancer.keep_model() IS
    'Trigger: a model that is ready keeps its weights, metrics and history.';

CREATE OR REPLACE TRIGGER keep_model
BEFORE UPDATE OF kind, state, weights, embedding_space, metrics, training, seed, parents
ON tinydancer.models FOR EACH ROW WHEN (OLD.state = 'ready')
EXECUTE FUNCTION tinydancer.keep_model();
