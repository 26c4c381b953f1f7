"""The foreign table routing_analytics: what the ledger says of the past."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from tinydancer.errors import NotReady
from tinydancer.tables.context import Context
from tinydancer.tables.inputs import questions
from tinydancer.tables.rows import echoes, rows
from tinydancer_fdw.contract import ROUTING_ANALYTICS
from tinydancer_fdw.frames import Input, Row

DEFAULT_TIME_RANGE = "7 days"
DEFAULT_GROUPING = "agent"

OUTPUTS = tuple(column.name for column in ROUTING_ANALYTICS.columns if not column.input)


def scan(
    context: Context, inputs: Sequence[Input], columns: Sequence[str], limit: int
) -> Iterator[Row]:
    """The rows of a scan: one for each group that has an outcome in the time."""
    asked = questions(ROUTING_ANALYTICS, inputs, context.snapshot.settings)
    if context.analytics is None:
        raise NotReady("this engine keeps no accounts to look back on")
    for question in asked:
        found = context.analytics(
            question.text("time_range") or DEFAULT_TIME_RANGE,
            question.text("group_by") or DEFAULT_GROUPING,
        )
        cells: dict[str, Callable[[Row], str | None]] = {**echoes(question, ROUTING_ANALYTICS)}
        cells.update({name: _cell(place) for place, name in enumerate(OUTPUTS)})
        yield from rows(found, cells, columns)


def _cell(place: int) -> Callable[[Row], str | None]:
    return lambda row: row[place]
