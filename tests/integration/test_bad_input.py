"""What makes no sense is refused with a SQLSTATE and a hint, and nothing of it is written."""

from __future__ import annotations

import random

import psycopg
import pytest
from tests.conftest import sqlstate

# All that these calls could write to; agents without their embeddings, which an engine writes back.
WRITTEN = (
    "agent_listing", "agent_outcomes", "agent_prices", "budgets", "budget_periods",
    "budget_reservations", "category_outcomes", "decisions", "usage", "usage_hourly", "usage_keys",
    "usage_latency",
)  # fmt: skip
UNKNOWN = "018f0000-0000-7000-8000-000000000000"
RECORD = "SELECT ruvector_record_usage"


@pytest.fixture
def ledger(db: psycopg.Connection) -> psycopg.Connection:
    """Three agents, a decision with its outcome, one without, and a budget that holds its money."""
    db.execute(
        """
        UPDATE settings SET decision_log = 'sync';
        SELECT ruvector_register_agent(name, 'tool', ARRAY['work'], cost_per_call := 2)
        FROM unnest(ARRAY['a', 'b', 'c']) AS name;
        SELECT ruvector_set_budget('all', 10);
        """
    )
    for key in ("settled", "open"):
        db.execute(
            "SELECT set_config('test.' || %s, decision_id::text, false) FROM ruvector_route('x')",
            (key,),
        )
    db.execute(f"{RECORD}(current_setting('test.settled')::uuid, cost := 2, latency_ms := 5)")
    return db


def contents(db: psycopg.Connection) -> dict[str, list[str]]:
    """Every row of every table that could be written to."""
    return {
        table: [row for (row,) in db.execute(f"SELECT t::text FROM {table} AS t ORDER BY 1")]
        for table in WRITTEN
    }


REFUSED = {
    "negative cost": (f"{RECORD}(agent_name := 'a', cost := -0.01)", "22003", "cost is -0.01"),
    "NaN cost": (f"{RECORD}(agent_name := 'a', cost := 'NaN')", "22003", "cost is NaN"),
    "infinite cost": (
        f"{RECORD}(agent_name := 'a', cost := 'Infinity')", "22003", "cost is Infinity",
    ),
    "negative price": (
        "SELECT ruvector_register_agent('d', cost_per_call := -1)", "22003", "cost_per_call is -1",
    ),
    "unknown decision": (f"{RECORD}('{UNKNOWN}', cost := 1)", "42704", f"decision {UNKNOWN}"),
    "unknown agent": (f"{RECORD}(agent_name := 'ghost', cost := 1)", "42704", "agent 'ghost'"),
    "twice the same outcome": (
        f"{RECORD}(current_setting('test.settled')::uuid, cost := 2, latency_ms := 5)",
        "42710", "has an outcome already",
    ),
    "twice in one batch": (
        "SELECT ruvector_record_usage_batch(jsonb_build_array("
        " jsonb_build_object('decision_id', current_setting('test.open'), 'cost', 1),"
        " jsonb_build_object('decision_id', current_setting('test.open'), 'cost', 1)))",
        "42710", "has an outcome already",
    ),
    "a batch with one bad outcome": (
        "SELECT ruvector_record_usage_batch("
        """'[{"agent_name": "a", "cost": 1}, {"agent_name": "a", "cost": -1}]')""",
        "22003", "cost is -1",
    ),
    "an outcome in the future": (
        f"{RECORD}(current_setting('test.open')::uuid, cost := 1,"
        " occurred_at := now() + interval '1 minute')",
        "22023", "which is in the future",
    ),
    "an outcome before there are partitions": (
        f"{RECORD}(agent_name := 'a', cost := 1, occurred_at := '1999-12-31')",
        "22023", "there are no partitions",
    ),
    "an unknown group_by": (
        "SELECT * FROM ruvector_routing_analytics('7 days', 'agents')", "22023", "'agents'",
    ),
    "an interval that is none": (
        "SELECT * FROM ruvector_routing_analytics('some days')", "22007", "'some days'",
    ),
    "an interval into the future": (
        "SELECT * FROM ruvector_routing_analytics('-7 days')", "22023", "'-7 days'",
    ),
    "a budget below what is spent and reserved": (
        "SELECT ruvector_set_budget('all', 3.99)", "55000", "is 3.99, below the 4",
    ),
    "a period in which less than the limit is left": (
        "SELECT ruvector_set_budget('all', 3.99, period := 'month')", "55000", "below the 4",
    ),
    "a tenant too long": (
        f"{RECORD}(agent_name := 'a', cost := 1, tenant := repeat('é', 129))",
        "54000", "tenant has 258 bytes",
    ),
    "an empty tenant": (f"{RECORD}(agent_name := 'a', tenant := ' ')", "22023", "tenant is ' '"),
    "a tier too long": (
        f"{RECORD}(agent_name := 'a', user_tier := repeat('x', 257))",
        "54000", "user_tier has 257 bytes",
    ),
    "a route too long": (
        f"{RECORD}(agent_name := 'a', route := repeat('x', 257))", "54000", "route has 257 bytes",
    ),
    "a category too long": (
        f"{RECORD}(agent_name := 'a', category := repeat('x', 257))",
        "54000", "category has 257 bytes",
    ),
    "a budget for a tenant too long": (
        "SELECT ruvector_set_budget('b', 1, tenant := repeat('x', 257))",
        "54000", "tenant has 257 bytes",
    ),
    "a budget for a blank tenant": (
        "SELECT ruvector_set_budget('b', 1, tenant := E' \\t')", "22023", "tenant is",
    ),
    "a budget for a subject with a blank at its end": (
        "SELECT ruvector_set_budget('b', 1, 'agent', 'a ')", "22023", "subject is 'a '",
    ),
    "more capabilities than a row has room for": (
        "SELECT ruvector_register_agent('d', capabilities := ARRAY[repeat('x', 65537)])",
        "54000", "capabilities have",
    ),
    "a vector without a direction": (
        "SELECT ruvector_create_route('r', 'x', 'a', embedding :="
        " array_fill(0::real, ARRAY[384])::vector)",
        "22023", "embedding has no direction",
    ),
    "num_agents 0": ("SELECT * FROM ruvector_route_multi('x', 0)", "22003", "num_agents is 0"),
    "more agents than there are": (
        "SELECT * FROM ruvector_route_multi('x', 4)", "22023", "4",
    ),
    "a strategy misspelt": (
        "SELECT * FROM ruvector_route_multi('x', 2, 'pipelin')", "22023", "'pipelin'",
    ),
    "an objective misspelt": (
        "SELECT * FROM ruvector_batch_route(ARRAY['x'], 'speed')", "22023", "'speed'",
    ),
    "a limit of the batch for requests by themselves": (
        "SELECT decisions FROM batch_decisions WHERE requests = ARRAY['x']"
        " AND optimize_for = 'cost' AND total_budget = 1",
        "22023", "total_budget needs optimize_for = total_cost",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("statement", "state", "said"), REFUSED.values(), ids=list(REFUSED))
def test_it_is_refused_with_a_hint_and_nothing_is_written(ledger, statement, state, said):
    before = contents(ledger)
    with pytest.raises(psycopg.Error) as raised:
        ledger.execute(statement)
    assert said in raised.value.diag.message_primary
    assert sqlstate(raised.value) == state
    assert raised.value.diag.message_hint
    assert contents(ledger) == before


def test_the_longest_tier_and_tenant_that_a_decision_takes_can_be_recorded(ledger):
    # A letter of two bytes each that does not compress: what sums are kept by is in an index.
    longest = "".join(chr(random.Random(n).randrange(0x400, 0x4FF)) for n in range(128))
    decided = "SELECT decision_id FROM ruvector_route('x', user_tier := {}, tenant := {})"
    with pytest.raises(psycopg.Error, match="user_tier has 258 bytes, over the limit of 256"):
        ledger.execute(decided.format("%s", "NULL"), (longest + "é",))
    (decision,) = ledger.execute(decided.format("%s", "%s"), (longest, longest)).fetchone()
    assert ledger.execute(f"{RECORD}(%s)", (decision,)).fetchone() == (True,)


def test_what_is_compared_is_written_to_where_it_makes_sense(ledger):
    """The test above could not tell, if the tables it reads were never written to."""
    before = contents(ledger)
    ledger.execute(f"{RECORD}(current_setting('test.open')::uuid, cost := 1, latency_ms := 5)")
    ledger.execute("SELECT ruvector_register_agent('d')")
    ledger.execute("SELECT decision_id FROM ruvector_route('x', 'cost')")
    after = contents(ledger)
    assert {table for table in WRITTEN if after[table] == before[table]} == {"budgets"}


@pytest.mark.parametrize(
    "change",
    [
        """UPDATE agents SET metadata = '{"number": 1e5000}'""",
        """UPDATE agents SET metadata
           = jsonb_build_object('deep', (repeat('[', 3000) || repeat(']', 3000))::jsonb)""",
        "UPDATE agents SET cost_per_call = 1e-1000",
        "SELECT ruvector_create_route('r', 'work', 'c', time_from := '24:00', time_to := '12:00')",
        "SELECT ruvector_create_route('r', 'work', 'c', time_from := '12:00', time_to := '24:00')",
    ],
)
def test_no_row_that_the_tables_take_keeps_others_from_being_answered(db, change):
    db.execute("SELECT ruvector_register_agent('a', 'tool', ARRAY['work'])")
    db.execute(change)
    assert db.execute(
        "SELECT agent_name FROM route_decisions WHERE request = 'work'"
    ).fetchone() == ("a",)


def test_a_window_that_starts_or_ends_at_24_hours_starts_or_ends_at_midnight(db):
    for name, start, end in (("all", "00:00", "24:00"), ("am", "24:00", "12:00"),
                             ("pm", "12:00", "24:00")):  # fmt: skip
        db.execute(
            "SELECT ruvector_create_route(%s, 'work', 'c', time_from := %s, time_to := %s)",
            (name, start, end),
        )
    matched = {
        name for (name,) in db.execute("SELECT route_name FROM semantic_matches WHERE query='work'")
    }
    assert "all" in matched
    assert len(matched) == 2


@pytest.mark.parametrize("length", ["3e38", "1e-38", "1e-44"])
def test_a_vector_of_any_length_is_compared_by_its_direction(db, length):
    db.execute("SELECT ruvector_register_agent('a', 'tool', ARRAY['work'])")
    asked = (
        "SELECT similarity, score FROM route_decisions WHERE request = 'play' AND"
        " optimize_for = 'balanced'"
    )
    given = "UPDATE agents SET embedding = array_fill({}::real, ARRAY[384])::vector"
    db.execute(given.format("0.1"))
    usual = db.execute(asked).fetchone()
    db.execute(given.format(length))
    assert db.execute(asked).fetchone() == pytest.approx(usual)
