"""What the log and the ledger say together: which agent did how well on which request."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from tinydancer.store.database import Connection

# Of outcomes that the agents of today had. The last decisions are taken, in the order of time.
LATEST = """
WITH latest AS (
    SELECT d.id, coalesce(d.team, d.id) AS task, d.request_hash, d.decided_at, d.request, d.agent,
        CASE WHEN d.team IS NULL THEN d.propensity END AS propensity,
        CASE WHEN d.embedding_space = %(space)s THEN d.embedding END AS embedding
    FROM tinydancer.decisions AS d
    WHERE d.request IS NOT NULL AND EXISTS (
        SELECT FROM tinydancer.usage AS u JOIN tinydancer.agents AS a ON a.name = u.agent
        WHERE u.decision_id = d.id AND u.tenant = d.tenant)
    ORDER BY d.decided_at DESC, d.id DESC LIMIT %(most)s
), served AS (
    -- Members of an ensemble have a decision each on the same text: that is one request.
    SELECT task, request_hash, u.agent, min(decided_at) AS decided_at, min(request) AS request,
        (array_agg(latest.embedding))[1] AS embedding,
        min(propensity) FILTER (WHERE u.agent = latest.agent) AS propensity,
        avg(coalesce(u.quality, u.success::int::double precision)) AS reward
    FROM latest JOIN tinydancer.usage AS u ON u.decision_id = latest.id
    JOIN tinydancer.agents AS a ON a.name = u.agent
    GROUP BY task, request_hash, u.agent
)
SELECT min(decided_at), min(request), ((array_agg(embedding))[1])::real[],
    CASE WHEN count(*) = 1 THEN min(propensity) END, jsonb_object_agg(agent, reward)
FROM served GROUP BY task, request_hash ORDER BY 1, task, request_hash
"""
DECIDED = "SELECT coalesce(sum(decided), 0)::bigint FROM tinydancer.agent_outcomes"


@dataclass(frozen=True)
class Judged:
    """How a request was served: by each agent that did, the quality judged, or else its success.

    `embedding` is the request's vector where it was kept in the space asked for; `propensity` the
    probability with which its agent was chosen, None where there were several, or another stepped
    in.
    """

    decided_at: datetime
    request: str
    embedding: list[float] | None
    propensity: float | None
    rewards: Mapping[str, float]


def latest_outcomes(conn: Connection, space: str, most: int) -> list[Judged]:
    """The outcomes of the last `most` decisions whose text was kept, in the order of time."""
    rows = conn.execute(LATEST, {"space": space, "most": most}).fetchall()
    return [Judged(*row) for row in rows]


def outcomes_of_decisions(conn: Connection) -> int:
    """How many outcomes ever named their decision."""
    row = conn.execute(DECIDED).fetchone()
    return 0 if row is None else int(row[0])
