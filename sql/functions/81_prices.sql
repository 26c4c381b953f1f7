-- Prices of the time: their history, and what an outcome cost by them.

CREATE OR REPLACE FUNCTION tinydancer.note_prices() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    INSERT INTO tinydancer.agent_prices VALUES (
        NEW.name, clock_timestamp(), NEW.cost_per_1k_input_tokens, NEW.cost_per_1k_output_tokens,
        NEW.cost_per_call, NEW.cost_per_second)
    ON CONFLICT (agent, valid_from) DO UPDATE SET
        cost_per_1k_input_tokens = excluded.cost_per_1k_input_tokens,
        cost_per_1k_output_tokens = excluded.cost_per_1k_output_tokens,
        cost_per_call = excluded.cost_per_call,
        cost_per_second = excluded.cost_per_second;
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION tinydancer.note_prices() IS 'Trigger: keeps the history of prices.';
CREATE OR REPLACE TRIGGER note_prices AFTER INSERT ON tinydancer.agents
FOR EACH ROW EXECUTE FUNCTION tinydancer.note_prices();
CREATE OR REPLACE TRIGGER note_changed_prices AFTER UPDATE ON tinydancer.agents
FOR EACH ROW WHEN (
    (OLD.name, OLD.cost_per_1k_input_tokens, OLD.cost_per_1k_output_tokens, OLD.cost_per_call,
        OLD.cost_per_second)
    IS DISTINCT FROM
    (NEW.name, NEW.cost_per_1k_input_tokens, NEW.cost_per_1k_output_tokens, NEW.cost_per_call,
        NEW.cost_per_second)
) EXECUTE FUNCTION tinydancer.note_prices();

CREATE OR REPLACE FUNCTION tinydancer.price(
    agent text, at timestamptz, input_tokens bigint, output_tokens bigint,
    latency_ms double precision
) RETURNS numeric
LANGUAGE plpgsql STABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    prices tinydancer.agent_prices;
    missing text;
BEGIN
    -- As of then; before the first price that is known, the first.
    SELECT * INTO prices FROM (
        (SELECT * FROM tinydancer.agent_prices AS old
         WHERE old.agent = price.agent AND old.valid_from <= at ORDER BY old.valid_from DESC LIMIT 1)
        UNION ALL
        (SELECT * FROM tinydancer.agent_prices AS old
         WHERE old.agent = price.agent ORDER BY old.valid_from LIMIT 1)
    ) AS known LIMIT 1;
    missing := CASE
        WHEN prices.cost_per_1k_input_tokens > 0 AND input_tokens IS NULL THEN 'input_tokens'
        WHEN prices.cost_per_1k_output_tokens > 0 AND output_tokens IS NULL THEN 'output_tokens'
        WHEN prices.cost_per_second > 0 AND latency_ms IS NULL THEN 'latency_ms' END;
    IF missing IS NOT NULL THEN
        RAISE EXCEPTION '% is NULL, and agent % has a price on it', missing, quote_literal(agent)
        USING ERRCODE = 'null_value_not_allowed', HINT = format('Give cost, or %s.', missing);
    END IF;
    RETURN round(
        coalesce(input_tokens, 0) * prices.cost_per_1k_input_tokens / 1000
        + coalesce(output_tokens, 0) * prices.cost_per_1k_output_tokens / 1000
        + prices.cost_per_call
        + coalesce(latency_ms, 0)::numeric / 1000 * prices.cost_per_second, 9);
END
$$;
COMMENT ON FUNCTION tinydancer.price(text, timestamptz, bigint, bigint, double precision) IS
    'The cost of a request by the agent''s prices of a time: the one cost formula, on what happened.';
