"""Fallbacks: what follows a decision whose agent failed."""

from __future__ import annotations

import uuid
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest
from psycopg.rows import dict_row
from tests.conftest import Installation


@pytest.fixture
def agents(db: psycopg.Connection) -> psycopg.Connection:
    db.execute(
        """
        SELECT ruvector_register_agent(name, 'tool', ARRAY['work'], cost_per_call := cost,
                   avg_latency_ms := 100, quality_score := quality)
        FROM (VALUES ('best', 0.01, 0.9), ('good', 0.005, 0.8), ('plain', 0.001, 0.5))
            AS given (name, cost, quality)
        """
    )
    return db


ROUTE = (
    "SELECT agent_name, decision_id, fallbacks, explanation FROM ruvector_route('x', 'quality'{})"
)
FALLBACK = "SELECT * FROM ruvector_fallback(%s, %s)"


def fall_back(db: psycopg.Connection, decision: uuid.UUID, error: str = "timeout") -> dict:
    with db.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(FALLBACK, (decision, error)).fetchone()


def test_a_decision_names_whom_to_turn_to_in_order(agents):
    agent, _, fallbacks, explanation = agents.execute(ROUTE.format("")).fetchone()
    assert (agent, fallbacks) == ("best", ["good", "plain"])
    assert explanation["fallbacks"] == fallbacks


def test_who_is_refused_is_no_fallback_and_lower_ranks_name_none(agents):
    rows = agents.execute(ROUTE.format(", min_quality := 0.7, top_k := 2")).fetchall()
    assert [(row[0], row[2]) for row in rows] == [("best", ["good"]), ("good", None)]
    none = agents.execute(ROUTE.format(", min_quality := 1")).fetchone()
    assert (none[0], none[2]) == (None, [])


def test_a_failure_is_recorded_and_the_next_takes_over_under_an_id_of_its_own(agents):
    _, first, *_ = agents.execute(ROUTE.format("")).fetchone()
    second = fall_back(agents, first)
    assert (second["agent_name"], second["attempt"]) == ("good", 2)
    assert second["fallbacks"] == ["plain"]
    assert second["reasoning"] == "good takes over from best."
    assert agents.execute("SELECT agent, success, error, cost FROM usage").fetchall() == [
        ("best", False, "timeout", 0)
    ]
    agents.execute("SELECT ruvector_record_usage(%s, cost := 0.005)", (second["new_decision_id"],))
    chain = agents.execute(
        "SELECT agent, fallback_of, attempt, request FROM decisions"
        " WHERE %s IN (id, fallback_of) ORDER BY attempt",
        (first,),
    ).fetchall()
    assert chain == [("best", None, 1, "x"), ("good", first, 2, "x")]


def test_asked_again_it_answers_the_same_and_records_nothing_more(agents):
    _, first, *_ = agents.execute(ROUTE.format("")).fetchone()
    answers = [fall_back(agents, first) for _ in range(3)]
    assert len({answer["new_decision_id"] for answer in answers}) == 1
    assert agents.execute("SELECT count(*) FROM usage").fetchone() == (1,)
    followers = "SELECT count(*) FROM decisions WHERE fallback_of = %s"
    assert agents.execute(followers, (first,)).fetchone() == (1,)


def test_sessions_that_ask_at_once_get_the_same_answer(agents, installation: Installation):
    _, first, *_ = agents.execute(ROUTE.format("")).fetchone()

    def ask(_: int) -> uuid.UUID:
        with installation.connect() as connection:
            return fall_back(connection, first)["new_decision_id"]

    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(ask, range(16)))) == 1
    assert agents.execute("SELECT count(*) FROM usage").fetchone() == (1,)


def test_the_chain_ends_and_says_so(agents):
    _, decision, *_ = agents.execute(ROUTE.format("")).fetchone()
    named = []
    while (step := fall_back(agents, decision))["agent_name"] is not None:
        named.append(step["agent_name"])
        decision = step["new_decision_id"]
    assert named == ["good", "plain"]
    assert step["new_decision_id"] is None
    assert step["reasoning"] == "No agent is left: plain failed, and no other suits."
    assert fall_back(agents, decision)["reasoning"] == step["reasoning"]
    assert agents.execute("SELECT count(*) FROM usage WHERE NOT success").fetchone() == (3,)


def test_money_moves_on_with_the_decision(agents):
    agents.execute("SELECT ruvector_set_budget('all', 0.0149)")
    reserved = "SELECT reserved::float8 FROM budget_status"
    _, first, *_ = agents.execute(ROUTE.format("")).fetchone()
    assert agents.execute(reserved).fetchone() == (0.01,)
    second = fall_back(agents, first)
    assert agents.execute(reserved).fetchone() == (0.005,)
    agents.execute("SELECT ruvector_record_usage(%s)", (second["new_decision_id"],))
    assert agents.execute(
        "SELECT spent::float8, reserved::float8 FROM budget_status"
    ).fetchall() == [(0.005, 0.0)]


def test_budgets_limits_and_circuits_are_checked_again_and_named(agents):
    agents.execute(
        "SELECT ruvector_register_agent('spare', 'tool', ARRAY['work'], cost_per_call := 0.001,"
        " avg_latency_ms := 100, quality_score := 0.4),"
        " ruvector_register_agent('gone', 'tool', ARRAY['work'], quality_score := 0.45)"
    )
    _, first, *_ = agents.execute(ROUTE.format("")).fetchone()
    # Given that since the decision one has spent its money, one is full, one fails, one has left
    agents.execute("SELECT ruvector_set_budget('good money', 0.001, 'agent', 'good')")
    agents.execute(
        "SELECT ruvector_record_usage(agent_name := 'plain', success := false)"
        " FROM generate_series(1, 5)"
    )
    agents.execute("SELECT ruvector_set_agent_active('gone', false)")
    agents.execute("SELECT ruvector_update_agent('spare', concurrency_limit := 1)")
    taken = agents.execute(ROUTE.format(", excluded_agents := ARRAY['best', 'good']")).fetchone()
    assert taken[0] == "spare"
    # When the first fails
    step = fall_back(agents, first)
    # Then nobody is left, and each is named with what refused it
    assert step["agent_name"] is None
    for refusal in (
        "good costs 0.005, more than budget 'good money' has left",
        "plain has its circuit open until 20",
        "gone is no longer active",
        "spare has its 1 calls at once under way",
    ):
        assert refusal in step["reasoning"]
    # And when one has room again, the same question finds it
    agents.execute("SELECT ruvector_record_usage(%s)", (taken[1],))
    assert fall_back(agents, first)["agent_name"] == "spare"
    assert agents.execute(
        "SELECT in_flight FROM agent_health WHERE agent = 'spare'"
    ).fetchone() == (1,)


def test_a_failure_that_was_recorded_already_is_not_recorded_twice(agents):
    _, first, *_ = agents.execute(ROUTE.format("")).fetchone()
    agents.execute("SELECT ruvector_record_usage(%s, error := '503', cost := 0.002)", (first,))
    assert fall_back(agents, first)["agent_name"] == "good"
    assert agents.execute("SELECT error FROM usage").fetchall() == [("503",)]


def test_what_has_succeeded_does_not_fall_back(agents):
    _, first, *_ = agents.execute(ROUTE.format("")).fetchone()
    agents.execute("SELECT ruvector_record_usage(%s)", (first,))
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="has succeeded"):
        fall_back(agents, first)


def test_bad_input_is_refused_and_nothing_is_recorded(agents):
    with pytest.raises(psycopg.errors.UndefinedObject, match="does not exist"):
        fall_back(agents, uuid.UUID("01990000-0000-7000-8000-000000000000"))
    with pytest.raises(psycopg.errors.NullValueNotAllowed, match="decision_id is NULL"):
        fall_back(agents, None)
    _, nobody, *_ = agents.execute(ROUTE.format(", min_quality := 1")).fetchone()
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="went to no agent"):
        fall_back(agents, nobody)
    _, first, *_ = agents.execute(ROUTE.format("")).fetchone()
    with pytest.raises(psycopg.errors.NumericValueOutOfRange, match="cost is -1"):
        agents.execute("SELECT ruvector_fallback(%s, cost := -1)", (first,))
    assert agents.execute("SELECT count(*) FROM usage").fetchone() == (0,)
    assert agents.execute("SELECT count(*) FROM decisions WHERE attempt > 1").fetchone() == (0,)


def test_an_id_made_in_sql_carries_its_time_and_version(db):
    ids = db.execute("SELECT new_decision_id() FROM generate_series(1, 100)").fetchall()
    assert {made.version for (made,) in ids} == {7}
    assert len(set(ids)) == 100
    assert db.execute(
        "SELECT abs(extract(epoch FROM clock_timestamp() - uuid_time(new_decision_id()))) < 1"
    ).fetchone() == (True,)


def test_a_budget_of_a_route_holds_for_a_fallback_that_it_led_to(agents):
    agents.execute(
        "SELECT ruvector_create_route('poems', 'Write a poem about spring', 'good'),"
        " ruvector_set_budget('poems', 0, 'route', 'poems')"
    )
    _, first = agents.execute(
        "SELECT agent_name, decision_id FROM ruvector_route('Write a poem about spring', 'quality')"
    ).fetchone()
    step = fall_back(agents, first)
    assert step["agent_name"] == "plain"
    assert "more than budget 'poems' has left" in step["reasoning"]


@pytest.mark.parametrize("recorded", [False, True], ids=["not yet recorded", "recorded before"])
@pytest.mark.parametrize("isolation", ["REPEATABLE READ", "SERIALIZABLE"])
def test_who_does_not_see_what_another_has_decided_may_try_again_and_gets_the_same(
    agents, installation: Installation, isolation, recorded
):
    _, first, *_ = agents.execute(ROUTE.format("")).fetchone()
    # Once its outcome or its fallback is recorded it is kept
    agents.execute("SELECT kept_decision(%s)", (first,))
    if recorded:
        agents.execute("SELECT ruvector_record_usage(%s, success := false, cost := 0)", (first,))
    with installation.connect() as other:
        other.execute(f"SET default_transaction_isolation = '{isolation}'")
        with pytest.raises(psycopg.errors.SerializationFailure), other.transaction():
            other.execute("SELECT count(*) FROM decisions")
            decided = fall_back(agents, first)["new_decision_id"]
            fall_back(other, first)
        assert fall_back(other, first)["new_decision_id"] == decided
    followers = agents.execute("SELECT id FROM decisions WHERE fallback_of = %s", (first,))
    assert followers.fetchall() == [(decided,)]
