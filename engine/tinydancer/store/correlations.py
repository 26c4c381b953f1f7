"""Whose errors go together: what agents did on the same requests, as the ledger has it."""

from __future__ import annotations

from threading import Lock
from time import monotonic

import numpy as np

from tinydancer.agents.registry import AgentTable
from tinydancer.store.database import Connection, Database
from tinydancer.teams.joint_success import Correlations, error_correlations

MOST_OUTCOMES = 100_000
# At most this share of the time is spent on reading them anew while outcomes come.
SHARE_OF_TIME = 0.05

# The last outcomes of decisions; requests are the same where their texts are. An agent that stepped
# in for another is left out: it is only seen where the other has failed.
SHARED = """
WITH latest AS (
    SELECT decision_id, agent, coalesce(quality, success::integer) AS reward
    FROM tinydancer.usage WHERE decision_id IS NOT NULL
    ORDER BY occurred_at DESC LIMIT %s
), served AS (
    SELECT d.tenant, d.request_hash, latest.agent, avg(latest.reward) AS reward
    FROM latest JOIN tinydancer.decisions AS d
        ON d.id = latest.decision_id AND d.decided_at = tinydancer.uuid_time(latest.decision_id)
        AND d.agent = latest.agent
    WHERE latest.agent = ANY (%s)
    GROUP BY 1, 2, 3
)
SELECT array_agg(agent), array_agg(reward) FROM served
GROUP BY tenant, request_hash HAVING count(*) > 1
"""


class ErrorCorrelations:
    """Correlations of the agents' errors, read anew when outcomes have come. Thread-safe."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._lock = Lock()
        self._read: tuple[AgentTable, Correlations] | None = None
        self._due = 0.0

    def of(self, agents: AgentTable) -> Correlations:
        """Those of these agents, by the outcomes that the table was read with, or a little older.

        A table is another one where outcomes have come. Raises Unavailable where the database can't
        be reached.
        """
        with self._lock:
            if self._read is not None:
                table, known = self._read
                if table is agents or (table.names == agents.names and monotonic() < self._due):
                    return known
            began = monotonic()
            known = self._database.run(lambda conn: _correlations(conn, agents))
            now = monotonic()
            self._read, self._due = (agents, known), now + (now - began) / SHARE_OF_TIME
            return known


def _correlations(conn: Connection, agents: AgentTable) -> Correlations:
    rows = conn.execute(SHARED, (MOST_OUTCOMES, list(agents.names))).fetchall()
    rewards = np.full((len(rows), len(agents)), np.nan)
    for row, (names, found) in enumerate(rows):
        for name, reward in zip(names, found, strict=True):
            rewards[row, agents.positions[name]] = reward
    return error_correlations(rewards)
