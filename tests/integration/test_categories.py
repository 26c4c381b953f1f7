"""Kept decisions say what they were about, and so does all that is summed by category."""

from __future__ import annotations

import psycopg
import pytest

ASKED = {
    "code": "Write a Python function that reverses a linked list",
    "translation": "Translate this letter into French",
}
NONSENSE = "xq zzv 0000 lorem qwfp"


@pytest.fixture
def agents(db: psycopg.Connection) -> psycopg.Connection:
    db.execute(
        "SELECT ruvector_register_agent(name, cost_per_call := 0.01)"
        " FROM unnest(ARRAY['a', 'b']) AS name"
    )
    return db


def decide(db: psycopg.Connection, text: str) -> str:
    return db.execute("SELECT decision_id FROM ruvector_route(%s)", (text,)).fetchone()[0]


@pytest.mark.parametrize("mode", ["async", "sync"])
def test_analytics_by_category_show_what_decisions_were_about(agents, mode):
    agents.execute("UPDATE settings SET decision_log = %s", (mode,))
    known = {
        text: agents.execute(
            "SELECT category FROM request_classifications WHERE content = %s", (text,)
        ).fetchone()[0]
        for text in (*ASKED.values(), NONSENSE)
    }
    assert known == {**{text: name for name, text in ASKED.items()}, NONSENSE: None}
    for text in known:
        agents.execute("SELECT ruvector_record_usage(%s, cost := 0.5)", (decide(agents, text),))
    kept = agents.execute(
        "SELECT request, category, models ->> 'classifier' FROM decisions WHERE request = ANY (%s)",
        (list(known),),
    ).fetchall()
    assert {row[0]: row[1] for row in kept} == known
    assert {row[2] for row in kept} == {"default"}
    assert agents.execute(
        "SELECT agent, total_requests, total_cost::float8"
        " FROM ruvector_routing_analytics(group_by := 'category') ORDER BY agent"
    ).fetchall() == [(name, 1, 0.5) for name in sorted(ASKED)] + [(None, 1, 0.5)]


def test_a_decision_whose_text_is_not_kept_has_its_category(agents):
    agents.execute("UPDATE settings SET decision_log = 'sync', decision_log_text = false")
    decision = decide(agents, ASKED["code"])
    assert agents.execute(
        "SELECT request, category FROM decisions WHERE id = %s", (decision,)
    ).fetchone() == (None, "code")


def test_a_classifier_that_can_not_speak_of_the_vectors_leaves_the_category_open(agents):
    agents.execute("UPDATE settings SET decision_log = 'sync'")
    (model,) = agents.execute(
        "INSERT INTO models (kind, name, weights) VALUES ('classifier', 'broken', 'no model')"
        " RETURNING id"
    ).fetchone()
    agents.execute("SELECT ruvector_activate_model(%s)", (model,))
    decision = decide(agents, ASKED["code"])
    assert agents.execute(
        "SELECT category, models ? 'classifier' FROM decisions WHERE id = %s", (decision,)
    ).fetchone() == (None, False)
