"""The engine as a process: it listens, answers, and stops when told to.

It keeps nothing that a kill -9 could lose: tables are the truth, and an answer that was not sent
was not given.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys

from tinydancer import __version__, log
from tinydancer.server.engine import Engine
from tinydancer.server.listener import listen
from tinydancer.server.metrics import Metrics, serve_prometheus
from tinydancer.server.threads import Server
from tinydancer.settings import EngineSettings

# A scan waits for at most this long while another one computes. Python's own 5 ms would hold up
# single scans beside a long one; at 0.5 ms fifty threads spend a quarter of the time on changing.
_SWITCH_SECONDS = 0.002


def _told_to_end() -> socket.socket:
    """A socket that becomes readable when SIGTERM or SIGINT comes, to whichever thread."""
    told, tell = socket.socketpair()
    tell.setblocking(False)
    signal.set_wakeup_fd(tell.detach())
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    return told


def run(settings: EngineSettings) -> None:
    """Runs an engine until SIGTERM or SIGINT, then drains it and returns.

    Raises as `listener.listen` and `serve_prometheus` do, and NotReady where the database is not
    ours to use. One that can't be reached comes and goes without the engine's end.
    """
    log.start()
    sys.setswitchinterval(_SWITCH_SECONDS)
    metrics = Metrics()
    told = _told_to_end()
    with Engine(settings.dsn, metrics) as engine:
        stop_metrics = None
        if settings.metrics_port is not None:
            _, stop_metrics = serve_prometheus(
                settings.metrics_port, metrics.read, engine.usage, engine.decisions
            )
        server = Server(listen(settings), settings, metrics, engine.open_session)
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
