"""What the log and the ledger say together: which agent did how well on which request."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import psycopg

Connection = psycopg.Connection[Any]

# Of outcomes that the agents of today had. The last decisions are taken, in the order of time.
LATEST = """
WITH latest AS (
    SELECT d.id, d.decided_at, d.request, d.agent, d.propensity,
        CASE WHEN d.embedding_space = %(space)s THEN d.embedding::real[] END AS embedding
    FROM tinydancer.decisions AS d
    WHERE d.request IS NOT NULL AND EXISTS (
        SELECT FROM tinydancer.usage AS u JOIN tinydancer.agents AS a ON a.name = u.agent
        WHERE u.decision_id = d.id AND u.tenant = d.tenant)
    ORDER BY d.decided_at DESC, d.id DESC LIMIT %(most)s)
SELECT d.request, d.embedding, d.propensity, d.agent, u.agent,
    avg(coalesce(u.quality, u.success::int::double precision))
FROM latest AS d
JOIN tinydancer.usage AS u ON u.decision_id = d.id
JOIN tinydancer.agents AS a ON a.name = u.agent
GROUP BY d.decided_at, d.id, d.request, d.embedding, d.propensity, d.agent, u.agent
ORDER BY d.decided_at, d.id, u.agent
"""


@dataclass(frozen=True)
class Outcome:
    """How an agent did on a request: `reward` is its quality where judged, else its success.

    `embedding` is the request's vector where it was kept in the space asked for; `propensity` the
    probability with which the agent was chosen, None where another had been and it stepped in.
    """

    request: str
    embedding: list[float] | None
    propensity: float | None
    agent: str
    reward: float


def latest_outcomes(conn: Connection, space: str, most: int) -> list[Outcome]:
    """The outcomes of the last `most` decisions whose text was kept, in the order of time."""
    rows = conn.execute(LATEST, {"space": space, "most": most}).fetchall()
    return [
        Outcome(request, embedding, propensity if chosen == agent else None, agent, float(reward))
        for request, embedding, propensity, chosen, agent, reward in rows
    ]
