"""The ledger's demand by category, and how well each agent served it."""

from __future__ import annotations

from tinydancer.cost_optimizer.demand import DAYS, UNCATEGORIZED, PastCategory, PastDemand
from tinydancer.store.database import Connection, Database

# From the sums: as exact and as quick on ten million outcomes as on ten. Both are of whole days.
SINCE = "date_trunc('day', now() - %(days)s * interval '1 day', 'UTC')"
CATEGORIES = f"""
SELECT coalesce(nullif(value, ''), %(uncategorized)s), sum(requests)::float8,
    (sum(input_tokens) / nullif(sum(requests) FILTER (WHERE input_tokens > 0), 0))::float8,
    extract(epoch FROM now() - min(min(hour)) OVER ())::float8 / 86400
FROM tinydancer.usage_hourly
WHERE dimension = 'category' AND hour >= {SINCE}
GROUP BY 1 HAVING sum(requests) > 0 ORDER BY 1
"""  # noqa: S608
REWARDS = f"""
SELECT coalesce(nullif(category, ''), %(uncategorized)s), agent, sum(requests)::bigint,
    sum(reward_sum)
FROM tinydancer.category_outcomes WHERE day >= {SINCE}
GROUP BY 1, 2 HAVING sum(requests) > 0 ORDER BY 1, 2
"""  # noqa: S608


def past_demand(database: Database) -> PastDemand | None:
    """What was asked today and in the DAYS before; None where nothing was.

    Raises Unavailable where the database can't be reached.
    """
    return database.run(_read)


def _read(conn: Connection) -> PastDemand | None:
    parameters = {"days": DAYS, "uncategorized": UNCATEGORIZED}
    rows = conn.execute(CATEGORIES, parameters).fetchall()
    if not rows:
        return None
    rewards: dict[str, dict[str, tuple[int, float]]] = {row[0]: {} for row in rows}
    for category, agent, count, total in conn.execute(REWARDS, parameters).fetchall():
        rewards.setdefault(category, {})[agent] = (count, float(total))
    return PastDemand(
        days=rows[0][3],
        categories={
            category: PastCategory(requests, tokens, rewards[category])
            for category, requests, tokens, _ in rows
        },
    )
