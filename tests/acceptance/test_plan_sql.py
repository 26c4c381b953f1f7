"""The plan's SQL, every statement as it stands, in one psql session on a fresh database."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.conftest import Server, install

PLAN = Path(__file__).with_name("plan.sql")
MARK = "=== statement"
BEFORE = """
CREATE TABLE public.pending_requests (request_id integer, content text);
INSERT INTO public.pending_requests VALUES
    (1, 'Where is the parcel that I ordered last week?'), (2, 'Translate this letter into French');
SET search_path = tinydancer, public;
"""


@dataclass(frozen=True)
class Answer:
    """A statement of the plan, and the rows that psql printed for it."""

    statement: str
    rows: list[dict[str, str]]


@pytest.fixture(scope="module")
def answers(
    server: Server, front_door: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[list[Answer]]:
    with server.database() as name:
        engine = server.engine(name, tmp_path_factory.mktemp("plan"))
        install(server.dsn(name), front_door, engine)
        try:
            engine.start()
            server.open_to_backends(engine.socket)
            yield run(psql(server), server.dsn(name), statements())
        finally:
            engine.stop()


def psql(server: Server) -> str:
    if server.embedded:
        return str(server.embedded.program("psql"))
    return shutil.which("psql") or pytest.skip("there is no psql")


def statements() -> list[str]:
    return [part + ";" for part in re.split(r";\s*$", PLAN.read_text(), flags=re.M) if code(part)]


def code(statement: str) -> str:
    """A statement without its comments."""
    return re.sub(r"--.*", "", statement).strip()


def run(program: str, dsn: str, plan: list[str]) -> list[Answer]:
    script = BEFORE + "".join(f"\\echo {MARK}\n{statement}\n" for statement in plan)
    done = subprocess.run(
        [program, dsn, "-X", "-q", "--csv", "-v", "ON_ERROR_STOP=1", "-f", "-"],
        input=script,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    outputs = done.stdout.split(f"{MARK}\n")[1:]
    rows = [list(csv.DictReader(io.StringIO(output))) for output in outputs]
    return [Answer(*pair) for pair in zip(plan, rows, strict=True)]


def of(answers: list[Answer], *words: str) -> list[Answer]:
    return [answer for answer in answers if all(word in code(answer.statement) for word in words)]


def one(answers: list[Answer], *words: str) -> list[dict[str, str]]:
    (answer,) = of(answers, *words)
    return answer.rows


def test_the_file_has_every_statement_of_the_plan() -> None:
    called = [re.findall(r"ruvector_\w+", code(statement))[0] for statement in statements()]
    assert called == [
        *["ruvector_register_agent"] * 3,
        "ruvector_list_agents",
        *["ruvector_route"] * 2,
        "ruvector_route_multi",
        *["ruvector_create_route"] * 2,
        "ruvector_semantic_route",
        "ruvector_routing_analytics",
        "ruvector_optimize_budget",
        "ruvector_route",
        "ruvector_batch_route",
        "ruvector_classify_request",
    ]


def test_agents_are_registered_and_listed(answers: list[Answer]) -> None:
    for answer in of(answers, "ruvector_register_agent"):
        assert answer.rows == [{"ruvector_register_agent": "t"}]
    listed = one(answers, "ruvector_list_agents")
    assert {row["name"] for row in listed} == {"gpt-4", "claude-3-haiku", "code-specialist"}


def test_a_request_goes_to_one_agent_with_the_columns_that_the_plan_shows(
    answers: list[Answer],
) -> None:
    shown = ["agent_name", "confidence", "estimated_cost", "estimated_latency_ms"]
    cheapest = one(answers, "optimize_for := 'cost'")
    assert list(cheapest[0])[:4] == shown
    assert [row["agent_name"] for row in cheapest] == ["claude-3-haiku"]
    constrained = one(answers, "complex legal document")
    assert [row["agent_name"] for row in constrained] == ["gpt-4"]
    (within,) = one(answers, "budget_remaining")
    assert within["agent_name"] in {"claude-3-haiku", "code-specialist"}
    for row in [*cheapest, *constrained, within]:
        assert 0 <= float(row["confidence"]) <= 1
        assert float(row["estimated_cost"]) > 0
        assert float(row["estimated_latency_ms"]) in {100, 400, 2500}


def test_a_team_of_three_is_found(answers: list[Answer]) -> None:
    team = one(answers, "ruvector_route_multi")
    assert [row["place"] for row in team] == ["1", "2", "3"]
    assert all(row["agent_name"] and row["part"] for row in team)
    latency = sum(float(row["estimated_latency_ms"]) for row in team)
    assert {float(row["team_latency_ms"]) for row in team} == {latency}


def test_routes_are_made_and_the_best_one_is_matched(answers: list[Answer]) -> None:
    for answer in of(answers, "ruvector_create_route"):
        assert answer.rows == [{"ruvector_create_route": "t"}]
    matched = one(answers, "ruvector_semantic_route")
    assert list(matched[0])[:4] == ["route_name", "similarity", "target_agent", "confidence"]
    assert matched[0]["route_name"] == "customer_support"
    assert matched[0]["target_agent"] == "support-agent"


def test_analytics_of_a_system_without_outcomes_are_empty(answers: list[Answer]) -> None:
    assert one(answers, "ruvector_routing_analytics") == []


def test_a_budget_is_given_to_agents_above_the_thresholds(answers: list[Answer]) -> None:
    (row,) = one(answers, "ruvector_optimize_budget")
    found = json.loads(row["ruvector_optimize_budget"])
    assert found["total_budget"] == 100
    assert found["period_days"] == 30
    # Of the three, only this one has quality 0.85 within 2 s.
    assert list(found["allocations"]) == ["code-specialist"]
    assert 0 < found["allocations"]["code-specialist"] <= 100


def test_a_batch_gets_a_row_for_each_request_in_order(answers: list[Answer]) -> None:
    batch = one(answers, "ruvector_batch_route")
    assert [row["request"] for row in batch] == [
        "Simple question 1",
        "Complex analysis task",
        "Code generation request",
    ]
    assert all(row["agent_name"] for row in batch)


def test_requests_of_a_table_are_classified(answers: list[Answer]) -> None:
    rows = one(answers, "ruvector_classify_request")
    assert {row["request_id"] for row in rows} == {"1", "2"}
    for row in rows:
        assert {"classifications", "top_category", "confidence"} <= set(
            json.loads(row["classification"])
        )
