"""A thread for each front door that connects, up to a bound, and an orderly end of them all."""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from tinydancer import log
from tinydancer.server.connection import Connection, Service, Session
from tinydancer.server.listener import Listener
from tinydancer.server.metrics import Metrics
from tinydancer.settings import EngineSettings

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
        self._admitted = 0
        self._refusing = 0
        self._acceptor = threading.Thread(target=self._accept, name="accept", daemon=True)

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
        with suppress(OSError):
            self._listener.socket.shutdown(socket.SHUT_RDWR)
        self._acceptor.join()
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
        while not self._stopping:
            try:
                stream, _ = self._listener.socket.accept()
            except OSError as error:
                if self._stopping:
                    return
                # Out of file descriptors or memory: those that are open go on, later ones wait.
                log.event(logging.ERROR, "accept_failed", reason=error.strerror)
                time.sleep(0.1)
                continue
            self._begin(stream)

    def _begin(self, stream: socket.socket) -> None:
        """Gives a connection a thread; one too many gets one that says so, if few do so now."""
        with self._lock:
            full = self._admitted >= self._settings.max_connections
            if full and self._refusing >= _MOST_REFUSED_AT_ONCE:
                stream.close()
                return
            if full:
                self._refusing += 1
            else:
                self._admitted += 1
        if full:
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
        with self._lock:
            if full:
                self._refusing -= 1
            else:
                self._admitted -= 1

    @contextmanager
    def _among_open(self, connection: Connection) -> Iterator[None]:
        with self._lock:
            self._open.add(connection)
        self._metrics.connected(1)
        if self._stopping:
            connection.end_after_this_scan()
        try:
            yield
        finally:
            self._metrics.connected(-1)
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
