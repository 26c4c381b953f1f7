"""The engine as a process: it listens, answers, and stops when told to.

It keeps nothing that a kill -9 could lose: tables are the truth, and an answer that was not sent
was not given.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tinydancer import __version__, log
from tinydancer.server.engine import Engine
from tinydancer.server.listener import Listener, listen
from tinydancer.server.metrics import Board, Metrics, serve_prometheus
from tinydancer.server.threads import Server
from tinydancer.server.workers import run_workers, told_to_end, wait_for_others
from tinydancer.settings import EngineSettings

# A scan waits for at most this long while another one computes. Python's own 5 ms would hold up
# single scans beside a long one; at 0.5 ms fifty threads spend a quarter of the time on changing.
_SWITCH_SECONDS = 0.002
# How old what another worker has counted is in engine_status, at most.
_NOTE_SECONDS = 1.0


def run(settings: EngineSettings) -> None:
    """Runs an engine until SIGTERM, SIGINT or SIGHUP, then drains it and returns.

    Raises as `listener.listen` and `serve_prometheus` do, and NotReady where the database is not
    ours to use, or refuses the engine as it starts. One that can't be reached comes and goes
    without the engine's end.
    """
    log.start()
    sys.setswitchinterval(_SWITCH_SECONDS)
    board = Board(settings.workers)
    if settings.workers == 1:
        answer(settings, lambda: listen(settings), Metrics(board))
        return
    run_workers(
        board,
        listen(settings),
        lambda mine, metrics: answer(settings, lambda: mine, metrics),
    )


def answer(
    settings: EngineSettings, open_listener: Callable[[], Listener], metrics: Metrics
) -> None:
    """Answers in this process until SIGTERM, SIGINT or SIGHUP.

    The socket of a lone worker is opened when the first snapshot has been read; whoever connects to
    that of several before then waits. The first of them does what is to be done once an engine.
    """
    told = told_to_end()
    first = metrics.worker == 0
    with Engine(settings.dsn, metrics, upkeep=first) as engine, _noting(engine, metrics):
        stop_metrics = None
        if settings.metrics_port is not None and first:
            _, stop_metrics = serve_prometheus(settings.metrics_port, engine.figures)
        server = Server(open_listener(), settings, metrics, engine.open_session)
        wait_for_others(metrics, told)
        server.start()
        log.event(
            logging.INFO, "started", version=__version__, pid=os.getpid(), address=server.address
        )
        told.recv(1)
        log.event(logging.INFO, "stopping")
        server.stop()
        if stop_metrics is not None:
            stop_metrics()
    log.event(logging.INFO, "stopped")


@contextmanager
def _noting(engine: Engine, metrics: Metrics) -> Iterator[None]:
    """Notes now and then what this worker has done, for another one that is asked."""
    ended = threading.Event()

    def note() -> None:
        while not ended.wait(_NOTE_SECONDS):
            engine.note()

    if metrics.board.workers > 1:
        threading.Thread(target=note, name="noting", daemon=True).start()
    try:
        yield
    finally:
        ended.set()
