"""What an engine has done: scans, errors, and how long its last scans took."""

from __future__ import annotations

import threading
import time
from array import array
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tinydancer.embeddings.select import Usage
from tinydancer.errors import NotReady

if TYPE_CHECKING:
    from collections.abc import Callable

LAST_SCANS = 4096
QUANTILES = (0.5, 0.95, 0.99)


@dataclass(frozen=True)
class Figures:
    """A reading of the metrics. Latencies are in milliseconds, None before the first scan."""

    uptime: float
    scans: int
    errors: int
    connections: int
    refused: int
    latency_p50_ms: float | None
    latency_p95_ms: float | None
    latency_p99_ms: float | None


class Metrics:
    """Counters that any thread may add to."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._started = time.monotonic()
        self._scans = 0
        self._errors = 0
        self._connections = 0
        self._refused = 0
        self._last = array("d", bytes(8 * LAST_SCANS))

    def scanned(self, seconds: float, *, failed: bool) -> None:
        """A scan has been answered, in so many seconds, by rows or by an error."""
        with self._lock:
            self._last[self._scans % LAST_SCANS] = seconds
            self._scans += 1
            self._errors += failed

    def connected(self, by: int) -> None:
        """So many connections more, or less."""
        with self._lock:
            self._connections += by

    def refused(self) -> None:
        """A connection has been refused: too many, or a wrong token."""
        with self._lock:
            self._refused += 1

    def read(self) -> Figures:
        """The figures now; quantiles are of the last LAST_SCANS scans."""
        with self._lock:
            last = sorted(self._last[: min(self._scans, LAST_SCANS)])
            counts = (self._scans, self._errors, self._connections, self._refused)
        quantiles = [_quantile(last, at) for at in QUANTILES]
        return Figures(time.monotonic() - self._started, *counts, *quantiles)


def _quantile(ordered: list[float], at: float) -> float | None:
    """The nearest-rank quantile of seconds in order, as milliseconds; None of none."""
    if not ordered:
        return None
    rank = max(0, min(len(ordered) - 1, -int(-at * len(ordered) // 1) - 1))
    return ordered[rank] * 1000


def serve_prometheus(
    port: int,
    read: Callable[[], Figures],
    usage: Callable[[], Usage],
    decisions: Callable[[], tuple[int, int]],
) -> tuple[int, Callable[[], None]]:
    """Serves the figures as Prometheus text on 127.0.0.1; returns the port and what stops it.

    `decisions` gives how many were kept and how many lost. Counts of the embedder begin again when
    the settings change it.

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
            yield CounterMetricFamily("tinydancer_scans", "Scans answered.", figures.scans)
            yield CounterMetricFamily(
                "tinydancer_scan_errors", "Scans that ended in an error.", figures.errors
            )
            yield GaugeMetricFamily(
                "tinydancer_connections", "Front doors connected.", figures.connections
            )
            yield CounterMetricFamily("tinydancer_refused", "Connections refused.", figures.refused)
            latency = GaugeMetricFamily(
                "tinydancer_scan_seconds", "Time of the last scans.", labels=["quantile"]
            )
            measured = (figures.latency_p50_ms, figures.latency_p95_ms, figures.latency_p99_ms)
            for at, value in zip(QUANTILES, measured, strict=True):
                if value is not None:
                    latency.add_metric([str(at)], value / 1000)
            yield latency
            used = usage()
            for name, what, value in (
                ("cache_hits", "Texts whose vectors were in the cache.", used.cache_hits),
                ("cache_misses", "Texts that had to be embedded.", used.cache_misses),
                ("cascaded", "Requests that a cascade embedded.", used.cascaded),
                ("escalated", "Those that its accurate encoder took over.", used.escalated),
            ):
                yield CounterMetricFamily(f"tinydancer_embeddings_{name}", what, value)

            kept, lost = decisions()
            yield CounterMetricFamily(
                "tinydancer_decisions_kept", "Decisions written to the database.", kept
            )
            yield CounterMetricFamily(
                "tinydancer_decisions_lost", "Decisions that could not be kept.", lost
            )

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
