"""What each shape of a WHERE makes of an input, by either front door and any kind of plan.

The rule: an equality, a list or alternatives of equalities give an input its value. Any other
clause only filters rows by what they echo. A filter by an input without a value would drop every
row without a word, so it is an error with a hint; the engine's answer is never silently empty.

Multicorn2 shows its wrapper a column beside an operator and a value, and no other clause. What it
hides can't be refused there: those few shapes have a column of their own in the table below.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import psycopg
import pytest
from tests.conftest import sqlstate

MISSING = "22004"  # the required input has no value
COMPARED = "22023"  # an optional input is compared, and has none

Expected = list[Any] | str  # the requests of the rows, or a SQLSTATE


@dataclass(frozen=True)
class Shape:
    """A WHERE on route_decisions and what comes of it.

    `hidden` is what comes of it where Multicorn2 does not show the clause to its wrapper.
    """

    where: str
    expected: Expected
    arguments: dict[str, Any] | None = None
    hidden: Expected | None = None

    def expected_by(self, front_door: str) -> Expected:
        """What comes of it through a front door."""
        if front_door == "multicorn" and self.hidden is not None:
            return self.hidden
        return self.expected


SHAPES = [
    # ---- a value ----
    Shape("request = 'a'", ["a"]),
    Shape("'a' = request", ["a"]),
    Shape("request = %(x)s", ["a"], {"x": "a"}),
    Shape("request = %(x)s::varchar", ["a"], {"x": "a"}),
    Shape("request::varchar = 'a'", ["a"]),
    Shape("request = 5::text", ["5"]),
    Shape("request = lower('A')", ["a"]),
    Shape("request = current_setting('server_encoding')", ["UTF8"]),
    Shape("request = (SELECT 'a' || 'b')", ["ab"]),
    Shape("request COLLATE \"C\" = 'a'", ["a"]),
    Shape("(request, top_k) = ('a', 1)", ["a"]),
    Shape("request = 'a' AND max_cost = 3", ["a"]),
    Shape("request = 'a' AND max_cost = 3::numeric", ["a"]),
    Shape("request = 'a' AND max_cost = %(n)s::numeric", ["a"], {"n": 3}),
    Shape("request = 'a' AND top_k = 1::bigint", ["a"]),
    Shape("request = 'a' AND top_k = %(n)s::bigint", ["a"], {"n": 1}),
    Shape("request = 'a' AND max_cost = (SELECT 3)", ["a"]),
    Shape("request = 'a' AND excluded_agents = ARRAY['x', 'y']", ["a"]),
    Shape("request = 'a' AND excluded_agents = %(x)s", ["a"], {"x": ["x", "y"]}),
    # ---- several values ----
    Shape("request IN ('a', 'b')", ["a", "b"]),
    Shape("request IN ('a', NULL)", ["a"]),
    Shape("request = ANY (%(x)s)", ["a", "b"], {"x": ["a", "b", None]}),
    Shape("request = ANY (%(x)s)", [], {"x": []}),
    Shape("request = ANY (ARRAY(SELECT n::text FROM generate_series(1, 3) n))", ["1", "2", "3"]),
    Shape("request IN (SELECT n::text FROM generate_series(1, 3) n)", ["1", "2", "3"]),
    Shape("request = 'a' AND max_cost = ANY ('{1, 2}')", ["a", "a"]),
    Shape("request = 'a' OR request = 'b'", ["a", "b"], hidden=MISSING),
    Shape("request = 'a' AND (top_k = 1 OR top_k = 2)", ["a", "a"], hidden=[]),
    # ---- values that exclude rows ----
    Shape("request = 'a' AND request = 'b'", []),
    Shape("request = %(x)s AND request = %(y)s", [], {"x": "a", "y": "b"}),
    Shape("request = %(x)s AND request = %(y)s", ["a"], {"x": "a", "y": "a"}),
    Shape("request IN ('a', 'b') AND request IN ('b', 'c')", ["b"]),
    Shape("request = ANY (%(x)s) AND request = ANY (%(y)s)", ["b"], {"x": [*"ab"], "y": [*"bc"]}),
    Shape("request = 'a' AND top_k = 1 AND top_k = ANY ('{1, 2}')", ["a"]),
    # ---- NULL is no value ----
    Shape("request = NULL", []),
    Shape("request = %(x)s::text", [], {"x": None}),
    Shape("request = ANY (%(x)s::text[])", [], {"x": None}),
    Shape("request IS NULL", []),
    Shape("request IS NULL AND request = 'a'", []),
    Shape("request = 'a' AND max_cost = %(x)s::float8", [], {"x": None}),
    Shape("request = 'a' AND max_cost IS NULL", ["a"]),
    Shape("request = 'a' AND max_cost IS NULL AND max_cost < 3", []),
    Shape("request = 'a' AND max_cost IS DISTINCT FROM 3", ["a"]),
    Shape("request = 'a' AND coalesce(max_cost, 0) < 3", ["a"]),
    Shape("request = 'a' AND (max_cost < 3 OR max_cost IS NULL)", ["a"]),
    Shape("request = 'a' AND (max_cost < 3 OR rank = 1)", ["a"]),
    # ---- filters beside a value ----
    Shape("request = 'a' AND request IS NOT NULL", ["a"]),
    Shape("request = 'a' AND request LIKE 'a%%'", ["a"]),
    Shape("request = 'a' AND request LIKE 'b%%'", []),
    Shape("request = 'a' AND upper(request) = 'A'", ["a"]),
    Shape("request = 'a' AND request NOT IN ('b')", ["a"]),
    Shape("request = 'a' AND max_cost = 2 AND max_cost < 3", ["a"]),
    Shape("request = 'a' AND max_cost = 5 AND max_cost < 3", []),
    Shape("request = 'a' AND max_cost = 5 AND NOT max_cost = 3", ["a"]),
    Shape("request = 'a' AND max_cost = 5 AND max_cost IS NOT NULL", ["a"]),
    Shape("request = 'a' AND max_cost = 5 AND max_cost::numeric = 5", ["a"]),
    # ---- the required input has no value ----
    Shape("true", MISSING),
    Shape("rank = 1", MISSING),
    Shape("max_cost = 3", MISSING),
    Shape("max_cost < 3", MISSING),
    Shape("request IS NOT NULL", MISSING),
    Shape("request <> 'a'", MISSING),
    Shape("request < 'a'", MISSING),
    Shape("request LIKE 'a%%'", MISSING),
    Shape("request ~ '^a'", MISSING),
    Shape("request = ALL (ARRAY['a', %(x)s])", MISSING, {"x": "a"}),
    Shape("request <> ALL (%(x)s)", MISSING, {"x": ["a"]}),
    Shape("request = agent_name", MISSING),
    Shape("request = random()::text", MISSING),
    Shape("request = 'a' OR rank = 1", MISSING),
    Shape("request || '' = 'a'", MISSING),
    Shape("upper(request) = 'A'", MISSING),
    Shape("starts_with(request, 'a')", MISSING),
    Shape("(request, top_k) IN (('a', 1), ('b', 2))", MISSING),
    Shape("request IS NOT DISTINCT FROM 'a'", MISSING),
    # ---- an optional one is compared, and has none ----
    Shape("request = 'a' AND max_cost < 3", COMPARED),
    Shape("request = 'a' AND 3 > max_cost", COMPARED),
    Shape("request = 'a' AND max_cost < %(x)s", COMPARED, {"x": 0.5}),
    Shape("request = 'a' AND max_cost BETWEEN 1 AND 3", COMPARED),
    Shape("request = 'a' AND max_cost <> 3", COMPARED),
    Shape("request = 'a' AND NOT max_cost = 3", COMPARED),
    Shape("request = 'a' AND max_cost IS NOT NULL", COMPARED),
    Shape("request = 'a' AND NOT max_cost IS NULL", COMPARED),
    Shape("request = 'a' AND max_cost < ANY ('{1, 2}')", COMPARED),
    Shape("request = 'a' AND max_cost <> ALL (%(x)s)", COMPARED, {"x": [1.0]}),
    Shape("request = 'a' AND optimize_for LIKE 'c%%'", COMPARED),
    Shape("request = 'a' AND optimize_for NOT LIKE 'c%%'", COMPARED),
    Shape("request = 'a' AND excluded_agents @> ARRAY['x']", COMPARED),
    Shape("request = 'a' AND max_cost < (SELECT 3)", COMPARED),
    # ---- the same, where Multicorn2 hides the clause ----
    Shape("request = 'a' AND max_cost = random()", COMPARED, hidden=[]),
    Shape("request = 'a' AND max_cost = budget_remaining", COMPARED, hidden=[]),
    Shape("request = 'a' AND max_cost + 1 < 3", COMPARED, hidden=[]),
    Shape("request = 'a' AND max_cost::numeric = 5", COMPARED, hidden=[]),
    Shape("request = 'a' AND upper(optimize_for) = 'COST'", COMPARED, hidden=[]),
    Shape("request = 'a' AND starts_with(optimize_for, 'c')", COMPARED, hidden=[]),
    Shape("request = 'a' AND (max_cost < 1 OR max_cost > 3)", COMPARED, hidden=[]),
    Shape("request = 'a' AND NOT (max_cost < 3 OR max_cost IS NULL)", COMPARED),
    Shape("request = 'a' AND optimize_for IS NOT DISTINCT FROM 'cost'", COMPARED, hidden=[]),
]


def answer(db: psycopg.Connection, query: str, arguments: Any = None) -> Expected:
    """The requests of a query's rows in their order, or its SQLSTATE: an error has a hint."""
    try:
        found = db.execute(query, arguments, prepare=arguments is not None).fetchall()
    except psycopg.Error as error:
        assert "= " in (error.diag.message_hint or "")
        return sqlstate(error) or ""
    return sorted(request for (request,) in found)


@pytest.mark.parametrize("plan", ["custom", "generic"])
@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.where)
def test_a_qual_gives_a_value_or_filters_or_is_refused(
    db: psycopg.Connection, front_door: str, shape: Shape, plan: str
) -> None:
    db.execute("SET client_min_messages = error")  # Multicorn2 warns of clauses that it can't show
    db.execute(f"SET plan_cache_mode = force_{plan}_plan")
    query = f"SELECT request FROM route_decisions WHERE {shape.where}"
    assert answer(db, query, shape.arguments) == shape.expected_by(front_door)


def test_a_comparison_with_null_holds_for_no_row_and_may_be_refused(
    db: psycopg.Connection,
) -> None:
    query = "SELECT request FROM route_decisions WHERE request = 'a' AND max_cost < %s::float8"
    db.execute("SET plan_cache_mode = force_custom_plan")  # the planner knows that none is below
    assert answer(db, query, (None,)) == []
    db.execute("SET plan_cache_mode = force_generic_plan")
    assert answer(db, query, (None,)) == COMPARED


def test_a_list_of_parameters(db: psycopg.Connection, front_door: str) -> None:
    query = "SELECT request FROM route_decisions WHERE request IN (%s, %s)"
    db.execute("SET plan_cache_mode = force_custom_plan")
    assert answer(db, query, ("a", "b")) == ["a", "b"]
    db.execute("SET plan_cache_mode = force_generic_plan")
    # Multicorn2 hands over an array of parameters as bytes of no meaning.
    garbled = front_door == "multicorn"
    assert answer(db, query, ("a", "b")) == (COMPARED if garbled else ["a", "b"])


QUERIES = [
    # ---- values from elsewhere in the query ----
    Shape("SELECT d.request FROM t JOIN route_decisions d ON request = body", ["a", "b"]),
    Shape("SELECT d.request FROM t LEFT JOIN route_decisions d ON request = body", ["a", "b", ""]),
    Shape("SELECT d.request FROM t, route_decisions d WHERE request = body", ["a", "b"]),
    Shape(
        "SELECT d.request FROM t, route_decisions d WHERE request = body AND max_cost = n",
        ["a", "b"],
    ),
    Shape(
        "SELECT d.request FROM t, LATERAL (SELECT * FROM route_decisions"
        " WHERE request = body AND max_cost = n LIMIT 1) d",
        ["a", "b"],
    ),
    Shape(
        "SELECT (SELECT request FROM route_decisions WHERE request = body AND max_cost = n)"
        " FROM t WHERE body IS NOT NULL",
        ["a", "b"],
    ),
    Shape("SELECT request FROM route_decisions WHERE request IN (SELECT body FROM t)", ["a", "b"]),
    Shape(
        "SELECT body FROM t WHERE EXISTS (SELECT FROM route_decisions WHERE request = body)",
        ["a", "b"],
    ),
    Shape(
        "SELECT body FROM t WHERE body IS NOT NULL AND NOT EXISTS"
        " (SELECT FROM route_decisions WHERE request = body AND rank > 1)",
        ["a", "b"],
    ),
    Shape(
        "SELECT d.request FROM t, route_decisions d"
        " WHERE request = body AND max_cost = n AND max_cost < n + 1",
        ["a", "b"],
    ),
    Shape(
        "SELECT d.request FROM t LEFT JOIN route_decisions d ON request = body"
        " WHERE d.max_cost IS NULL",
        ["a", "b", ""],
    ),
    # A clause on the far side of an outer join drops none of the decisions.
    Shape(
        "SELECT d.request FROM route_decisions d LEFT JOIN t ON n > d.max_cost WHERE request = 'a'",
        ["a"],
    ),
    # ---- inputs without one ----
    Shape("SELECT d.request FROM t JOIN route_decisions d ON request <> body", MISSING),
    Shape("SELECT d.request FROM t JOIN route_decisions d ON upper(request) = body", MISSING),
    Shape("SELECT d.request FROM t CROSS JOIN route_decisions d", MISSING),
    Shape(
        "SELECT d.request FROM t, LATERAL (SELECT * FROM route_decisions"
        " WHERE request = body AND max_cost < n LIMIT 1) d",
        COMPARED,
    ),
    Shape(
        "SELECT (SELECT request FROM route_decisions WHERE request = body AND max_cost < n) FROM t",
        COMPARED,
    ),
    Shape(
        "SELECT d.request FROM t JOIN route_decisions d ON request = body AND max_cost < 3",
        COMPARED,
    ),
    Shape(
        "SELECT d.request FROM t JOIN route_decisions d ON request = body AND max_cost < n",
        COMPARED,
        hidden=[],
    ),
    Shape(
        "SELECT d.request FROM t LEFT JOIN route_decisions d ON request = body AND max_cost < n"
        " WHERE body = 'a'",
        COMPARED,
        hidden=[""],
    ),
]


@pytest.mark.parametrize("shape", QUERIES, ids=lambda shape: shape.where)
def test_a_query_gives_values_or_filters_or_is_refused(
    db: psycopg.Connection, front_door: str, shape: Shape
) -> None:
    db.execute("SET client_min_messages = error")
    db.execute("CREATE TEMP TABLE t (body, n) AS VALUES ('a', 1.5::float8), ('b', 2), (NULL, 3)")
    found = answer(db, shape.where.replace("SELECT d.request", "SELECT coalesce(d.request, '')", 1))
    expected = shape.expected_by(front_door)
    assert found == (expected if isinstance(expected, str) else sorted(expected))
