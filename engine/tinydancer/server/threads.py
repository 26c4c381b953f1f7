"""A thread for each front door that connects, up to a bound, and an orderly end of them all."""

from __future__ import annotations

import logging
import os
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tinydancer import log
from tinydancer.server.connection import Connection, Service, Session
from tinydancer.server.listener import Listener
from tinydancer.server.metrics import Metrics
from tinydancer.settings import EngineSettings

# How often, and after how many seconds, a worker that has more connections than another one looks
# whether that one takes a new one.
_DEFERENCES = 10
_DEFERENCE_SECONDS = 0.0005
# Connections over the bound that are told so; beyond these they are just closed.
_MOST_REFUSED_AT_ONCE = 16
_KEEPALIVE = ((socket.TCP_KEEPIDLE, 60), (socket.TCP_KEEPINTVL, 10), (socket.TCP_KEEPCNT, 6))


class Server:
    """Answers the front doors of a listener in threads of its own, from `start` to `stop`."""

    def __init__(
        self,
        listener: Listener,
        settings: EngineSettings,
        metrics: Metrics,
        open_session: Callable[[str], Session],
    ) -> None:
        self._listener = listener
        self._settings = settings
        self._metrics = metrics
        self._service = Service(settings, metrics, open_session, lambda: self._stopping)
        self._stopping = False
        self._lock = threading.Lock()
        self._open: set[Connection] = set()
        self._refusing = 0
        self._acceptor = threading.Thread(target=self._accept, name="accept", daemon=True)
        # Other workers of the engine may accept from the same socket: what ends our part in it
        # must not end theirs.
        self._listener.socket.setblocking(False)
        self._enough = os.eventfd(0)
        self._poll = select.poll()
        for watched in (self._listener.socket.fileno(), self._enough):
            self._poll.register(watched, select.POLLIN)

    @property
    def address(self) -> str:
        """Where it listens."""
        return self._listener.address

    def start(self) -> None:
        """Accepts from now on."""
        self._acceptor.start()

    def stop(self) -> None:
        """Takes no more connections, gives scans `drain` seconds to finish, ends the rest."""
        self._stopping = True
        os.eventfd_write(self._enough, 1)
        self._acceptor.join()
        os.close(self._enough)
        self._listener.close()
        with self._lock:
            for connection in self._open:
                connection.end_after_this_scan()
        deadline = time.monotonic() + self._settings.drain
        while self._open and time.monotonic() < deadline:
            time.sleep(0.005)
        with self._lock:
            for connection in self._open:
                connection.end()

    def _accept(self) -> None:
        while True:
            self._poll.poll()
            for _ in range(_DEFERENCES):
                if not self._metrics.is_ahead():
                    break
                time.sleep(_DEFERENCE_SECONDS)
            if self._stopping:
                return
            try:
                stream, _ = self._listener.socket.accept()
            except BlockingIOError:  # another worker was quicker
                continue
            except OSError as error:
                # Out of file descriptors or memory: those that are open go on, later ones wait.
                log.event(logging.ERROR, "accept_failed", reason=error.strerror)
                time.sleep(0.1)
                continue
            self._begin(stream)

    def _begin(self, stream: socket.socket) -> None:
        """Gives a connection a thread; one too many gets one that says so, if few do so now."""
        full = not self._metrics.admit(self._settings.max_connections)
        if full:
            with self._lock:
                if self._refusing >= _MOST_REFUSED_AT_ONCE:
                    stream.close()
                    return
                self._refusing += 1
            self._metrics.refused()
            log.event(logging.WARNING, "refused", reason="connections")
        try:
            threading.Thread(
                target=self._serve, args=(stream, full), name="front door", daemon=True
            ).start()
        except RuntimeError:  # no more threads in this process
            log.event(logging.ERROR, "accept_failed", reason="can't start a thread")
            stream.close()
            self._ended(full)

    def _serve(self, stream: socket.socket, full: bool) -> None:
        try:
            connection = Connection(self._prepared(stream), self._service)
            if full:
                connection.refuse_for_number()
            else:
                with self._among_open(connection):
                    connection.serve()
        except OSError as error:  # no TLS, or gone before it began
            stream.close()
            log.event(logging.WARNING, "refused", reason=str(error))
        finally:
            self._ended(full)

    def _ended(self, full: bool) -> None:
        if not full:
            self._metrics.left()
            return
        with self._lock:
            self._refusing -= 1

    @contextmanager
    def _among_open(self, connection: Connection) -> Iterator[None]:
        with self._lock:
            self._open.add(connection)
        if self._stopping:
            connection.end_after_this_scan()
        try:
            yield
        finally:
            with self._lock:
                self._open.discard(connection)

    def _prepared(self, stream: socket.socket) -> socket.socket:
        """The stream with its options set, under TLS where this is asked for. Raises OSError."""
        if stream.family == socket.AF_UNIX:
            return stream
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in _KEEPALIVE:
            stream.setsockopt(socket.IPPROTO_TCP, option, value)
        if self._listener.tls is None:
            return stream
        stream.settimeout(self._settings.hello_timeout)
        return self._listener.tls.wrap_socket(stream, server_side=True)
