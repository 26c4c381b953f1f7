"""Results as a person reads them: names and figures whole, within the width of the terminal."""

from __future__ import annotations

import io
from decimal import Decimal

import pytest
from rich.console import Console

from tinydancer.cli.results import figure_table, result_table

NAMES = ["agent_name", "estimated_cost", "estimated_latency_ms", "expected_quality", "quality_is"]
AGENTS = [
    ("claude-3-haiku", Decimal("0.00015525"), 400.0, 0.8, "prior"),
    ("on-call-engineer", Decimal(12), 600000.0, 0.99, "prior"),
    (None, None, None, None, None),
]


def shown(names, rows, width: int) -> list[str]:
    output = io.StringIO()
    Console(file=output, width=width).print(result_table(names, rows, width))
    return output.getvalue().splitlines()


@pytest.mark.parametrize("width", [72, 80, 100, 120])
def test_names_and_figures_are_whole_at_any_width(width):
    lines = shown(NAMES, AGENTS, width)
    assert max(map(len, lines)) <= width
    (row,) = [line for line in lines if line.startswith("on-call-engineer")]
    assert row.split() == ["on-call-engineer", "$12", "600,000", "0.99", "prior"]


def test_a_header_is_broken_behind_an_underscore_and_only_where_room_is_short():
    assert shown(NAMES, AGENTS, 120)[0].split() == NAMES
    assert shown(NAMES, AGENTS, 72)[1].split() == [
        "agent_name", "cost", "latency_ms", "quality", "quality_is",
    ]  # fmt: skip


def test_long_texts_are_wrapped_between_words():
    text = "I was charged twice this month, please refund one payment"
    lines = shown(["id", "body", "agent_name"], [(1, text, "support-agent"), (2, text, "b")], 60)
    assert max(map(len, lines)) <= 60
    words = " ".join(lines[2:4]).replace("support-agent", "").split()
    assert " ".join(words) == f"1 {text}"


def test_one_row_with_a_sentence_is_shown_column_by_column():
    reasoning = "claude-3-haiku is the cheapest of 8 agents that qualify: cost 0.00015525."
    lines = shown(["agent_name", "confidence", "reasoning"], [("haiku", 0.8, reasoning)], 60)
    assert [line.split()[0] for line in lines[:3]] == ["agent_name", "confidence", "reasoning"]
    assert lines[0].split() == ["agent_name", "haiku"]


def test_values_are_as_people_write_them():
    names = ["ok", "cost_per_call", "free_cost", "count", "share", "names", "nothing"]
    row = (True, Decimal("0.0010"), 0, 5, 0.5, ["a", "b"], None)
    (*_, line) = shown(names, [row], 100)
    assert line.split() == ["true", "$0.001", "-", "5", "0.50", "a,", "b", "NULL"]


@pytest.mark.parametrize("width", [60, 80, 96, 97, 120, 200])
def test_no_figure_of_an_evaluation_is_left_out_at_any_width(width):
    metrics = [f"accuracy at {share}" for share in range(8)]
    rows = [
        ["intents", "full", *(f"{70 + at}.5" for at in range(8))],
        ["intents", "ten shots", "41.5", *[""] * 7],
    ]
    output = io.StringIO()
    header = ["dataset", "setting", *metrics]
    Console(file=output, width=width).print(figure_table(header, rows, 2, width))
    lines = output.getvalue().splitlines()
    assert max(map(len, lines)) <= width
    words = output.getvalue().split()
    for row in rows:
        assert {word for cell in row for word in cell.split()} <= set(words)
    assert "…" not in output.getvalue()
