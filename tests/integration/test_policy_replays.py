"""Hindsight over kept decisions: what another policy would have achieved."""

from __future__ import annotations

import random

import psycopg
import pytest


@pytest.fixture
def agents(good_and_plain: psycopg.Connection) -> psycopg.Connection:
    good_and_plain.execute("UPDATE settings SET decision_log = 'sync'")
    return good_and_plain


def serve(db: psycopg.Connection, requests: int) -> None:
    """Decide for quality, and record what came of it: 'good' serves 80%, 'plain' 30%."""
    dice = random.Random(1)
    rows = db.execute(
        "SELECT agent_name, decision_id::text, estimated_cost::float8"
        " FROM ruvector_batch_route(%s, 'quality')",
        ([f"request {n}" for n in range(requests)],),
    ).fetchall()
    outcomes = [
        {
            "decision_id": decision,
            "cost": cost,
            "success": dice.random() < (0.8 if agent == "good" else 0.3),
        }
        for agent, decision, cost in rows
    ]
    db.execute("SELECT ruvector_record_usage_batch(%s)", (psycopg.types.json.Jsonb(outcomes),))


REPLAY = "SELECT metric, {} FROM policy_replays WHERE policy = %s"


def test_a_log_with_exploration_says_what_another_policy_would_have_achieved(agents):
    agents.execute("UPDATE settings SET exploration = 'epsilon', exploration_rate = 0.5")
    serve(agents, 800)
    rows = agents.execute(REPLAY.format("dr, dr_low, dr_high, ips, choices"), ("cost",)).fetchall()
    found = {row[0]: row[1:] for row in rows}
    assert found.keys() == {"quality", "cost"}  # nobody recorded a latency
    dr, low, high, ips, choices = found["quality"]
    # Twice the 95% interval, four standard errors: the dice are thrown anew in each run.
    assert abs(dr - 0.3) < high - low
    assert low < dr < high < 0.5
    assert ips == pytest.approx(0.3, abs=0.12)
    assert choices == {"plain": 1}
    assert found["cost"][0] == pytest.approx(0.001, rel=0.01)


def test_a_log_of_thompson_sampling_supports_another_policy(agents):
    agents.execute("UPDATE settings SET exploration = 'thompson', prior_weight = 2")
    serve(agents, 1500)
    rows = agents.execute(REPLAY.format("ips, dr, dr_low, dr_high, mean_weight"), ("cost",))
    found = {row[0]: row[1:] for row in rows.fetchall()}
    ips, dr, low, high, mean_weight = found["quality"]
    assert abs(dr - 0.3) < high - low  # four standard errors, as above
    assert low < dr < high < 0.5
    assert ips == pytest.approx(0.3, abs=0.15)
    assert mean_weight == pytest.approx(1, abs=0.3)


def test_an_agent_always_and_weights_are_policies_too(agents):
    agents.execute("UPDATE settings SET exploration = 'epsilon', exploration_rate = 0.5")
    serve(agents, 400)
    (always,) = agents.execute(REPLAY.format("choices"), ("agent:good",)).fetchmany(1)
    assert always[1] == {"good": 1}
    (blend,) = agents.execute(REPLAY.format("choices"), ("cost=3, quality=1",)).fetchmany(1)
    assert blend[1] == {"plain": 1}


def test_what_was_done_is_replayed_as_it_was(agents):
    serve(agents, 100)
    for _, logged, dr, ips in agents.execute(
        REPLAY.format("logged, dr, ips"), ("quality",)
    ).fetchall():
        assert logged == pytest.approx(dr) == pytest.approx(ips)


def test_a_log_that_never_tried_the_policys_choices_is_refused(agents):
    serve(agents, 100)
    with pytest.raises(psycopg.Error, match="never tried") as raised:
        agents.execute(REPLAY.format("dr"), ("cost",))
    assert "exploration" in raised.value.diag.message_hint


@pytest.mark.parametrize(
    ("policy", "said"),
    [
        ("cheap", "'cheap' is not known"),
        ("cost=-1", "'cost=-1' is not known"),
        ("cost=nan", "'cost=nan' is not known"),
        ("cost=0", "weighs nothing"),
        ("agent:nobody", "no candidate"),
    ],
)
def test_a_policy_that_is_none_is_refused_with_a_hint(agents, policy, said):
    serve(agents, 5)
    with pytest.raises(psycopg.Error, match=said) as raised:
        agents.execute(REPLAY.format("dr"), (policy,))
    assert raised.value.diag.message_hint


def test_without_an_outcome_there_is_nothing_to_look_back_on(agents):
    with pytest.raises(psycopg.Error, match="no kept decision"):
        agents.execute(REPLAY.format("dr"), ("cost",))
