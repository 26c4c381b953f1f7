"""From answers to rows: only the columns that are wanted are worked out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TypeVar

from tinydancer.tables.inputs import Question
from tinydancer_fdw.contract import TABLES, Table
from tinydancer_fdw.frames import Row

Answer = TypeVar("Answer")
# What a column shows of any answer.
Cell = Callable[[object], "str | None"]

OPTIONAL = {
    table.name: tuple(column.name for column in table.inputs if not column.required)
    for table in TABLES.values()
}


def rows(
    answers: Iterable[Answer],
    cells: Mapping[str, Callable[[Answer], str | None]],
    columns: Sequence[str],
) -> Iterator[Row]:
    """A row for each answer: what the function of each wanted column makes of it."""
    wanted = [cells[column] for column in columns]
    for answer in answers:
        yield [cell(answer) for cell in wanted]


def echoes(question: Question, table: Table) -> dict[str, Cell]:
    """The cells of a table's optional inputs: in each row what was asked, NULL where nothing."""
    given = question.arguments
    return {
        name: constant(given[name].echo) if name in given else _null
        for name in OPTIONAL[table.name]
    }


def _null(_: object) -> None:
    return None


def constant(value: str | None) -> Cell:
    """A cell that is the same in every row, such as a text."""
    return lambda _: value
