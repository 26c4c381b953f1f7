"""Non-blocking streams to an engine: a Unix socket, TCP, TLS over TCP. Standard library only.

`ssl` is imported only where it is used: a PostgreSQL backend that speaks over a Unix socket should
not pay for it on its first scan.
"""

from __future__ import annotations

import os
import select
import socket
import time
from collections.abc import Callable
from typing import Protocol

# How long one wait lasts before its caller may look for a cancel, in seconds.
SLICE = 0.05


class Interrupted(Exception):
    """The caller asked for an end during a wait."""


class InTheClear(Exception):
    """The engine is on another host, and TLS is off."""


class Untrusted(OSError):
    """What answers has no certificate for its name that the trusted ones vouch for."""


class Stream(Protocol):
    """What a connection needs of a socket. BlockingIOError means: wait, then try again."""

    def fileno(self) -> int:
        """The descriptor to wait on."""

    def send(self, data: memoryview) -> int:
        """Sends some of `data`, and says how much."""

    def recv(self, size: int) -> bytes:
        """Some bytes; none at the end of the stream."""

    def close(self) -> None:
        """Closes it."""


def wait(
    stream: Stream | socket.socket, events: int, seconds: float, interrupted: Callable[[], bool]
) -> None:
    """Waits in slices until one of `events` (of select.poll) comes.

    Raises TimeoutError after `seconds`, Interrupted where `interrupted` says yes.
    """
    poll = select.poll()
    poll.register(stream, events)
    deadline = time.monotonic() + seconds
    # Asked first: where each wait is short, for bytes that come one by one, none would ever ask.
    while not interrupted():
        if poll.poll(max(0.0, min(SLICE, deadline - time.monotonic())) * 1000):
            return
        if time.monotonic() >= deadline:
            raise TimeoutError(f"no answer within {seconds:g} s")
    raise Interrupted


def open_unix(path: str, seconds: float, interrupted: Callable[[], bool]) -> Stream:
    """A stream to a Unix socket. Raises OSError, Interrupted."""
    deadline = time.monotonic() + seconds
    stream = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    stream.setblocking(False)
    try:
        while True:
            try:
                stream.connect(path)
            except BlockingIOError:  # the queue of connections is full: busy, but alive
                if time.monotonic() > deadline:
                    raise TimeoutError(f"no connection within {seconds:g} s") from None
                if interrupted():
                    raise Interrupted from None
                time.sleep(SLICE / 10)
            else:
                return stream
    except BaseException:
        stream.close()
        raise


def open_tcp(
    host: str, port: int, sslrootcert: str, seconds: float, interrupted: Callable[[], bool]
) -> Stream:
    """A stream to the first address of `host` that answers, under TLS where `sslrootcert` is set.

    Raises OSError (ssl.SSLError is one), Interrupted, InTheClear.
    """
    failure = OSError(f"the name {host!r} has no address")
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    if not sslrootcert and not all(_is_loopback(str(where[0])) for *_, where in found):
        raise InTheClear
    for family, kind, protocol, _, where in found:
        stream = socket.socket(family, kind, protocol)
        try:
            stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            stream.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            stream.setblocking(False)
            if stream.connect_ex(where) != 0:
                wait(stream, select.POLLOUT, seconds, interrupted)
                _check(stream)
            if sslrootcert:
                return _secure(stream, host, sslrootcert, seconds, interrupted)
        except OSError as error:
            stream.close()
            failure = error
        except BaseException:
            stream.close()
            raise
        else:
            return stream
    raise failure


def _is_loopback(address: str) -> bool:
    return address == "::1" or address.startswith("127.")


def _check(stream: socket.socket) -> None:
    """Raises OSError where the connection has failed."""
    failed = stream.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if failed:
        raise OSError(failed, os.strerror(failed))


def _secure(
    stream: socket.socket,
    host: str,
    sslrootcert: str,
    seconds: float,
    interrupted: Callable[[], bool],
) -> Stream:
    from tinydancer_fdw.tls import SecureStream

    secure = SecureStream(stream, host, sslrootcert)
    try:
        while (events := secure.handshake()) is not None:
            wait(secure, events, seconds, interrupted)
    except BaseException:
        secure.close()
        raise
    return secure
