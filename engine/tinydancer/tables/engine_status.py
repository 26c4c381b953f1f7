"""The foreign table engine_status: the engine that answers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from tinydancer.tables import text
from tinydancer.tables.context import Context, Status
from tinydancer.tables.inputs import questions
from tinydancer.tables.rows import rows
from tinydancer_fdw.contract import ENGINE_STATUS
from tinydancer_fdw.frames import Input, Row


def scan(
    context: Context, inputs: Sequence[Input], columns: Sequence[str], limit: int
) -> Iterator[Row]:
    """The one row of a scan."""
    asked = questions(ENGINE_STATUS, inputs, context.snapshot.settings)
    for _ in asked:
        yield from rows([context.status()], _cells(context), columns)


def _cells(context: Context) -> Mapping[str, Callable[[Status], str | None]]:
    snapshot = context.snapshot
    return {
        "version": lambda status: status.version,
        "protocol": lambda status: str(status.protocol),
        "front_door": lambda status: context.front_door,
        "pid": lambda status: str(status.pid),
        "uptime": lambda status: text.interval(status.uptime),
        "embedder": lambda status: context.embedder.model,
        "agents": lambda status: str(len(snapshot.agents)),
        "routes": lambda status: str(len(snapshot.routes)),
        "scans": lambda status: str(status.scans),
        "errors": lambda status: str(status.errors),
        "latency_p50_ms": lambda status: _maybe(status.latency_p50_ms),
        "latency_p95_ms": lambda status: _maybe(status.latency_p95_ms),
        "latency_p99_ms": lambda status: _maybe(status.latency_p99_ms),
        "cache_hits": lambda status: str(status.cache_hits),
        "cache_misses": lambda status: str(status.cache_misses),
        "escalated": lambda status: str(status.escalated),
        "decisions_kept": lambda status: str(status.decisions_kept),
        "decisions_lost": lambda status: str(status.decisions_lost),
    }


def _maybe(value: float | None) -> str | None:
    return None if value is None else text.double(value)
