-- Locking periods gives them back, and reserve_calls is the one way to reserve.

DROP FUNCTION IF EXISTS tinydancer.lock_periods(text[], timestamptz[]);
DROP FUNCTION IF EXISTS tinydancer.reserve_budget(uuid, text, text, text, text, numeric);
