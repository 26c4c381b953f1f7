"""A join that sends its outer values to the engine in batches."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import psycopg
import pytest

from tinydancer_fdw import frames

from .conftest import ScriptedEngine, answer_rows, encode_answer, plan_of

Connection = psycopg.Connection
BATCHED = "Custom Scan (Tiny Dancer Batched Join)"


def answers(connection: Connection, query: str) -> list[tuple[object, ...]]:
    """The rows of a query, which a nested loop without batches must give as well."""
    assert BATCHED in plan_of(connection, query)
    rows = connection.execute(query).fetchall()
    connection.execute("SET tinydancer.enable_batched_join = off")
    assert BATCHED not in plan_of(connection, query)
    assert sorted(map(repr, connection.execute(query).fetchall())) == sorted(map(repr, rows))
    connection.execute("RESET tinydancer.enable_batched_join")
    return rows


def test_a_join_is_a_few_scans_that_grow(connection: Connection, engine: ScriptedEngine) -> None:
    rows = connection.execute(
        "SELECT t.id, d.agent_name FROM tickets t JOIN route_decisions d ON d.request = t.body"
    ).fetchall()
    assert rows == [(number, "gpt-4") for number in range(1, 101)]
    assert [len(inputs[0][1] or "") for inputs in engine.asked] == [1, 4, 16, 64, 15]


def test_a_limit_asks_for_little(connection: Connection, engine: ScriptedEngine) -> None:
    connection.execute(
        "SELECT t.id FROM tickets t JOIN route_decisions d ON d.request = t.body LIMIT 1"
    )
    assert engine.asked == [[("request", ["ticket 1"])]]


def test_a_batch_is_no_larger_than_the_setting(
    connection: Connection, engine: ScriptedEngine
) -> None:
    connection.execute("SET tinydancer.join_batch = 10")
    connection.execute("SELECT 1 FROM tickets t JOIN route_decisions d ON d.request = t.body")
    sizes = [len(inputs[0][1] or "") for inputs in engine.asked]
    assert max(sizes) == 10
    assert sum(sizes) == 100


def test_a_value_that_repeats_is_asked_once_a_batch_and_nulls_never(
    connection: Connection, engine: ScriptedEngine
) -> None:
    connection.execute("SET tinydancer.join_batch = 1000")
    rows = answers(
        connection,
        "SELECT s.n, d.rank FROM (SELECT n, CASE n % 3 WHEN 0 THEN NULL ELSE 'r' || n % 3 END AS r "
        "FROM generate_series(1, 500) n) s LEFT JOIN route_decisions d ON d.request = s.r",
    )
    assert len(rows) == 500
    assert sum(rank is None for _, rank in rows) == 166
    batched = [inputs[0][1] for inputs in engine.asked if isinstance(inputs[0][1], list)]
    assert [sorted(map(str, values)) for values in batched] == [["r1"]] + [["r1", "r2"]] * 5


def test_a_value_that_repeats_is_asked_again_where_each_row_is_to_have_its_own_answer(
    connection: Connection, engine: ScriptedEngine
) -> None:
    connection.execute("SET tinydancer.join_batch = 1000")
    rows = answers(
        connection,
        "SELECT s.n, d.decision_id FROM (SELECT n, 'r' || least(n, 3) AS r "
        "FROM generate_series(1, 5) n) s JOIN route_decisions d ON d.request = s.r",
    )
    assert len(rows) == 5
    batched = [inputs[0][1] for inputs in engine.asked if isinstance(inputs[0][1], list)]
    assert sorted(map(sorted, batched)) == [["r1"], ["r2", "r3"], ["r3"], ["r3"]]


def test_an_outer_row_gets_each_of_its_rows(connection: Connection) -> None:
    rows = answers(
        connection,
        "SELECT t.id, d.rank FROM tickets t JOIN route_decisions d "
        "ON d.request = t.body AND d.top_k = 3",
    )
    assert rows == [(number, rank) for number in range(1, 101) for rank in (1, 2, 3)]


def test_a_left_join_keeps_the_rows_that_its_condition_drops(connection: Connection) -> None:
    rows = answers(
        connection,
        "SELECT t.id, d.rank FROM tickets t LEFT JOIN route_decisions d "
        "ON d.request = t.body AND d.top_k = 2 AND d.rank <= t.wanted WHERE t.id <= 60",
    )
    assert rows[:6] == [(1, 1), (2, 1), (2, 2), (3, None), (4, 1), (5, 1)]


def test_a_where_above_a_left_join_filters_what_it_joined(connection: Connection) -> None:
    rows = answers(
        connection,
        "SELECT t.id, coalesce(d.rank, 0) FROM tickets t LEFT JOIN route_decisions d "
        "ON d.request = t.body AND d.rank <= t.wanted WHERE coalesce(d.rank, 0) < 1",
    )
    assert rows == [(number, 0) for number in range(3, 101, 3)]


def test_the_outer_order_is_kept(connection: Connection) -> None:
    query = (
        "SELECT t.id FROM tickets t JOIN route_decisions d ON d.request = t.body ORDER BY t.id DESC"
    )
    rows = answers(connection, query)
    assert rows == [(number,) for number in range(100, 0, -1)]


def test_an_aggregate_above_the_join_sees_all_rows(connection: Connection) -> None:
    rows = answers(
        connection,
        "SELECT d.agent_name, count(*), sum(d.estimated_cost), max(length(d.request)) "
        "FROM tickets t LEFT JOIN route_decisions d ON d.request = t.body GROUP BY 1",
    )
    assert [tuple(map(str, row)) for row in rows] == [("gpt-4", "100", "0.300", "10")]


def test_a_rescan_takes_new_parameters(connection: Connection) -> None:
    rows = connection.execute(
        "SELECT g, s.* FROM generate_series(1, 3) g, LATERAL (SELECT count(*), max(d.rank) "
        "FROM tickets t JOIN route_decisions d ON d.request = t.body "
        "WHERE t.id <= g * 20 AND d.top_k = g OFFSET 0) s"
    ).fetchall()
    assert rows == [(1, 20, 1), (2, 80, 2), (3, 180, 3)]


def test_the_value_may_be_an_expression(connection: Connection, engine: ScriptedEngine) -> None:
    rows = answers(
        connection,
        "SELECT count(*) FROM tickets t JOIN route_decisions d "
        "ON d.request = upper(t.body) || '!' AND d.optimize_for = lower('COST')",
    )
    assert rows == [(100,)]
    assert engine.asked[0] == [("request", ["TICKET 1!"]), ("optimize_for", "cost")]


def test_inputs_that_vary_are_a_scan_for_each_of_their_combinations(
    connection: Connection, engine: ScriptedEngine
) -> None:
    connection.execute(
        "CREATE TEMP TABLE tiered AS SELECT id, body, wanted, CASE id % 5 WHEN 0 THEN NULL "
        "WHEN 1 THEN 'gold' ELSE 'free' END AS tier FROM tickets"
    )
    connection.execute("ANALYZE tiered")
    rows = answers(
        connection,
        "SELECT t.id, d.rank, d.user_tier FROM tiered t "
        "LEFT JOIN route_decisions d ON d.request = t.body AND d.user_tier = t.tier "
        "AND d.top_k = t.wanted + 1 AND d.optimize_for = 'cost' AND d.max_cost = t.wanted",
    )
    assert rows[:5] == [
        (1, 1, "gold"), (1, 2, "gold"), (2, 1, "free"), (2, 2, "free"), (2, 3, "free"),
    ]  # fmt: skip
    assert [row for row in rows if row[0] == 5] == [(5, None, None)]
    batched = [scan for scan in engine.scans if scan.inputs[0].match == frames.ANY]
    assert len(batched) == 1 + 3 + 6 + 6 + 6  # batches of 1, 4, 16, 64 and 15 rows


def test_arrays_can_vary_too(connection: Connection, engine: ScriptedEngine) -> None:
    rows = answers(
        connection,
        "SELECT t.id, d.required_capabilities FROM tickets t JOIN route_decisions d "
        "ON d.request = t.body AND d.required_capabilities = "
        "CASE t.wanted WHEN 0 THEN '{}' ELSE ARRAY['code', t.wanted::text] END",
    )
    assert rows[:3] == [(1, ["code", "1"]), (2, ["code", "2"]), (3, [])]


def test_joins_of_joins(connection: Connection) -> None:
    rows = answers(
        connection,
        "SELECT t.id, d.agent_name, c.capability FROM tickets t "
        "JOIN tickets u USING (id) "
        "JOIN route_decisions d ON d.request = u.body "
        "LEFT JOIN capability_matches c ON c.capability = d.request",
    )
    assert len(rows) == 100


def test_a_generic_plan_batches_too(connection: Connection, engine: ScriptedEngine) -> None:
    connection.execute("SET plan_cache_mode = force_generic_plan")
    connection.execute(
        "PREPARE joined(double precision) AS SELECT count(*) FROM tickets t "
        "JOIN route_decisions d ON d.request = t.body AND d.max_cost = $1"
    )
    for cost in (0.5, 1.5):
        assert connection.execute(f"EXECUTE joined({cost})").fetchone() == (100,)
    assert {inputs[1] for inputs in engine.asked} == {("max_cost", "0.5"), ("max_cost", "1.5")}


@pytest.mark.parametrize(
    "query",
    [
        # The required input is the same for all rows.
        "SELECT * FROM tickets t JOIN route_decisions d ON d.request = 'x' AND d.top_k = t.wanted",
        # A semi-join may stop at a row's first match.
        "SELECT * FROM tickets t WHERE EXISTS "
        "(SELECT 1 FROM route_decisions d WHERE d.request = t.body)",
        # A system column of the inner table.
        "SELECT d.tableoid FROM tickets t JOIN route_decisions d ON d.request = t.body",
    ],
)
def test_other_joins_keep_their_nested_loop(connection: Connection, query: str) -> None:
    assert BATCHED not in plan_of(connection, query)
    assert len(connection.execute(query).fetchall()) in (66, 99, 100)


def test_the_whole_row_of_the_foreign_table(connection: Connection) -> None:
    rows = answers(
        connection,
        "SELECT t.id, (d).request, (d).agent_name, d IS NULL FROM tickets t "
        "LEFT JOIN route_decisions d ON d.request = t.body AND d.rank = t.wanted WHERE t.id < 60",
    )
    assert rows[:3] == [
        (1, "ticket 1", "gpt-4", False),
        (2, None, None, True),
        (3, None, None, True),
    ]


def test_an_update_from_a_foreign_table_is_batched(
    connection: Connection, engine: ScriptedEngine
) -> None:
    update = (
        "UPDATE tickets t SET body = d.agent_name FROM route_decisions d "
        "WHERE d.request = t.body AND t.id <= 30"
    )
    assert BATCHED in plan_of(connection, update)
    with connection.transaction(force_rollback=True):
        assert connection.execute(update).rowcount == 30
        written = connection.execute("SELECT count(*) FROM tickets WHERE body = 'gpt-4'")
        assert written.fetchone() == (30,)
    assert len(engine.scans) == 4


def test_an_update_that_met_another_joins_the_rows_as_they_are_now(
    connection: Connection, door_database: str
) -> None:
    connection.execute("CREATE TABLE moving (id int, body text, agent text)")
    connection.execute(
        "INSERT INTO moving SELECT i, 'old ' || i, NULL FROM generate_series(1, 9) i"
    )
    try:
        with psycopg.connect(door_database) as other:
            other.execute("UPDATE moving SET body = 'new ' || id WHERE id = 5")
            waiting = threading.Thread(
                target=connection.execute,
                args=(
                    "UPDATE moving m SET agent = d.agent_name || ' for ' || d.request "
                    "FROM route_decisions d WHERE d.request = m.body",
                ),
            )
            waiting.start()
            while not other.execute(
                "SELECT 1 FROM pg_locks WHERE NOT granted AND pid = %s",
                (connection.info.backend_pid,),
            ).fetchall():
                time.sleep(0.01)
            other.commit()
            waiting.join()
        rows = connection.execute("SELECT id, agent FROM moving WHERE id IN (4, 5) ORDER BY id")
        assert rows.fetchall() == [(4, "gpt-4 for old 4"), (5, "gpt-4 for new 5")]
    finally:
        connection.execute("DROP TABLE moving")


def test_explain_shows_the_batches(connection: Connection) -> None:
    query = "SELECT * FROM tickets t LEFT JOIN route_decisions d ON d.request = t.body"
    plan = plan_of(connection, query)
    assert "Join Type: Left" in plan
    assert "Join Cond: (d.request = t.body)" in plan
    assert "Inputs: request = ANY (batch of t.body)" in plan
    row = connection.execute(f"EXPLAIN (ANALYZE, FORMAT JSON) {query}").fetchone()
    assert row is not None
    join = row[0][0]["Plan"]
    assert (join["Scans Sent"], join["Rows Received"]) == (5, 100)


def test_an_answer_to_what_was_not_asked_is_an_error(
    connection: Connection, engine: ScriptedEngine
) -> None:
    def other(scan: frames.Scan) -> Iterator[bytes]:
        rows = answer_rows(scan)
        at = scan.columns.index("request")
        yield encode_answer(
            [(*row[:at], "something else", *row[at + 1 :]) for row in rows], len(scan.columns)
        )

    engine.reply = other
    with pytest.raises(psycopg.errors.ProtocolViolation, match="not asked"):
        connection.execute("SELECT 1 FROM tickets t JOIN route_decisions d ON d.request = t.body")


def test_a_batched_join_in_a_cursor_and_beside_another_scan(connection: Connection) -> None:
    with connection.transaction():
        connection.execute(
            "DECLARE c CURSOR FOR SELECT t.id FROM tickets t "
            "JOIN route_decisions d ON d.request = t.body"
        )
        seen = []
        while rows := connection.execute("FETCH 7 FROM c").fetchall():
            seen += [number for (number,) in rows]
            connection.execute("SELECT * FROM route_decisions WHERE request = 'between'")
        assert seen == list(range(1, 101))
