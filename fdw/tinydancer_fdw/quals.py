"""Multicorn's quals as inputs of a scan, and as what EXPLAIN shows. Standard library only."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Protocol

from tinydancer_fdw.contract import Column, Table
from tinydancer_fdw.frames import ANY, EQUALS, Input, Value

_SHOWN_CHARACTERS = 60


class Qual(Protocol):
    """Multicorn's Qual: `operator` is a name, or a name and whether it is ANY (else ALL)."""

    field_name: str
    operator: str | tuple[str, bool]
    value: Any


class UnusableQual(ValueError):
    """A qual on an input column that gives it no value; `hint` says how to write it."""

    def __init__(self, message: str, hint: str, sqlstate: str = "22023") -> None:
        super().__init__(message)
        self.hint = hint
        self.sqlstate = sqlstate


def inputs(table: Table, quals: Iterable[Qual]) -> list[Input]:
    """The inputs that the quals give, one a column: PostgreSQL checks all the quals again.

    Of several on one column, an equality comes before a list. `IS NULL` (which Multicorn does not
    tell from `= NULL`) gives an optional input no value. Raises UnusableQual for a comparison
    with an input that has no value otherwise: its rows would vanish without a word.
    """
    found: dict[str, Input] = {}
    absent: set[str] = set()
    unusable: dict[str, UnusableQual] = {}
    for qual in quals:
        column = table.column(qual.field_name)
        if column is None or not column.input:
            continue
        item = _input(table, column, qual)
        if isinstance(item, UnusableQual):
            unusable.setdefault(column.name, item)
        elif item is None:
            absent.add(column.name)
        elif column.name not in found or item.match == EQUALS:
            found[column.name] = item
    if table.key in unusable and table.key not in found:
        raise unusable[table.key]
    if table.key is None or table.key in found:
        for name in sorted(unusable.keys() - found.keys() - absent):
            raise unusable[name]
    return list(found.values())


def _input(table: Table, column: Column, qual: Qual) -> Input | UnusableQual | None:
    if qual.operator in ("=", ("=", True)) and qual.value is None:
        return Input(column.name, EQUALS, None) if column.required else None
    if qual.operator == "=":
        if column.type == "text[]" and isinstance(qual.value, str):
            return _garbled(column)
        return Input(column.name, EQUALS, wire(qual.value))
    if qual.operator == ("=", True):
        if isinstance(qual.value, list):
            return Input(column.name, ANY, wire(qual.value))
        return _garbled(column)
    if column.required:
        return UnusableQual(
            f"{table.name} needs a value for {column.name}",
            f"Say WHERE {column.name} = '...' or {column.name} = ANY (...).",
            "22004",
        )
    return UnusableQual(
        f"{column.name} is an input of {table.name}: it has no value to be compared",
        f"Give it one: {column.name} = ... or {column.name} = ANY (...).",
    )


def _garbled(column: Column) -> UnusableQual:
    # Multicorn takes ARRAY[$1, $2] or f($1) for a text, and hands over bytes of no meaning.
    equals = f"{column.name} = " + ("$1" if column.type == "text[]" else "ANY($1)")
    return UnusableQual(
        f"Multicorn can't pass an array that is put together at run time on to {column.name}",
        f"write {equals} with one array, ARRAY(SELECT ...), or use the native front door",
    )


def wire(value: object) -> Value:
    """A value as Multicorn hands it over → PostgreSQL's text form of it."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "t" if value else "f"
    if isinstance(value, list):
        return [wire(element) for element in value]
    return str(value)


def requests(table: Table, quals: Iterable[Qual]) -> int | None:
    """How many requests a scan with these quals is, or None where they don't say."""
    known: int | None = None
    for qual in quals:
        if qual.field_name != table.key:
            continue
        if qual.operator == "=":
            return 1
        if qual.operator == ("=", True) and isinstance(qual.value, list):
            known = len(qual.value)
    return known


def explain(table: Table, quals: Sequence[Qual], columns: Iterable[str]) -> list[str]:
    """What EXPLAIN shows of a scan: the table, its inputs, the columns, how many requests.

    Under EXPLAIN Multicorn has no values of parameters: it shows a text as "?".
    """
    lines = [f"Engine Table: {table.name}"]
    shown = [f"{item.column} = {_shown(item)}" for item in inputs(table, quals)]
    lines.append(f"Inputs: {', '.join(shown) or 'none'}")
    wanted = set(columns)
    names = [column.name for column in table.columns if column.name in wanted]
    lines.append(f"Columns: {', '.join(names)}")
    count = requests(table, quals)
    if count is not None:
        lines.append(f"Requests: {count}")
    return lines


def _shown(item: Input) -> str:
    if item.value is None:
        return "NULL"
    if isinstance(item.value, str):
        text = item.value
    elif item.match == ANY:
        return f"ANY of {len(item.value)}"
    else:
        text = "{" + ",".join(map(str, item.value)) + "}"
    if len(text) > _SHOWN_CHARACTERS:
        text = text[: _SHOWN_CHARACTERS - 1] + "…"
    return "'" + text.replace("'", "''") + "'"
