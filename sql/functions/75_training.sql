-- Classifying requests, training classifiers, fitting routes' thresholds.

CREATE OR REPLACE FUNCTION tinydancer.ruvector_classify_request(content text) RETURNS jsonb
LANGUAGE plpgsql STABLE STRICT PARALLEL RESTRICTED COST 12000
SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
BEGIN
    RETURN (
        SELECT found.classification FROM tinydancer.request_classifications AS found
        WHERE found.content = ruvector_classify_request.content);
END
$$;
COMMENT ON FUNCTION tinydancer.ruvector_classify_request(text) IS
    'What a request is about, by the active classifier: {classifications, top_category, '
    'confidence, out_of_scope, plausible, capabilities, model}. In a select list it asks in batches, '
    'by the native front door; a join with request_classifications always does.';

CREATE OR REPLACE FUNCTION tinydancer.ruvector_train_classifier(
    name text DEFAULT 'classifier',
    seed integer DEFAULT 0,
    coverage double precision DEFAULT 0.95
) RETURNS bigint
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    made bigint;
    categories bigint;
    lonely text;
BEGIN
    PERFORM tinydancer.check_name('name', name);
    PERFORM tinydancer.check_number('seed', seed, 0, 2147483647);
    PERFORM tinydancer.check_number('coverage', coverage, 0.5, 0.999);
    SELECT count(DISTINCT category) INTO categories
    FROM tinydancer.labelled_requests WHERE split = 'train';
    IF categories < 2 THEN
        RAISE EXCEPTION 'the rows to train on have % categories, and a classifier needs 2',
            categories
        USING ERRCODE = 'object_not_in_prerequisite_state',
            HINT = 'Insert requests with their categories into tinydancer.labelled_requests.';
    END IF;
    SELECT category INTO lonely
    FROM tinydancer.labelled_requests WHERE split = 'train'
    GROUP BY category HAVING count(DISTINCT lower(btrim(request))) < 2
    ORDER BY category LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'category % has only one text to train on', quote_literal(lonely)
        USING ERRCODE = 'object_not_in_prerequisite_state',
            HINT = 'Give each category at least 2 different texts, or leave it out.';
    END IF;
    INSERT INTO tinydancer.models (kind, name, state, seed, training, message)
    VALUES ('classifier', name, 'training', seed, jsonb_build_object('coverage', coverage),
        'waiting for an engine')
    RETURNING id INTO made;
    PERFORM pg_notify('tinydancer_trainings', made::text);
    RETURN made;
END
$$;
COMMENT ON FUNCTION tinydancer.ruvector_train_classifier(text, integer, double precision) IS
    'Has an engine train a classifier on labelled_requests, in the background, once the '
    'transaction has committed. Returns the id of the model: ruvector_list_models() shows how its '
    'training goes, and ruvector_activate_model(id) puts it to use.';

CREATE OR REPLACE FUNCTION tinydancer.ruvector_train_quality(
    name text DEFAULT 'quality',
    seed integer DEFAULT 0
) RETURNS bigint
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    made bigint;
BEGIN
    PERFORM tinydancer.check_name('name', name);
    PERFORM tinydancer.check_number('seed', seed, 0, 2147483647);
    IF NOT EXISTS (
        SELECT FROM tinydancer.usage AS u
        JOIN tinydancer.decisions AS d ON d.id = u.decision_id
        JOIN tinydancer.agents AS a ON a.name = u.agent
        WHERE d.request IS NOT NULL)
    THEN
        RAISE EXCEPTION 'there is no outcome of a decision whose text was kept'
        USING ERRCODE = 'object_not_in_prerequisite_state',
            HINT = 'Route with settings.decision_log on, and record what came of it under its '
                'decision_id with ruvector_record_usage.';
    END IF;
    INSERT INTO tinydancer.models (kind, name, state, seed, message)
    VALUES ('quality', name, 'training', seed, 'waiting for an engine')
    RETURNING id INTO made;
    PERFORM pg_notify('tinydancer_trainings', made::text);
    RETURN made;
END
$$;
COMMENT ON FUNCTION tinydancer.ruvector_train_quality(text, integer) IS
    'Has an engine learn each agent''s quality by request from the last 20,000 decisions with '
    'outcomes, in the background, once the transaction has committed. Returns the id of the model: '
    'ruvector_list_models() shows how its training goes and what it gains over always the best '
    'single agent, and ruvector_activate_model(id) puts it to use.';

CREATE OR REPLACE FUNCTION tinydancer.refresh_quality() RETURNS bigint
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    wanted record;
    last record;
    decided bigint;
    made bigint;
BEGIN
    SELECT * INTO wanted FROM tinydancer.settings;
    -- One engine at a time, and what it has queued is seen by the next.
    IF (wanted.quality_refresh AND wanted.decision_log_text) IS NOT TRUE
        OR NOT pg_try_advisory_xact_lock(hashtextextended('tinydancer.refresh_quality', 0))
    THEN
        RETURN NULL;
    END IF;
    BEGIN
        -- Whoever has these tables to themselves is not waited for: there is a next time.
        LOCK TABLE tinydancer.models, tinydancer.agent_outcomes IN ACCESS SHARE MODE NOWAIT;
    EXCEPTION WHEN lock_not_available THEN
        RETURN NULL;
    END;
    SELECT bool_or(state = 'training') AS at_work, max(created_at) AS began,
        max((training ->> 'decided')::bigint) AS decided
    INTO last FROM tinydancer.models WHERE kind = 'quality';
    SELECT sum(agent_outcomes.decided) INTO decided FROM tinydancer.agent_outcomes;
    IF last.at_work OR last.began > now() - wanted.quality_refresh_interval
        OR coalesce(decided, 0) - coalesce(last.decided, 0) < wanted.quality_refresh_outcomes
    THEN
        RETURN NULL;
    END IF;
    -- The last few are there to be looked at and gone back to; each has some megabytes.
    DELETE FROM tinydancer.models WHERE kind = 'quality' AND training ? 'refresh' AND NOT active
        AND id NOT IN (SELECT id FROM tinydancer.models
                       WHERE kind = 'quality' AND training ? 'refresh' ORDER BY id DESC LIMIT 5);
    INSERT INTO tinydancer.models (kind, name, state, seed, training, message)
    VALUES ('quality', 'refresh', 'training', 0, '{"refresh": true}', 'waiting for an engine')
    RETURNING id INTO made;
    PERFORM pg_notify('tinydancer_trainings', made::text);
    RETURN made;
END
$$;
COMMENT ON FUNCTION tinydancer.refresh_quality() IS
    'Queues a training of quality where settings.quality_refresh says that it is time; its id, or '
    'NULL. Engines call it.';

CREATE OR REPLACE FUNCTION tinydancer.activate_refreshed(model_id bigint, instead_of bigint)
RETURNS boolean
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    LOCK TABLE tinydancer.model_activations IN SHARE ROW EXCLUSIVE MODE;
    IF NOT EXISTS (
        SELECT FROM tinydancer.models AS model, tinydancer.settings
        WHERE model.id = model_id AND kind = 'quality' AND state = 'ready'
            AND training ? 'refresh' AND quality_refresh)
        OR (SELECT id FROM tinydancer.models WHERE kind = 'quality' AND active)
            IS DISTINCT FROM instead_of
    THEN
        RETURN false;
    END IF;
    RETURN tinydancer.ruvector_activate_model(model_id);
END
$$;
COMMENT ON FUNCTION tinydancer.activate_refreshed(bigint, bigint) IS
    'Switches on a model of a refresh in place of the one that it was compared with; false where '
    'another is in use by now, or settings.quality_refresh is off. Engines call it.';

CREATE OR REPLACE FUNCTION tinydancer.ruvector_fit_routes(
    route text DEFAULT NULL,
    wrong_match_cost double precision DEFAULT NULL,
    missed_match_cost double precision DEFAULT NULL
)
RETURNS TABLE (
    route_name text, threshold double precision, positives integer, negatives integer,
    "precision" double precision, recall double precision, f1 double precision
)
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_custom_plan AS $$
#variable_conflict use_column
DECLARE
    fitted record;
    chosen record;
BEGIN
    PERFORM tinydancer.check_number('wrong_match_cost', wrong_match_cost, 0, 1e12),
        tinydancer.check_number('missed_match_cost', missed_match_cost, 0, 1e12);
    IF (wrong_match_cost IS NULL) <> (missed_match_cost IS NULL) THEN
        RAISE EXCEPTION 'one of wrong_match_cost and missed_match_cost is missing'
        USING ERRCODE = 'null_value_not_allowed',
            HINT = 'Give both costs, or neither to maximise F1.';
    END IF;
    IF ruvector_fit_routes.route IS NOT NULL
        AND NOT EXISTS (SELECT FROM tinydancer.routes WHERE name = ruvector_fit_routes.route)
    THEN
        RAISE EXCEPTION 'there is no route %', quote_literal(ruvector_fit_routes.route)
        USING ERRCODE = 'undefined_object', HINT = 'ruvector_list_routes() shows those there are.';
    END IF;
    FOR chosen IN
        -- A request that another route claims is a negative example of this one.
        SELECT r.name,
            ARRAY(
                SELECT e.request FROM tinydancer.route_examples AS e
                WHERE e.route = r.name AND e.matches
                    -- Its own utterances match by construction: they are no evidence.
                    AND NOT EXISTS (
                        SELECT FROM tinydancer.route_utterances AS u
                        WHERE u.route = r.name AND u.utterance = e.request)
                ORDER BY e.request COLLATE "C") AS yes,
            ARRAY(
                SELECT DISTINCT e.request COLLATE "C" FROM tinydancer.route_examples AS e
                WHERE (e.route = r.name AND NOT e.matches)
                    OR (e.route <> r.name AND e.matches AND NOT EXISTS (
                        SELECT FROM tinydancer.route_examples AS own
                        WHERE own.route = r.name AND own.request = e.request AND own.matches))
                ORDER BY 1) AS no
        FROM tinydancer.routes AS r
        WHERE r.active AND (ruvector_fit_routes.route IS NULL OR r.name = ruvector_fit_routes.route)
        ORDER BY r.name COLLATE "C"
    LOOP
        IF chosen.yes = '{}' OR chosen.no = '{}' THEN
            IF ruvector_fit_routes.route IS NULL THEN
                CONTINUE;
            END IF;
            RAISE EXCEPTION 'route % has % examples that match and % that do not',
                quote_literal(chosen.name), cardinality(chosen.yes), cardinality(chosen.no)
            USING ERRCODE = 'object_not_in_prerequisite_state',
                HINT = 'Insert some of each into tinydancer.route_examples.';
        END IF;
        SELECT f.* INTO STRICT fitted FROM tinydancer.route_thresholds AS f
        WHERE f.route = chosen.name AND f.positives = chosen.yes AND f.negatives = chosen.no
            AND (ruvector_fit_routes.wrong_match_cost IS NULL
                OR f.wrong_match_cost = ruvector_fit_routes.wrong_match_cost)
            AND (ruvector_fit_routes.missed_match_cost IS NULL
                OR f.missed_match_cost = ruvector_fit_routes.missed_match_cost);
        UPDATE tinydancer.routes AS r SET
            threshold = fitted.threshold,
            threshold_evidence = jsonb_build_object(
                'positives', cardinality(chosen.yes), 'negatives', cardinality(chosen.no),
                'precision', fitted.precision, 'recall', fitted.recall, 'f1', fitted.f1,
                'model', fitted.model, 'fitted_at', now())
        WHERE r.name = chosen.name;
        RETURN QUERY SELECT chosen.name, fitted.threshold, cardinality(chosen.yes),
            cardinality(chosen.no), fitted.precision, fitted.recall, fitted.f1;
    END LOOP;
END
$$;
COMMENT ON FUNCTION tinydancer.ruvector_fit_routes(text, double precision, double precision) IS
    'Fits the threshold of a route, or of every route with examples, on route_examples: by the '
    'greatest F1, or by the least cost where a wrong and a missed match have one. Examples that '
    'other routes match count as negative. Stores the thresholds with their evidence.';
