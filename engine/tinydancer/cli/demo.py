"""`tinydancer demo`: the main job on an embedded PostgreSQL, told on one screen after another."""

from __future__ import annotations

import signal
import statistics
import sys
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tinydancer.cli.progress import steps
from tinydancer.cli.results import result_table
from tinydancer.embedded.instance import throwaway_instance

if TYPE_CHECKING:
    import psycopg
    from rich.console import Console


@dataclass(frozen=True)
class Scene:
    """One statement and what it shows; `first` is run before it, unseen."""

    title: str
    sql: str
    first: str = ""


SCENES = (
    Scene(
        "Register an agent",
        """SELECT ruvector_register_agent(
    name := 'code-specialist',
    agent_type := 'tool',
    capabilities := ARRAY['code-execution', 'debugging', 'testing'],
    cost_per_call := 0.001,
    avg_latency_ms := 100,
    quality_score := 0.90);""",
    ),
    Scene(
        "Agents are an ordinary table, so a fleet is an INSERT or a COPY",
        """SELECT name, type, capabilities, quality, avg_latency_ms AS ms
  FROM agents ORDER BY type, name;""",
        first="""
INSERT INTO agents (name, type, capabilities, quality, avg_latency_ms,
                    cost_per_1k_input_tokens, cost_per_1k_output_tokens) VALUES
  ('gpt-4o', 'llm', '{reasoning, code, analysis, creative}', 0.93, 2100, 0.0025, 0.01),
  ('gpt-4o-mini', 'llm', '{summarization, simple-tasks, chat}', 0.82, 700, 0.00015, 0.0006),
  ('claude-opus', 'llm', '{reasoning, analysis, legal, code}', 0.97, 4200, 0.015, 0.075),
  ('claude-3-haiku', 'llm', '{fast-response, simple-tasks, classification}', 0.80, 400,
   0.00025, 0.00125),
  ('support-agent', 'llm', '{customer support, refunds, accounts}', 0.88, 900, 0.0004, 0.0016);
INSERT INTO agents (name, type, capabilities, quality, avg_latency_ms, cost_per_call) VALUES
  ('web-search', 'api', '{search, news, current facts}', 0.75, 350, 0.005);
INSERT INTO agents (name, type, capabilities, quality, avg_latency_ms, cost_per_second) VALUES
  ('on-call-engineer', 'human', '{incidents, outages, judgement}', 0.99, 600000, 0.02);
""",
    ),
    Scene(
        "What they charge: by 1,000 tokens, a call, a second",
        """SELECT name, cost_per_1k_input_tokens AS "in/1k",
       cost_per_1k_output_tokens AS "out/1k",
       cost_per_call AS "call", cost_per_second AS "second"
  FROM agents ORDER BY type, name;""",
    ),
    Scene(
        "Who should serve this request, cheaply?",
        """SELECT agent_name, confidence, estimated_cost, estimated_latency_ms,
       reasoning
  FROM ruvector_route(
    request := 'Write a Python function to calculate Fibonacci numbers',
    optimize_for := 'cost');""",
    ),
    Scene(
        "The same request under each objective, within five seconds",
        """SELECT o AS optimize_for, d.agent_name, d.estimated_cost,
       d.estimated_latency_ms, d.expected_quality, d.score
  FROM unnest(ARRAY['cost', 'latency', 'quality', 'balanced',
                    'quality_per_dollar']) AS o,
       route_decisions d
 WHERE d.request = 'Write a Python function to calculate Fibonacci numbers'
   AND d.optimize_for = o
   AND d.max_latency_ms = 5000;""",
    ),
    Scene(
        "With constraints",
        """SELECT agent_name, confidence, estimated_cost, estimated_latency_ms,
       reasoning
  FROM ruvector_route(
    request := 'Analyze this complex legal document',
    required_capabilities := ARRAY['reasoning', 'analysis'],
    max_cost := 0.10,
    max_latency_ms := 5000,
    min_quality := 0.90);""",
    ),
    Scene(
        "Nobody suits: still a row, which says why",
        """SELECT agent_name, reasoning
  FROM ruvector_route(
    request := 'Prove the Riemann hypothesis',
    min_quality := 0.95,
    max_latency_ms := 500);""",
    ),
    Scene(
        "Named routes, matched by meaning",
        """SELECT route_name, similarity, target_agent, confidence
  FROM ruvector_semantic_route(
    query := 'How do I reset my password?', top_k := 3);""",
        first="""
SELECT ruvector_create_route(
    name := 'customer_support',
    description := 'Handle customer support inquiries, complaints, and feedback',
    embedding := ruvector_embed('Customer support: help with my account, password or order'),
    target_agent := 'support-agent',
    priority := 1);
SELECT ruvector_create_route(
    name := 'technical_docs',
    description := 'Answer questions about technical documentation and APIs',
    embedding := ruvector_embed('Technical documentation and API reference'),
    target_agent := 'gpt-4o-mini',
    priority := 2);
SELECT ruvector_create_route(
    name := 'incident',
    description := 'The production system is down',
    embedding := ruvector_embed('Outage: production is down, errors for all users'),
    target_agent := 'on-call-engineer',
    priority := 9);
""",
    ),
    Scene(
        "Joined to a table of yours",
        """SELECT t.id, t.body, d.agent_name, d.estimated_cost, d.confidence
  FROM tickets t
  JOIN route_decisions d ON d.request = t.body
 WHERE t.state = 'new' AND d.max_latency_ms = 5000
 ORDER BY t.id;""",
        first="""
CREATE TABLE public.tickets (id int PRIMARY KEY, state text NOT NULL, body text NOT NULL);
INSERT INTO tickets VALUES
  (1, 'new', 'I was charged twice this month, please refund one payment'),
  (2, 'new', 'Summarize the attached meeting notes in three sentences'),
  (3, 'closed', 'How do I change my e-mail address?'),
  (4, 'new', 'The unit tests fail with a segmentation fault since yesterday'),
  (5, 'new', 'What did the central bank decide about interest rates today?'),
  (6, 'new', 'Compare the liability clauses of these two contracts');
ANALYZE tickets;
""",
    ),
    Scene(
        "Many requests in one question: what the new tickets would cost",
        """SELECT d.agent_name, count(*) AS tickets,
       sum(d.estimated_cost) AS estimated_cost
  FROM route_decisions d
 WHERE d.request = ANY (ARRAY(SELECT body FROM tickets WHERE state = 'new'))
   AND d.optimize_for = 'quality_per_dollar'
 GROUP BY d.agent_name ORDER BY d.agent_name;""",
    ),
    Scene(
        "What PostgreSQL asks the engine",
        """EXPLAIN (COSTS OFF)
SELECT agent_name FROM route_decisions
 WHERE request = 'Summarize this contract' AND optimize_for = 'cost';""",
    ),
    Scene(
        "Why? Each decision carries its candidates ...",
        """SELECT c.agent, c.score, c.estimated_cost, c.estimated_latency_ms,
       c.expected_quality, c.quality_is, c.parts -> 'fit' AS fit
  FROM route_decisions d,
       jsonb_to_recordset(d.explanation -> 'candidates') AS c (
         agent text, score float, estimated_cost numeric,
         estimated_latency_ms float, expected_quality float,
         quality_is text, parts jsonb)
 WHERE d.request = 'Debug this stack trace' AND d.max_latency_ms = 500;""",
    ),
    Scene(
        "... and whom it refused, by which constraint",
        """SELECT r.agent, r."constraint", r."limit", r.actual
  FROM route_decisions d,
       jsonb_to_recordset(d.explanation -> 'refusals') AS r (
         agent text, "constraint" text, "limit" float, actual float)
 WHERE d.request = 'Debug this stack trace' AND d.max_latency_ms = 500;""",
    ),
)


@click.command()
@click.option("--postgres", type=click.Choice(["16", "18"]), default="18", show_default=True)
def demo(postgres: str) -> None:
    """Show decisions on an embedded PostgreSQL of its own, and leave nothing behind."""
    from rich.console import Console
    from rich.panel import Panel

    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, frame: sys.exit(128 + number))
    console = Console()
    with ExitStack() as stack:
        with steps() as report:
            instance = stack.enter_context(throwaway_instance(int(postgres), report))
        with instance.server.connect() as connection:
            connection.execute("SET search_path = tinydancer, public")
            for scene in SCENES:
                _play(console, connection, scene)
            _time(console, connection)
    # As it was called: the one in .venv/bin is seldom on the PATH.
    called = sys.argv[0]
    program = called if Path(called).name == "tinydancer" else "tinydancer"
    console.print(
        Panel.fit(
            f"[bold]{program} up[/]      the same with data that stays\n"
            f"[bold]{program} psql[/]    your turn\n"
            f"[bold]{program} down[/]    stops it",
            title="Next",
        )
    )


def _play(console: Console, connection: psycopg.Connection, scene: Scene) -> None:
    from rich.syntax import Syntax

    console.print()
    console.rule(f"[bold]{scene.title}", align="left")
    if scene.first:
        connection.execute(scene.first)
    began = time.perf_counter()
    cursor = connection.execute(scene.sql)
    rows = cursor.fetchall()
    milliseconds = 1000 * (time.perf_counter() - began)
    names = [column.name for column in cursor.description or ()]
    console.print(Syntax(scene.sql, "sql", background_color="default", word_wrap=True))
    console.print(result_table(names, rows, console.width))
    console.print(f"[dim]{len(rows)} row{'s' * (len(rows) != 1)} in {milliseconds:.1f} ms")


def _time(console: Console, connection: psycopg.Connection) -> None:
    """How long one decision takes through SQL, beside SELECT 1; each text is new."""

    def median(query: str, texts: list[str]) -> float:
        times = []
        for text in texts:
            began = time.perf_counter()
            connection.execute(query, [text]).fetchall()
            times.append(1000 * (time.perf_counter() - began))
        return statistics.median(times)

    subjects = [f"Please look into case {number} for me" for number in range(300)]
    nothing = median("SELECT %s::text", subjects)
    decision = median("SELECT agent_name FROM route_decisions WHERE request = %s", subjects)
    console.print()
    console.rule("[bold]How long does a decision take?", align="left")
    console.print(
        f"Median of {len(subjects)} decisions, one by one through SQL: [bold]{decision:.2f} ms[/]; "
        f"of SELECT 1: {nothing:.2f} ms."
    )
    console.print()
