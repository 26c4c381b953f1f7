"""Kept decisions with their outcomes, as they are judged in hindsight."""

from __future__ import annotations

from tinydancer.learning.hindsight import Outcome
from tinydancer.store.analytics import check_time_range
from tinydancer.store.database import Database

# The latest ones: each takes some kilobytes of memory while it is judged.
MOST_DECISIONS = 50_000

# An outcome of another agent than the one that was decided for says nothing about the decision.
OUTCOMES = """
SELECT kept.agent, kept.propensity, kept.candidates,
       avg(coalesce(outcome.quality, outcome.success::integer)), sum(outcome.cost)::float8,
       avg(outcome.latency_ms)
FROM (
    SELECT id, agent, propensity, candidates, decided_at FROM tinydancer.decisions
    WHERE decided_at >= now() - %(time_range)s::interval AND agent IS NOT NULL
) AS kept
JOIN tinydancer.usage AS outcome ON outcome.decision_id = kept.id AND outcome.agent = kept.agent
    AND outcome.occurred_at >= now() - %(time_range)s::interval - interval '1 hour'
GROUP BY kept.id, kept.agent, kept.propensity, kept.candidates, kept.decided_at
ORDER BY kept.decided_at DESC, kept.id
LIMIT %(most)s
"""


def outcomes_of_decisions(database: Database, time_range: str) -> list[Outcome]:
    """The latest decisions in a time that have an outcome, MOST_DECISIONS at most.

    Raises InvalidInput for a time range that is no interval or does not lie in the past,
    Unavailable where the database can't be reached.
    """
    with database.connection() as conn:
        check_time_range(conn, time_range)
        parameters = {"time_range": time_range, "most": MOST_DECISIONS}
        rows = conn.execute(OUTCOMES, parameters).fetchall()
    return [
        Outcome(agent, propensity, candidates, float(quality), cost, latency_ms)
        for agent, propensity, candidates, quality, cost, latency_ms in rows
    ]
