"""The agents of the tables `agents` and `agent_outcomes`, and how they do by now."""

from __future__ import annotations

from tinydancer.agents.model import Agent, Performance, Prices
from tinydancer.agents.registry import AgentTable
from tinydancer.embeddings.base import Embedder
from tinydancer.store.database import Connection
from tinydancer.store.freshness import PERFORMANCE, STALE_PARTS, Seen
from tinydancer.store.vectors import Unsaved, stored_vectors, unsaved

# What Python has no value for must not reach it, or nobody is answered: prices below the least
# float are 0. Metadata is not read at all. `stale` is whether the vector must be made anew: there
# is none, it lies in another space than %(space)s, or it was made from another text. A vector that
# was given has no source.
AGENTS = """
SELECT name, type, capabilities,
       round(cost_per_1k_input_tokens, 30)::float8, round(cost_per_1k_output_tokens, 30)::float8,
       round(cost_per_call, 30)::float8, round(cost_per_second, 30)::float8,
       stats.latency_ms, stats.quality, stats.output_tokens, stats.outcomes,
       concurrency_limit,
       embedding IS NULL OR embedding_space <> %(space)s
           OR coalesce(embedding_source <> digest(agent_text(name, capabilities)), false),
       vector_send(embedding)
FROM tinydancer.agents JOIN tinydancer.agent_stats AS stats ON stats.agent = name
WHERE active ORDER BY name COLLATE "C"
"""
# What has changed since, and how each agent does, of one moment.
FIGURES = f"""
SELECT pg_current_snapshot()::text, ARRAY({STALE_PARTS}),
       names, latency_ms, quality, output_tokens, outcomes
FROM (
    SELECT array_agg(agent) AS names, array_agg(latency_ms) AS latency_ms,
           array_agg(quality) AS quality, array_agg(output_tokens) AS output_tokens,
           array_agg(outcomes) AS outcomes
    FROM (
        SELECT stats.*
        FROM tinydancer.agents JOIN tinydancer.agent_stats AS stats ON stats.agent = name
        WHERE active ORDER BY name COLLATE "C"
    ) AS sorted
) AS performance
"""  # noqa: S608 - our own text


def read_agents(conn: Connection, embedder: Embedder) -> tuple[AgentTable, tuple[Unsaved, ...]]:
    """The active agents, and the vectors that had to be made of them."""
    with conn.cursor(binary=True) as cursor:
        rows = cursor.execute(AGENTS, {"space": embedder.space}).fetchall()
    agents = [
        Agent(
            name=row[0],
            type=row[1],
            capabilities=tuple(row[2]),
            prices=Prices(*row[3:7]),
            performance=Performance(
                avg_latency_ms=row[7],
                quality=row[8],
                output_tokens=row[9],
                outcomes=row[10],
            ),
            concurrency_limit=row[11],
        )
        for row in rows
    ]
    vectors, made = stored_vectors(
        embedder, [None if row[12] else row[13] for row in rows], [agent.text for agent in agents]
    )
    made_now = unsaved(
        "agents", made, [(a.name,) for a in agents], [a.text for a in agents], vectors
    )
    return AgentTable.build(agents, vectors), made_now


def read_performance(
    conn: Connection, agents: AgentTable, seen: Seen
) -> tuple[AgentTable, Seen] | None:
    """The same agents with all outcomes up to now, where nothing else has changed since `seen`.

    None where something has. One statement: outcomes come all the time, and whoever asks next
    waits for it.
    """
    with conn.cursor(binary=True) as cursor:
        row = cursor.execute(FIGURES, seen.parameters()).fetchone()
    assert row is not None  # noqa: S101 - an aggregate has one row
    snapshot, changed, names, *columns = row
    if not PERFORMANCE.issuperset(changed) or tuple(names or ()) != agents.names:
        return None
    performance = [
        Performance(latency, quality, output_tokens=tokens, outcomes=outcomes)
        for latency, quality, tokens, outcomes in zip(*(c or () for c in columns), strict=True)
    ]
    return agents.measured(performance), Seen(snapshot, seen.changes)
