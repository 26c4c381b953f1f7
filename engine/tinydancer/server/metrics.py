"""What an engine has done: scans, errors, and how long its last scans took.

An engine may have several workers, each a process. They count on one board in shared memory, each
in a row of its own, so that whoever is asked answers for all of them.
"""

from __future__ import annotations

import mmap
import os
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tinydancer.embeddings.select import Usage
from tinydancer.errors import NotReady

if TYPE_CHECKING:
    from collections.abc import Callable

LAST_SCANS = 4096
QUANTILES = (0.5, 0.95, 0.99)

# The counts of a worker, by their place in its row.
_COUNTS = 16
_SCANS, _ERRORS, _CONNECTIONS, _REFUSED, _READY, *_NOTED = range(11)
_WORD = 8


@dataclass(frozen=True)
class Figures:
    """A reading of the metrics. Latencies are in milliseconds, None before the first scan."""

    uptime: float
    scans: int
    errors: int
    connections: int
    refused: int
    usage: Usage
    decisions_kept: int
    decisions_lost: int
    latency_p50_ms: float | None
    latency_p95_ms: float | None
    latency_p99_ms: float | None


class Board:
    """Memory that the workers of an engine share: counts, and the times of the last scans.

    A worker writes to its own row alone; a word is read as it was written. `pid` is the process
    that they are forked from, or the only one.
    """

    def __init__(self, workers: int = 1) -> None:
        self.workers = workers
        self.pid = os.getpid()
        self.started = time.monotonic()
        memory = memoryview(mmap.mmap(-1, workers * (_COUNTS + LAST_SCANS) * _WORD))
        counts = memory[: workers * _COUNTS * _WORD].cast("q")
        times = memory[workers * _COUNTS * _WORD :].cast("d")
        self.counts = [counts[at * _COUNTS :][:_COUNTS] for at in range(workers)]
        self.times = [times[at * LAST_SCANS :][:LAST_SCANS] for at in range(workers)]

    def total(self, count: int) -> int:
        """A count of all workers together."""
        return sum(row[count] for row in self.counts)

    def is_ready(self, worker: int) -> bool:
        """Whether a worker can answer."""
        return bool(self.counts[worker][_READY])

    def is_one_ready(self) -> bool:
        """Whether any worker can."""
        return any(row[_READY] for row in self.counts)

    def are_ready(self) -> bool:
        """Whether all workers can."""
        return all(row[_READY] for row in self.counts)

    def gone(self, worker: int) -> None:
        """A worker has ended, and its connections with it; what it has counted stays."""
        self.counts[worker][_CONNECTIONS] = 0
        self.counts[worker][_READY] = 0


class Metrics:
    """One worker's counters, which any of its threads may add to, and the sums of all."""

    def __init__(self, board: Board | None = None, worker: int = 0) -> None:
        self.board = board or Board()
        self.worker = worker
        self._lock = threading.Lock()
        self._counts = self.board.counts[worker]
        self._times = self.board.times[worker]
        # A worker that takes the place of one that died goes on with the counts of its row.
        self._noted_before = tuple(self._counts[at] for at in _NOTED)

    def scanned(self, seconds: float, *, failed: bool) -> None:
        """A scan has been answered, in so many seconds, by rows or by an error."""
        with self._lock:
            self._times[self._counts[_SCANS] % LAST_SCANS] = seconds
            self._counts[_SCANS] += 1
            self._counts[_ERRORS] += failed

    def admit(self, most: int) -> bool:
        """Count one more connection, unless all workers together have `most` already.

        Workers that admit in the same instant do not see each other: they may be over the bound
        by one connection each.
        """
        with self._lock:
            if self.board.total(_CONNECTIONS) >= most:
                return False
            self._counts[_CONNECTIONS] += 1
            return True

    def left(self) -> None:
        """A connection that was admitted has ended."""
        with self._lock:
            self._counts[_CONNECTIONS] -= 1

    def is_ahead(self) -> bool:
        """Whether this worker has more connections than another one that can answer."""
        mine = self._counts[_CONNECTIONS]
        return any(row[_READY] and row[_CONNECTIONS] < mine for row in self.board.counts)

    def refused(self) -> None:
        """A connection has been refused: too many, or a wrong token."""
        with self._lock:
            self._counts[_REFUSED] += 1

    def ready(self) -> None:
        """This worker can answer from now on."""
        self._counts[_READY] = 1

    def note(self, usage: Usage, decisions: tuple[int, int]) -> None:
        """What this worker's embedder has done, and how many decisions it has kept and lost."""
        counts = (
            usage.cache_hits, usage.cache_misses, usage.cascaded, usage.escalated, *decisions,
        )  # fmt: skip
        for at, before, count in zip(_NOTED, self._noted_before, counts, strict=True):
            self._counts[at] = before + count

    def read(self) -> Figures:
        """The figures of all workers; quantiles are of each one's last LAST_SCANS scans."""
        board = self.board
        last: list[float] = []
        for counts, times in zip(board.counts, board.times, strict=True):
            last += times[: min(counts[_SCANS], LAST_SCANS)]
        last.sort()
        hits, misses, cascaded, escalated, kept, lost = map(board.total, _NOTED)
        p50, p95, p99 = (_quantile(last, at) for at in QUANTILES)
        return Figures(
            uptime=time.monotonic() - board.started,
            scans=board.total(_SCANS),
            errors=board.total(_ERRORS),
            connections=board.total(_CONNECTIONS),
            refused=board.total(_REFUSED),
            usage=Usage(hits, misses, cascaded, escalated),
            decisions_kept=kept,
            decisions_lost=lost,
            latency_p50_ms=p50,
            latency_p95_ms=p95,
            latency_p99_ms=p99,
        )


def _quantile(ordered: list[float], at: float) -> float | None:
    """The nearest-rank quantile of seconds in order, as milliseconds; None of none."""
    if not ordered:
        return None
    rank = max(0, min(len(ordered) - 1, -int(-at * len(ordered) // 1) - 1))
    return ordered[rank] * 1000


def serve_prometheus(port: int, read: Callable[[], Figures]) -> tuple[int, Callable[[], None]]:
    """Serves the figures as Prometheus text on 127.0.0.1; returns the port and what stops it.

    Counts of the embedder begin again when the settings change it.

    Raises NotReady where the extra `metrics` is not installed, or the port can't be had.
    """
    try:
        from prometheus_client import CollectorRegistry, start_http_server
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
        from prometheus_client.registry import Collector
    except ImportError:
        raise NotReady(
            "metrics need prometheus-client, which is not installed",
            hint="pip install 'tinydancer-router[metrics]'",
        ) from None

    class Scans(Collector):
        def collect(self) -> Iterable[Metric]:
            figures = read()
            yield GaugeMetricFamily(
                "tinydancer_uptime_seconds", "Time since the engine started.", figures.uptime
            )
            yield GaugeMetricFamily(
                "tinydancer_connections", "Front doors connected.", figures.connections
            )
            latency = GaugeMetricFamily(
                "tinydancer_scan_seconds", "Time of the last scans.", labels=["quantile"]
            )
            measured = (figures.latency_p50_ms, figures.latency_p95_ms, figures.latency_p99_ms)
            for at, value in zip(QUANTILES, measured, strict=True):
                if value is not None:
                    latency.add_metric([str(at)], value / 1000)
            yield latency
            used = figures.usage
            for name, what, count in (
                ("scans", "Scans answered.", figures.scans),
                ("scan_errors", "Scans that ended in an error.", figures.errors),
                ("refused", "Connections refused.", figures.refused),
                ("embeddings_cache_hits", "Texts with vectors in the cache.", used.cache_hits),
                ("embeddings_cache_misses", "Texts that had to be embedded.", used.cache_misses),
                ("embeddings_cascaded", "Requests that a cascade embedded.", used.cascaded),
                ("embeddings_escalated", "Those its accurate encoder took over.", used.escalated),
                ("decisions_kept", "Decisions written to the database.", figures.decisions_kept),
                ("decisions_lost", "Decisions that could not be kept.", figures.decisions_lost),
            ):
                yield CounterMetricFamily(f"tinydancer_{name}", what, count)

    registry = CollectorRegistry()
    registry.register(Scans())
    try:
        server, thread = start_http_server(port, addr="127.0.0.1", registry=registry)
    except OSError as error:
        raise NotReady(f"can't serve metrics on 127.0.0.1:{port}: {error.strerror}") from error

    def stop() -> None:
        server.shutdown()
        server.server_close()
        thread.join()

    return server.server_port, stop
