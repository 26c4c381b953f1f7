"""Counts and quantiles."""

from __future__ import annotations

import socket
import sys
import urllib.request
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinydancer.embeddings.select import Usage
from tinydancer.errors import NotReady
from tinydancer.server.metrics import LAST_SCANS, Board, Metrics, serve_prometheus


def test_there_are_no_quantiles_before_the_first_scan() -> None:
    assert Metrics().read().latency_p50_ms is None


def test_quantiles_are_the_nearest_ranks_in_milliseconds() -> None:
    metrics = Metrics()
    for milliseconds in range(1, 101):
        metrics.scanned(milliseconds / 1000, failed=milliseconds == 1)
    figures = metrics.read()
    assert (figures.scans, figures.errors) == (100, 1)
    assert figures.latency_p50_ms == pytest.approx(50)
    assert figures.latency_p95_ms == pytest.approx(95)
    assert figures.latency_p99_ms == pytest.approx(99)


def test_quantiles_forget_all_but_the_last_scans() -> None:
    metrics = Metrics()
    for _ in range(LAST_SCANS):
        metrics.scanned(1.0, failed=False)
    for _ in range(LAST_SCANS):
        metrics.scanned(0.001, failed=False)
    assert metrics.read().latency_p99_ms == pytest.approx(1)


@settings(deadline=None)
@given(st.lists(st.floats(0, 10), min_size=1, max_size=200))
def test_quantiles_are_times_that_were_measured_and_in_order(seconds: list[float]) -> None:
    metrics = Metrics()
    for value in seconds:
        metrics.scanned(value, failed=False)
    figures = metrics.read()
    quantiles = [figures.latency_p50_ms, figures.latency_p95_ms, figures.latency_p99_ms]
    assert quantiles == sorted(quantiles)  # type: ignore[type-var]
    assert set(quantiles) <= {value * 1000 for value in seconds}


def test_whichever_worker_is_asked_answers_for_all() -> None:
    # given two workers of one engine
    board = Board(workers=2)
    one, other = Metrics(board, 0), Metrics(board, 1)
    # when both have done something
    one.scanned(0.001, failed=False)
    other.scanned(0.003, failed=True)
    one.note(Usage(cache_hits=1, cache_misses=2), (10, 0))
    other.note(Usage(cache_hits=3, cache_misses=4), (20, 1))
    # then each of them says the same, of both
    figures = one.read()
    assert (figures.scans, figures.errors) == (2, 1)
    assert figures.usage == Usage(cache_hits=4, cache_misses=6)
    assert (figures.decisions_kept, figures.decisions_lost) == (30, 1)
    assert figures.latency_p99_ms == pytest.approx(3)
    assert replace(other.read(), uptime=figures.uptime) == figures


def test_workers_have_one_bound_of_connections_together() -> None:
    board = Board(workers=2)
    one, other = Metrics(board, 0), Metrics(board, 1)
    assert one.admit(2)
    assert other.admit(2)
    assert not one.admit(2)
    other.left()
    assert one.admit(2)


def test_a_worker_is_ahead_of_one_that_can_answer_and_has_fewer_connections() -> None:
    board = Board(workers=2)
    one, other = Metrics(board, 0), Metrics(board, 1)
    one.admit(9)
    assert not one.is_ahead()  # the other one has not begun
    other.ready()
    assert one.is_ahead()
    assert not other.is_ahead()
    other.admit(9)
    assert not one.is_ahead()


def test_a_worker_in_the_place_of_one_that_died_goes_on_counting() -> None:
    # given a worker that has counted, and died with a connection open
    board = Board(workers=2)
    dead = Metrics(board, 1)
    dead.ready()
    dead.admit(9)
    dead.scanned(0.001, failed=False)
    dead.note(Usage(cache_hits=5), (7, 0))
    board.gone(1)
    assert not board.is_ready(1)
    # when another one takes its place
    metrics = Metrics(board, 1)
    metrics.scanned(0.001, failed=False)
    metrics.note(Usage(cache_hits=1), (1, 0))
    # then what the first one did is still counted, but for its connection
    figures = metrics.read()
    assert (figures.scans, figures.connections) == (2, 0)
    assert (figures.usage.cache_hits, figures.decisions_kept) == (6, 8)


def test_a_port_that_is_taken_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(NotReady, match=f"127.0.0.1:{port}"):
            serve_prometheus(port, Metrics().read)


def test_a_package_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    with pytest.raises(NotReady) as raised:
        serve_prometheus(0, Metrics().read)
    assert "tinydancer-router[metrics]" in raised.value.hint


def test_prometheus_reads_what_was_counted() -> None:
    metrics = Metrics()
    metrics.scanned(0.002, failed=True)
    assert all(metrics.admit(3) for _ in range(3))
    metrics.note(Usage(cache_hits=4, cache_misses=5, cascaded=6, escalated=2), (5, 2))
    port, stop = serve_prometheus(0, metrics.read)
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
            text = answer.read().decode()
    finally:
        stop()
    assert "tinydancer_scans_total 1.0" in text
    assert "tinydancer_decisions_kept_total 5.0" in text
    assert "tinydancer_decisions_lost_total 2.0" in text
    assert "tinydancer_scan_errors_total 1.0" in text
    assert "tinydancer_connections 3.0" in text
    assert "tinydancer_embeddings_cache_hits_total 4.0" in text
    assert "tinydancer_embeddings_escalated_total 2.0" in text
    assert 'tinydancer_scan_seconds{quantile="0.5"} 0.002' in text
