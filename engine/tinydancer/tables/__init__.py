"""One module a foreign table: inputs to rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice

from tinydancer.errors import InvalidInput, NotFound
from tinydancer.tables import (
    agent_plans,
    batch_decisions,
    budget_allocations,
    capability_matches,
    engine_status,
    policy_replays,
    request_classifications,
    request_embeddings,
    route_decisions,
    route_thresholds,
    routing_analytics,
    semantic_matches,
)
from tinydancer.tables.context import Context
from tinydancer_fdw.contract import TABLES
from tinydancer_fdw.frames import Input, Row, Scan

ScanFunction = Callable[[Context, Sequence[Input], Sequence[str], int], Iterator[Row]]

SCANS: Mapping[str, ScanFunction] = {
    "route_decisions": route_decisions.scan,
    "batch_decisions": batch_decisions.scan,
    "semantic_matches": semantic_matches.scan,
    "capability_matches": capability_matches.scan,
    "request_embeddings": request_embeddings.scan,
    "request_classifications": request_classifications.scan,
    "agent_plans": agent_plans.scan,
    "budget_allocations": budget_allocations.scan,
    "route_thresholds": route_thresholds.scan,
    "routing_analytics": routing_analytics.scan,
    "policy_replays": policy_replays.scan,
    "engine_status": engine_status.scan,
}


def answer(context: Context, scan: Scan) -> Iterator[Row]:
    """The rows that a scan asks for, at most its limit, each in the order of its columns.

    Raises NotFound for an unknown table, InvalidInput for an unknown column, and what the inputs
    deserve, all before the first row.
    """
    if scan.table not in SCANS:
        raise NotFound(
            f"there is no foreign table {scan.table!r}",
            hint=f"Import the foreign schema again. This engine has: {', '.join(SCANS)}.",
        )
    table = TABLES[scan.table]
    for column in scan.columns:
        if table.column(column) is None:
            raise InvalidInput(
                f"{table.name} has no column {column!r}",
                hint="Engine and extension differ in version: import the foreign schema again.",
            )
    rows = SCANS[scan.table](context, scan.inputs, scan.columns, scan.limit)
    return rows if scan.limit < 0 else islice(rows, scan.limit)
