"""The native front door on a real server, with a scripted engine at the other end of its socket.

What the door owes to any engine is tested here: what it asks, what it makes of an answer, and how
it bears one that is wrong. The real engine answers in the tests one folder up.
"""

from __future__ import annotations

import contextlib
import itertools
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql

from tinydancer.store.front_doors import NATIVE_FUNCTIONS, available_front_doors
from tinydancer_fdw import frames


class ScriptedEngine:
    """An engine on a Unix socket that records each scan and answers as `reply` says.

    `reply` returns the bytes of an answer, piece by piece; None ends the connection there.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.scans: list[frames.Scan] = []
        self.tokens: list[str] = []
        self.welcome = frames.encode_welcome("scripted")
        self.reply: Callable[[frames.Scan], Iterator[bytes | None]] = echo
        self._sockets: list[socket.socket] = []
        self._listener: socket.socket | None = None

    @property
    def connections(self) -> int:
        """How many connections were opened so far."""
        return len(self.tokens)

    @property
    def asked(self) -> list[list[tuple[str, frames.Value]]]:
        """The inputs of each scan."""
        return [[(item.column, item.value) for item in scan.inputs] for scan in self.scans]

    def start(self) -> None:
        """Listen, and answer each connection in a thread of its own."""
        self.path.unlink(missing_ok=True)
        self._listener = listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(self.path))
        self.path.chmod(0o666)
        listener.listen(64)
        threading.Thread(target=self._accept, args=(listener,), daemon=True).start()

    def stop(self) -> None:
        """Die as a killed engine does: nothing listens, and open connections end."""
        if self._listener is not None:
            self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
            self._listener = None
        for connection in self._sockets:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        self._sockets.clear()
        self.path.unlink(missing_ok=True)

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=self.serve, args=(connection,), daemon=True).start()

    def serve(self, connection: socket.socket) -> None:
        """Answer one connection until its end."""
        self._sockets.append(connection)
        with connection, contextlib.suppress(OSError), connection.makefile("rb") as stream:
            while len(header := stream.read(frames.HEADER.size)) == frames.HEADER.size:
                kind, length = frames.read_header(header)
                payload = stream.read(length)
                if kind == frames.HELLO:
                    self.tokens.append(frames.decode_hello(payload)[0])
                    connection.sendall(self.welcome)
                    continue
                scan = frames.decode_scan(payload)
                self.scans.append(scan)
                for piece in self.reply(scan):
                    if piece is None:
                        connection.shutdown(socket.SHUT_RDWR)
                        return
                    connection.sendall(piece)


OUTPUTS = {"agent_name": "gpt-4", "rank": "1", "estimated_cost": "0.003", "version": "1.0",
           "reasoning": "because", "explanation": '{"a": 1}', "confidence": "0.5"}  # fmt: skip


def _text(value: frames.Value) -> str | None:
    """PostgreSQL's text form of an input, as an engine echoes it."""
    if isinstance(value, list):
        quoted = (str(_text(item)).replace("\\", "\\\\").replace('"', '\\"') for item in value)
        return "{" + ",".join(f'"{item}"' for item in quoted) + "}"
    return value


def answer_rows(scan: frames.Scan) -> list[tuple[str | None, ...]]:
    """`top_k` rows (or one) for each combination of the inputs, which they echo."""
    choices = [
        [(item.column, value) for value in item.value if value is not None]
        if item.match == frames.ANY and isinstance(item.value, list)
        else [(item.column, item.value)]
        for item in scan.inputs
    ]
    rows = []
    for chosen in itertools.product(*choices):
        inputs = {column: _text(value) for column, value in chosen}
        for rank in range(1, int(inputs.get("top_k") or 1) + 1):
            cells = OUTPUTS | inputs | {"rank": str(rank)}
            rows.append(tuple(cells.get(column) for column in scan.columns))
    return rows if scan.limit < 0 else rows[: scan.limit]


def encode_answer(rows: Sequence[frames.Row], columns: int) -> bytes:
    """A whole answer of one ROWS frame."""
    return frames.encode_rows(rows, columns) + frames.encode_end(len(rows))


def echo(scan: frames.Scan) -> Iterator[bytes]:
    """The answer of `answer_rows`."""
    yield encode_answer(answer_rows(scan), len(scan.columns))


@pytest.fixture(scope="session")
def place() -> Iterator[Path]:
    """A directory that the server's system user can enter."""
    with tempfile.TemporaryDirectory(prefix="td-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.fixture
def engine(place: Path) -> Iterator[ScriptedEngine]:
    """A running scripted engine."""
    running = ScriptedEngine(place / "engine.sock")
    running.start()
    yield running
    running.stop()


@pytest.fixture(scope="session")
def door_database(server: Any, place: Path) -> Iterator[str]:
    """A database with the foreign tables, a table of requests, and no engine yet."""
    with server.database() as name:
        dsn = server.dsn(name)
        with psycopg.connect(dsn, autocommit=True) as connection:
            if "native" not in available_front_doors(connection):
                pytest.skip("this server has no library tinydancer_fdw")
            for function, arguments, returns in NATIVE_FUNCTIONS:
                connection.execute(
                    f"CREATE FUNCTION {function}{arguments} RETURNS {returns} "
                    "LANGUAGE c STRICT AS '$libdir/tinydancer_fdw'"
                )
            connection.execute(
                "CREATE FOREIGN DATA WRAPPER tinydancer_native HANDLER tinydancer_native_handler "
                "VALIDATOR tinydancer_native_validator"
            )
            connection.execute(
                sql.SQL(
                    "CREATE SERVER engine FOREIGN DATA WRAPPER tinydancer_native "
                    "OPTIONS (socket {}, timeout '5000')"
                ).format(str(place / "engine.sock"))
            )
            connection.execute("CREATE EXTENSION vector")
            connection.execute("IMPORT FOREIGN SCHEMA tinydancer FROM SERVER engine INTO public")
            connection.execute(
                "CREATE TABLE tickets AS SELECT i AS id, 'ticket ' || i AS body, i % 3 AS wanted "
                "FROM generate_series(1, 100) i"
            )
            connection.execute("ANALYZE tickets")
        yield dsn


@pytest.fixture
def connection(door_database: str, engine: ScriptedEngine) -> Iterator[psycopg.Connection]:
    """A connection to that database; the engine runs."""
    with psycopg.connect(door_database, autocommit=True) as opened:
        yield opened


@pytest.fixture
def survivor(connection: psycopg.Connection) -> Iterator[psycopg.Connection]:
    """The same, which must still be served by the same backend after the test."""
    before = connection.info.backend_pid
    yield connection
    assert connection.execute("SELECT pg_backend_pid()").fetchone() == (before,)


def plan_of(connection: psycopg.Connection, query: str) -> str:
    """What EXPLAIN says of a query."""
    return "\n".join(
        line for (line,) in connection.execute(f"EXPLAIN (COSTS OFF) {query}").fetchall()
    )
