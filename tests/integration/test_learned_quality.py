"""A quality model in the table `models` decides from its commit on, in its own space only."""

from __future__ import annotations

import numpy as np
import psycopg

from tinydancer.embeddings.static import StaticEmbedder
from tinydancer.learning.outcomes import Outcomes
from tinydancer.learning.quality import fit_quality
from tinydancer.learning.quality_file import pack
from tinydancer.learning.requests import describe
from tinydancer.neural.model_file import to_bytes

AGENTS = """
INSERT INTO agents (name, type, capabilities, cost_per_call, avg_latency_ms, quality) VALUES
  ('logician', 'llm', '{writing}', 0.01, 100, 0.6), ('poet', 'llm', '{writing}', 0.01, 100, 0.6)
"""
BEST = """
SELECT agent_name, explanation->'models'->>'quality' FROM route_decisions
WHERE request = %s AND optimize_for = 'quality'
"""
POEM = "Write a poem about the sea"


def trained(embedder: StaticEmbedder) -> bytes:
    """A model that has seen the logician fail at poems and the poet at sums."""
    asked = [
        f"Compute {at} + {at * 7 % 31}" if at % 2 else f"Write a poem about {at % 7} seas"
        for at in range(200)
    ]
    sums = np.arange(200) % 2 == 1
    rng = np.random.default_rng(0)
    chances = np.where(sums[:, None], [0.95, 0.1], [0.1, 0.95])
    rewards = (rng.random((200, 2)) < chances).astype(np.float64)
    requests = describe(asked, embedder.embed(asked))
    model = fit_quality(requests, Outcomes(("logician", "poet"), rewards))
    return to_bytes(pack(model, embedder.space))


def test_a_quality_model_decides_from_the_commit_of_its_switch_on(db: psycopg.Connection) -> None:
    db.execute(AGENTS)
    assert db.execute(BEST, (POEM,)).fetchone() == ("logician", "registered")
    embedder = StaticEmbedder.builtin()
    insert = (
        "INSERT INTO models (kind, name, weights, embedding_space)"
        " VALUES ('quality', %s, %s, %s) RETURNING id"
    )
    weights = trained(embedder)
    number = db.execute(insert, ("learned", weights, embedder.space)).fetchone()
    db.execute("SELECT ruvector_activate_model(%s)", number)
    assert db.execute(BEST, (POEM,)).fetchone() == ("poet", "learned")
    assert db.execute(BEST, ("Compute 5 + 6",)).fetchone() == ("logician", "learned")
    foreign = db.execute(insert, ("foreign", weights, "another space")).fetchone()
    db.execute("SELECT ruvector_activate_model(%s)", foreign)
    assert db.execute(BEST, (POEM,)).fetchone() == ("logician", "registered")
