"""One front door's connection: HELLO, then scan after scan, each answered before the next.

Whatever a client sends, the worst that happens is an ERROR frame and the end of this connection.
"""

from __future__ import annotations

import hmac
import logging
import secrets
import select
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from typing import Protocol

from tinydancer import __version__, log
from tinydancer.errors import TinyDancerError
from tinydancer.server.metrics import Metrics
from tinydancer.settings import EngineSettings
from tinydancer_fdw import frames
from tinydancer_fdw.frames import FrameError, LimitError, Row, Scan, TextError

# Before HELLO has been accepted, a stranger gets no more memory than this.
_HELLO_BYTES = 16 * 1024
# Below the size from which malloc maps fresh memory for each read, which costs ten times the read.
_RECEIVE = 64 * 1024
_ANSWER_BYTES = 256 * 1024
_FIRST_ROWS = 64
_MOST_NAME = 64
_GONE = select.POLLRDHUP | select.POLLHUP | select.POLLERR


class Session(Protocol):
    """What answers the scans of one connection."""

    def scan(self, scan: Scan) -> Iterator[Row]:
        """The rows of a scan. Raises TinyDancerError."""


@dataclass(frozen=True)
class Service:
    """What every connection of an engine shares."""

    settings: EngineSettings
    metrics: Metrics
    open_session: Callable[[str], Session]
    stopping: Callable[[], bool]


class _Ended(Exception):
    """The client has gone."""


class Connection:
    """A connected socket and what has been received of it."""

    def __init__(self, stream: socket.socket, service: Service) -> None:
        self._stream = stream
        self._service = service
        self._buffer = bytearray()
        self._deadline: float | None = None  # for all that is received until HELLO has been
        self._poll = select.poll()
        self._poll.register(stream, select.POLLRDHUP)

    def serve(self) -> None:
        """Answers until the client leaves or breaks the protocol; closes the socket."""
        try:
            self._deadline = time.monotonic() + self._service.settings.hello_timeout
            session = self._greet()
            if session is None:
                return
            self._deadline = None
            self._stream.settimeout(None)
            while True:
                payload = self._frame(frames.SCAN, frames.MAX_PAYLOAD)
                self._answer(session, frames.decode_scan(payload))
        except LimitError as error:
            self._refuse("54000", str(error), "Ask for less at a time.")
        except TextError as error:
            self._refuse("22021", str(error))
        except FrameError as error:
            self._refuse("08P01", str(error))
        except TimeoutError:
            self._refuse("08P01", "no HELLO within the time for it")
        except (_Ended, OSError):
            pass
        finally:
            self._stream.close()

    def refuse_for_number(self) -> None:
        """Tells one client too many so, once it has said HELLO, and closes the socket."""
        settings = self._service.settings
        try:
            self._deadline = time.monotonic() + min(1.0, settings.hello_timeout)
            self._frame(frames.HELLO, _HELLO_BYTES)
            self._send(
                frames.encode_error(
                    "53300",
                    f"the engine has its {settings.max_connections} connections already",
                    hint="Close some, or start it with a larger --max-connections.",
                )
            )
        except (FrameError, _Ended, OSError):
            pass
        finally:
            self._stream.close()

    def end_after_this_scan(self) -> None:
        """Lets the scan in hand finish; nothing is read after it. For another thread to call."""
        self._shut(socket.SHUT_RD)

    def end(self) -> None:
        """Ends the connection at once. For another thread to call."""
        self._shut(socket.SHUT_RDWR)

    def _greet(self) -> Session | None:
        token, front_door = frames.decode_hello(self._frame(frames.HELLO, _HELLO_BYTES))
        front_door = front_door[:_MOST_NAME]
        expected = self._service.settings.token
        if expected and not hmac.compare_digest(token.encode(), expected.encode()):
            self._service.metrics.refused()
            log.event(logging.WARNING, "refused", reason="token", front_door=front_door)
            message = (
                "the engine does not know the token" if token else "the engine asks for a token"
            )
            hint = "Set it on the user mapping: OPTIONS (token '...')."
            self._send(frames.encode_error("28000", message, hint=hint))
            return None
        self._send(frames.encode_welcome(__version__))
        return self._service.open_session(front_door)

    def _answer(self, session: Session, scan: Scan) -> None:
        started = time.perf_counter()
        error: bytes | None = None
        try:
            self._send_rows(session.scan(scan), len(scan.columns))
        except TinyDancerError as refusal:
            error = frames.encode_error(
                refusal.sqlstate, refusal.message, refusal.detail, refusal.hint
            )
            values = {"message": refusal.message} if self._service.settings.log_texts else {}
            log.event(
                logging.INFO, "scan_refused", table=scan.table, sqlstate=refusal.sqlstate, **values
            )
        except (_Ended, OSError):
            self._service.metrics.scanned(time.perf_counter() - started, failed=True)
            raise
        except Exception as failure:  # whatever it is, it must not end the engine
            error = self._failed(scan, failure)
        self._service.metrics.scanned(time.perf_counter() - started, failed=error is not None)
        if error is not None:
            self._send(error)

    def _send_rows(self, rows: Iterator[Row], columns: int) -> None:
        """Sends rows as they come, in frames of about _ANSWER_BYTES; END goes with the last."""
        sent, take = 0, _FIRST_ROWS
        while True:
            part = list(islice(rows, take))
            answer = frames.encode_rows(part, columns) if part else b""
            sent += len(part)
            if len(part) < take:
                self._send(answer + frames.encode_end(sent))
                return
            self._send(answer)
            take = max(1, min(10 * take, take * _ANSWER_BYTES // len(answer)))
            if self._gone():
                raise _Ended

    def _failed(self, scan: Scan, failure: Exception) -> bytes:
        """A defect of the engine's: its traceback goes to the log, a number for it to the user."""
        number = secrets.token_hex(4)
        log.event(logging.ERROR, "scan_failed", table=scan.table, number=number)
        if self._service.settings.log_texts:
            log.logger.error("%s", number, exc_info=failure)
        else:
            log.logger.error("%s\n%s", number, log.where(failure))
        return frames.encode_error(
            "XX000",
            f"the engine failed on this scan of {scan.table}: {type(failure).__name__}",
            hint=f"Its log has the traceback, under number {number}.",
        )

    def _gone(self) -> bool:
        """Whether the client has closed its end."""
        if self._service.stopping():  # then it is this end that has been shut for reading
            return False
        return any(events & _GONE for _, events in self._poll.poll(0))

    def _refuse(self, sqlstate: str, message: str, hint: str = frames.SAME_VERSION) -> None:
        log.event(logging.WARNING, "bad_frame", sqlstate=sqlstate, reason=message)
        with suppress(OSError):
            self._send(frames.encode_error(sqlstate, message, hint=hint))
            # A socket closed with bytes unread takes its last words back: read some of them away.
            self._shut(socket.SHUT_WR)
            self._stream.settimeout(0.2)
            for _ in range(16):
                if not self._stream.recv(_RECEIVE):
                    break

    def _frame(self, due: int, most: int) -> bytes:
        """The payload of the next frame, which has to be of kind `due` and up to `most` bytes.

        Raises FrameError, _Ended, OSError.
        """
        size = frames.HEADER.size
        self._fill(size)
        kind, length = frames.read_header(bytes(self._buffer[:size]))
        if kind != due:
            raise FrameError(f"a frame of kind {kind} where one of kind {due} was due")
        if length > most:
            raise FrameError(f"a frame of {length} bytes is over the limit of {most} here")
        self._fill(size + length)
        payload = bytes(self._buffer[size : size + length])
        del self._buffer[: size + length]
        return payload

    def _fill(self, size: int) -> None:
        while len(self._buffer) < size:
            if self._deadline is not None:
                # Of what comes byte by byte, too, or a stranger could stay for hours.
                left = self._deadline - time.monotonic()
                if left <= 0:
                    raise TimeoutError
                self._stream.settimeout(left)
            data = self._stream.recv(_RECEIVE)
            if not data:
                if self._buffer and not self._service.stopping():
                    raise FrameError("the connection ends in the middle of a frame")
                raise _Ended
            self._buffer += data

    def _send(self, data: bytes) -> None:
        self._stream.sendall(data)

    def _shut(self, how: int) -> None:
        # Not the method of SSLSocket, which would go on in plain text.
        with suppress(OSError):
            socket.socket.shutdown(self._stream, how)
