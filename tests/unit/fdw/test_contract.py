"""The contract: what every foreign table must keep to, whoever adds one."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

import tinydancer_fdw
from tinydancer_fdw import contract

TABLES = list(contract.TABLES.values())


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
def test_names_need_no_quoting_and_are_unique(table: contract.Table) -> None:
    names = [table.name, *(column.name for column in table.columns)]
    assert all(name.isidentifier() and name == name.lower() for name in names)
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
def test_inputs_keep_to_types_that_are_safe_as_parameters(table: contract.Table) -> None:
    assert {column.type for column in table.columns} <= set(contract.TYPES)
    assert {column.type for column in table.inputs} <= contract.INPUT_TYPES


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
def test_at_most_one_input_is_required_and_every_column_is_described(table: contract.Table) -> None:
    assert sum(column.required for column in table.columns) <= 1
    assert all(column.description.endswith(".") for column in table.columns)


def test_what_runs_inside_postgresql_imports_the_standard_library_only() -> None:
    package = Path(tinydancer_fdw.__file__).parent
    allowed = {*sys.stdlib_module_names, "tinydancer_fdw", "multicorn"}
    for module in package.glob("*.py"):
        for node in ast.walk(ast.parse(module.read_text())):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            else:
                continue
            assert {name.split(".")[0] for name in names} <= allowed, module.name
