"""The SQL of docs/ runs as it stands there, in order, a page at a time."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from tests.conftest import Installation

from tinydancer_fdw.contract import TABLES

DOCS = Path(__file__).resolve().parents[2] / "docs"
BEGINS = re.compile(
    r" *(SELECT|INSERT|UPDATE|DELETE|SET|CREATE|GRANT|COPY|EXPLAIN|IMPORT|ALTER|DROP)\b"
)
ENDS = re.compile(r";\s*(--.*)?$")
# What the pages take for granted: agents of these names, and tables of the reader's own.
WORLD = """
UPDATE settings SET decision_log = 'sync';
SELECT ruvector_register_agent('gpt-4', 'llm', ARRAY['reasoning', 'code', 'analysis'],
           cost_per_1k_tokens := 0.03, avg_latency_ms := 1500, quality_score := 0.95),
       ruvector_register_agent('claude-3-opus', 'llm', ARRAY['reasoning', 'creative'],
           cost_per_1k_tokens := 0.015, avg_latency_ms := 1900, quality_score := 0.93),
       ruvector_register_agent('claude-3-haiku', 'llm', ARRAY['simple-tasks', 'classification'],
           cost_per_1k_tokens := 0.00025, avg_latency_ms := 400, quality_score := 0.80),
       ruvector_register_agent('tool', 'tool', ARRAY['code-execution', 'testing'],
           cost_per_call := 0.001, avg_latency_ms := 100, quality_score := 0.90);
SELECT ruvector_record_usage(agent_name := 'gpt-4', cost := 0.02, latency_ms := 1400),
       ruvector_create_route('account_help', 'Passwords and access to an account', 'tool');
CREATE TABLE public.tickets (id integer, state text, body text);
INSERT INTO public.tickets VALUES (1, 'new', 'Where is my order?');
CREATE TABLE public.pending_requests (request_id integer, content text);
INSERT INTO public.pending_requests VALUES (1, 'Translate this letter into French');
CREATE TABLE public.pending (id integer, body text);
INSERT INTO public.pending VALUES (1, 'Will it rain tomorrow?');
CREATE TABLE public.articles (title text, embedding vector, embedding_model text);
INSERT INTO public.articles VALUES ('How to reset a password');
"""
AFTER = """
DROP TABLE public.tickets, public.pending_requests, public.pending, public.articles;
DROP INDEX IF EXISTS tinydancer.decisions_embedding_idx;
"""
# An id that a page leaves out is that of the decision made last.
ELIDED = "'0198…'"
LATEST = "(SELECT id FROM tinydancer.decisions ORDER BY id DESC LIMIT 1)"
# What needs more than the page: and where it is tested.
ELSEWHERE = {
    r"\bFROM \.\.\.": "left to the reader",
    r"ruvector_(train|activate|rollback|list_models)|models WHERE id": "takes a while: "
    "test_training.py, test_quality_refresh.py",
    r"FROM policy_replays": "needs a log with outcomes: test_policy_replays.py",
    r"max_cost < 3": "shown for its error: test_quals.py",
    r"^ *GRANT": "roles belong to the whole server: test_privileges.py",
    r"^ *ALTER SERVER": "leads to another engine: test_copied_database.py",
    r"^ *(CREATE (SERVER|USER|EXTENSION|SCHEMA|FUNCTION|FOREIGN)|IMPORT)": "a front door by hand",
}


def statements(page: str) -> list[str]:
    """Those of a page's blocks, fenced or indented."""
    found: list[str] = []
    statement: list[str] = []
    fenced = False
    for line in (DOCS / page).read_text().splitlines():
        if line.startswith("```"):
            fenced, statement = line == "```sql", []
        elif not (fenced or line.startswith("    ")):
            statement = []
        elif statement or BEGINS.match(line):
            statement.append(line)
            if ENDS.search(line):
                found.append("\n".join(statement))
                statement = []
    return found


PAGES = [
    name for page in sorted(DOCS.rglob("*.md")) if statements(name := str(page.relative_to(DOCS)))
]


@pytest.fixture
def world(db: psycopg.Connection) -> Iterator[psycopg.Connection]:
    """What the pages take for granted, and one decision that has no outcome yet."""
    db.execute(WORLD)
    try:
        db.execute("SELECT ruvector_route('Summarize this contract')")
        yield db
    finally:
        db.execute(AFTER)


@pytest.mark.parametrize("page", PAGES)
def test_the_sql_of_a_page_runs_in_order(
    world: psycopg.Connection, installation: Installation, page: str
) -> None:
    for statement in statements(page):
        if any(re.search(pattern, statement, re.M) for pattern in ELSEWHERE):
            continue
        if installation.front_door == "multicorn" and "EXPLAIN" in statement:
            continue  # what it shows is of the native one
        found = world.execute(statement.replace(ELIDED, LATEST).encode())
        assert found.rowcount, f"nothing comes of: {statement}"


def test_a_front_door_is_made_by_hand_as_its_page_says(
    installation: Installation, empty_database: str
) -> None:
    if installation.front_door != "native":
        pytest.skip("the steps are those of the native one")
    with psycopg.connect(empty_database, autocommit=True) as connection:
        for statement in statements("front-doors.md"):
            connection.execute(statement.encode())
            if "IMPORT" in statement:
                break
        made = connection.execute(
            "SELECT relname FROM pg_class WHERE relkind = 'f'"
            " AND relnamespace = 'my_schema'::regnamespace"
        ).fetchall()
    assert {name for (name,) in made} == set(TABLES)


def test_the_program_asks_calls_and_records(
    installation: Installation, db: psycopg.Connection
) -> None:
    # given an agent, and a way to call it
    db.execute("SELECT ruvector_register_agent('gpt-4', 'llm', ARRAY['chat'])")
    [program] = re.findall(r"```python\n(.*?)```", (DOCS / "sql.md").read_text(), re.DOTALL)
    world = {
        "psycopg": psycopg,
        "dsn": installation.dsn,
        "request": "Where is my order?",
        "call": lambda agent, request: (f"{agent}: {request}", 12, 34, 0.5),
    }
    # when the page's program runs
    exec(program, world)  # noqa: S102 - it is our own page
    # then it has an answer, and the outcome is that of its decision
    assert world["answer"] == "gpt-4: Where is my order?"
    outcome = "SELECT decision_id, agent, input_tokens, output_tokens, latency_ms FROM usage"
    assert db.execute(outcome).fetchall() == [(world["decision"], "gpt-4", 12, 34, 500.0)]
