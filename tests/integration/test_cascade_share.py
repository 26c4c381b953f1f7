"""The cascade's threshold by the share of requests that it escalates."""

from __future__ import annotations

import psycopg
import pytest

from tinydancer.embeddings.cascade import CascadeEmbedder
from tinydancer.errors import NotReady
from tinydancer.store.cascade_share import fit_cascade

from .test_cli_database import run

TEXTS = [f"{verb} the {thing}" for verb in ("fix", "sum up", "translate") for thing in "abcdefgh"]


@pytest.fixture
def decided(conn: psycopg.Connection) -> psycopg.Connection:
    """Agents, and decisions of which the requests were kept."""
    conn.execute(
        "INSERT INTO agents (name, capabilities) VALUES"
        " ('coder', '{code,debugging}'), ('writer', '{summaries,translation}')"
    )
    for text in TEXTS:
        conn.execute(
            "INSERT INTO decisions (id, decided_at, request, request_hash, optimize_for)"
            " VALUES (gen_random_uuid(), now(), %s, sha256(%s::bytea), 'cost')",
            (text, text.encode()),
        )
    yield conn
    conn.execute("DELETE FROM decisions")
    conn.execute("DELETE FROM agents")
    conn.execute("UPDATE settings SET cascade_threshold = DEFAULT")


def test_the_threshold_escalates_the_share_that_was_asked_for(decided, database, embedder):
    cascade = CascadeEmbedder(embedder, embedder, 0.06)
    quarter = fit_cascade(database, cascade, 0.25)
    assert (quarter.requests, quarter.share) == (len(TEXTS), 0.25)
    [(stored,)] = decided.execute("SELECT cascade_threshold FROM settings").fetchall()
    assert stored == quarter.threshold
    assert fit_cascade(database, cascade, 0).share == 0
    assert fit_cascade(database, cascade, 1).share == 1


def test_without_requests_there_is_nothing_to_fit_on(conn, database, embedder):
    with pytest.raises(NotReady, match="0 kept requests") as raised:
        fit_cascade(database, CascadeEmbedder(embedder, embedder, 0.06), 0.3)
    assert "decision_log_text" in raised.value.hint


def test_an_embedder_that_is_no_cascade_is_named_by_the_command(decided, schema_dsn):
    found = run("fit-cascade", "--dsn", schema_dsn, "--share", "0.3")
    assert found.returncode == 1
    assert "static-minilm-v2 is no cascade" in found.stderr
    assert "reembed --embedder cascade" in found.stderr
    assert run("fit-cascade", "--dsn", schema_dsn, "--share", "1.5").returncode == 2
