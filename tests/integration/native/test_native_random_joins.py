"""Whatever the query, a batched join gives the rows of a nested loop."""

from __future__ import annotations

import random
from collections.abc import Iterator

import psycopg
import pytest

from .conftest import plan_of

QUERIES = 120
FOREIGN = {
    "d": ("route_decisions", "request", "agent_name"),
    "m": ("semantic_matches", "query", "route_name"),
}


@pytest.fixture
def tables(connection: psycopg.Connection) -> Iterator[psycopg.Connection]:
    """Three small tables with repeated values and NULLs."""
    for name, rows, body in (
        ("a", 40, "CASE WHEN i % 7 = 0 THEN NULL ELSE 'text ' || i % 20 END"),
        ("b", 25, "'text ' || i % 11"),
        ("e", 5, "'other ' || i"),
    ):
        connection.execute(
            f"CREATE TEMP TABLE {name} AS SELECT i AS id, {body} AS body, i % 3 AS k "
            f"FROM generate_series(1, {rows}) i"
        )
        connection.execute(f"ANALYZE {name}")
    yield connection


def random_query(dice: random.Random) -> str:
    """Joins of local and foreign tables, inner and outer, with conditions here and there."""
    joined = ["a"]
    source = "a"
    for name in dice.sample(["b", "e", "d", "m"], dice.randrange(1, 5)):
        local = [other for other in joined if other not in FOREIGN]
        other = dice.choice(local)
        kind = dice.choice(["JOIN", "LEFT JOIN"])
        if name not in FOREIGN:
            source += f" {kind} {name} ON {name}.id = {other}.{dice.choice(['id', 'k'])}"
        else:
            table, key, _ = FOREIGN[name]
            conditions = [f"{name}.{key} = {other}.body"]
            if dice.random() < 0.3:
                conditions.append(f"{name}.top_k = {dice.choice(['2', f'{dice.choice(local)}.k'])}")
            if dice.random() < 0.3:
                conditions.append(f"{name}.rank {dice.choice(['<=', '<>'])} {other}.k")
            if dice.random() < 0.2:
                conditions.append(f"{dice.choice(local)}.id < {dice.randrange(1, 30)}")
            source += f" {kind} {table} {name} ON {' AND '.join(conditions)}"
        joined.append(name)
    columns, filters = [], []
    for name in joined:
        if name in FOREIGN:
            output = FOREIGN[name][2]
            columns += [f"{name}.rank", dice.choice([f"coalesce({name}.{output}, '-')", f"{name}"])]
            choices = [f"{name}.rank IS NULL", f"coalesce({name}.rank, 0) < 2", f"{name}.rank = 1"]
        else:
            columns += [f"{name}.id", f"{name}.body"]
            choices = [f"{name}.id < 20", f"{name}.k = 1", f"coalesce({name}.k, 5) > 0"]
        if dice.random() < 0.25:
            filters.append(dice.choice(choices))
    where = f" WHERE {' AND '.join(filters)}" if filters else ""
    if dice.random() < 0.15:
        return f"SELECT count(*), sum(a.id) FROM {source}{where}"
    order = " ORDER BY a.id" if dice.random() < 0.3 else ""
    return f"SELECT {', '.join(columns)} FROM {source}{where}{order}"


@pytest.mark.parametrize("batch", [3, 1000])
def test_any_query_gives_the_same_rows_with_and_without_batches(
    tables: psycopg.Connection, batch: int
) -> None:
    dice = random.Random(batch)
    tables.execute(f"SET tinydancer.join_batch = {batch}")
    # A nested loop of foreign scans is then a last resort, so that most queries are batched.
    tables.execute("SET enable_nestloop = off")
    batched = 0
    for _ in range(QUERIES):
        query = random_query(dice)
        tables.execute("SET tinydancer.enable_batched_join = on")
        batched += "Batched Join" in plan_of(tables, query)
        rows = sorted(map(repr, tables.execute(query).fetchall()))
        tables.execute("SET tinydancer.enable_batched_join = off")
        assert sorted(map(repr, tables.execute(query).fetchall())) == rows, query
    assert batched > QUERIES / 3
