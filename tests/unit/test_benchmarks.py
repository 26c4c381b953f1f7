"""Nobody runs all benchmarks before each change: that they find what they measure is seen here."""

from __future__ import annotations

from importlib import import_module

import pytest
from tests.benchmarks.__main__ import BENCHMARKS


@pytest.mark.parametrize("path", BENCHMARKS.values(), ids=BENCHMARKS)
def test_a_benchmark_finds_what_it_measures(path):
    import_module(f"tests.benchmarks.{path.stem}")
