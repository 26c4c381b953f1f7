"""The rows of a statement as a person reads them, on 80 columns or more.

Names and figures are never broken. What is long is wrapped at blanks; where it stands in a row by
itself, that row is shown column by column, as psql does with \\x auto.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from decimal import Decimal
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

Value = object
# Texts of more characters than this, with blanks in them, may be wrapped.
LONGEST_NAME = 30
GAP = 2
LEAST_HEADER = 10
_MONEY = ("cost", "/1k", "call", "second")


def result_table(names: Sequence[str], rows: Sequence[Sequence[Value]], width: int) -> Table:
    """The rows as a table at most `width` columns wide, where names and figures allow it."""
    cells = [[_cell(name, value) for name, value in zip(names, row, strict=True)] for row in rows]
    wrapped = [any(_is_prose(row[at]) for row in cells) for at in range(len(names))]
    if len(rows) == 1 and len(names) > 1 and any(wrapped):
        return _record(names, cells[0])
    return _grid(names, rows, cells, wrapped, width)


def figure_table(
    header: Sequence[str], rows: Sequence[Sequence[str]], names: int, width: int
) -> Table:
    """Rows that begin with `names` names and go on with figures, some of which may be empty.

    Where a terminal is too narrow for all columns, each row is shown figure by figure.
    """
    from rich import box
    from rich.table import Table

    needed = 1
    for at, title in enumerate(header):
        words = title.split() if at >= names else [title]
        needed += max(len(text) for text in [*words, *(row[at] for row in rows)]) + GAP + 1
    if needed > width:
        table = Table(box=None, show_header=False, pad_edge=False, padding=(0, GAP, 0, 0))
        for row in rows:
            table.add_row("\n" + " · ".join(row[:names]), style="bold")
            for title, figure in zip(header[names:], row[names:], strict=True):
                if figure:
                    table.add_row(f"  {title:<{LONGEST_NAME}}{figure:>8}")
        return table
    table = Table(box=box.SIMPLE_HEAD)
    for at, title in enumerate(header):
        # Words on lines of their own: rich would cut them off before it breaks a line enough.
        if at < names:
            table.add_column(title, no_wrap=True)
        else:
            table.add_column(title.replace(" ", "\n"), no_wrap=True, justify="right")
    for row in rows:
        table.add_row(*row)
    return table


def _record(names: Sequence[str], cells: Sequence[Text]) -> Table:
    from rich.table import Table

    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, GAP, 0, 0))
    table.add_column(style="bold cyan", no_wrap=True)
    table.add_column(overflow="fold")
    for name, cell in zip(names, cells, strict=True):
        table.add_row(name, cell)
    return table


def _grid(
    names: Sequence[str],
    rows: Sequence[Sequence[Value]],
    cells: Sequence[Sequence[Text]],
    wrapped: Sequence[bool],
    width: int,
) -> Table:
    from rich import box
    from rich.table import Table

    widest = [max(row[at].cell_len for row in cells) if cells else 0 for at in range(len(names))]
    needed = sum(map(max, widest, map(len, names))) + (GAP + 1) * (len(names) - 1)
    if needed > width:
        names = [_broken(name, most) for name, most in zip(names, widest, strict=True)]
    table = Table(
        box=box.SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
        collapse_padding=True,
        padding=(0, 1),
        header_style="bold cyan",
    )
    for at, name in enumerate(names):
        numeric = any(_is_number(row[at]) for row in rows)
        table.add_column(
            name,
            justify="right" if numeric else "left",
            no_wrap=not wrapped[at],
            overflow="fold",
        )
    for row in cells:
        table.add_row(*row)
    return table


def _broken(name: str, width: int) -> str:
    """A name on several lines, broken behind underscores, as wide as its values or a bit more."""
    lines = [""]
    for part in re.findall("[^_]*_|[^_]+", name):
        if lines[-1] and len(lines[-1] + part) > max(width, LEAST_HEADER):
            lines.append("")
        lines[-1] += part
    return "\n".join(lines)


def _is_prose(cell: Text) -> bool:
    return cell.cell_len > LONGEST_NAME and " " in cell.plain


def _is_number(value: Value) -> bool:
    return isinstance(value, int | float | Decimal) and not isinstance(value, bool)


def _cell(name: str, value: Value) -> Text:
    """A value as a person reads it."""
    from rich.text import Text

    if value is None:
        return Text("NULL", style="dim")
    if isinstance(value, bool):
        return Text(str(value).lower())
    if isinstance(value, list):
        return Text(", ".join(map(str, value)))
    if isinstance(value, int | float | Decimal):
        return _number(name, value)
    return Text(str(value), style="bold" if name == "agent_name" else "")


def _number(name: str, value: float | Decimal) -> Text:
    from rich.text import Text

    if any(mark in name for mark in _MONEY):
        if not value:
            return Text("-", style="dim")
        return Text(f"${value:.8f}".rstrip("0").rstrip("."))
    if name == "ms" or name.endswith("_ms") or value >= 100:
        return Text(f"{value:,.0f}")
    return Text(str(value) if isinstance(value, int) else f"{value:.2f}")
