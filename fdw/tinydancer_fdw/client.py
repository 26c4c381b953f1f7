"""A scan by a Unix socket or TCP: one frame out, rows back. Standard library only.

Every wait is a series of short ones, so that its caller, a PostgreSQL backend that does not see a
cancel while it is inside Python, gets to look for one. A `Client` keeps its connections and uses
them again; a scan has a connection to itself until the end of its answer has arrived.
"""

from __future__ import annotations

import select
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from tinydancer_fdw import frames, streams
from tinydancer_fdw.frames import FrameError, Scan
from tinydancer_fdw.streams import SLICE, Interrupted, Stream

# Below the size from which malloc maps fresh memory for each read, which costs ten times the read.
_RECEIVE = 64 * 1024
_IDLE_KEPT = 4

Row = tuple["str | None", ...]


class EngineError(Exception):
    """What came instead of rows: SQLSTATE, message, detail and hint."""

    def __init__(self, sqlstate: str, message: str, detail: str = "", hint: str = "") -> None:
        super().__init__(message)
        self.sqlstate = sqlstate
        self.message = message
        self.detail = detail
        self.hint = hint


class Unreachable(EngineError):
    """No engine answers at the address, or it went away in the middle of a scan."""


@dataclass(frozen=True)
class Address:
    """Where an engine listens, and how to speak to it.

    Either `socket` (a path) or `host` and `port`. Over TCP, `sslrootcert` (a file of certificates
    to trust) switches TLS on. `timeout` is the longest wait for the next part of an answer,
    `connect_timeout` that for a connection; both in seconds.
    """

    socket: str = ""
    host: str = ""
    port: int = 0
    sslrootcert: str = ""
    token: str = ""
    timeout: float = 30.0
    connect_timeout: float = 2.0

    def __str__(self) -> str:
        return f'socket "{self.socket}"' if self.socket else f"{self.host}:{self.port}"

    @property
    def start_hint(self) -> str:
        """The commands that start an engine there."""
        where = f"--socket {self.socket}" if self.socket else f"--listen {self.host}:{self.port}"
        return f"Start it with: tinydancer up, or: tinydancer serve --dsn DSN {where}"


ACCESS_HINT = (
    "The server's account may not open it. A Unix socket is open to the group that "
    "tinydancer serve --group names, in a directory that it may enter."
)


def never() -> bool:
    """No interrupt: for callers that have none."""
    return False


class _Broken(Exception):
    """The connection ended or failed."""


class Client:
    """Scans by one address. Not thread-safe: a backend has one thread.

    `interrupted` is asked between the slices of a wait; where it says yes, the scan raises
    Interrupted and its connection is closed, which stops the engine's work on it.
    """

    def __init__(
        self, address: Address, front_door: str, interrupted: Callable[[], bool] = never
    ) -> None:
        self.address = address
        self._front_door = front_door
        self._interrupted = interrupted
        self._idle: list[_Connection] = []
        self._busy: set[_Connection] = set()

    def scan(self, scan: Scan) -> Iterator[Row]:
        """The rows of a scan, as they come.

        Raises EngineError for the engine's own errors, Unreachable where there is no engine or
        none any more, Interrupted. Closing the iterator early closes its connection.
        """
        connection, kind, payload = self._ask(frames.encode_scan(scan))
        lease = connection.lease
        try:
            while kind == frames.ROWS:
                rows = frames.decode_rows(payload, len(scan.columns))
                if connection.has_frame():
                    # Most answers come in one piece. Its end is read before its rows are given
                    # out, since nobody may ever take the last of them.
                    kind, payload = self._next(connection)
                    yield from rows
                else:
                    yield from rows
                    kind, payload = self._next(connection)
            if kind == frames.ERROR:
                raise EngineError(*frames.decode_error(payload))
        except (_Broken, TimeoutError) as error:
            raise self._went_away(str(error)) from None
        except FrameError as error:
            raise self._unreadable(str(error)) from None
        finally:
            if connection.lease is lease:
                self._drop(connection)

    def close_running(self) -> None:
        """Closes the connections of scans that nobody will finish: a transaction has ended."""
        while self._busy:
            self._busy.pop().close()

    def close(self) -> None:
        """Closes every connection."""
        self.close_running()
        while self._idle:
            self._idle.pop().close()

    def _ask(self, request: bytes) -> tuple[_Connection, int, bytes]:
        """Sends a request and reads the first frame of its answer.

        A kept connection may have died since its last use (an engine restarted): found broken
        before anything was read of the answer, it is replaced once.
        """
        while True:
            kept = bool(self._idle)
            connection = self._idle.pop() if kept else self._connect()
            if kept and not connection.is_quiet():
                connection.close()
                continue
            connection.lease = object()
            self._busy.add(connection)
            try:
                connection.send(request, self.address.timeout)
                kind, payload = self._next(connection)
            except _Broken as error:
                self._drop(connection)
                if not kept or connection.started:
                    raise self._went_away(str(error)) from None
                while self._idle:  # the others are of the same age
                    self._idle.pop().close()
            except TimeoutError as error:
                self._drop(connection)
                raise self._went_away(str(error)) from None
            except FrameError as error:
                self._drop(connection)
                raise self._unreadable(str(error)) from None
            except BaseException:
                self._drop(connection)
                raise
            else:
                return connection, kind, payload

    def _next(self, connection: _Connection) -> tuple[int, bytes]:
        """The next frame of an answer. With the last one the connection is free again."""
        kind, payload = connection.frame(self.address.timeout)
        if kind == frames.ROWS:
            connection.rows += frames.count_rows(payload)
        elif kind == frames.END:
            if (rows := frames.decode_end(payload)) != connection.rows:
                raise FrameError(f"it ends {connection.rows} rows as an answer of {rows}")
        elif kind != frames.ERROR:
            raise FrameError(f"a scan is answered by a frame of kind {kind}")
        if kind != frames.ROWS:
            self._free(connection)
        return kind, payload

    def _connect(self) -> _Connection:
        address = self.address
        try:
            connection = _Connection(self._open(), self._interrupted)
        except streams.InTheClear:
            raise EngineError(
                "0A000",
                f'an engine on another host ("{address.host}") is reached by TLS only',
                "Without it, requests and the token would cross the network in the clear.",
                "Add option sslrootcert, the file of certificates to trust; or use a Unix socket.",
            ) from None
        except streams.Untrusted as error:
            raise Unreachable(
                "08001",
                f"what answers at {address} is not trusted: {error.strerror}",
                hint=f'Its certificate has to be for "{address.host}", and one of those in '
                f"{address.sslrootcert} has to vouch for it.",
            ) from None
        except PermissionError as error:
            raise self._unreachable(error.strerror or str(error), ACCESS_HINT) from None
        except OSError as error:
            raise self._unreachable(error.strerror or str(error)) from None
        try:
            connection.send(
                frames.encode_hello(address.token, self._front_door), address.connect_timeout
            )
            _check_welcome(*connection.frame(address.connect_timeout))
        except (_Broken, TimeoutError, FrameError) as error:
            connection.close()
            raise self._unreachable(str(error)) from None
        except BaseException:
            connection.close()
            raise
        return connection

    def _open(self) -> Stream:
        address, interrupted = self.address, self._interrupted
        if address.socket:
            return streams.open_unix(address.socket, address.connect_timeout, interrupted)
        return streams.open_tcp(
            address.host, address.port, address.sslrootcert, address.connect_timeout, interrupted
        )

    def _free(self, connection: _Connection) -> None:
        self._busy.discard(connection)
        if len(self._idle) < _IDLE_KEPT:
            connection.started = False
            connection.rows = 0
            connection.lease = None
            self._idle.append(connection)
        else:
            connection.close()

    def _drop(self, connection: _Connection) -> None:
        self._busy.discard(connection)
        connection.close()

    def _unreachable(self, reason: str, hint: str = "") -> Unreachable:
        return Unreachable(
            "08001",
            f"no Tiny Dancer engine answers at {self.address}: {reason}",
            hint=hint or self.address.start_hint,
        )

    def _went_away(self, reason: str) -> Unreachable:
        return Unreachable(
            "08006",
            f"the Tiny Dancer engine at {self.address} left a scan unanswered: {reason}",
            hint=f"Ask again. {self.address.start_hint}",
        )

    def _unreadable(self, reason: str) -> EngineError:
        return EngineError(
            "08P01",
            f"the answer of the Tiny Dancer engine at {self.address} can't be read: {reason}",
            hint=frames.SAME_VERSION,
        )


def _check_welcome(kind: int, payload: bytes) -> None:
    """Raises EngineError or FrameError unless HELLO is answered by WELCOME."""
    if kind == frames.ERROR:
        raise EngineError(*frames.decode_error(payload))
    if kind != frames.WELCOME:
        raise FrameError(f"HELLO is answered by a frame of kind {kind}")
    frames.decode_welcome(payload)


class _Connection:
    """A stream, what has been received of it, and waits in slices."""

    def __init__(self, stream: Stream, interrupted: Callable[[], bool]) -> None:
        self._stream = stream
        self._interrupted = interrupted
        self._buffer = bytearray()
        self._poll = select.poll()
        self._poll.register(stream, select.POLLIN)
        self.lease: object = None  # the scan that has this connection to itself
        self.started = False  # whether anything of the current answer has been read
        self.rows = 0  # of the current answer

    def send(self, data: bytes, timeout: float) -> None:
        """Sends all of `data`. Raises _Broken, TimeoutError, Interrupted."""
        left = memoryview(data)
        while left:
            try:
                left = left[self._stream.send(left) :]
            except BlockingIOError:
                streams.wait(self._stream, select.POLLOUT, timeout, self._interrupted)
            except OSError as error:
                if self._has_last_words():
                    return
                raise _Broken(error.strerror or str(error)) from None

    def frame(self, timeout: float) -> tuple[int, bytes]:
        """The next frame: its kind and payload.

        Raises FrameError, _Broken, TimeoutError, Interrupted.
        """
        size = frames.HEADER.size
        self._fill(size, timeout)
        kind, length = frames.read_header(bytes(self._buffer[:size]))
        self._fill(size + length, timeout)
        payload = bytes(self._buffer[size : size + length])
        del self._buffer[: size + length]
        return kind, payload

    def has_frame(self) -> bool:
        """Whether the whole of the next frame has been received."""
        size = frames.HEADER.size
        if len(self._buffer) < size:
            return False
        return len(self._buffer) >= size + frames.read_header(bytes(self._buffer[:size]))[1]

    def is_quiet(self) -> bool:
        """Whether it is open, and nothing came after its last answer: what has is no answer."""
        if self._buffer:
            return False
        try:
            self._stream.recv(1)
        except OSError as error:  # one that has died is no more to be used
            return isinstance(error, BlockingIOError)
        return False

    def close(self) -> None:
        """Closes the stream; the engine sees it and stops."""
        self._stream.close()

    def _fill(self, size: int, timeout: float) -> None:
        while len(self._buffer) < size:
            if self._interrupted():
                raise Interrupted
            try:
                # One short wait without ceremony: nearly every answer comes within it.
                if not self._poll.poll(SLICE * 1000):
                    streams.wait(self._stream, select.POLLIN, timeout, self._interrupted)
                data = self._stream.recv(_RECEIVE)
            except BlockingIOError:
                continue
            except TimeoutError:
                raise
            except OSError as error:
                raise _Broken(error.strerror or str(error)) from None
            if not data:
                raise _Broken("it closed the connection")
            self.started = True
            self._buffer += data

    def _has_last_words(self) -> bool:
        """Whether an engine that no longer listens has said why: its ERROR is read next."""
        try:
            self._buffer += self._stream.recv(_RECEIVE)
        except OSError:
            return False
        return bool(self._buffer)
