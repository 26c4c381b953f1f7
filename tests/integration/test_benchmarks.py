"""Nobody runs all benchmarks before each change: that they still measure is seen here, in small."""

from __future__ import annotations

import json
import re
from importlib import import_module

import pytest
from tests.benchmarks import analytics, route_recall
from tests.benchmarks.__main__ import BENCHMARKS

SMALL = {
    "batch": ["--requests", "40", "--agents", "5"],
    "learning": ["--requests", "100"],
    "router": ["--rounds", "2"],
    "sql": ["--rounds", "4", "--no-up"],
    "workers": ["--sessions", "1", "--seconds", "0.1"],
}


@pytest.mark.parametrize("name", BENCHMARKS)
def test_a_benchmark_prints_a_figure_a_line(name, capsys):
    benchmark = import_module(f"tests.benchmarks.{BENCHMARKS[name].stem}")

    benchmark.main(SMALL.get(name, []))

    *_, last = lines = capsys.readouterr().out.splitlines()
    assert len(lines) > 1
    assert re.search(r"\d\.\d", last)


def test_the_recall_of_routes_is_measured(server, capsys):
    with server.database() as database:
        small = ["--routes", "200", "--queries", "10", "--ef-search", "40"]
        route_recall.main(["--dsn", server.dsn(database), *small])

    assert json.loads(capsys.readouterr().out)["ef_search 40"]["recall@3"] > 0.9


def test_analytics_are_measured(server, capsys):
    with server.database() as database:
        small = ["--rows", "200", "--chunk", "100"]
        analytics.main(["--dsn", server.dsn(database), *small])

    assert json.loads(capsys.readouterr().out)["rows"] == 200
